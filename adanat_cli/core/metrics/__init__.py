"""Metrics of image sets: feature networks under the field's protocols, and distances of their features."""
