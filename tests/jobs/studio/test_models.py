"""The models that the studio keeps are those on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.studio.models import Models
from tests.policy_toy import make_policy_toy


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A model of a few weights."""
    make_policy_toy(tmp_path)
    return ModelFolder(tmp_path / "model")


def test_a_model_is_loaded_once_and_anew_when_its_files_are_others(folder: ModelFolder) -> None:
    models, name = Models(torch.device("cpu")), str(folder.path)
    first = models.get(name)
    before = {key: value.clone() for key, value in first.nat.state_dict().items()}
    assert models.get(name) is first
    config, weights = folder.read("nat")
    folder.write("nat", config, {key: value + 1 for key, value in weights.items()})
    second = models.get(name)
    assert models.get(name) is second
    assert all(torch.equal(value, before[key] + 1) for key, value in second.nat.state_dict().items())
    folder.path.rename(folder.path.with_name("elsewhere"))
    with pytest.raises(AdaNATError, match="neither a folder nor a known name"):
        models.get(name)
