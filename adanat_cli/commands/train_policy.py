"""``adanat train-policy``: learn the generation policy of a frozen NAT."""

from __future__ import annotations

import shlex
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.training_requests import TrainPolicyRequest


@options.takes(TrainPolicyRequest, options.TrainingOptions)
def command(request: TrainPolicyRequest, run: options.TrainingOptions) -> None:
    """Train a generation policy for a model; run the same command again to resume."""
    options.need_data(request)
    from adanat_cli.jobs.train.plans import plan_policy as plan
    from adanat_cli.jobs.train.policy import train_policy
    from adanat_cli.jobs.train.settings import policy_settings

    job.run(train_policy, policy_settings(request), run, _lines, plan, trains="train-policy")


def _lines(values: dict[str, Any]) -> list[str]:
    best = f", of update {values['best_update']}" if "best_update" in values else ""
    lines = [
        f"Policy: {values['model']}/{values['policy']}",
        f"Distance to {values['measured_on']}: {values['distance']:.4g}{best}; fixed schedule "
        f"{values['fixed_distance']:.4g} ({values['num_images']} images)",
    ]
    if "table" in values:
        sample = shlex.join(["adanat", "sample", "--model", values["model"], "--schedule", values["schedule"]])
        lines.append(f"Table: {values['table']}, for `{sample}`")
    return lines
