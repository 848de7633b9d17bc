"""Models that the page has loaded, and what it says of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from adanat_cli.core.checkpoints.folder import INDEX_FILE
from adanat_cli.core.checkpoints.staging import WEIGHTS_FILE
from adanat_cli.core.config import tokenizer_config
from adanat_cli.jobs.resolve.classes import short_name
from adanat_cli.jobs.resolve.models import DEFAULT_MODEL, model_names, read_config, resolve_model
from adanat_cli.jobs.resolve.registry import known_models
from adanat_cli.jobs.sample.sampler import Sampler

_MOST_LOADED = 2
Stamps = dict[Path, tuple[int, int, int]]


class Models:
    """The last models that were asked for, so that none is loaded twice, unless its files have changed since."""

    def __init__(self, device: torch.device, text_encoder: str = "") -> None:
        """Remember where to load, and what encodes prompts instead of a model's own encoder."""
        self._device, self._text_encoder = device, text_encoder
        self._loaded: OrderedDict[str, tuple[Sampler, Stamps]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Sampler:
        """A model by folder, name or Hub id; "" for the default one.

        Raises:
            AdaNATError: if there is none, or it is damaged.
        """
        with self._lock:
            loaded = self._loaded.pop(name, None)
            if loaded is None or loaded[1] != _stamps(loaded[1]):
                folder = resolve_model(name)
                weights = [folder.path / component / WEIGHTS_FILE for component in folder.index.components]
                # Looked at before it is read: what is written meanwhile is noticed the next time.
                stamps = _stamps([folder.path / INDEX_FILE, *weights])
                loaded = Sampler(folder, self._device, text_encoder=self._text_encoder), stamps
            self._loaded[name] = loaded
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
            return loaded[0]


def _stamps(files: Iterable[Path]) -> Stamps:
    """Inode, size and time in ns of each file that is there, which are others once it is written again."""
    found = ((file, file.stat()) for file in files if file.exists())
    return {file: (status.st_ino, status.st_size, status.st_mtime_ns) for file, status in found}


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
