"""Published models by name: where their files lie, as data in ``adanat_cli/models/registry.json``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import adanat_cli
from adanat_cli.core.config.schema import conform
from adanat_cli.core.reading import read_json

MODELS = Path(adanat_cli.__file__).parent / "models"
"""Models that this installation carries, and the registry of others."""

PULLED = Path("models")
"""Where `adanat pull NAME` puts a model, below the working folder."""


@dataclass(frozen=True)
class WeightSource:
    """One file of weights of a published model.

    Attributes:
        component: what it becomes.
        kind: of network, as ``adanat import --kind`` takes it.
        file: its path in the repository, or its name where it has none.
        repo: on the Hub; "" if it is not there.
        page: where a person gets it, if it is not on the Hub.
        revision: to take; "" for the main branch.
        num_steps: T of a policy.
        license: as its source states it, or "unknown".
    """

    component: str
    kind: Literal["vqgan", "nat", "policy"]
    file: str
    repo: str = ""
    page: str = ""
    revision: str = ""
    num_steps: int | None = None
    license: str = "unknown"


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
        name: what users call it.
        about: one line.
        sources: its files.
    """

    name: str
    about: str
    sources: tuple[WeightSource, ...]

    @property
    def folder(self) -> Path:
        """Where `adanat pull` puts it unless told otherwise."""
        return PULLED / self.name


@dataclass(frozen=True)
class _Entry:
    """A model of the registry, below its name."""

    about: str
    sources: tuple[WeightSource, ...]


@cache
def known_models() -> dict[str, KnownModel]:
    """All models of the registry, by name."""
    rows = conform(read_json(MODELS / "registry.json"), dict[str, _Entry], "the registry")
    return {name: KnownModel(name, row.about, row.sources) for name, row in rows.items()}
