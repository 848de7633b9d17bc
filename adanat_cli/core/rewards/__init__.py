"""Judges of generated images: adversarial discriminators, trained on the way, and fixed preference models."""
