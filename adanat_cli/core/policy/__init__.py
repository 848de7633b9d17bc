"""Learned generation policies: networks that choose the next action from NAT features, or from the step alone."""

from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.core.policy.static import Policy, StaticPolicy, build_policy

__all__ = ["Policy", "PolicyNetwork", "StaticPolicy", "build_policy"]
