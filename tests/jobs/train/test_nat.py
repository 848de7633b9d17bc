"""NAT pre-training: it learns, resumes exactly, and says what is wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from accelerate import Accelerator
from torch import Tensor
from typer.testing import CliRunner

from adanat_cli.commands.pretrain_nat import command
from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.core.config import NATConfig, NATTrainingConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat import masks_from
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.resolve.models import load_nat, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter, Task
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.nat_batches import TokenBatch, Update
from adanat_cli.jobs.train.nat_update import NATTrainer
from tests.nat_toy import make_request, make_tokens, without_dropout
from tests.processes import run_two
from tests.support import fill_analytic, fixture, without_compiler

TINY = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=10, dropout=0.0)


class At(SilentReporter):
    """Does something after a given number of updates."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.left, self.action = step, action

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        task = super().task(description, total, unit, done)
        return task if unit.startswith(("image", "img")) else self  # of a measurement, not of the training

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, amount: int = 1, **fields: Any) -> None:
        self.left -= amount
        if self.left == 0:
            self.action()


def last_state(run: Path) -> dict[str, Any]:
    return load_tree(max((run / "checkpoints").glob("*.safetensors")))


def weights(run: Path) -> dict[str, Tensor]:
    state = last_state(run)
    return {f"{part}.{name}": tensor for part in ("nat", "ema") for name, tensor in state[part].items()}


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return float(sum((first[name] - second[name]).square().sum() for name in first)) ** 0.5


def same(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 0.0) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=0, atol=tolerance) for name in first
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokens, a tokenizer and one unbroken run of six updates."""
    folder = tmp_path_factory.mktemp("toy")
    pretrain_nat(make_request(folder), SilentReporter())
    return folder


def test_eight_updates_match_the_reference() -> None:
    expected = fixture("nat_train")
    config = NATTrainingConfig(steps=8, batch_size=6, warmup_steps=4, ema_decay=0.9, precision="fp32")
    rates = [config.learning_rate_at(step) for step in range(8)]
    assert rates == pytest.approx(expected["train.lr_used_warmup4"].tolist())
    trainer = NATTrainer(TINY, config, Accelerator(cpu=True))
    trainer.ema.load_state_dict(fill_analytic(trainer.nat).state_dict())
    trainer.step = 80  # the reference's average has no warm-up, and ours is past it here
    ids, labels = (torch.from_numpy(expected[key]).long() for key in ("x0", "net.labels"))
    mask = masks_from(torch.from_numpy(expected["mask_probs"]), torch.from_numpy(expected["mask_rand"]))
    update = Update([TokenBatch(ids, labels[:, 0], mask.flatten().nonzero()[:, 0])], int(mask.sum()))
    losses = [float(trainer.update(update, rate)[0]) for rate in rates]
    assert losses == pytest.approx(expected["train.losses"].tolist(), abs=1e-5)
    for state, key in ((trainer.nat.state_dict(), "param"), (trainer.ema.state_dict(), "ema")):
        row = torch.from_numpy(expected[f"train.{key}_after8_mlm_fc_row0"])
        assert torch.allclose(state["mlm_layer.fc.weight"][0], row, atol=1e-5, rtol=0)


def test_it_learns_a_toy_set(tmp_path: Path) -> None:
    request = make_request(tmp_path, steps=60, log_every=10, batch_size=16, save_every=1000)
    result = pretrain_nat(request, SilentReporter())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60, 60]
    assert lines[-2]["loss"] < 0.6 * lines[0]["loss"]
    assert result["training_accuracy"] == lines[-1]["training_accuracy"]
    assert result["training_accuracy"] > 0.8  # chance is 1/16, and 1/2 with the class alone


def test_a_short_training_exports_what_it_trained(tmp_path: Path) -> None:
    request = make_request(tmp_path, steps=60, batch_size=16, save_every=60, ema_decay=0.9999)
    result = pretrain_nat(request, SilentReporter())
    trained, exported = last_state(tmp_path / "run")["nat"], load_nat(resolve_model(result["model"]))
    start = NATTrainer(exported.config, request.training, Accelerator(cpu=True)).nat.state_dict()
    assert distance(dict(exported.state_dict()), trained) < 0.2 * distance(dict(start), trained)
    assert result["training_accuracy"] > 0.8


def test_the_exported_model_holds_the_average_and_its_tokenizer(toy: Path) -> None:
    model = resolve_model(str(toy / "run" / "model"))
    nat, average = load_nat(model), last_state(toy / "run")["ema"]
    assert same(dict(nat.state_dict()), average)
    assert nat.config.tokenizer_fingerprint == model.fingerprint("tokenizer")
    assert model.labels() == {0: "zero", 1: "one", 2: "two", 3: "three"}
    assert model.index.image_size == 16
    assert [file.name for file in (toy / "run" / "samples").iterdir()] == ["step-00000006.png"]


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_weights(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain_nat(make_request(toy, "stopped"), At(4, lambda: signal.raise_signal(signal.SIGINT)))
    assert last_state(toy / "stopped")["step"] == 4
    pretrain_nat(make_request(toy, "stopped"), SilentReporter())
    assert same(weights(toy / "stopped"), weights(toy / "run"))


def test_two_processes_train_the_weights_of_one(toy: Path, warm: dict[str, str]) -> None:
    script = """
import sys
from pathlib import Path
from tests.nat_toy import make_request, without_dropout
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.runtime.reporter import SilentReporter
with without_dropout():
    pretrain_nat(make_request(Path(sys.argv[1]), "two"), SilentReporter())
