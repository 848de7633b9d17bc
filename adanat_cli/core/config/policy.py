"""Configuration of the policy network and of how its outputs become actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.core.config.base import Config
from adanat_cli.core.errors import require


@dataclass(frozen=True)
class PolicyConfig(Config):
    """Shape of a policy network (or of its critic) and the rule from raw outputs to actions.

    Attributes:
        feature_width: D of the NAT whose features it reads.
        grid: (h, w) tokens; N = h * w.
        num_steps: T that it was trained for.
        hidden_width: of the first layers and of the timestep embedding; the others' widths follow it.
        out_features: 4 for a policy (remask_ratio, sampling_temperature, remask_temperature,
            guidance_scale), 1 for a critic.
        residual: whether raw outputs are added to the base schedule before the activation.
        smoothing: s in y_t = s y_(t-1) + (1 - s) x_t over the steps, before the activation; 0 for none.
        base_floor: temperatures and guidance scales of the base below it are raised to it: a softplus is flat near 0,
            where neither exploration nor a gradient moves anything. 0, as in the reference, raises none.
        schedule: the base schedule: "cosine", "table", or "autonat", a table with AutoNAT's rule of counting.
        sampling_temperature, remask_temperature, guidance_scale: scales of the cosine schedule.
        schedule_table: T rows of four values, for the schedules "table" and "autonat".
        nat_fingerprint: of the NAT that it was trained on; "" if not known.
        kind: "adaptive", one action per sample and step; "static", one per step for all samples; "table", the base
            schedule as it is, without a network.
    """

    feature_width: int
    grid: tuple[int, int]
    num_steps: int
    hidden_width: int = 512
    out_features: int = 4
    residual: bool = True
    smoothing: float = 0.0
    base_floor: float = 0.0
    schedule: Literal["cosine", "table", "autonat"] = "cosine"
    sampling_temperature: float = 1.0
    remask_temperature: float = 1.0
    guidance_scale: float = 1.0
    schedule_table: tuple[tuple[float, float, float, float], ...] = ()
    nat_fingerprint: str = ""
    kind: Literal["adaptive", "static", "table"] = "adaptive"

    def __post_init__(self) -> None:
        # JSON gives the rows back as lists; rows must be hashable for a frozen configuration.
        object.__setattr__(self, "schedule_table", tuple(tuple(row) for row in self.schedule_table))
        for name in ("feature_width", "num_steps", "out_features"):
            require(getattr(self, name) >= 1, f"Policy {name} is {getattr(self, name)}; expected at least 1.")
        require(
            self.hidden_width >= 2 and self.hidden_width % 2 == 0,
            f"Policy hidden_width is {self.hidden_width}; expected an even number of at least 2.",
        )
        require(len(self.grid) == 2 and min(self.grid) >= 1, f"Policy grid is {self.grid}; expected (h, w).")
        require(0 <= self.smoothing < 1, f"Policy smoothing is {self.smoothing}; expected a value in [0, 1).")
        require(0 <= self.base_floor < 10, f"Policy base_floor is {self.base_floor}; expected a value in [0, 10).")
        require(
            self.kind in ("adaptive", "static", "table"),
            f"Policy kind {self.kind!r} is not known; expected adaptive, static or table.",
        )
        require(
            self.schedule in ("cosine", "table", "autonat"),
            f"Base schedule {self.schedule!r} is not known; expected cosine, table or autonat.",
        )
        rows = 0 if self.schedule == "cosine" else self.num_steps
        require(
            len(self.schedule_table) == rows and all(len(row) == 4 for row in self.schedule_table),
            f"Base schedule {self.schedule} with a table of {len(self.schedule_table)} rows; "
            f"expected {rows} rows of four values.",
        )

    @property
    def num_tokens(self) -> int:
        """N, tokens per image."""
        return self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (tuples become lists)."""
        return {**super().to_dict(), "schedule_table": [list(row) for row in self.schedule_table]}
