"""The NAT through torch.compile: the same tokens, one compilation for all batches, one line without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adanat_cli.core.config import NATConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.compiled import CompiledBody
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.sample.sampler import sample_tokens
from tests.support import fill_analytic, without_compiler

SHAPE = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)
CLASSES = ClassConditions(torch.tensor([3, 7, 3]), {})


def test_compiled_for_the_first_batch_all_batches_draw_the_same_tokens() -> None:
    nat, lines, graphs = fill_analytic(UViT(SHAPE)), list[str](), torch._dynamo.utils.counters["stats"]
    body, graphs["unique_graphs"] = CompiledBody(nat, lines.append), 0
    plain, compiled = ConditionedNAT(nat, CLASSES), ConditionedNAT(nat, CLASSES, body=body)
    batches = (range(4), range(4, 8), range(8, 11), range(11, 12))
    expected, found = (
        torch.cat([sample_tokens(one, CosineSchedule(4), 0, batch) for batch in batches]) for one in (plain, compiled)
    )
    assert torch.equal(found, expected)
    assert lines == [
        "Compiling the NAT for 8 rows at a time (an image has two under guidance), which may take a minute."
    ]
    assert graphs["unique_graphs"] == 1
    ids = torch.arange(3 * 16).reshape(3, 16) % 17
    with torch.no_grad():
        torch.testing.assert_close(
            body(ids, torch.tensor([1, 2, 10])), nat.features(ids, torch.tensor([1, 2, 10])), atol=1e-5, rtol=1e-5
        )


def test_without_a_compiler_sampling_ends_with_one_line_and_writes_nothing(tmp_path: Path) -> None:
    request = SampleRequest(output=tmp_path / "images", num_images=2, num_steps=2, device="cpu", compiled=True)
    with (
        without_compiler(),
        pytest.raises(AdaNATError, match=r"^torch\.compile fails on this machine \([^\n]*; install [^\n]*\.$"),
    ):
        sample(request, SilentReporter())
    assert not list(tmp_path.glob("images/*"))
