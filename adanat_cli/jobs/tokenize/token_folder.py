"""The folder of a token set while it is written: its shards, and the state of the data's files that each was made of.

That state is kept beside the shards, whose bytes depend on the images alone: in a hidden file each until the set is
whole, and then in its summary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import atomic_path, clear_litter, write_json
from adanat_cli.core.data.caption_states import NULL_STATES, states_file, write_states
from adanat_cli.core.data.image_source import ImageSource
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.data.token_card import token_set_card
from adanat_cli.core.data.token_shards import (
    LARGEST_SUMMARY,
    SUMMARY,
    Shard,
    ShardHeader,
    TokenSetInfo,
    read_header,
    read_rows,
    shard_files,
    write_shard,
)
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_object, sha256_of
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.text_encoders import encoded, write_encoder
from adanat_cli.jobs.runtime.resume import refuse_changes

_DIGESTS, _DIGEST_FILES = "files_digest", ".tokens-*.files"


@dataclass(frozen=True)
class TokenFolder:
    """Finds, writes and completes the shards of one token set, whose content ``info``, ``plan`` and ``source`` decide.

    ``encoder`` encodes the captions; None stores them as text alone.
    """

    path: Path
    info: TokenSetInfo
    plan: Mapping[str, Any]
    source: ImageSource
    encoder: TextEncoder | None = None

    def finished(self) -> dict[str, ShardHeader]:
        """Return the shards that are there, by name.

        Raises:
            AdaNATError: if the folder holds tokens of another tokenizer, other data, files that have changed since, or
                other settings.
        """
        asked, digests = _settings(self.info, self.plan), self._digests()
        finished = {}
        for file in shard_files(self.path):
            header = read_header(file)
            saved = _settings(header.info, header.plan)
            # What an earlier version recorded in another form is not compared.
            refuse_changes({key: saved[key] for key in asked.keys() & saved.keys()}, asked, self.path, "tokens")
            digest = self.source.digest(header.start, header.stop, header.skipped_at or ())
            require(
                digests.get(file.name, digest) == digest,
                f"{self.path} holds tokens of files that have changed since: images {header.start} to "
                f"{header.stop - 1} of {self.info.source} are not those of {file.name}; choose another --output, or "
                f"remove {self.path}.",
            )
            finished[file.name] = header
        return finished

    def recorded_hashes(self, shards: Collection[str]) -> dict[str, str]:
        """The sha256 of shards and of the states of their captions, as far as an earlier run has recorded them."""
        kept = {*shards, *(states_file(Path(name)).name for name in shards)}
        return {name: sha256 for name, sha256 in self._summary_of("sha256").items() if name in kept}

    def write(self, name: str, shard: Shard) -> None:
        """Write a shard, and before it its captions' states, for its presence says that both are whole."""
        self._keep_digests(name, shard)
        if self.encoder:
            captions = [caption for texts in shard.captions for caption in texts]
            self._write_states(states_file(self.path / name), self.encoder, captions)
        (self.path / SUMMARY).unlink(missing_ok=True)  # until all shards are there again
        with atomic_path(self.path / name) as temporary:
            write_shard(temporary, self.info, shard)

    def write_encoder(self) -> None:
        """Write the states of the empty prompt, and the encoder itself if it is a folder of this machine."""
        if self.encoder:
            self._write_states(self.path / NULL_STATES, self.encoder, [""])
            write_encoder(self.encoder, self.path)

    def complete(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        """Write card and summary once all shards are there and whole; returns what the summary says of the images.

        Args:
            hashes: sha256 by file name, as far as earlier runs have recorded them.

        Raises:
            AdaNATError: if a shard is damaged, or too many images could not be read.
        """
        shards = self.finished()
        for name in shards:
            read_rows(self.path / name, self.info, hashes.get(name))
        skipped = {name: reason for header in shards.values() for name, reason in header.skipped.items()}
        num_read = sum(header.stop - header.start for header in shards.values())
        SkippedImages(self.source.config.max_bad, num_read).add(skipped)
        num_images = sum(header.num_rows for header in shards.values())
        require(
            num_images > 0,
            f"No image of {self.info.source} can be read, so nothing was tokenized; repair them, or give other data.",
        )
        clear_litter(self.path)
        with atomic_path(self.path / "README.md") as temporary:
            card = token_set_card(self.info, num_images)
            temporary.write_text(card, encoding="utf-8", errors="backslashreplace")
        files = [*(self.path / name for name in shards), *sorted(self.path.glob("*.states.npy"))]
        hashes = {file.name: hashes.get(file.name) or sha256_of(file) for file in files}
        info = self.info.to_json()
        summary = {"num_images": num_images, "num_shards": len(shards), "skipped": skipped, "info": info}
        rest = {"plan": self.plan, "sha256": hashes, _DIGESTS: self._digests()}
        write_json(self.path / SUMMARY, {**summary, **rest})
        for file in self.path.glob(_DIGEST_FILES):
            file.unlink(missing_ok=True)
        return summary

    def _summary_of(self, key: str) -> dict[str, str]:
        """What the summary says of each file; nothing if it is missing or damaged, for it is written anew then."""
        with suppress(AdaNATError):
            found = read_object(self.path / SUMMARY, LARGEST_SUMMARY).get(key)
            return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}
        return {}

    def _digests(self) -> dict[str, str]:
        """Shard name to the digest of its files; shards of earlier versions are not in it."""
        in_files = {file.name[1:-6]: file.read_text(encoding="utf-8") for file in self.path.glob(_DIGEST_FILES)}
        return self._summary_of(_DIGESTS) | in_files

    def _keep_digests(self, name: str, shard: Shard) -> None:
        """Keep the digest of a shard that is about to be written, and those in the summary, which is about to go."""
        digest = self.source.digest(shard.start, shard.stop, shard.skipped_at)
        for known, value in {**self._summary_of(_DIGESTS), name: digest}.items():
            file = self.path / f".{known}.files"
            if value and (known == name or not file.exists()):
                with atomic_path(file) as temporary:
                    temporary.write_text(value, encoding="utf-8")

    def _write_states(self, path: Path, encoder: TextEncoder, captions: list[str]) -> None:
        with atomic_path(path) as temporary:
            write_states(temporary, encoded(encoder, captions), (len(captions), encoder.length, encoder.width))


def _settings(info: TokenSetInfo, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the content of every shard; class names as pairs, so that they are compared as a whole."""
    return {**info.to_json(), "class_names": sorted(map(list, info.class_names.items())), **plan}
