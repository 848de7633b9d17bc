"""Images to token ids and back."""
