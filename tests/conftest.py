"""What holds for all tests."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.warm_adanat import warm_adanat

# Sums over other numbers of threads differ in the last bit; the processes that tests start run on one.
torch.set_num_threads(1)

# The same examples in every run, without a folder of earlier ones: what is found once is found again.
settings.register_profile("suite", max_examples=40, derandomize=True, database=None, deadline=None)
settings.load_profile("suite")

LONG = ("test_learning.py", "test_examples.py", "test_pages.py", "test_cluster.py", "test_scale.py", "test_kills.py")
"""Files of tests that take long. They come first: a long one that is the last leaves other processes without work."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep neighbours, which share what they prepare, in one process for as long as there is other work."""
    if config.getoption("dist", "no") == "load":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which ``adanat`` asks a process that has imported everything, and that knows no Hub."""
    with warm_adanat(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path_factory.mktemp("hub"))) as environment:
        yield environment
