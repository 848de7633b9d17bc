"""What the NAT sees is a function of seed, update and position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_cli.core.config import NATTrainingConfig
from adanat_cli.jobs.train.nat_batches import Draws, Flags, Indices, TokenBatch, Update, UpdateSource, hold_out

NULL = 1000


class RowNumbers:
    """A token set whose first token is the row and whose second says whether it is flipped."""

    def batch(self, indices: Indices, flipped: Flags, draws: Draws | None = None) -> tuple[Indices, Indices]:
        ids = np.zeros((len(indices), 16), dtype=np.int64)
        ids[:, 0], ids[:, 1] = indices, flipped
        return ids, indices % 10


def source(num_rows: int = 40, batch_size: int = 8, has_flips: bool = True, **changes: object) -> UpdateSource:
    config = NATTrainingConfig(batch_size=batch_size, **changes)
    return UpdateSource(RowNumbers(), np.arange(num_rows), config, 16, NULL, has_flips)


def joined(updates: list[Update]) -> TokenBatch:
    batches = [batch for update in updates for batch in update.batches]
    firsts = np.cumsum([0, *(batch.token_ids.numel() for batch in batches)])
    positions = [batch.positions + int(first) for batch, first in zip(batches, firsts, strict=False)]
    ids, labels = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))
    return TokenBatch(ids, labels, torch.cat(positions))


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (4, 1), (1, 3), (2, 2)])
def test_processes_and_pieces_share_one_update(world_size: int, accumulate: int) -> None:
    parts = [source().update(3, rank, world_size, accumulate) for rank in range(world_size)]
    whole = source().update(3)
    assert all(torch.equal(a, b) for a, b in zip(joined(parts), joined([whole]), strict=True))
    assert {part.num_hidden for part in parts} == {whole.num_hidden} == {len(whole.batches[0].positions)}


def test_an_update_follows_from_seed_and_number_alone() -> None:
    first, again = source().update(7).batches[0], source().update(7).batches[0]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.token_ids, source().update(8).batches[0].token_ids)
    assert not torch.equal(first.token_ids, source(seed=1).update(7).batches[0].token_ids)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(40, 8), (12, 8), (4, 8)])
def test_every_epoch_visits_every_row_once(num_rows: int, batch_size: int) -> None:
    num_updates = 2 * num_rows // batch_size
    updates = [source(num_rows, batch_size).update(step) for step in range(num_updates)]
    rows = joined(updates).token_ids[:, 0].view(-1, num_rows)
    assert all(torch.equal(epoch.sort().values, torch.arange(num_rows)) for epoch in rows)


def test_flips_and_dropped_conditions_have_their_probabilities() -> None:
    batch = source(5000, 5000).update(0).batches[0]
    assert float(batch.token_ids[:, 1].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((batch.labels == NULL).float().mean()) == pytest.approx(0.15, abs=0.02)
    assert source(5000, 5000, has_flips=False).update(0).batches[0].token_ids[:, 1].sum() == 0


def test_held_out_rows_are_few_spread_and_never_trained_on() -> None:
    for num_rows, share, num_held_out in ((300, 0.05, 15), (300, 0, 0), (10_000, 0.01, 100), (1_000_000, 0.01, 1023)):
        kept, held_out = hold_out(np.arange(num_rows), share)
        assert len(held_out) == num_held_out
        assert len(np.intersect1d(kept, held_out)) == 0
        assert len(kept) + len(held_out) == num_rows


def test_the_measuring_slice_is_the_same_in_every_run() -> None:
    rows = np.arange(20)
    for a, b in zip(source(seed=0).fixed(rows), source(seed=5).fixed(rows), strict=True):
        assert torch.equal(a, b)
