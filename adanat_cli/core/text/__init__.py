"""Prompts to the states that condition a text NAT, and to the embeddings that condition a discriminator."""
