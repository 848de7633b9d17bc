"""Speed, operations and memory of a model on this machine."""
