"""What the page draws is what the commands and the pipeline draw, with the same files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_cli import Pipeline
from adanat_cli.core.config.edit import Box, EditRequest
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.edit import edit
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.studio.drawing import EditDrawing, SampleDrawing
from adanat_cli.jobs.studio.room import Kept


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    """The embedded model."""
    return Sampler(resolve_model(""), torch.device("cpu"))


def files(folder: Path) -> dict[str, bytes]:
    """What a run has written, except for its record."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}


def test_a_drawing_writes_the_files_of_adanat_sample_and_shows_every_step(sampler: Sampler, tmp_path: Path) -> None:
    asked = {"classes": ("monarch", "goldfish"), "num_images": 18, "num_steps": 2, "seed": 3, "device": "cpu"}
    drawing = SampleDrawing(SampleRequest(output=tmp_path / "drawn", **asked), sampler, [])
    frames = list(drawing.frames())
    assert [(frame.step, len(frame.images)) for frame in frames] == [(1, 16), (2, 16), (1, 18), (2, 18)]
    assert [frame.share for frame in frames] == pytest.approx([8 / 18, 16 / 18, 17 / 18, 1])
    assert [frame.num_undecided > 0 for frame in frames] == [True, False, True, False]
    grey = (frames[0].images[0] == 128).all(-1).reshape(8, 8, 8, 8).all(axis=(1, 3))
    assert grey.sum() == drawing.traces[0].masks[0, 0].sum(), "undecided tokens are grey"
    assert drawing.actions.shape == (2, 18, 4)
    sample(SampleRequest(output=tmp_path / "sampled", **asked), SilentReporter())
    assert len(files(tmp_path / "sampled")) == 18 + 1
    assert files(tmp_path / "drawn") == files(tmp_path / "sampled")


def test_traces_are_those_of_the_command(sampler: Sampler, tmp_path: Path) -> None:
    asked = {"classes": ("monarch",), "num_images": 2, "num_steps": 2, "schedule": "cosine", "device": "cpu"}
    drawing = SampleDrawing(SampleRequest(output=tmp_path / "drawn", **asked), sampler, [])
    list(drawing.frames())
    *shares, path = Kept([drawing], ["cosine"], tmp_path).zipped_traces()
    assert shares == [0.5, 1]
    sample(SampleRequest(output=tmp_path / "sampled", trace=True, **asked), SilentReporter())
    assert files(tmp_path / "drawn") == files(tmp_path / "sampled")
    with zipfile.ZipFile(path) as archive:
        traces = {name for name in files(tmp_path / "sampled") if "_trace." in name}
        assert len(traces) == 6
        assert set(archive.namelist()) == {*traces, "command.sh"}


def test_a_drawing_of_an_edit_is_that_of_adanat_edit_and_of_the_pipeline(sampler: Sampler, tmp_path: Path) -> None:
    picture = Pipeline.from_pretrained(device="cpu").sample("lion", num_steps=2).images[0]
    image = tmp_path / "lion.png"
    picture.resize((96, 80)).save(image)
    asked = {"image": image, "box": Box(8, 16, 40, 24), "classes": ("pizza",), "variations": 2, "num_steps": 2}
    for full_size in (False, True):
        request = EditRequest(**asked, full_size=full_size, device="cpu", output=tmp_path / f"drawn-{full_size}")
        drawing = EditDrawing(request, sampler, [])
        frames = list(drawing.frames())
        edit(
            EditRequest(**asked, full_size=full_size, device="cpu", output=tmp_path / f"{full_size}"), SilentReporter()
        )
        assert files(drawing.folder) == files(tmp_path / f"{full_size}")
        results = Pipeline.edit(
            Pipeline(resolve_model(""), "cpu"),
            image,
            box=(8, 16, 40, 24),
            labels="pizza",
            variations=2,
            num_steps=2,
            full_size=full_size,
        )
        for shown, result in zip(frames[-1].images, results.images, strict=True):
            assert np.array_equal(shown, np.asarray(result))
