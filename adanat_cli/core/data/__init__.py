"""Images from any source as pixels, batches of them, and sets of token ids on disk."""
