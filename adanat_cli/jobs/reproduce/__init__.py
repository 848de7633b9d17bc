"""Figures that others published, or that a model records, measured again."""
