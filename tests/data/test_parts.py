"""Processes share the parts of a source: each image falls to one of them, whatever their number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adanat_cli.core.data.parts import Parts


def source(num_images: int, stream: bool) -> Any:
    def pending(start: int = 0, stop: int | None = None) -> Any:
        return iter(range(num_images)[start:stop])

    return SimpleNamespace(num_images=None if stream else num_images, pending=pending)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
@pytest.mark.parametrize("limit", [None, 7, 23, 100])
def test_parts_are_the_same_for_any_number_of_processes(stream: bool, num_processes: int, limit: int | None) -> None:
    images = source(23, stream)
    shares = [Parts.of_source(images, limit, 5, rank, num_processes) for rank in range(num_processes)]
    read = {part.number: list(part.pending) for share in shares for part in share.read(images, lambda _: False)}
    total = min(limit or 23, 23)
    assert read == {start // 5: list(range(start, min(start + 5, total))) for start in range(0, total, 5)}
    if not stream:
        assert sum(share.num_mine() or 0 for share in shares) == total
        assert shares[0].num_parts == len(read)


@pytest.mark.parametrize("stream", [False, True])
def test_finished_parts_are_passed_over(stream: bool) -> None:
    images = source(23, stream)
    parts, done = Parts.of_source(images, None, 5, 0, 2), {0, 1, 2}
    found = [(part.number, part.start, next(part.pending)) for part in parts.read(images, done.__contains__)]
    assert found == [(4, 20, 20)]
    assert parts.num_mine(done.__contains__) == (None if stream else 10)
