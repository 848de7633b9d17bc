"""Rewards of generated images: discriminators, trained with the policy, and fixed preference models."""
