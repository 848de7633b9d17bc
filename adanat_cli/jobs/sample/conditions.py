"""What images are of: classes or prompts by number, as tensors, names and parts of file names."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from adanat_cli.core.data.text_files import decode_text, text_lines
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import short_name

NO_CAPTION = -1
"""The number of the empty prompt among a token set's captions."""

_LONGEST_SLUG, _SHOWN = 48, 80
_LARGEST_FILE = 2**26
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Conditions(ABC):
    """The condition of every image, which depends on the image's index alone, and not on the batch.

    Attributes:
        turns: (C,) int64 on the CPU, numbers of conditions; image i has ``turns[i % C]``.
    """

    turns: Tensor

    @property
    def null(self) -> Tensor | None:
        """(L, D) text states of the empty prompt; None for classes, whose NAT has a null label."""
        return None

    @abstractmethod
    def encode(self, numbers: Tensor) -> Tensor:
        """What the NAT reads for (B,) numbers: (B,) labels or (B, L, D) text states."""

    def number(self, index: int) -> int:
        """The number of image ``index``: its class label, or the position of its prompt."""
        return int(self.turns[index % len(self.turns)])

    def numbers(self, indices: Sequence[int] | Tensor) -> Tensor:
        """(B,) int64 on the CPU, the numbers of several images."""
        return self.turns[torch.as_tensor(indices).cpu() % len(self.turns)]

    def spread(self, num_turns: int) -> Self:
        """The same with a few of the numbers, evenly spaced over all."""
        places = torch.linspace(0, len(self.turns) - 1, num_turns, dtype=torch.float64).round().long()
        return replace(self, turns=self.turns[places])


@dataclass(frozen=True)
class ClassConditions(Conditions):
    """Classes by label.

    Attributes:
        names: label -> name.
        named: whether the user named the classes; otherwise they are all that the model has seen.
    """

    names: Mapping[int, str]
    named: bool = True

    def encode(self, numbers: Tensor) -> Tensor:
        """The labels themselves, which the NAT embeds."""
        return numbers

    def embed(self, numbers: Tensor) -> Tensor:
        """What a discriminator reads: the labels as well."""
        return numbers

    def name(self, index: int) -> str:
        """Name and label, such as ``golden retriever (207)``."""
        label = self.number(index)
        return f"{self._short(label) or f'class {label}'} ({label})"

    def slug(self, index: int) -> str:
        """Part of a file name, such as ``class207_golden-retriever``."""
        label = self.number(index)
        return "_".join(filter(None, (f"class{label}", slugged(self._short(label)))))

    def facts(self, index: int) -> dict[str, Any]:
        """The class of an image as a trace records it."""
        label = self.number(index)
        return {"class": label, "name": self._short(label) or f"class {label}"}

    def described(self, num_images: int) -> dict[str, Any]:
        """The classes of the first images as a run's result lists them."""
        used = sorted(set(self.turns[:num_images].tolist()))
        return {"classes": {str(label): self.names.get(label, "") for label in used}}

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes these conditions from others, as JSON values."""
        return {"classes": self.turns.tolist() if self.named else "all"}

    def _short(self, label: int) -> str:
        return short_name(self.names.get(label, ""))


@dataclass(frozen=True)
class NoClass(ClassConditions):
    """The null label of a NAT that is conditioned on classes, by which it guides; its number is that of the classes."""

    def name(self, index: int) -> str:
        """What stands in place of a class's name."""
        return "no class"

    def slug(self, index: int) -> str:
        """Part of a file name."""
        return "no-class"

    def facts(self, index: int) -> dict[str, Any]:
        """The class of an image as a trace records it."""
        return {"class": None, "name": self.name(index)}

    def described(self, num_images: int) -> dict[str, Any]:
        """The classes of the first images as a run's result lists them: none."""
        return {"classes": {}}

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes these conditions from others, as JSON values."""
        return {"classes": None}


@dataclass(frozen=True)
class PromptConditions(Conditions):
    """Prompts by position; a batch is encoded when it is due.

    77 states of width 768 take 237 kB in float32, a hundred times what an image's tokens do.

    Attributes:
        prompts: texts.
        encoder: the NAT's text encoder.
    """

    prompts: Sequence[str]
    encoder: TextEncoder

    @classmethod
    def of(cls, prompts: Sequence[str], encoder: TextEncoder) -> Self:
        """All prompts in turn."""
        return cls(torch.arange(len(prompts)), prompts, encoder)

    @property
    def null(self) -> Tensor:
        """(L, D) text states of the empty prompt."""
        return self.encoder.null.states[0]

    def texts(self, numbers: Tensor) -> list[str]:
        """The prompts of (B,) numbers."""
        return [self.prompts[number] for number in numbers.tolist()]

    def encode(self, numbers: Tensor) -> Tensor:
        """(B, L, D) text states."""
        return self.encoder.encode(self.texts(numbers)).states

    def embed(self, numbers: Tensor) -> Tensor:
        """What a discriminator reads: (B, E) pooled embeddings."""
        return self.encoder.encode(self.texts(numbers)).pooled

    def name(self, index: int) -> str:
        """The prompt of an image."""
        return self.prompts[self.number(index)]

    def slug(self, index: int) -> str:
        """Part of a file name, such as ``a-red-bus-in-the-snow``."""
        return slugged(self.name(index)) or f"prompt{self.number(index)}"

    def facts(self, index: int) -> dict[str, Any]:
        """The prompt of an image as a trace records it."""
        return {"prompt": self.name(index)}

    def described(self, num_images: int) -> dict[str, Any]:
        """The prompts of the first images as a run's result lists them."""
        return {"prompts": list(self.prompts[:num_images]), "text_encoder": self.encoder.model}

    def identity(self) -> dict[str, Any]:
        """Return number and sha256 of the prompts (that of a file with one per line), and the encoder's fingerprint."""
        content = "".join(f"{prompt}\n" for prompt in self.prompts).encode()
        return {
            "num_prompts": len(self.prompts),
            "prompts_sha256": hashlib.sha256(content).hexdigest(),
            "text_encoder": self.encoder.fingerprint,
        }


