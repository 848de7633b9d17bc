"""What the tests of evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation_toy import make_evaluation_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images and a reference, for the tests of one file, which may write beside them."""
    return make_evaluation_toy(tmp_path_factory.mktemp("evaluate"))
