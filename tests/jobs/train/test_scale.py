"""One process and several, sharded or not, in pieces or whole: the same training."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.core.config import NATTrainingConfig, nat_preset
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import SUMMARY, Shard, TokenSetInfo, write_shard
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.objective import MaskedTokenLoss
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.resolve.models import load_nat, resolve_model
from adanat_cli.jobs.runtime.devices import make_accelerator
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import sample_tokens
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.nat_batches import UpdateSource
from adanat_cli.jobs.train.nat_cost import count_parameters, update_memory
from tests.evaluation_toy import Said
from tests.nat_toy import make_request, without_dropout
from tests.processes import run_two
from tests.warm_adanat import PYTHON, Started

UPDATES = 20
SETTINGS = {"steps": UPDATES, "log_every": 1, "save_every": 10}
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"fsdp": True},
    "pieces": {"fsdp": True, "gradient_checkpointing": True, "accumulate": 2},
}
TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.nat_toy import make_request, without_dropout
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.runtime.reporter import SilentReporter
def train(output, **changes):
    training = {name: changes.pop(name) for name in ("steps", "log_every", "save_every") if name in changes}
    request = replace(make_request(Path(sys.argv[1]), output, **training), size="nano", **changes)
    with without_dropout():
        pretrain_nat(request, SilentReporter())
"""


def train(folder: Path, output: str, **changes: Any) -> Said:
    said = Said()
    with without_dropout():
        request = make_request(folder, output, **{**SETTINGS, **changes.pop("training", {})})
        pretrain_nat(replace(request, size="nano", **changes), said)
    return said


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, warm: dict[str, str]) -> Path:
    """A run of one process, and beside it one of two processes for each way."""
    folder = tmp_path_factory.mktemp("scale")
    train(folder, "one")
    runs = [f"train({name!r}, **{ {**SETTINGS, **changes}!r})" for name, changes in WAYS.items()]
    # Sharded for ten updates, then whole on one process; and the other way round.
    half = {**SETTINGS, "steps": 10}
    runs.append(f"train('begun', fsdp=True, **{half!r})")
    train(folder, "taken", training={"steps": 10})
    runs.append(f"train('taken', fsdp=True, **{SETTINGS!r})")
    run_two(warm, "\n".join([TRAIN, *runs]), folder, timeout=300)
    train(folder, "begun")
    return folder


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def state(run: Path) -> dict[str, Any]:
    return load_tree(run / "checkpoints" / f"step-{UPDATES:08d}.safetensors")


def tokens(run: Path) -> Tensor:
    nat = load_nat(resolve_model(str(run / "model")))
    conditions = ClassConditions(torch.arange(4), {})
    return sample_tokens(ConditionedNAT(nat, conditions), CosineSchedule(4), 0, range(16))


@pytest.mark.parametrize("way", [*WAYS, "begun", "taken"])
def test_losses_of_twenty_updates_samples_and_metrics_are_those_of_one_process(toy: Path, way: str) -> None:
    one, other = logged(toy / "one"), logged(toy / way)
    for name in ("loss", "accuracy", "gradient_norm", "training_loss", "training_accuracy"):
        expected, found = ([line[name] for line in lines if name in line] for lines in (one, other))
        if name.startswith("training"):
            found = found[-1:]  # a run that is continued was measured at its first end, too
        assert len(expected) == (1 if name.startswith("training") else UPDATES)
        assert found == pytest.approx(expected, rel=2e-5, abs=1e-6), name
    assert torch.equal(tokens(toy / way), tokens(toy / "one"))


@pytest.mark.parametrize("way", [*WAYS, "begun", "taken"])
def test_states_of_sharded_runs_are_whole_and_of_the_same_form(toy: Path, way: str) -> None:
    one, other = state(toy / "one"), state(toy / way)
    assert one.keys() == other.keys()
    for part in ("nat", "ema"):
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            torch.testing.assert_close(other[part][name], tensor, rtol=0, atol=5e-5)
    moments, others = one["optimizer"]["state"], other["optimizer"]["state"]
    assert moments.keys() == others.keys()
    for index, entry in moments.items():
        assert {name: tensor.shape for name, tensor in others[index].items()} == {
            name: tensor.shape for name, tensor in entry.items()
        }
    assert (toy / way / "config.json").read_text() == (toy / "one" / "config.json").read_text()


