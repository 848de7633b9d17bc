"""Measures of image sets: distances of feature distributions, and a small network that makes the features."""
