"""Learned generation policies: the network that reads NAT features and chooses the next action."""

from adanat_cli.core.policy.network import PolicyNetwork

__all__ = ["PolicyNetwork"]
