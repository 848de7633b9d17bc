"""Which text encoder a model, a data set or the user means, and its states for tokenizing and training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from adanat_cli.core.checkpoints.files import load_tensors
from adanat_cli.core.checkpoints.folder import FURTHER_FILES, TEXT, Component, ModelFolder
from adanat_cli.core.config import BENCHMARKS, NATConfig, text_encoder_of
from adanat_cli.core.data.caption_states import States
from adanat_cli.core.errors import require
from adanat_cli.core.reading import read_bytes, read_json
from adanat_cli.core.text.encoder import TextEncoder

_CAPTIONS_AT_ONCE = 256


def usual_encoder(dataset: str) -> str:
    """The text encoder of a benchmark; "" for other data."""
    return BENCHMARKS[dataset].text_encoder if dataset in BENCHMARKS else ""


def load_encoder(model: str, device: torch.device, precision: torch.dtype = torch.float32) -> TextEncoder:
    """Load the encoder that is named.

    Raises:
        AdaNATError: if none is named, or it cannot be had.
    """
    require(bool(model), "No text encoder was named; give --text-encoder, a Hub id or a folder of a CLIP model.")
    return TextEncoder(model, device, precision)


def recorded_name(model: str) -> str:
    """How models and token sets name an encoder: a Hub id as it is, a folder by its last name alone.

    Where a folder lies is nobody else's business, and means nothing elsewhere: what it holds goes along instead.
    """
    return Path(model).resolve().name if Path(model).is_dir() else model


def write_encoder(encoder: TextEncoder, tokens: Path) -> None:
    """Put an encoder that was opened from a folder into a token set, for the models that are trained on it."""
    if not Path(encoder.model).is_dir():
        return  # its id says where to find it
    with tempfile.TemporaryDirectory(prefix=f".{TEXT}-", dir=tokens) as made:
        encoder.save(Path(made) / TEXT)
        shutil.rmtree(tokens / TEXT, ignore_errors=True)
        (Path(made) / TEXT).rename(tokens / TEXT)


def encoder_component(encoder: TextEncoder | None, tokens: Path) -> Component | None:
    """What a model that is trained on a token set takes along of its text encoder; None of one that is on the Hub.

    Args:
        encoder: that encodes the captions; None where the set holds their states.
        tokens: folder of the set.

    Raises:
        AdaNATError: if the set's encoder is damaged.
    """
    if encoder is None:
        return _read_encoder(tokens / TEXT) if (tokens / TEXT).is_dir() else None
    if not Path(encoder.model).is_dir():
        return None
    with tempfile.TemporaryDirectory(prefix="adanat-text-") as made:
        encoder.save(Path(made))
        return _read_encoder(Path(made))


def _read_encoder(folder: Path) -> Component:
    files = {name: folder / name for name in FURTHER_FILES[TEXT]}
    missing = [name for name, file in files.items() if not file.is_file()]
    require(not missing, f"{folder} lacks {', '.join(missing)}; run `adanat tokenize` again.")
    contents = {name: read_bytes(file) for name, file in files.items()}
    return Component(
        TEXT, read_json(folder / "config.json"), load_tensors(folder / "model.safetensors"), files=contents
    )


def encoder_of(
    folder: ModelFolder, nat: NATConfig, named: str, device: torch.device, precision: torch.dtype = torch.float32
) -> TextEncoder:
    """Load the encoder of a text-conditional model.

    Args:
        folder: the model; an encoder of its own comes before one that the NAT names.
        nat: of the model; where it names no encoder, its width tells which of the benchmarks' it is.
        named: by the user, instead of the model's own; "" for that.
        device: where to encode.
        precision: number format of the tower's products.

    Raises:
        AdaNATError: if it cannot be had, or is not the one that the NAT was trained with.
    """
    model = named or nat.text_encoder or text_encoder_of(nat.text_width)
    if not named and folder.has(TEXT):
        folder.files(TEXT)  # of a model on the Hub, they are fetched here
        model = str(folder.path / TEXT)
    require(
        "/" in model or Path(model).is_dir(),
        f"The NAT of {folder.name} was trained with a text encoder in a folder {model!r}, which did not come with it; "
        "give that folder as --text-encoder.",
    )
    encoder = load_encoder(model, device, precision)
    encoder.require_shape(nat.text_width, nat.text_length, f"the NAT of {folder.name}")
    require(
        not nat.text_fingerprint or encoder.fingerprint == nat.text_fingerprint,
        f"The NAT of {folder.name} was trained with text encoder {nat.text_fingerprint[:12]}, but {model} is "
        f"{encoder.fingerprint[:12]}; give the one that it was trained with (--text-encoder).",
    )
    return encoder


def encoded(encoder: TextEncoder, captions: Sequence[str]) -> Iterator[States]:
    """Yield the states of captions in order, a few hundred at a time, as float16 (n, L, D)."""
    for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
        states = encoder.encode(captions[start : start + _CAPTIONS_AT_ONCE]).states
        yield states.half().cpu().numpy()
