"""A local page to draw, compare, steer and edit images."""
