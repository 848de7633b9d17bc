"""Trainings: features, tokenizer, NAT and policy."""
