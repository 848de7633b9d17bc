"""From prompts to the states that condition a text NAT and the embeddings that condition a discriminator."""