def test_blocks_that_are_computed_again_have_the_same_gradients_and_keep_a_fraction() -> None:
    shape = nat_preset("tiny", codebook_size=64, grid=(8, 8), num_classes=10, dropout=0.0, depth=8)
    torch.manual_seed(0)
    objective = MaskedTokenLoss(UViT(shape), 0.1)
    ids, labels = torch.randint(64, (4, 64)), torch.randint(10, (4,))
    kept: dict[bool, int] = {}
    gradients: dict[bool, list[Tensor]] = {}
    weights = {weight.data_ptr() for weight in objective.parameters()}
    for again in (False, True):
        objective.nat.gradient_checkpointing = again
        seen: dict[int, int] = {}

        def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective(ids, labels, torch.arange(0, 256, 2)).loss
            kept[again] = sum(seen.values())
            loss.backward()
        gradients[again] = [weight.grad.clone() for weight in objective.parameters() if weight.grad is not None]
        objective.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(gradients[False], gradients[True], strict=True))
    # What the dry run states of activations, without the states and what one block needs while it is computed again.
    states = 20 * count_parameters(shape)
    told = {again: update_memory(shape, 4, "fp32", gradient_checkpointing=again) - states for again in (False, True)}
    of_block = (9 + 2 * 4) * shape.width * 4 * 4 * 65
    assert 0.7 < kept[False] / told[False] < 1.3
    assert 0.7 < kept[True] / (told[True] - of_block) < 1.3


def test_a_shard_of_states_is_a_fraction_and_a_batch_over_more_processes_is_smaller() -> None:
    large = nat_preset("large", codebook_size=1024, grid=(16, 16), num_classes=1000)
    states = 20 * count_parameters(large)
    assert update_memory(large, 0, "bf16") == states
    whole_average = 4 * count_parameters(large)
    assert whole_average < update_memory(large, 0, "bf16", num_shards=8) < whole_average + 0.3 * states
    assert update_memory(large, 32, "bf16") < update_memory(large, 32, "fp32")


def test_one_process_is_told_that_it_shares_nothing(toy: Path) -> None:
    said = train(toy, "alone", training={"steps": 1}, fsdp=True)
    assert any("this is the only one" in line for line in said.warned)
    assert train(toy, "silent", training={"steps": 1}).warned == []


def test_accelerates_own_sharding_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(AdaNATError, match=r"--use_fsdp.*leave it out there, and give .adanat pretrain-nat. --fsdp"):
        make_accelerator("cpu", 8)


FAULTY = """
import os, signal, sys
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.train.nat_batches import UpdateSource
draw, fault = UpdateSource.update, sys.argv.pop(1)
def faulty(self, step, rank=0, *others):
    if rank == 1 and step == 3:
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise AdaNATError("the disk of the second process is gone; mount it again.")
    return draw(self, step, rank, *others)
UpdateSource.update = faulty
from adanat_cli.cli import main
main()
"""


@pytest.mark.parametrize("fault", ["killed", "raises"])
def test_a_fault_of_one_of_two_sharded_processes_ends_both_with_its_message(
    toy: Path, tmp_path: Path, fault: str, warm: dict[str, str]
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "torchrun.py").write_text("from torch.distributed.run import main; main()")
    data = ["--dataset", "toy", "--tokens", toy / "tokens", "--model", toy / "model", "--size", "nano"]
    length = ["--updates", 1000, "--batch-size", 8, "--precision", "fp32", "--save-every", 2]
    command = [*data, *length, "--fsdp", "--output", tmp_path / "run", "--device", "cpu"]
    launcher = [tmp_path / "torchrun.py", "--standalone", "--nproc_per_node=2", "--no-python", warm[PYTHON]]
    words = [*launcher, tmp_path / "faulty.py", fault, "pretrain-nat", *command]
    log = tmp_path / "log"
    assert Started(warm, list(map(str, words)), log, "warm-python").wait(timeout=120) != 0
    said = log.read_text()
    last = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    assert load_tree(max(last))["step"] == 2
    if fault == "raises":
        assert said.count("Error: the disk of the second process is gone") == 1
    else:
        assert "Signal 9 (SIGKILL)" in said


