"""From what a user names to the thing."""
