"""``adanat bench`` on networks of a fraction of a second."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands import tables
from adanat_cli.commands.bench import _lines
from adanat_cli.core.config import NATConfig
from adanat_cli.core.config.bench import BenchRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.bench.bench import bench
from adanat_cli.jobs.bench.clock import PeakMemory, ProductRate, Stopwatch
from adanat_cli.jobs.bench.sampling import STAGES, plain_tokens
from adanat_cli.jobs.bench.subject import TextStates, load_subject
from adanat_cli.jobs.runtime.operations import operations
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import sample_tokens
from tests.policy_toy import make_policy_toy
from tests.support import fill_analytic, without_compiler

CPU = torch.device("cpu")
KINDS = ("sample", "tokenize", "train", "policy")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("bench")) / "model"


def request(model: Path, **changes: Any) -> BenchRequest:
    fields: dict[str, Any] = {"model": str(model), "num_steps": (4,), "batch_sizes": (3,), "repetitions": 1}
    return BenchRequest(**fields | {"device": "cpu"} | changes)


def rows(model: Path, **changes: Any) -> list[dict[str, Any]]:
    return bench(request(model, **changes), SilentReporter())["rows"]


def body_and_head(dim: int = 16) -> tuple[int, int]:
    """Operations of the toy NAT's body on an image, and of its head on a token."""
    return 2 * (17 * (3 * 12 + 2) * dim**2 + 3 * 2 * 17**2 * dim), 2 * (dim**2 + 16 * dim)


@pytest.fixture(scope="module")
def everything(model: Path) -> dict[str, Any]:
    """What the command prints as JSON, in which no number is missing."""
    line = ["bench", "--model", str(model), "--steps", "2", "--batch-size", "8", "--repetitions", "1"]
    done = CliRunner().invoke(app, [*line, "--against", "plain", "--device", "cpu", "--json"], catch_exceptions=False)
    return json.loads(done.stdout, parse_constant=pytest.fail)


def test_all_kinds_are_measured_and_a_table_shows_them(everything: dict[str, Any]) -> None:
    assert [row["measured"] for row in everything["rows"]] == [*KINDS]
    assert everything["product_tera_flops_per_second"]["fp32"] > 0
    assert 1e6 < everything["bytes_before"] < min(row["peak_bytes"] for row in everything["rows"])
    printed = "\n".join(_lines(everything))
    assert "2 steps, batch 8, fp32:" in printed
    assert "x the plain loop" in printed
    assert all(f" {kind} " in printed for kind in KINDS[1:])


@pytest.mark.parametrize("num_images", [3, 7])
def test_shares_are_of_all_stages_and_rates_follow_from_seconds(model: Path, num_images: int) -> None:
    (row,) = rows(model, measured=("sample",), num_images=num_images)
    assert tuple(row["shares"]) == STAGES
    assert min(row["shares"].values()) > 0
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert 0 < row["seconds_to_first_image"] <= num_images / row["images_per_second"]
    assert row["peak_bytes"] > 1e6


def test_operations_are_those_that_the_mathematics_needs(model: Path) -> None:
    (row,) = rows(model, measured=("sample",), num_conditions=1, num_images=6, batch_sizes=(2,), against="plain")
    subject = load_subject(request(model), CPU)
    body, head = body_and_head()
    masked = [int(ratio * 16) for ratio in CosineSchedule(4).table[:3, 0].tolist()]
    ids = torch.zeros(2, 16, dtype=torch.long)
    pixels = operations(lambda: subject.tokenizer.decode(ids)) / 2
    # Three batches of two images: one forward of the class and one of the null condition, whose logits each batch
    # computes, then three guided steps.
    needed = 2 * body + 3 * 2 * 16 * head + 6 * 2 * (3 * body + sum(masked) * head)
    assert row["tera_flops_per_image"] * 1e12 == pytest.approx(needed / 6 + pixels)
    plain = 9 * (body + 16 * head)
    assert row["plain_tera_flops_per_image"] * 1e12 == pytest.approx(plain + pixels)


def test_ratios_are_of_pairs(model: Path) -> None:
    (row,) = rows(model, measured=("sample",), repetitions=2, against="plain")
    assert len(row["ratios"]) == 2
    assert row["median_ratio"] == pytest.approx(statistics.median(row["ratios"]))


def test_the_plain_loop_draws_the_same_tokens_with_two_forwards_a_step_and_one_more(model: Path) -> None:
    subject, calls = load_subject(request(model), CPU), []
    subject.nat.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    plain = plain_tokens(subject.nat, subject.conditions, CosineSchedule(4), 0, range(5), torch.float32)
    assert calls == [5] * 9
    ours = sample_tokens(ConditionedNAT(subject.nat, subject.conditions), CosineSchedule(4), 0, range(5))
    assert torch.equal(ours, plain)


def test_text_nats_are_measured_with_random_states() -> None:
    shape = NATConfig(
        codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, condition="text", text_width=6, text_length=5
    )
    nat, states = fill_analytic(UViT(shape)), TextStates(torch.arange(3), (5, 6), CPU)
    assert not torch.equal(states.encode(torch.tensor([0])), states.encode(torch.tensor([1])))
    ours = sample_tokens(ConditionedNAT(nat, states), CosineSchedule(3), 0, range(4))
    assert torch.equal(ours, plain_tokens(nat, states, CosineSchedule(3), 0, range(4), torch.float32))


