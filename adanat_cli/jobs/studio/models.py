"""Models that the page has loaded, and what it says of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from adanat_cli.core.config import tokenizer_config
from adanat_cli.jobs.resolve.classes import short_name
from adanat_cli.jobs.resolve.models import DEFAULT_MODEL, model_names, read_config, resolve_model
from adanat_cli.jobs.resolve.registry import known_models
from adanat_cli.jobs.sample.sampler import Sampler

_MOST_LOADED = 2


class Models:
    """The last models that were asked for, so that none is loaded twice."""

    def __init__(self, device: torch.device, text_encoder: str = "") -> None:
        """Remember where to load, and what encodes prompts instead of a model's own encoder."""
        self._device, self._text_encoder = device, text_encoder
        self._loaded: OrderedDict[str, Sampler] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Sampler:
        """A model by folder, name or Hub id; "" for the default one.

        Raises:
            AdaNATError: if there is none, or it is damaged.
        """
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = Sampler(resolve_model(name), self._device, text_encoder=self._text_encoder)
            self._loaded.move_to_end(name)
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[name]


@dataclass(frozen=True)
class Described:
    """What the page says of a model.

    Attributes:
        words: a line.
        by_prompt: whether it is conditioned on text.
        classes: name to show -> name to ask for, of each class.
        policy_steps: numbers of steps for which it has a learned policy.
        num_tokens: most steps.
    """

    words: str
    by_prompt: bool
    classes: list[tuple[str, str]]
    policy_steps: list[int]
    num_tokens: int


def describe(sampler: Sampler) -> Described:
    """Read what the page says of a model; no weights are loaded."""
    config, folder = sampler.config, sampler.folder
    size = read_config(folder, "tokenizer", tokenizer_config).image_size
    steps, labels = folder.policy_steps(), folder.labels()
    names = [short_name(name) for name in labels.values()]
    classes = [
        (f"{name} ({label})", name if names.count(name) == 1 else str(label))
        for (label, _), name in sorted(zip(labels.items(), names, strict=True), key=lambda pair: pair[1].casefold())
    ]
    if not labels and config.condition == "class":
        classes = [(f"class {label}", str(label)) for label in range(config.num_classes)]
    by_prompt = config.condition == "text"
    of = "text" if by_prompt else f"{len(classes)} classes"
    policies = f"learned policies for {', '.join(map(str, steps))} steps" if steps else "no learned policy"
    words = f"{size} x {size} pixels, {config.grid[0]} x {config.grid[1]} tokens, {of}, {policies}"
    return Described(words, by_prompt, classes, steps, config.num_tokens)


def offered(model: str) -> list[tuple[str, str]]:
    """Models that are on this machine, and the one that was asked for: what to show -> what to ask for."""
    present = [known.name for known in known_models().values() if known.folder.exists()]
    names = [*dict.fromkeys([*model_names(), *present, *filter(None, [model])])]
    return [(f"{name} (embedded)" if name == DEFAULT_MODEL else name, name) for name in names]
