"""Tokenizers: from images to token ids and back."""
