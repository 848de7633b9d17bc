"""What a shell offers for options and arguments: names of classes, models, data, schedules. Nothing heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import typer

from adanat_cli.core.config import BENCHMARKS, DATA_PRESETS, RECIPES
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import read_json

Offered = Iterator[tuple[str, str]]
"""Words with what they stand for."""


def _models(_: typer.Context) -> Offered:
    from adanat_cli.jobs.resolve.registry import MODELS, known_models

    yield from ((path.parent.name, "comes with adanat") for path in sorted(MODELS.glob("*/model_index.json")))
    yield from ((name, known.about) for name, known in known_models().items())
    yield from ((name, "in the Hub's cache") for name in _cached_models())


def _cached_models() -> Iterator[str]:
    """Models in the cache of the Hub's client, which is not loaded for it; damaged or other ones are passed over."""
    from adanat_cli.core.checkpoints.index import read_index

    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    found = set[str]()
    for file in cache.glob("models--*/snapshots/*/model_index.json"):
        with suppress(AdaNATError, OSError):
            read_index(file.read_bytes(), file)
            found.add(file.relative_to(cache).parts[0].removeprefix("models--").replace("--", "/", 1))
    yield from sorted(found)


def _reproducible(context: typer.Context) -> Offered:
    """Benchmarks, and models, of which some have a benchmark's name."""
    yield from ((name, "published figures") for name in BENCHMARKS)
    yield from (offered for offered in _models(context) if offered[0] not in BENCHMARKS)


def _classes(context: typer.Context) -> Offered:
    """Classes of the model that was typed before, or of the embedded one, spelt so that no shell splits them."""
    from adanat_cli.jobs.resolve.registry import MODELS

    model = str(context.params.get("model") or next((name for name, _ in _models(context)), ""))
    for folder in (MODELS / model, Path(model), Path("models") / model):
        if (folder / "labels.json").is_file():
            for label, name in read_json(folder / "labels.json").items():
                yield str(name).split(",")[0].strip().replace(" ", "_"), str(label)
            return


def _words(*words: str) -> Callable[[typer.Context], Offered]:
    return lambda _: ((word, "") for word in words)


_OFFERS: dict[str, Callable[[typer.Context], Offered]] = {
    "--class": _classes,
    "--model": _models,
    "--from": _models,
    "--tokenizer": _models,
    "--dataset": _words(*DATA_PRESETS),
    "--reconstruct": _words(*DATA_PRESETS),
    "--schedule": _words("learned", "cosine", "halton", "autonat:", "table:"),
    "--base": _words("cosine", "autonat:", "table:"),
    "--protocol": _words("adm", "paper", "clean", "efficientnet", "efficientnet-lite0", "small", "timm/"),
    "--recipe": _words("auto", *RECIPES),
    "--discriminator": _words("dino", "efficientnet", "classifier", "pyramid"),
    "--device": _words("cpu", "cuda", "mps"),
    "MODEL": _models,
    "NAME": _models,
    "BENCHMARK": _reproducible,
}


def completion(flags: Iterable[str]) -> Callable[[typer.Context, str], list[tuple[str, str]]] | None:
    """The completion of an option with these flags, or of an argument with this metavar; None where anything goes."""
    offer = next((_OFFERS[flag] for flag in flags if flag in _OFFERS), None)
    if offer is None:
        return None

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        start, found = incomplete.casefold(), list[tuple[str, str]]()
        with suppress(AdaNATError, AttributeError):  # a damaged file is reported by the command, not while one types
            found = [(word, about) for word, about in offer(ctx) if word.casefold().startswith(start)]
        return found

    return complete
