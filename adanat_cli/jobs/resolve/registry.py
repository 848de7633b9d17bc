"""Published models by name, and where to get their files: ``adanat_cli/models/registry.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import adanat_cli
from adanat_cli.core.config.schema import build, conform
from adanat_cli.core.reading import read_json

MODELS = Path(adanat_cli.__file__).parent / "models"
"""Folder of the embedded models, and of the registry of others."""

PULLED = Path("models")
"""Folder within the working directory for models that `adanat pull NAME` fetches."""


@dataclass(frozen=True)
class WeightSource:
    """One file of weights of a published model.

    Attributes:
        component: component that it becomes.
        kind: kind of network, as in ``adanat import --kind``.
        file: path in the repository, or file name if it is not on the Hub.
        repo: repository on the Hub; "" if it is not there.
        page: URL to download it from by hand, if it is not on the Hub.
        revision: revision of the repository; "" for the main branch.
        num_steps: T of a policy.
        license: license that the source states, or "unknown".
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
        name: name for the command line.
        about: description, one line.
        sources: files of weights.
    """

    name: str
    about: str
    sources: tuple[WeightSource, ...]

    @property
    def folder(self) -> Path:
        """Folder that `adanat pull` writes to by default."""
        return PULLED / self.name


@cache
def known_models() -> dict[str, KnownModel]:
    """All models of the registry, by name."""
    rows = conform(read_json(MODELS / "registry.json"), Mapping[str, Mapping[str, Any]], "the registry")
    return {name: build(KnownModel, {"name": name, **row}, f"the registry: {name}") for name, row in rows.items()}
