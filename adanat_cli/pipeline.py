"""Images from Python: the code that ``adanat sample`` runs, without files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from adanat_cli.core.config import Precision
from adanat_cli.core.errors import require
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.sample.trace import Trace

if TYPE_CHECKING:
    from adanat_cli.core.checkpoints.folder import ModelFolder

_NUM_IMAGES = 16


@dataclass(frozen=True)
class Samples:
    """What ``Pipeline.sample`` returns.

    Attributes:
        images: PIL images, in order.
        labels: class id of each image, or the position of its prompt.
        trace: what every step decided for each image (the values that ``adanat sample --trace`` writes as JSON);
            empty unless it was asked for.
        schedule: what the steps followed, in words.
    """

    images: list[Image.Image]
    labels: list[int]
    trace: list[list[dict[str, Any]]]
    schedule: str


class Pipeline(Sampler):
    """A model, loaded and ready to draw.

    Example:
        >>> from adanat_cli import Pipeline
        >>> pipeline = Pipeline.from_pretrained("imagenet64")
        >>> pipeline.sample(labels=["golden retriever"], num_steps=8).images[0].save("dog.png")
    """

    def __init__(self, folder: ModelFolder, device: str = "", precision: Precision = "auto") -> None:
        """Load the networks of a model folder; ``from_pretrained`` finds one by name.

        Raises:
            AdaNATError: if a network is missing, damaged, or does not belong to the other.
        """
        super().__init__(folder, pick_device(device), precision)
        self.load()

    @classmethod
    def from_pretrained(
        cls, name: str = "", revision: str | None = None, device: str | None = None, precision: Precision = "auto"
    ) -> Pipeline:
        """Load a model.

        Args:
            name: a folder, a known name or a Hub id ``user/repo[@revision]``; "" for the embedded model.
            revision: branch, tag or commit on the Hub, instead of ``@revision``.
            device: cuda, mps or cpu; None for the best one here.
            precision: number format of the NAT.

        Raises:
            AdaNATError: if there is no such model or it is damaged.
        """
        if revision is not None:
            hub_id = HubId.parse(name, "Model")
            require(
                hub_id.revision in ("", revision),
                f"Model {name} names a revision, and revision={revision!r} another; give one of them.",
            )
            name = str(HubId(hub_id.repo, revision))
        return cls(resolve_model(name), device or "", precision)

    def sample(
        self,
        labels: Sequence[int | str] | int | str | None = None,
        prompts: Sequence[str] | str | None = None,
        num_steps: int | None = None,
        schedule: str = "",
        seed: int = 0,
        sampling_temperature: float | None = None,
        remask_temperature: float | None = None,
        guidance_scale: float | None = None,
        batch_size: int = 64,
        trace: bool = False,
        num_images: int | None = None,
    ) -> Samples:
        """Draw images; image i depends on the seed, i and its class only.

        Args:
            labels: class ids or names, also as an array, in turn over the images; None for all that the model has seen.
            prompts: texts, for models that are conditioned on text; in turn over the images.
            num_steps: T; None for 8, or what a schedule file says.
            schedule: "learned", "cosine", "halton", "autonat:FILE", "table:FILE"; "" is learned if possible.
            seed: everything random follows from it.
            sampling_temperature: factor on a fixed schedule's sampling temperature; for "halton", the temperature.
            remask_temperature: factor on a fixed schedule's re-masking temperature.
            guidance_scale: factor on a fixed schedule's guidance scale; for "halton", the scale.
            batch_size: images at a time; changes no image but by rounding, and none on a CPU.
            trace: whether to keep what every step decided.
            num_images: None for one of each label or prompt, or 16 without either.

        Raises:
            AdaNATError: if the request does not fit the model.
        """
        asked, texts = _listed(labels, "labels"), _listed(prompts, "prompts")
        total = (len(asked) or len(texts) or _NUM_IMAGES) if num_images is None else num_images
        require(total >= 1, f"num_images is {total}; expected at least 1.")
        require(batch_size >= 1, f"batch_size is {batch_size}; expected at least 1.")
        choice = choose_schedule(schedule, num_steps, sampling_temperature, remask_temperature, guidance_scale)
        self.check_steps(choice.num_steps)
        require(
            self.config.condition == "text" or not texts,
            f"Model {self.folder.name} draws classes, not prompts; give labels, as ids or names.",
        )
        conditions = self.conditions(asked, texts, seed, warnings.warn)
        choice, line = settle_schedule(choice, self.folder)
        steps = self.schedule(choice)
        images: list[Image.Image] = []
        traces: list[list[dict[str, Any]]] = []
        for first in range(0, total, batch_size):
            batch = range(first, min(first + batch_size, total))
            kept = Trace(len(batch)) if trace else None
            images += map(Image.fromarray, self.images(steps, conditions, seed, batch, kept))
            if kept:
                traces += map(kept.values, range(len(batch)))
        return Samples(images, conditions.numbers(range(total)).tolist(), traces, line)


def _listed(values: Any, name: str) -> list[str]:
    """One value, several, or an array of them as text; none for None."""
    if values is None:
        return []
    values = values.tolist() if hasattr(values, "tolist") else values
    listed = [str(value) for value in ([values] if isinstance(values, int | str) else values)]
    require(bool(listed), f"{name} is empty; expected at least one, or None.")
    return listed
