"""``adanat pretrain-nat``: train the transformer on tokens."""

from __future__ import annotations

from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.training_requests import PretrainNATRequest


@options.takes(PretrainNATRequest, options.TrainingOptions)
def command(request: PretrainNATRequest, run: options.TrainingOptions) -> None:
    """Train a NAT on a token set; run the same command again to resume."""
    options.need_data(request)
    options.need(request.tokens or not request.dataset, "--tokens", "make a token set with `adanat tokenize` first")
    from adanat_cli.jobs.train.nat import pretrain_nat
    from adanat_cli.jobs.train.plans import plan_nat
    from adanat_cli.jobs.train.settings import nat_settings

    job.run(pretrain_nat, nat_settings(request, run.only_plans), run, _lines, plan_nat, trains="pretrain-nat")


def _lines(values: dict[str, Any]) -> list[str]:
    measured = ", ".join(
        f"{name} {values[key]:.3f}"
        for name, key in (
            ("loss on training images", "training_loss"),
            ("accuracy", "training_accuracy"),
            ("loss on held-out images", "held_out_loss"),
            ("accuracy", "held_out_accuracy"),
        )
        if key in values
    )
    return [f"Model: {values['model']}", f"{values['steps']} updates: {measured}"]
