"""Draw the images of a request step by step, so that they can be watched, and write what its command writes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.jobs.resolve.schedules import ScheduleChoice
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.edit import edits_of
from adanat_cli.jobs.sample.edit_files import EditFile, passed_over, picture_and_mask
from adanat_cli.jobs.sample.editing import Fitted, paste, paste_cut
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.sample.sample import prepared, settle_sample
from adanat_cli.jobs.sample.sample_folder import run_of, start_record
from adanat_cli.jobs.sample.sampler import Sampler, decode_tokens
from adanat_cli.jobs.sample.trace import Trace, grey_out

_AT_ONCE = 16
"""Images in a batch: few enough that the first ones show soon, and that cancelling takes a moment."""
_TRACED = 8
"""Images with a trace, as many as the command writes."""


@dataclass(frozen=True)
class Frame:
    """Images as they are after a step.

    Attributes:
        images: (n, H, W, 3) of those that were begun, with undecided tokens in grey.
        step: steps taken for the last batch.
        num_steps: T.
        share: of all steps of all images that are taken, in [0, 1].
        num_undecided, num_tokens: of the last batch.
        seconds: since the drawing began.
    """

    images: Sequence[Pixels]
    step: int
    num_steps: int
    share: float
    num_undecided: int
    num_tokens: int
    seconds: float


class Drawing(ABC):
    """A request of one command, checked, whose images can be watched.

    Attributes:
        sampler: the model.
        conditions: what the images are of.
        choice: their schedule.
        line: the schedule in words.
        total: number of images.
        folder: where the files of the command are written.
        traces: what every step decided, batch by batch.
    """

    def __init__(
        self, sampler: Sampler, conditions: Asked, choice: ScheduleChoice, line: str, total: int, folder: Path
    ) -> None:
        """Keep what a prepared run knows."""
        self.sampler, self.conditions, self.choice, self.line = sampler, conditions, choice, line
        self.total, self.folder = total, folder
        self.traces: list[Trace] = []

    def frames(self) -> Iterator[Frame]:
        """Draw all images; the files are written batch by batch."""
        self.sampler.load()
        schedule, start = self.sampler.schedule(self.choice), time.perf_counter()
        finished: list[Pixels] = []
        self.begin()
        for first in range(0, self.total, _AT_ONCE):
            batch = range(first, min(first + _AT_ONCE, self.total))
            trace = Trace(len(batch))
            for state, action in self.sampler.steps(schedule, self.conditions, self.seed, batch, self.given(batch)):
                trace(state, action)
                # What the last step re-masks is never used: its ids are the image.
                mask = torch.zeros_like(state.mask) if state.finished else state.mask
                drawn = decode_tokens(self.sampler.tokenizer, state.sampled_ids)
                if state.finished:
                    self.traces.append(trace)
                    shown = self.write(batch, drawn)
                else:
                    grid = mask.cpu().numpy().reshape(-1, *self.sampler.config.grid)
                    shown = self.watched(batch, grey_out(drawn, grid))
                share = (first + len(batch) * state.step / state.num_steps) / self.total
                seconds = time.perf_counter() - start
                undecided = int(mask.sum())
                yield Frame([*finished, *shown], state.step, state.num_steps, share, undecided, mask.numel(), seconds)
            finished += shown
        self.end(finished)

    @property
    def actions(self) -> np.ndarray[Any, Any]:
        """(T, n, 4), the values of all steps and images."""
        return torch.cat([trace.actions for trace in self.traces], dim=1).numpy()

    @property
    def seed(self) -> int:
        """The random seed."""
        return self.request.seed

    @property
    @abstractmethod
    def request(self) -> SampleRequest | EditRequest:
        """What was asked for."""

    @abstractmethod
    def given(self, batch: Sequence[int]) -> Tensor | None:
        """(B, N), tokens to keep; None to draw all."""

    @abstractmethod
    def begin(self) -> None:
        """Prepare the folder."""

    @abstractmethod
    def watched(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """What is shown of a batch between steps."""

    @abstractmethod
    def write(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """Write a batch, and return its images as they are in the files."""

    @abstractmethod
    def end(self, images: Sequence[Pixels]) -> None:
        """Write what shows all images together."""

    @abstractmethod
    def stem(self, index: int) -> str:
        """The name of an image's file without its suffix."""

    @abstractmethod
    def write_trace(self, index: int) -> None:
        """Write the trace of one of the first images."""

    def write_traces(self) -> Iterator[float]:
        """Write the traces that the command writes; yields the share that is done."""
        number = min(self.total, _TRACED)
        for index in range(number):
            self.write_trace(index)
            yield (index + 1) / number

    def label(self, index: int) -> str:
        """What stands below an image."""
        return self.conditions.name(index)


