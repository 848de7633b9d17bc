"""Outputs that cannot be written to: another job holds them, the disk is full, or they are read-only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adanat_cli.core.config import PixelConfig, TokenizerTrainingConfig, VQAEConfig, data_config
from adanat_cli.core.config.edit import Box, EditRequest
from adanat_cli.core.config.requests import EvaluateRequest, SampleRequest, StatsRequest, TokenizeRequest
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.config.share_requests import ImportRequest, PullRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.edit import edit
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.share.import_weights import import_weights
from adanat_cli.jobs.share.pull import pull
from adanat_cli.jobs.tokenize.tokenize import run_tokenize
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.tokenizer import train_tokenizer
from tests.checkpoints.test_lock import held_by_another
from tests.full_disk import full_disk
from tests.nat_toy import make_request
from tests.policy_toy import make_policy_toy, policy_request


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("lock"))


JOBS = (
    *("train-tokenizer", "train-tokenizer, pixels", "pretrain-nat", "train-policy"),
    *("tokenize", "sample", "edit", "stats", "import", "pull"),
)


def _jobs(toy: Path, out: Path) -> dict[str, tuple[Callable[..., Any], Any]]:
    data, model = str(toy / "images"), str(toy / "model")
    small = data_config(data, image_size=16)
    return {
        "train-tokenizer": (
            train_tokenizer,
            TokenizerSettings(small, VQAEConfig(image_size=16), TokenizerTrainingConfig(), out, device="cpu"),
        ),
        "train-tokenizer, pixels": (
            train_tokenizer,
            TokenizerSettings(
                small, PixelConfig(image_size=8, codebook_size=8, patch=2), TokenizerTrainingConfig(), out
            ),
        ),
        "pretrain-nat": (pretrain_nat, replace(make_request(toy / "nat"), output=out)),
        "train-policy": (train_policy, policy_request(toy, output=str(out))),
        "tokenize": (
            run_tokenize,
            TokenizeRequest(data, model=model, output=out, device="cpu"),
        ),
        "sample": (sample, SampleRequest(output=out, model=model, num_images=1, device="cpu")),
        "edit": (
            edit,
            EditRequest(toy / "images" / "one" / "000.png", box=Box(0, 0, 4, 4), output=out, model=model, device="cpu"),
        ),
        "stats": (make_stats, StatsRequest(data, out / "x.npz", {"image_size": 16}, model=model, device="cpu")),
        "import": (import_weights, ImportRequest((toy / "no.pth",), out)),
        "pull": (pull, PullRequest("imagenet64", out)),
    }


@pytest.mark.parametrize("name", JOBS)
def test_every_job_refuses_an_output_that_is_written_to(toy: Path, tmp_path: Path, name: str) -> None:
    job, request = _jobs(toy, tmp_path / "out")[name]
    lock = ".x.npz.lock" if name == "stats" else ".lock"
    with held_by_another(tmp_path / "out" / lock), pytest.raises(AdaNATError, match="is being written by another"):
        job(request, SilentReporter())
    assert [file.name for file in (tmp_path / "out").iterdir()] == [lock]


def test_two_evaluations_into_one_folder_lose_no_result(toy: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.npz"
    make_stats(
        StatsRequest(str(toy / "images"), stats, {"image_size": 16}, model=str(toy / "model"), device="cpu"),
        SilentReporter(),
    )
    request = EvaluateRequest(stats, tmp_path / "out", str(toy / "model"), images=toy / "images", device="cpu")
    with (
        held_by_another(tmp_path / "out" / ".lock"),
        pytest.raises(AdaNATError, match="is being written by another"),
    ):
        evaluate(request, SilentReporter())


@pytest.mark.parametrize("name", ["train-tokenizer", "train-policy", "tokenize", "sample", "edit", "stats"])
def test_a_full_disk_is_one_line_in_every_job(toy: Path, tmp_path: Path, name: str) -> None:
    job, request = _jobs(toy, tmp_path / "out")[name]
    if name == "train-tokenizer":
        request = replace(request, training=TokenizerTrainingConfig(steps=1, batch_size=2, precision="fp32"), workers=0)
    # What is large comes last: settings can be written, images, states and features cannot.
    largest = {"sample": 100, "edit": 100, "stats": 300, "tokenize": 1000}.get(name, 8000)
    with full_disk(largest), pytest.raises(AdaNATError, match="File too large; make room, then run") as caught:
        job(request, SilentReporter())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))


READ_ONLY = Path("/sys/adanat")
"""Not even the superuser can make a folder there."""


@pytest.mark.skipif(not READ_ONLY.parent.is_dir(), reason="needs Linux's /sys")
@pytest.mark.parametrize("name", JOBS)
def test_a_read_only_folder_is_one_line_before_any_work(toy: Path, name: str) -> None:
    job, request = _jobs(toy, READ_ONLY)[name]
    with pytest.raises(AdaNATError, match=r"Cannot write to /sys/adanat: .*; choose another --output folder") as caught:
        job(request, Silent())
    assert "\n" not in str(caught.value)


class Silent(SilentReporter):
    """Whose work must not begin."""

    def task(self, *arguments: Any, **fields: Any) -> Any:
        pytest.fail("it began to work")
