"""``adanat --nproc N`` starts the processes that torchrun would, and leaves as they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adanat_cli.commands.processes import ProcessesLeft, launch
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import PixelConfig
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.runtime.group import is_main_process, settle_group
from tests.image_files import write_class_folder

STATS = ["--nproc", "2", "stats", "--dataset", "stats"]


def test_two_processes_share_the_shards_and_one_speaks(tmp_path: Path) -> None:
    images = write_class_folder(tmp_path / "images", 8)
    config = PixelConfig(image_size=8, codebook_size=8, patch=2)
    model = ModelFolder(tmp_path / "model")
    model.write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict())
    data = ["--dataset", images, "--tokenizer", model.path, "--shard-size", 4, "--workers", 0]
    arguments = ["tokenize", *data, "--output", tmp_path / "tokens", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "adanat_cli", "--nproc", "2", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["num_shards"], told["num_shards_written"]) == (2, 1)
    assert len(TokenSet.open(tmp_path / "tokens")) == 8


@pytest.mark.parametrize(
    ("count", "command", "words"),
    [
        (0, "stats", "--nproc is 0; expected"),
        (-2, "sample", "--nproc is -2; expected"),
        *(
            (2, name, f"adanat {name} works in one process")
            for name in ("sample", "edit", "info", "import", "push", "pull")
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(count: int, command: str, words: str) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        launch(count, command, ["--nproc", str(count), command])
    assert "\n" not in str(caught.value)


def test_a_process_of_a_group_starts_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AdaNATError, match="torchrun or accelerate has started"):
        launch(2, "stats", STATS)


def test_one_process_and_what_is_only_printed_stay_here() -> None:
    launch(1, "sample", ["--nproc", "1", "sample"])
    launch(2, "stats", [*STATS, "--help"])


@pytest.mark.parametrize(("exit_code", "left_with"), [(1, 1), (130, 130), (-signal.SIGKILL, 137)])
def test_the_exit_code_of_the_first_that_fails_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exit_code: int, left_with: int
) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    asked: list[str] = []

    def fail(arguments: list[str]) -> None:
        asked.extend(arguments)
        raise ChildFailedError("adanat", {1: ProcessFailure(1, 4321, exit_code, "no such file")})

    monkeypatch.setattr(run, "main", fail)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
    with pytest.raises(ProcessesLeft) as caught:
        launch(2, "stats", STATS)
    assert caught.value.code == left_with
    said = capsys.readouterr().err
    assert said.startswith("Process 1 of 2 was ended by SIGKILL" if exit_code < 0 else "")
    assert said.count("\n") == (exit_code < 0)
    # A data set of a command's name is no command.
    assert asked[-5:] == ["-m", "adanat_cli", "stats", "--dataset", "stats"]


@pytest.mark.parametrize(("number", "left_with"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_with_its_code(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, left_with: int) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def interrupt(arguments: list[str]) -> None:
        raise SignalException("The launcher got a signal", number)

    monkeypatch.setattr(run, "main", interrupt)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
    with pytest.raises(ProcessesLeft) as caught:
        launch(2, "stats", STATS)
    assert caught.value.code == left_with


PLACE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "left", [{"LOCAL_RANK": "0"}, {"RANK": "3"}, {"WORLD_SIZE": "1"}, {**PLACE, "WORLD_SIZE": "1"}]
)
def test_what_launchers_leave_behind_is_one_process(monkeypatch: pytest.MonkeyPatch, left: dict[str, str]) -> None:
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    settle_group()
    assert is_main_process()
    assert not PLACE.keys() & os.environ.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MASTER_PORT": ""}, "lacks MASTER_PORT"),
        ({"LOCAL_RANK": "", "RANK": ""}, "lacks RANK, LOCAL_RANK"),
        ({"RANK": "2"}, "RANK is 2; expected 0 to 1"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK is 'first'"),
    ],
)
def test_half_a_group_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], words: str
) -> None:
    for name, value in {**PLACE, **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AdaNATError, match=words) as caught:
        settle_group()
    assert "\n" not in str(caught.value)
