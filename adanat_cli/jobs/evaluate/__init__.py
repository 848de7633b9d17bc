"""Images measured against a reference."""