def test_a_plan_for_several_processes_states_memory_in_every_way_hours_and_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    large = [
        "pretrain-nat",
        "--dataset",
        "imagenet256",
        "--tokens",
        "nowhere",
        "--accumulate",
        "1",
        "--dry-run",
        "--json",
    ]
    plans = []
    for extra in (["--fsdp"], ["--gradient-checkpointing"]):
        monkeypatch.setattr(sys, "argv", ["adanat", "--nproc", "32", *large, *extra])
        done = CliRunner().invoke(app, ["--nproc", "32", *large, *extra], catch_exceptions=False)
        plans.append(json.loads(done.stdout))
    sharded, again = plans
    assert (sharded["num_processes"], sharded["images_per_pass"]) == (32, 64)
    ways = sharded["megabytes_by_way"]
    assert list(ways) == ["all in each", "--gradient-checkpointing", "--fsdp", "--fsdp --gradient-checkpointing"]
    assert sharded["megabytes_on_one_process"] == ways["--fsdp"]
    assert again["megabytes_on_one_process"] == ways["--gradient-checkpointing"]
    assert ways["all in each"] > ways["--fsdp"] > ways["--fsdp --gradient-checkpointing"]
    assert again["tera_flops_per_update"] == pytest.approx(4 / 3 * sharded["tera_flops_per_update"], rel=1e-3)
    # 3 passes of 500,000 updates of 2,048 images at 40 % of 312 tera-operations a second.
    hours = 500_000 * sharded["tera_flops_per_update"] / (0.4 * 312) / 3600
    assert sharded["gpu_hours"]["A100 at 40% of its rate"] == pytest.approx(hours, rel=5e-3)
    assert sharded["megabytes_of_states_on_disk"] == 3 * 16 * sharded["num_parameters"] // 2**20
    monkeypatch.setattr(sys, "argv", ["adanat", "--nproc", "3", *large])
    with pytest.raises(AdaNATError, match=r"cannot be split over 3 processes.*--batch-size 2049"):
        CliRunner().invoke(app, ["--nproc", "3", *large], catch_exceptions=False)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
@pytest.mark.parametrize("num_processes", [1, 3, 5])
def test_an_epoch_takes_every_row_once_whatever_the_numbers_of_shards_and_processes(
    tmp_path: Path, num_shards: int, num_processes: int
) -> None:
    """Rows carry their number in their first two tokens."""
    rows, batch = 60, 15
    numbers = np.arange(rows)
    ids = np.zeros((rows, 16), np.uint16)
    ids[:, 0], ids[:, 1] = numbers % 16, numbers // 16
    info = TokenSetInfo(16, (4, 4), 16, "ab" * 32, "class", 1, False, {}, "toy")
    size = -(-rows // num_shards)
    for index, part in enumerate(np.split(numbers, range(size, rows, size))):
        shard = Shard({}, index * size, int(part[-1]) + 1, {}, ids[part], None, np.zeros(len(part), np.int64))
        write_shard(tmp_path / f"tokens-{index:05d}.parquet", info, shard)
    write_json(tmp_path / SUMMARY, {"num_shards": num_shards})
    config = NATTrainingConfig(batch_size=batch, held_out=0.0)
    source = UpdateSource(TokenSet.open(tmp_path), numbers, config, 16, 1, False)
    seen: list[int] = []
    for step in range(rows // batch):
        for rank in range(num_processes):
            for piece in source.update(step, rank, num_processes, accumulate=2).batches:
                seen += (piece.token_ids[:, 0] + 16 * piece.token_ids[:, 1]).tolist()
    assert sorted(seen) == list(range(rows))