@dataclass(frozen=True)
class CaptionConditions(Conditions):
    """Captions of a token set by number: their states are read where they were stored, else encoded as needed.

    Attributes:
        tokens: set with captions.
        encoder: the NAT's text encoder; None where the set holds states.
        device: where states that are read go to.
    """

    tokens: TokenSet
    encoder: TextEncoder | None
    device: torch.device

    @property
    def null(self) -> Tensor:
        """(L, D) text states of the empty prompt."""
        return self.encode(torch.tensor([NO_CAPTION]))[0]

    def encode(self, numbers: Tensor) -> Tensor:
        """(B, L, D) text states; those of the empty prompt for ``NO_CAPTION``."""
        rows = numbers.cpu().numpy()
        if self.encoder is not None:
            return self.encoder.encode(self.tokens.captions(rows)).states
        assert self.tokens.states is not None
        return torch.from_numpy(self.tokens.states.read(rows)).to(self.device, torch.float32)


Asked = ClassConditions | PromptConditions
"""What a user can ask a model for."""


def slugged(text: str) -> str:
    """The first words of a text joined by hyphens, in letters that the file system allows."""
    encoding = sys.getfilesystemencoding()
    known = text.casefold().encode(encoding, "replace").decode(encoding)
    return re.sub(r"[\W_]+", "-", known).strip("-")[:_LONGEST_SLUG].strip("-")


def read_prompts(prompts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The given prompts, and those of a file with one per line.

    Raises:
        AdaNATError: if the file cannot be read or has no prompts, or a prompt is not text.
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
    require(bool(found), f"{file} holds no prompts; expected one per line.")
    return (*given, *found)


def unused_conditions(classes: Sequence[str], prompts: Sequence[str], number: int, setting: str) -> Iterator[str]:
    """Yield a line where fewer images are drawn than classes or prompts were given."""
    for given, what in ((classes, "classes"), (prompts, "prompts")):
        if number < len(given):
            first = "the first" if number == 1 else f"the first {number}"
            yield f"{setting} {number} draws only {first} of the {len(given)} {what}; give {setting} {len(given)}."


def _as_text(prompt: str) -> str:
    """A prompt of the command line in UTF-8, even where the locale says otherwise."""
    try:
        return os.fsencode(prompt).decode("utf-8") if _SURROGATE.search(prompt) else prompt
    except ValueError as error:
        raise AdaNATError(f"Prompt {prompt!a} is not UTF-8; give it in a file: --prompts FILE.") from error


def warn_of_cut_prompts(prompts: Sequence[str], encoder: TextEncoder, warn: Callable[[str], None]) -> None:
    """Warn of prompts that are cut: two with the same beginning would silently give the same images."""
    cut = [prompt for prompt, length in zip(prompts, encoder.lengths(prompts), strict=True) if length > encoder.length]
    if cut:
        shown = textwrap.shorten(cut[0], _SHOWN, placeholder=" …")
        more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
        warn(
            f"The text encoder reads {encoder.length} tokens of a prompt; the rest has no effect. Longer: {shown!r} "
            f"({encoder.lengths(cut[:1])[0]} tokens){more}."
        )
