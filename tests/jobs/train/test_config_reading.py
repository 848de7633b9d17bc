"""The file of ``--config`` as it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.train.config_file import read_config


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "", "a.yaml holds no settings; leave it out"),
        ("a.yml", "# only a remark\n", "a.yml holds no settings"),
        ("a.json", "null", "a.json holds no settings"),
        ("a", "training: {}", "ends in no suffix; expected a file .yaml, .yml or .json"),
        ("a.yaml", "training: {seed: 1, seed: 2}", "a key twice, 'seed'"),
    ],
)
def test_a_file_that_says_nothing_or_two_things_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AdaNATError, match=words):
        read_config(tmp_path / name, "pretrain-nat")
