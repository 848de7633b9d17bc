"""What the images of a run are of: classes or prompts in turn, as tensors, names and parts of file names."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig
from adanat_cli.core.data.text_files import decode_text, text_lines
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import assign_classes, short_name
from adanat_cli.jobs.resolve.text_encoders import encoder_of

_LONGEST_SLUG, _SHOWN = 48, 80
_LARGEST_FILE = 2**26
_SURROGATE = re.compile("[\ud800-\udfff]")


class Conditions(Protocol):
    """The condition of image i, which depends on i alone."""

    @property
    def num_asked(self) -> int:
        """How many classes or prompts take turns; 0 where the user named none."""

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(B,) labels, or (B, L, D) text states."""

    def null(self) -> Tensor | None:
        """(L, D) states of the empty prompt; None for classes, whose NAT knows its null label."""

    def number(self, index: int) -> int:
        """The class id, or which of the prompts it is."""

    def name(self, index: int) -> str:
        """For people."""

    def slug(self, index: int) -> str:
        """For a file name."""

    def facts(self, index: int) -> dict[str, Any]:
        """For a trace."""

    def described(self, num_images: int) -> dict[str, Any]:
        """What the images of a run are of, for its result."""

    def identity(self) -> dict[str, Any]:
        """What tells these conditions from others, in a few JSON values."""


@dataclass(frozen=True)
class ClassConditions:
    """Classes in turn.

    Attributes:
        label_of: image to class id.
        names: id to name.
        num_asked: how many the user named.
        num_in_turn: how many take turns.
    """

    label_of: Callable[[int], int]
    names: Mapping[int, str]
    num_asked: int
    num_in_turn: int

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(B,) labels."""
        return torch.tensor([self.number(index) for index in indices], device=device)

    def null(self) -> None:
        """The NAT knows its null label."""
        return

    def number(self, index: int) -> int:
        """The class id."""
        return self.label_of(index)

    def name(self, index: int) -> str:
        """The class's name and id."""
        label = self.number(index)
        return f"{short_name(self.names.get(label, '')) or f'class {label}'} ({label})"

    def slug(self, index: int) -> str:
        """``class207_golden-retriever``."""
        label = self.number(index)
        return "_".join(part for part in (f"class{label}", _slug(short_name(self.names.get(label, "")))) if part)

    def facts(self, index: int) -> dict[str, Any]:
        """The class's id and name."""
        label = self.number(index)
        return {"class": label, "name": short_name(self.names.get(label, "")) or f"class {label}"}

    def described(self, num_images: int) -> dict[str, Any]:
        """The classes that occur."""
        used = sorted({self.number(index) for index in range(min(num_images, self.num_in_turn))})
        return {"classes": {str(label): self.names.get(label, "") for label in used}}

    def identity(self) -> dict[str, Any]:
        """The classes that were named, in turn."""
        return {"classes": [self.number(index) for index in range(self.num_asked)] or "all"}


@dataclass(frozen=True)
class PromptConditions:
    """Prompts in turn; a batch's are encoded when it is due, so that their number costs no memory.

    Attributes:
        prompts: texts.
        encoder: of the NAT.
    """

    prompts: Sequence[str]
    encoder: TextEncoder

    @property
    def num_asked(self) -> int:
        """How many take turns."""
        return len(self.prompts)

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(B, L, D) text states."""
        return self.encoder.encode([self.name(index) for index in indices]).states.to(device)

    def null(self) -> Tensor:
        """(L, D), of the empty prompt."""
        return self.encoder.null.states[0]

    def number(self, index: int) -> int:
        """Which of the prompts it is."""
        return index % len(self.prompts)

    def name(self, index: int) -> str:
        """The prompt."""
        return self.prompts[self.number(index)]

    def slug(self, index: int) -> str:
        """``a-red-bus-in-the-snow``."""
        return _slug(self.name(index)) or f"prompt{self.number(index)}"

    def facts(self, index: int) -> dict[str, Any]:
        """The prompt."""
        return {"prompt": self.name(index)}

    def described(self, num_images: int) -> dict[str, Any]:
        """The prompts that occur."""
        return {"prompts": list(self.prompts[:num_images]), "text_encoder": self.encoder.model}

    def identity(self) -> dict[str, Any]:
        """Number and sha256 of the prompts, which is that of their file with one a line; and the encoder's weights."""
        content = "".join(f"{prompt}\n" for prompt in self.prompts).encode()
        return {
            "num_prompts": len(self.prompts),
            "prompts_sha256": hashlib.sha256(content).hexdigest(),
            "text_encoder": self.encoder.fingerprint,
        }


