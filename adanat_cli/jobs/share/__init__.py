"""Jobs that exchange models with others, and describe them."""
