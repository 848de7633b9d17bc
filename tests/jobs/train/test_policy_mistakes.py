"""Mistakes in what ``adanat train-policy`` is given: one line each, before any work."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest

from adanat_cli.core.config import DiscriminatorConfig, PolicyTrainingConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.policy import check_processes, train_policy
from adanat_cli.jobs.train.policy_setup import check_request
from tests.image_files import write_class_folder
from tests.policy_toy import make_policy_toy, policy_request


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("policy"))


def test_a_model_that_cannot_be_written_refuses_install_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, usual = make_policy_toy(tmp_path), tempfile.TemporaryFile

    def temporary(dir: Path) -> object:  # noqa: A002 - as the library calls it
        if dir == folder / "model":
            raise OSError(errno.EROFS, "Read-only file system")
        return usual(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    with pytest.raises(AdaNATError, match="Read-only file system; leave --install out"):
        check_request(policy_request(folder, updates=1, install=True))
    check_request(policy_request(folder, updates=1))


def one_image(folder: Path) -> dict[str, Any]:
    from adanat_cli.core.config import data_config

    write_class_folder(folder / "single", 1, ("one",), 16)
    return {"data": data_config(str(folder / "single"), image_size=1)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_steps": 1}, "--steps is 1"),
        ({"num_steps": 17}, "have 16 tokens"),
        ({"base": "table:no-such.yaml"}, "no-such.yaml"),
        ({"base": "linear"}, "expected cosine"),
        ({"reward": "recognition"}, "needs a model whose classes have ImageNet's numbers"),
        ({"discriminator": DiscriminatorConfig("dino=no-such.safetensors")}, "no-such.safetensors"),
        ({"reward": "preference", "preference_model": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_mistakes_are_one_line(toy: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    if "preference" in str(changes):
        pytest.importorskip("transformers")
    with pytest.raises(AdaNATError, match=words) as caught:
        train_policy(policy_request(toy, str(tmp_path / "wrong"), **changes), SilentReporter())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trajectories": 10, "paired": True}, "--trajectories is 10.* over pairs on 3 processes.* --trajectories 12"),
        ({"trajectories": 10}, "--trajectories is 10.* over 3 processes; give a multiple of 3, such as"),
        ({"kind": "tuned"}, "--kind tuned runs on one process; start it without --nproc"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_with_an_option_that_helps(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words):
        check_processes(policy_request(tmp_path, **changes), 3)


def test_one_image_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="holds 1 training image"):
        train_policy(policy_request(toy, str(tmp_path / "wrong"), **one_image(tmp_path)), SilentReporter())


@pytest.mark.parametrize("names", [("7", "8"), ("ant", "bee", "fly")])
def test_data_without_the_models_classes_is_refused(toy: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    from adanat_cli.core.config import data_config

    write_class_folder(tmp_path / "other", 6, names, 16)
    data = data_config(str(tmp_path / "other"), image_size=1)
    with pytest.raises(AdaNATError, match="give the data set that") as caught:
        train_policy(policy_request(toy, str(tmp_path / "wrong"), data=data), SilentReporter())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("changes", [{"trajectories": 0}, {"updates": 0}, {"reward": "beauty"}, {"eval_images": 1}])
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AdaNATError, match="expected"):
        PolicyTrainingConfig(**changes)