"""
    run_two(warm, script, toy)
    with without_dropout():
        pretrain_nat(make_request(toy, "one"), SilentReporter())
    assert same(weights(toy / "two"), weights(toy / "one"), tolerance=2e-5)


def test_pieces_of_a_batch_add_up_to_the_batch(toy: Path) -> None:
    with without_dropout():
        pretrain_nat(make_request(toy, "whole"), SilentReporter())
        pretrain_nat(replace(make_request(toy, "pieces"), accumulate=3), SilentReporter())
    assert same(weights(toy / "pieces"), weights(toy / "whole"), tolerance=2e-5)


def test_a_compiled_nat_trains_to_the_same_weights(toy: Path) -> None:
    with without_dropout():
        pretrain_nat(replace(make_request(toy, "eager"), size="nano"), SilentReporter())
        pretrain_nat(replace(make_request(toy, "compiled"), size="nano", compiled=True), SilentReporter())
    assert same(weights(toy / "compiled"), weights(toy / "eager"), tolerance=2e-5)


def test_a_nat_that_cannot_be_compiled_is_told_in_one_line(toy: Path) -> None:
    with (
        without_compiler(),
        pytest.raises(AdaNATError, match=r"^torch\.compile fails on this machine \(.*leave --compile out\.$"),
    ):
        pretrain_nat(replace(make_request(toy, "uncompiled"), size="nano", compiled=True), SilentReporter())


def test_tokens_of_another_tokenizer_are_refused(toy: Path, tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "foreign", "ab" * 32)
    with pytest.raises(AdaNATError, match="made by tokenizer abababababab"):
        pretrain_nat(replace(make_request(toy, "foreign"), tokens=tokens), SilentReporter())
    assert not (toy / "foreign").exists()


def test_other_tokens_in_the_same_run_are_refused(toy: Path, tmp_path: Path) -> None:
    pretrain_nat(make_request(toy, "moved", steps=1), SilentReporter())
    fingerprint = resolve_model(str(toy / "model")).fingerprint("tokenizer")
    other = make_tokens(tmp_path / "other", fingerprint, seed=1)
    with pytest.raises(AdaNATError, match=r"data\.crc32 was"):
        pretrain_nat(replace(make_request(toy, "moved", steps=1), tokens=other), SilentReporter())


def test_a_text_size_on_class_labels_is_refused(toy: Path) -> None:
    with pytest.raises(AdaNATError, match="muse is conditioned on text"):
        pretrain_nat(replace(make_request(toy, "text"), size="muse"), SilentReporter())


@pytest.mark.parametrize("changes", [{"seed": -1}, {"steps": 0}, {"decay": "sudden"}, {"flip": 1.5}])
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AdaNATError, match=next(iter(changes))):
        NATTrainingConfig(**changes)


def test_a_batch_that_cannot_be_cut_is_refused(toy: Path) -> None:
    with pytest.raises(AdaNATError, match="expected 1 to 8"):
        pretrain_nat(replace(make_request(toy, "cut"), accumulate=9), SilentReporter())


def test_a_subset_of_classes_trains_on_these_alone(toy: Path) -> None:
    pretrain_nat(replace(make_request(toy, "subset", steps=1), classes=("2", "one")), SilentReporter())
    assert resolve_model(str(toy / "subset" / "model")).labels() == {1: "one", 2: "two"}
    assert read_json(toy / "subset" / "config.json")["data"]["num_images"] == 32
    with pytest.raises(AdaNATError, match="five"):
        pretrain_nat(replace(make_request(toy, "subset", steps=1), classes=("five",)), SilentReporter())


def test_auto_precision_is_settled_once_for_the_whole_run(toy: Path) -> None:
    pretrain_nat(make_request(toy, "auto", steps=1, precision="auto"), SilentReporter())
    settled = read_json(toy / "auto" / "config.json")["training"]["precision"]
    assert settled in ("fp32", "bf16")
    pretrain_nat(make_request(toy, "auto", steps=1, precision="auto"), SilentReporter())
    other = make_request(toy, "auto", steps=1, precision="bf16" if settled == "fp32" else "fp32")
    with pytest.raises(AdaNATError, match="precision was"):
        pretrain_nat(other, SilentReporter())


def test_bf16_trains(toy: Path) -> None:
    result = pretrain_nat(make_request(toy, "bf16", steps=2, precision="bf16"), SilentReporter())
    assert 0 < result["training_loss"] < 5
    assert all(tensor.dtype == torch.float32 for tensor in weights(toy / "bf16").values())


def run_command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_command_prints_one_json_object(toy: Path) -> None:
    result = run_command(
        *("--dataset", "toy", "--tokens", str(toy / "tokens"), "--size", "micro", "--model", str(toy / "model")),
        *("--output", str(toy / "command"), "--updates", "2", "--batch-size", "4", "--precision", "fp32", "--json"),
    )
    values = json.loads(result.stdout)
    assert result.exit_code == 0
    assert values["steps"] == 2
    assert values["model"] == str(toy / "command" / "model")


def test_a_dry_run_tells_the_plan_and_touches_nothing(toy: Path) -> None:
    result = run_command(
        *("--dataset", "digits", "--tokens", str(toy / "nowhere"), "--model", str(toy / "model"), "--dry-run"),
        *("--output", str(toy / "dry"), "--json"),
    )
    values = json.loads(result.stdout)
    assert values["nat"]["num_classes"] == 10
    assert values["tokens_per_image"] == 16
    assert 1e5 < values["num_parameters"] < 1e6
    assert values["megabytes_on_one_process"] > 15
    assert not (toy / "dry").exists()
