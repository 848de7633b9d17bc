"""A policy that starts from the weights of another: which one, its shape, and what it can be trained for."""

from __future__ import annotations

from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import NATConfig, PolicyConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.config.training_requests import Kind, TrainPolicyRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.resolve.models import policy_config, resolve_model
from adanat_cli.jobs.train.start import Start


def chosen_kind(request: TrainPolicyRequest, num_steps: int) -> Kind:
    """The kind that was typed, or that of the policy to start from.

    Raises:
        AdaNATError: if a table is searched, which starts from no policy, or there is no such policy.
    """
    kind = request.kind
    if not request.start:
        return kind or "adaptive"
    require(
        kind not in ("search", "tuned"),
        f"--kind {kind} starts from a schedule, not from a policy; leave --from out, or give a schedule with --base.",
    )
    folder, steps = resolve_model(request.start), num_steps
    others = ", ".join(map(str, folder.policy_steps()))
    require(
        folder.has(policy_component(steps)),
        f"--from {request.start} has no learned policy for {steps} steps "
        f"({f'it has them for {others}' if others else 'it has none at all'}); choose another --steps or --from.",
    )
    return kind or trainable_kind(policy_config(folder, steps), request.start)


def policy_start_shape(start: Start, num_steps: int) -> PolicyConfig:
    """The shape to continue with: that of the run which is resumed, or of the policy.

    Raises:
        AdaNATError: if it is damaged, or is a fixed table.
    """
    if start.is_resumed:
        return PolicyConfig.from_dict(start.saved["policy"], "config.json of the run")
    shape = policy_config(start.folder, num_steps)
    trainable_kind(shape, start.model)
    return shape


def fit_to_model(
    base: PolicyConfig, request: PolicySettings, nat: NATConfig, fingerprint: str, name: str
) -> PolicyConfig:
    """The same policy for the model's NAT, which may be another of the same shape.

    Args:
        base: shape of the policy to start from.
        request: what was asked for.
        nat: configuration of the model's NAT.
        fingerprint: fingerprint of its weights.
        name: name of the model that the policy comes from, for messages.

    Raises:
        AdaNATError: naming what does not fit.
    """
    owner = f"the policy of --from {name}"
    require(
        request.kind == base.kind,
        f"--kind is {request.kind}, but {owner} is {base.kind}; leave --kind out, or choose another --from.",
    )
    require(
        request.base == "cosine",
        f"--base is {request.base}, but {owner} keeps its own base schedule; leave --base out.",
    )
    for key, value in request.policy.items():
        kept = getattr(base, key)
        require(
            value == kept,
            f"--{key.replace('_', '-')} asks for {value}, but {owner} has {kept}, which stays as it is; leave the "
            "option out.",
        )
    found, expected = _inputs(nat.grid, nat.width), _inputs(base.grid, base.feature_width)
    require(
        found == expected,
        f"The NAT of --model has {found}, but {owner} reads {expected}; choose another --from, or the --model that it "
        "was trained for.",
    )
    return base.replace(nat_fingerprint=fingerprint)


def _inputs(grid: tuple[int, int], width: int) -> str:
    return f"{grid[0]} x {grid[1]} tokens with features of width {width}"


def trainable_kind(shape: PolicyConfig, name: str) -> Kind:
    """The kind of a policy that can learn."""
    if shape.kind == "table":
        raise AdaNATError(
            f"The policy of --from {name} is a fixed table without weights; start from the table itself with --base "
            "table:FILE, or choose another --from."
        )
    return shape.kind
