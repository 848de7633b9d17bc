"""Configuration of the policy network and of how its outputs become actions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from adanat_cli.core.config.base import MAX_STEPS, MAX_WIDTH, Bounds, Config, Decay, Sizes, Width
from adanat_cli.core.config.nat import MAX_GRID
from adanat_cli.core.config.option import option
from adanat_cli.core.errors import require

_MOST = 1e4
"""Largest temperature or scale, as in schedules."""

_policy = partial(option, panel="Policy")


@dataclass(frozen=True)
class PolicyConfig(Config):
    """Shape of a policy network (or of its critic) and the rule from raw outputs to actions.

    Attributes:
        feature_width: D of the NAT whose features it reads.
        grid: (h, w) tokens; N = h * w.
        num_steps: T, number of steps that it was trained for.
        hidden_width: width of the first layers and of the timestep embedding; the other widths follow from it.
        out_features: 4 for a policy (remask_ratio, sampling_temperature, remask_temperature,
            guidance_scale), 1 for a critic.
        residual: whether raw outputs are added to the base schedule before the activation.
        smoothing: s in y_t = s y_(t-1) + (1 - s) x_t over the steps, before the activation; 0 for none.
        base_floor: temperatures and guidance scales of the base below it are raised to it: a softplus is flat near 0,
            where neither exploration nor a gradient moves anything. 0, as in the reference, raises none.
        schedule: the base schedule: "cosine", "table", or "autonat", a table with AutoNAT's rule of counting.
        sampling_temperature, remask_temperature, guidance_scale: scales of the cosine schedule.
        schedule_table: T rows of four values, for the schedules "table" and "autonat".
        nat_fingerprint: fingerprint of the NAT that it was trained on; "" if not known.
        kind: "adaptive", one action per sample and step; "static", one per step for all samples; "table", the base
            schedule as it is, without a network.
    """

    noun: ClassVar[str] = "Policy"
    feature_width: Width
    grid: Annotated[tuple[int, int], Bounds(1, MAX_GRID)]
    num_steps: Annotated[int, Bounds(1, MAX_STEPS)]
    hidden_width: Annotated[int, Bounds(2, MAX_WIDTH)] = _policy(
        512, help="Width of the policy and critic networks' first layers."
    )
    out_features: Annotated[int, Bounds(1, 4)] = 4
    residual: bool = _policy(True, "--residual/--no-residual", help="Add the policy's outputs to its base schedule.")
    smoothing: Decay = _policy(0.0, help="Exponential smoothing of the policy's outputs over the steps, in [0, 1).")
    base_floor: Annotated[float, Bounds(0, below=10)] = 0.0
    schedule: Literal["cosine", "table", "autonat"] = "cosine"
    sampling_temperature: float = 1.0
    remask_temperature: float = 1.0
    guidance_scale: float = 1.0
    schedule_table: tuple[tuple[float, float, float, float], ...] = ()
    nat_fingerprint: str = ""
    kind: Literal["adaptive", "static", "table"] = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.grid) == 2, f"Policy grid is {self.grid}; expected (h, w).")
        require(self.hidden_width % 2 == 0, f"Policy hidden_width is {self.hidden_width}; expected an even number.")
        rows = 0 if self.schedule == "cosine" else self.num_steps
        require(
            len(self.schedule_table) == rows and all(len(row) == 4 for row in self.schedule_table),
            f"Base schedule {self.schedule} with a table of {len(self.schedule_table)} rows; "
            f"expected {rows} rows of four values.",
        )
        scales = (0.0, self.sampling_temperature, self.remask_temperature, self.guidance_scale)
        for ratio, sampling, remasking, guidance in (scales, *self.schedule_table):
            require(
                0 <= ratio < 1 and sampling > 0 and remasking >= 0 and max(sampling, remasking, abs(guidance)) <= _MOST,
                f"Base schedule with the values {ratio:g}, {sampling:g}, {remasking:g}, {guidance:g}; expected a ratio "
                "in [0, 1), a sampling temperature above 0, a re-masking temperature of 0 or more, and a scale.",
            )

    @property
    def num_tokens(self) -> int:
        """N, tokens per image."""
        return self.grid[0] * self.grid[1]

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        if self.kind != "adaptive":
            return {"table": (self.num_steps, self.out_features)}
        width = self.hidden_width
        places = math.prod(math.ceil(side / 2) for side in self.grid)
        # Features that have the width already enter as they are.
        embedder = {"x_embedder.weight": (width, self.feature_width)} if self.feature_width != width else {}
        return {
            "dw_conv.weight": (width, 1, 3, 3),
            "linear1.weight": (2 * width, max(1, width // 4) * places),
            "linear3.weight": (self.out_features, width),
            **embedder,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (tuples become lists)."""
        return {**super().to_dict(), "schedule_table": [list(row) for row in self.schedule_table]}
