"""Proximal policy optimisation of generation policies: rollouts, advantages, the clipped loss and its epochs."""
