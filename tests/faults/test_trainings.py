"""Whatever ends a training, the same command goes on to the files of an unbroken run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adanat_cli.core.checkpoints.trees import load_tree, save_tree
from adanat_cli.core.config import TokenizerTrainingConfig, VQAEConfig, data_config
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.nat import NATLoop, pretrain_nat
from adanat_cli.jobs.train.policy import PolicyLoop, train_policy
from adanat_cli.jobs.train.run_folder import RunFolder
from adanat_cli.jobs.train.tokenizer import TokenizerLoop, train_tokenizer
from tests.faults.commands import assert_same, files
from tests.full_disk import full_disk
from tests.image_files import write_class_folder
from tests.jobs.train.test_nat import At
from tests.nat_toy import make_request
from tests.policy_toy import make_policy_toy, policy_request

EVERY = {"save_every": 1, "sample_every": 6}
STEPS = 6


class Words(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, text: str) -> None:
        self.said.append(text)

    warn = log


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one unbroken run that saves and exports every update, and one that stopped half way."""
    folder = tmp_path_factory.mktemp("loop")
    pretrain_nat(make_request(folder, **EVERY), SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        pretrain_nat(make_request(folder, "half", **EVERY), At(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    return folder


@pytest.fixture
def new(toy: Path, tmp_path: Path) -> Path:
    """Where a run of the same name may begin, for the card tells its name."""
    for name in ("model", "tokens"):
        (tmp_path / name).symlink_to(toy / name)
    return tmp_path / "run"


@pytest.fixture
def half(toy: Path, new: Path) -> Path:
    """A run that stopped after update 3, to be damaged."""
    shutil.copytree(toy / "half", new)
    return new


def go_on(run: Path, reporter: Any = None, **changes: Any) -> dict[str, Any]:
    return pretrain_nat(make_request(run.parent, run.name, **{**EVERY, **changes}), reporter or SilentReporter())


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_litter_of_kills_goes_and_the_run_ends_with_the_files_of_an_unbroken_one(toy: Path, half: Path) -> None:
    for name in ("model/.nat.1.part", "model/.tokenizer.1.old", "model/policies/.steps-8.1.part"):
        (half / name).mkdir(parents=True)
        (half / name / "model.safetensors").write_text("half")
    for name in (".config.json.1.part", "checkpoints/.step-00000004.safetensors.1.part", "checkpoints/.tmpXy12Zz"):
        (half / name).write_text("half")
    # A kill between a state and the removal of the oldest.
    shutil.copy(half / "checkpoints/step-00000002.safetensors", half / "checkpoints/step-00000001.safetensors")
    go_on(half)
    (half / "model" / "policies").rmdir()
    assert_same(half, toy / "run")


def stop_after(number: int) -> At:
    return At(number, at_signal(signal.SIGINT))


def test_a_policy_that_stopped_twice_has_the_files_of_an_unbroken_one(tmp_path: Path) -> None:
    toy = make_policy_toy(tmp_path)
    settings = {"updates": 3, "save_every": 1, "show_every": 3, "eval_every": 1}
    for name in ("unbroken", "broken"):
        (toy / name).mkdir()
    train_policy(policy_request(toy, "unbroken/run", **settings), SilentReporter())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_policy(policy_request(toy, "broken/run", **settings), stop_after(1))
    train_policy(policy_request(toy, "broken/run", **settings), SilentReporter())
    assert_same(toy / "broken/run", toy / "unbroken/run")


def test_a_tokenizer_that_stopped_twice_has_the_files_of_an_unbroken_one(tmp_path: Path) -> None:
    data = data_config(str(write_class_folder(tmp_path / "images", 8, size=16)), image_size=16)
    shape = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(16,))
    training = TokenizerTrainingConfig(
        steps=4,
        batch_size=4,
        adversarial_start=1,
        log_every=3,
        sample_every=2,
        save_every=1,
        precision="fp32",
    )
    asked = TokenizerSettings(data, shape, training, tmp_path / "unbroken" / "run", workers=0, device="cpu")
    train_tokenizer(asked, SilentReporter())
    broken = replace(asked, output=tmp_path / "broken" / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_tokenizer(broken, stop_after(1))
    train_tokenizer(broken, SilentReporter())
    assert_same(broken.output, asked.output)


@pytest.mark.parametrize(("save_every", "num_exports"), [(2, 2), (3, 2), (4, 1), (100, 1)])
def test_a_training_exports_with_its_states_and_once_at_its_end(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every: int, num_exports: int
) -> None:
    exports: list[int] = []
    for loop in (NATLoop, PolicyLoop, TokenizerLoop):
        export = loop.export
        monkeypatch.setattr(loop, "export", lambda run, export=export: exports.append(run.trainer.step) or export(run))
    name = f"exports-{save_every}"
    policy = policy_request(make_policy_toy(tmp_path), updates=4, eval_every=4, save_every=save_every)
    data = data_config(str(write_class_folder(tmp_path / "shapes", 8, size=16)), image_size=16)
    shape = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(16,))
    training = TokenizerTrainingConfig(steps=4, batch_size=4, save_every=save_every, precision="fp32")
    jobs: list[tuple[Callable[[], Any], int]] = [
        (lambda: pretrain_nat(make_request(toy, name, steps=4, save_every=save_every), SilentReporter()), num_exports),
        (lambda: train_policy(policy, SilentReporter()), num_exports),
        (
            lambda: train_tokenizer(
                TokenizerSettings(data, shape, training, tmp_path / name, workers=0, device="cpu"), SilentReporter()
            ),
            1,
        ),
    ]
    for job, expected in jobs:
        exports.clear()
        job()
        assert len(exports) == expected
        assert exports[-1] == 4
        job()  # resumed after its last update
        assert len(exports) == expected + 1


def _truncate(run: Path) -> None:
    file = run / "checkpoints" / "step-00000003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _flip(run: Path) -> None:
    flip_a_bit(run / "checkpoints" / "step-00000003.safetensors")


def _without_structure(run: Path) -> None:
    save_tree(run / "checkpoints" / "step-00000003.safetensors", {})


@pytest.mark.parametrize("damage", [_truncate, _flip, _without_structure])
def test_a_damaged_state_gives_way_to_the_one_before_and_the_run_says_so(
    toy: Path, half: Path, damage: Callable[[Path], None]
) -> None:
    damage(half)
    words = Words()
    go_on(half, words)
    assert sum("Resuming from the state before, update 2." in line for line in words.said) == 1
    assert "Resuming at update 2 of 6." in words.said
    assert_same(half, toy / "run")


def test_a_run_without_any_whole_state_does_not_start_over_by_itself(half: Path) -> None:
    for file in (half / "checkpoints").iterdir():
        flip_a_bit(file)
    before = files(half)
    with pytest.raises(
        AdaNATError, match=r"No saved state of .* is intact: .*3\.safetensors is damaged.*2\.safetensors is damaged"
    ):
        go_on(half)
    assert files(half) == before


@pytest.mark.parametrize("change", ["shape", "format", "missing"])
def test_a_state_of_another_form_is_refused(half: Path, change: str) -> None:
    file = half / "checkpoints" / "step-00000003.safetensors"
    state = load_tree(file)
    name = next(name for name, tensor in state["nat"].items() if tensor.ndim == 2)
    if change == "missing":
        del state["ema"]
    else:
        weight = state["nat"][name]
        state["nat"][name] = weight[:1] if change == "shape" else weight.double()
    save_tree(file, state)
    with pytest.raises(AdaNATError, match="after update 3 does not belong to this run"):
        go_on(half)


@pytest.mark.parametrize("what", ["index", "config", "tokenizer"])
def test_a_broken_exported_model_is_written_again(toy: Path, half: Path, what: str) -> None:
    file = {
        "index": "model_index.json",
        "config": "nat/config.json",
        "tokenizer": "tokenizer/model.safetensors",
    }[what]
    if what == "tokenizer":
        flip_a_bit(half / "model" / file)
    else:
        (half / "model" / file).write_text("{")
    go_on(half)
    assert_same(half, toy / "run")


def at_signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_schedulers_signals_save_and_leave_with_their_code(toy: Path, number: int, code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    words = Words()
    ended = At(5, at_signal(number))
    ended.log = words.log  # type: ignore[method-assign]
    request = make_request(toy, f"ended-{code}", **{**EVERY, "save_every": 100})
    with pytest.raises(SystemExit) as caught:
        pretrain_nat(request, ended)
    assert caught.value.code == code
    assert signal.signal(number, before) == signal.SIG_DFL
    assert "Saved at update 5 of 6." in words.said
    assert [file.name for file in (request.output / "checkpoints").iterdir()] == ["step-00000005.safetensors"]


def test_a_signal_while_measuring_saves_at_once_and_the_measurement_is_taken_again(
    toy: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = NATLoop._sample

    def ended(run: Any) -> Any:
        if run.trainer.step == STEPS:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")
        return export(run)

    monkeypatch.setattr(NATLoop, "_sample", ended)
    with pytest.raises(KeyboardInterrupt):
        go_on(new)
    monkeypatch.undo()
    go_on(new)
    assert_same(new, toy / "run")


def test_a_second_ctrl_c_does_not_lose_the_state(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = RunFolder.save

    def impatient(self: RunFolder, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, *arguments)

    request = make_request(toy, "impatient", **{**EVERY, "save_every": 100})
    monkeypatch.setattr(RunFolder, "save", impatient)
    with pytest.raises(KeyboardInterrupt):
        pretrain_nat(request, At(2, at_signal(signal.SIGINT)))
    assert load_tree(request.output / "checkpoints" / "step-00000002.safetensors")["step"] == 2


def test_means_are_of_the_whole_interval_after_a_resume(toy: Path) -> None:
    request = make_request(toy, "means", **{**EVERY, "save_every": 100, "log_every": 6})
    with pytest.raises(KeyboardInterrupt):
        pretrain_nat(request, At(4, at_signal(signal.SIGINT)))
    pretrain_nat(request, SilentReporter())
    means = json.loads(files(request.output)["metrics.jsonl"])
    unbroken = [line for line in json.loads(files(toy / "run")["metrics.jsonl"]) if "loss" in line]
    assert next(line for line in means if "loss" in line)["loss"] == pytest.approx(
        sum(line["loss"] for line in unbroken) / len(unbroken), abs=1e-6
    )


def test_a_kill_before_the_first_state_leaves_no_line_twice(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {}).log(0, distance=1.0)
    folder = RunFolder(tmp_path / "run", {})
    assert folder.latest() is None
    folder.log(0, distance=1.0)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


def test_a_longer_run_goes_on_from_a_shorter_one_to_the_same_weights(toy: Path) -> None:
    request = make_request(toy, "longer", steps=4, save_every=2, log_every=3, sample_every=4)
    pretrain_nat(request, SilentReporter())
    pretrain_nat(make_request(toy, "longer", **EVERY), SilentReporter())
    one, two = (load_tree(toy / name / "checkpoints/step-00000006.safetensors") for name in ("longer", "run"))
    assert all(torch.equal(one["ema"][name], two["ema"][name]) for name in two["ema"])
    assert read_json(toy / "longer" / "config.json")["training"]["steps"] == STEPS
    assert read_json(toy / "longer" / "model/model_index.json")["provenance"]["nat"]["training"]["steps"] == STEPS
    with pytest.raises(AdaNATError, match=r"training\.steps was 6, now 4; .* may become longer, not shorter"):
        pretrain_nat(request, SilentReporter())


def test_a_run_whose_length_decides_its_past_cannot_become_longer(toy: Path) -> None:
    pretrain_nat(make_request(toy, "cosine", decay="cosine", steps=2), SilentReporter())
    with pytest.raises(AdaNATError, match=r"training\.steps was 2, now 4; .*cosine.* cannot change"):
        pretrain_nat(make_request(toy, "cosine", decay="cosine", steps=4), SilentReporter())


def test_a_full_disk_at_a_state_is_one_line_and_the_run_goes_on_later(toy: Path, half: Path) -> None:
    size = (half / "checkpoints" / "step-00000003.safetensors").stat().st_size
    with full_disk(size // 2), pytest.raises(AdaNATError, match="File too large; make room, then run the same"):
        go_on(half)
    go_on(half)
    assert_same(half, toy / "run")
