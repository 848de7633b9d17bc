"""Whatever ends a command, and whenever, the same command comes to the same end: the files of an unbroken run.

``python -m tests.faults --kills 20`` ends each command more often, and prints a table.
"""

from __future__ import annotations

import pytest

from tests.faults.commands import COMMANDS
from tests.faults.kills import Breaking


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory, warm: dict[str, str]) -> Breaking:
    return Breaking(tmp_path_factory.mktemp("kills"), warm, seed=0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_ended_again_and_again_leaves_the_files_of_an_unbroken_run(
    breaking: Breaking, name: str
) -> None:
    outcome = breaking.survive(name, kills=3)
    assert outcome.ended.total() == 3
    assert outcome.num_compared
