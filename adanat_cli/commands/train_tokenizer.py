"""``adanat train-tokenizer``: train a small VQ autoencoder on images."""

from __future__ import annotations

from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.training_requests import TrainTokenizerRequest

_MEASURED = (("PSNR on training images (dB)", "psnr", ".2f"), ("perplexity", "perplexity", ".0f"))


@options.takes(TrainTokenizerRequest, options.TrainingOptions)
def command(request: TrainTokenizerRequest, run: options.TrainingOptions) -> None:
    """Train a small VQ autoencoder; run the same command again to resume."""
    options.need_data(request)
    from adanat_cli.jobs.train.plans import plan_tokenizer
    from adanat_cli.jobs.train.settings import tokenizer_settings
    from adanat_cli.jobs.train.tokenizer import train_tokenizer

    settings = tokenizer_settings(request, run.only_plans)
    job.run(train_tokenizer, settings, run, _lines, plan_tokenizer, trains="train-tokenizer")


def _lines(values: dict[str, Any]) -> list[str]:
    measured = [f"{name} {values[key]:{form}}" for name, key, form in _MEASURED if key in values]
    return [f"Tokenizer: {values['model']}", *measured]