def _slug(text: str) -> str:
    """Words of a text, joined by hyphens and not too many, in letters that file names may have here."""
    encoding = sys.getfilesystemencoding()
    known = text.casefold().encode(encoding, "replace").decode(encoding)
    return re.sub(r"[\W_]+", "-", known).strip("-")[:_LONGEST_SLUG].strip("-")


def read_prompts(prompts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The prompts that were given, and those of a file, one a line.

    Raises:
        AdaNATError: if the file cannot be read or holds none, or a prompt is no text.
    """
    given = tuple(map(_as_text, prompts))
    if file is None:
        return given
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
        require(len(content) <= _LARGEST_FILE, f"{file} is larger than {_LARGEST_FILE:,} bytes; split the prompts.")
        found = text_lines(decode_text(content))
    except OSError as error:
        raise AdaNATError(f"Prompts cannot be read from {file}: {error.strerror or error}.") from error
    except ValueError as error:
        raise AdaNATError(f"Prompts cannot be read from {file}: {error}; expected UTF-8 or UTF-16 text.") from error
    require(bool(found), f"{file} holds no prompts; expected one a line.")
    return (*given, *found)


def _as_text(prompt: str) -> str:
    """A prompt of the command line, where the locale does not tell that it is UTF-8."""
    try:
        return os.fsencode(prompt).decode("utf-8") if _SURROGATE.search(prompt) else prompt
    except ValueError as error:
        raise AdaNATError(f"Prompt {prompt!a} is not UTF-8; give it in a file: --prompts FILE.") from error


def make_conditions(
    folder: ModelFolder,
    nat: NATConfig,
    classes: Sequence[str],
    prompts: Sequence[str],
    text_encoder: str,
    seed: int,
    device: torch.device,
    encoder: TextEncoder | None = None,
    warn: Callable[[str], None] | None = None,
) -> Conditions:
    """What a model is asked for.

    Args:
        folder: the model.
        nat: its NAT's configuration.
        classes: ids or names.
        prompts: texts.
        text_encoder: instead of the model's own; "" for that.
        seed: of the order of classes, where none is named.
        device: where to encode prompts.
        encoder: the model's, if it is loaded already.
        warn: told of prompts that the encoder does not read to their end.

    Raises:
        AdaNATError: if they do not fit the model, or its text encoder cannot be had.
    """
    if nat.condition == "class":
        require(not prompts, f"Model {folder.name} is conditioned on classes; give --class instead of a prompt.")
        names = folder.labels()
        in_turn = len(classes) or len(names) or nat.num_classes
        return ClassConditions(assign_classes(classes, names, nat.num_classes, seed), names, len(classes), in_turn)
    require(not classes, f"Model {folder.name} is conditioned on text; give --prompt instead of --class.")
    require(bool(prompts), f'Model {folder.name} is conditioned on text; say what to draw: --prompt "a red bus".')
    encoder = encoder or encoder_of(folder, nat, text_encoder, device)
    if warn is not None:
        warn_of_long_ones(prompts, encoder, warn)
    return PromptConditions(prompts, encoder)


def warn_of_long_ones(prompts: Sequence[str], encoder: TextEncoder, warn: Callable[[str], None]) -> None:
    """Say which prompt is cut: two that begin alike would give the same images without a word."""
    cut = [prompt for prompt, length in zip(prompts, encoder.lengths(prompts), strict=True) if length > encoder.length]
    if cut:
        shown = textwrap.shorten(cut[0], _SHOWN, placeholder=" …")
        more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
        warn(
            f"The text encoder reads {encoder.length} tokens, the rest of a prompt has no effect: that of {shown!r} "
            f"({encoder.lengths(cut[:1])[0]} tokens){more}."
        )
