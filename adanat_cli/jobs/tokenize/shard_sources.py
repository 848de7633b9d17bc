"""What an earlier run has left of a token set, and of which state of the data's files each shard was made.

That state is kept beside the shards, whose bytes depend on the images alone: in a hidden file each until the set is
whole, and then in its summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.data.image_source import ImageSource
from adanat_cli.core.data.token_set import SUMMARY, ShardHeader, TokenSetInfo, read_header, shard_files
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.runtime.resume import refuse_changes

KEY = "files_digest"


def finished_shards(
    output: Path, info: TokenSetInfo, plan: dict[str, Any], source: ImageSource
) -> dict[str, ShardHeader]:
    """Return the shards that an earlier, same run has written.

    Raises:
        AdaNATError: if the folder holds tokens of another tokenizer, other data, files that have changed since, or
            other settings.
    """
    asked, sources = _settings(info, plan), noted_sources(output)
    finished = {}
    for file in shard_files(output):
        header = read_header(file)
        there = _settings(header.info, header.plan)
        # What an earlier version did not record yet is not compared, nor what it recorded and this one does not.
        refuse_changes({key: there[key] for key in asked.keys() & there.keys()}, asked, output, "tokens")
        digest = source.digest(header.start, header.stop, header.skipped_at or ())
        require(
            sources.get(file.name, digest) == digest,
            f"{output} holds tokens of files that have changed since: images {header.start} to {header.stop - 1} of "
            f"{info.source} are not those of {file.name}; choose another --output, or remove {output}.",
        )
        finished[file.name] = header
    return finished


def _settings(info: TokenSetInfo, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the content of every shard; class names as pairs, so that they are compared as a whole."""
    return {**info.to_json(), "class_names": sorted(map(list, info.class_names.items())), **plan}


def noted_sources(folder: Path) -> dict[str, str]:
    """Shard name to the digest of its files; shards of earlier versions are not in it."""
    return _in_summary(folder) | {file.name[1:-6]: file.read_text(encoding="utf-8") for file in _notes(folder)}


def note_source(folder: Path, shard: str, digest: str) -> None:
    """Keep the digest of a shard that is about to be written; "" keeps none."""
    # The summary goes while a set is not whole.
    for name, known in {**_in_summary(folder), shard: digest}.items():
        file = folder / f".{name}.files"
        if known and (name == shard or not file.exists()):
            with atomic_path(file) as temporary:
                temporary.write_text(known, encoding="utf-8")


def clear_notes(folder: Path) -> None:
    """Remove what the summary holds now."""
    for file in _notes(folder):
        file.unlink(missing_ok=True)


def _in_summary(folder: Path) -> dict[str, str]:
    with suppress(AdaNATError):  # a summary that is missing or damaged is written anew
        summary = read_json(folder / SUMMARY) if (folder / SUMMARY).exists() else {}
        found = summary.get(KEY) if isinstance(summary, dict) else {}
        return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}
    return {}


def _notes(folder: Path) -> list[Path]:
    return sorted(folder.glob(".tokens-*.files"))
