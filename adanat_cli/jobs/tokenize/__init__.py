"""Images to token sets."""