class SampleDrawing(Drawing):
    """What ``adanat sample`` draws."""

    def __init__(self, request: SampleRequest, sampler: Sampler, warnings: list[str]) -> None:
        """Check a request, which names an output.

        Raises:
            AdaNATError: as the command does.
        """
        settled = settle_sample(request)
        self.run = prepared(settled, warnings.append, sampler)
        super().__init__(
            sampler, self.run.conditions, self.run.choice, self.run.line, settled.num_images, settled.output
        )

    @property
    def request(self) -> SampleRequest:
        """What was asked for."""
        return self.run.request

    def given(self, batch: Sequence[int]) -> Tensor | None:
        """All tokens are drawn."""
        return None

    def begin(self) -> None:
        """Prepare the folder."""
        start_record(self.folder, run_of(self.run.request), overwrite=True)

    def watched(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """The images themselves."""
        return list(drawn)

    def write(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """Write PNGs."""
        self.run.write_pngs(batch, drawn)
        return list(drawn)

    def end(self, images: Sequence[Pixels]) -> None:
        """Write the grid."""
        self.run.write_grid(np.stack(images))

    def stem(self, index: int) -> str:
        """The name of an image's file without its suffix."""
        return self.run.stem(index)

    def write_trace(self, index: int) -> None:
        """Write the trace of one of the first images."""
        self.run.write_traces([index], self.traces[0].alone(index))


class EditDrawing(Drawing):
    """What ``adanat edit`` draws, of one image."""

    def __init__(self, request: EditRequest, sampler: Sampler, warnings: list[str]) -> None:
        """Check a request, which names an output.

        Raises:
            AdaNATError: as the command does.
        """
        edits = edits_of(request, sampler)
        edits.check_files()
        warnings += passed_over(edits.files, request.image)
        self.run = edits.prepared(warnings.append)
        total, folder = edits.num_images, edits.request.output
        super().__init__(sampler, self.run.conditions, self.run.choice, self.run.line, total, folder)

    @property
    def request(self) -> EditRequest:
        """What was asked for."""
        return self.run.edits.request

    def given(self, batch: Sequence[int]) -> Tensor | None:
        """The image's tokens, and the mask id where to draw."""
        return self._fitted.given.expand(len(batch), -1)

    def begin(self) -> None:
        """Prepare the folder."""
        start_record(self.folder, self.run.edits.run, overwrite=True)

    def watched(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """What is drawn, in the image as the model sees it."""
        return [paste_cut(self._fitted, square, self.sampler.config.grid) for square in drawn]

    def write(self, batch: Sequence[int], drawn: Pixels) -> Sequence[Pixels]:
        """Write PNGs."""
        pasted = [paste(self._fitted, square, self.sampler.config.grid) for square in drawn]
        self._shown += self.run.shown(batch, self._files, pasted)
        paths = self.run.write_results(batch, self._files, drawn, pasted)
        return [picture_and_mask(path, None)[0] for path in paths]

    def end(self, images: Sequence[Pixels]) -> None:
        """Write the grid."""
        self.run.write_grid(self._shown)

    def stem(self, index: int) -> str:
        """The name of an image's file without its suffix."""
        return self.run.stem(index)

    def write_trace(self, index: int) -> None:
        """Write the trace of one of the first images."""
        self.run.write_traces([index], self._files, self.traces[0].alone(index))

    @cached_property
    def _files(self) -> dict[EditFile, Fitted]:
        return self.run.fitted([0])

    @cached_property
    def _fitted(self) -> Fitted:
        (fitted,) = self._files.values()
        return fitted

    @cached_property
    def _shown(self) -> list[tuple[str, Pixels]]:
        return []