def test_training_takes_about_three_forwards_and_a_policy_update_at_least_its_rollout(
    everything: dict[str, Any],
) -> None:
    _, _, train, policy = everything["rows"]
    body, head = body_and_head()
    assert 2.5 * body < train["tera_flops_per_image"] * 1e12 < 3.5 * (body + 32 * head)
    assert policy["tera_flops_per_image"] * 1e12 > 2 * body
    assert policy["rollout_bytes"] > 8 * 2 * 16 * 16 * 2
    assert train["share_of_product"] > 0


def test_a_size_is_measured_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    # Products in bf16 take seconds each where the processor lacks the format.
    monkeypatch.setattr("adanat_cli.jobs.bench.clock._SIDE", 64)
    asked = BenchRequest(
        size="nano", measured=("sample",), num_steps=(2,), batch_sizes=(1,), formats=("bf16",), repetitions=1
    )
    values = bench(asked, SilentReporter())
    assert values["model"] == "nano, random weights"
    assert [row["precision"] for row in values["rows"]] == ["bf16"]


def test_more_steps_than_tokens_and_a_model_beside_a_size_are_refused(model: Path) -> None:
    with pytest.raises(AdaNATError, match=r"17, but images of .* have 16 tokens"):
        bench(request(model, num_steps=(17,)), SilentReporter())
    with pytest.raises(AdaNATError, match="give one of them"):
        request(model, size="nano")
    with pytest.raises(AdaNATError, match="--measure is 'speed'; expected 'sample' or"):
        request(model, measured=("speed",))


def test_a_stage_inside_another_counts_once() -> None:
    watch = Stopwatch(CPU)
    with watch.stage("outer"), watch.stage("inner"):
        time.sleep(0.02)
    assert watch.seconds["inner"] >= 0.02
    assert watch.seconds["outer"] < watch.seconds["inner"]


def test_peak_memory_is_that_of_the_work_since_the_start() -> None:
    before = PeakMemory(CPU).bytes()
    memory = PeakMemory(CPU)
    held = torch.ones(2**25)  # 128 MiB
    assert memory.bytes() >= before + 0.9 * held.nbytes


def test_shares_are_of_the_fastest_product_whenever_it_was_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = ProductRate(torch.float32, CPU)
    assert (first := rate.best) > 1e8
    monkeypatch.setattr("adanat_cli.jobs.bench.clock.seconds_of", lambda job, device: 1e9)
    rate.measure()
    assert rate.best == first
    speeds = iter((1e-3, 1e-4, 1e9))  # before the first row, after it, after the second
    monkeypatch.setattr(ProductRate, "measure", lambda self: setattr(self, "best", max(self.best, 1e9 / next(speeds))))
    values = bench(request(model, measured=("sample", "tokenize")), SilentReporter())
    assert values["product_tera_flops_per_second"] == {"fp32": 10.0}
    for row in values["rows"]:
        assert row["share_of_product"] == pytest.approx(row["tera_flops_per_second"] / 10)


def test_an_option_that_would_do_nothing_is_refused(model: Path) -> None:
    for idle in (
        {"against": "plain"},
        {"compiled": True},
        {"num_images": 3},
        {"num_steps": (3,)},
        {"formats": ("bf16",)},
    ):
        with pytest.raises(AdaNATError, match=r"^--[a-z-]+ has no meaning with --measure tokenize; leave it out"):
            BenchRequest(measured=("tokenize",), **idle)
    assert BenchRequest(measured=("tokenize", "policy"), num_steps=(3,)).num_steps == (3,)
    with pytest.raises(AdaNATError, match="--num-classes is 9; expected 1 to 3, the classes of"):
        bench(request(model, num_conditions=9), SilentReporter())


def test_batch_sizes_are_typed_as_steps_are(model: Path) -> None:
    line = ["bench", "--model", str(model), "--measure", "tokenize", "--repetitions", "1", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*line, "--batch-size", "2,3", "--batch-size", "5"], catch_exceptions=False)
    assert [row["batch_size"] for row in json.loads(done.stdout)["rows"]] == [2, 3, 5]
    assert "--batch-size is 'x'; expected whole numbers" in CliRunner().invoke(app, [*line, "--batch-size", "x"]).stderr


def test_a_nat_that_cannot_be_compiled_is_told_in_one_line(model: Path) -> None:
    with (
        without_compiler(),
        pytest.raises(AdaNATError, match=r"^torch\.compile fails on this machine \(.*compiler.*leave --compile out\.$"),
    ):
        bench(request(model, measured=("sample",), compiled=True), SilentReporter())


def test_rows_become_columns_on_a_terminal_that_is_too_narrow(
    everything: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = [*_lines(everything)]
    assert max(map(len, piped)) > 120
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(tables.sys.stdout, "isatty", lambda: True)
    narrow = [line for line in _lines(everything) if line[0] in "┏┃┡│└"]
    assert max(map(len, narrow)) <= 60
    assert set("".join(piped).split()) >= {word for line in narrow for word in line.split() if word.isdigit()}
    assert any(line.startswith("│ peak MB") for line in narrow)
