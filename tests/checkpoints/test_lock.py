"""Of two that write into one folder, the second is refused, and nobody is locked out by the dead."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adanat_cli.core.checkpoints.lock import is_empty, locked
from adanat_cli.core.errors import AdaNATError
from tests.nat_toy import make_model


@contextmanager
def held_by_another(lock: Path) -> Iterator[None]:
    """Hold a lock as another process would: a lock belongs to the opened file, not to the process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 4321 on node7")
        file.flush()
        yield


def test_the_second_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with (
        held_by_another(tmp_path / ".lock"),
        pytest.raises(AdaNATError, match=f"{tmp_path} is being written by another adanat, process 4321 on node7"),
        locked(tmp_path),
    ):
        pass


def test_a_lock_of_the_dead_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 4321 on node7")
    with locked(tmp_path), locked(tmp_path):
        assert is_empty(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_into_which_nothing_was_written_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "a" / "b"):
        raise RuntimeError
    assert not (tmp_path / "a").exists()


def test_files_of_one_folder_are_held_apart(tmp_path: Path) -> None:
    with held_by_another(tmp_path / ".a.npz.lock"), locked(tmp_path, "b.npz"):
        assert (tmp_path / ".b.npz.lock").exists()


def test_a_writer_of_a_model_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adanat_cli.core.checkpoints.folder._PATIENCE", 0.0)
    model = make_model(tmp_path / "model")
    with held_by_another(model.path / ".lock"), pytest.raises(AdaNATError, match="is being written"):
        model.put_results([{"metric": "fid", "value": 1.0}])
