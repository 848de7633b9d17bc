"""Models to and from elsewhere, and what they hold."""
