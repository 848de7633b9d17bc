"""The text encoder of a model, a data set or the command line, and its states for tokenizing and training."""

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
    """Load a text encoder by Hub id or folder.

    Raises:
        AdaNATError: if ``model`` is "", or cannot be loaded.
    """
    require(bool(model), "No text encoder was given; give --text-encoder, a Hub id or the folder of a CLIP model.")
    return TextEncoder(model, device, precision)


def recorded_name(model: str) -> str:
    """Name of an encoder in models and token sets: a Hub id in full, a folder by its last part only.

    A local path is private and means nothing elsewhere; the encoder's files are stored instead.
    """
    return Path(model).resolve().name if Path(model).is_dir() else model


def write_encoder(encoder: TextEncoder, tokens: Path) -> None:
    """Copy an encoder from a local folder into a token set, for the models that are trained on it."""
    if not Path(encoder.model).is_dir():
        return  # it is on the Hub
    with tempfile.TemporaryDirectory(prefix=f".{TEXT}-", dir=tokens) as temporary:
        encoder.save(Path(temporary) / TEXT)
        shutil.rmtree(tokens / TEXT, ignore_errors=True)
        (Path(temporary) / TEXT).rename(tokens / TEXT)


def encoder_component(encoder: TextEncoder | None, tokens: Path) -> Component | None:
    """Text component of a model that is trained on a token set; None if the encoder is on the Hub.

    Args:
        encoder: encoder of the captions; None if the set contains their states.
        tokens: folder of the token set.

    Raises:
        AdaNATError: if the set's encoder is damaged.
    """
    if encoder is None:
        return _read_encoder(tokens / TEXT) if (tokens / TEXT).is_dir() else None
    if not Path(encoder.model).is_dir():
        return None
    with tempfile.TemporaryDirectory(prefix="adanat-text-") as temporary:
        encoder.save(Path(temporary))
        return _read_encoder(Path(temporary))


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
        folder: the model; its own text component is preferred to the encoder that the NAT names.
        nat: configuration of the model's NAT; if it names no encoder, its text width identifies the benchmark's.
        named: Hub id or folder that replaces the model's own encoder; "" for the model's own.
        device: device to encode on.
        precision: number format of matrix products.

    Raises:
        AdaNATError: if it cannot be loaded, or is not the encoder that the NAT was trained with.
    """
    if not named and folder.has(TEXT):
        folder.files(TEXT)  # fetches them, if the model is on the Hub
        model = str(folder.path / TEXT)
    else:
        model = named or nat.text_encoder or text_encoder_of(nat.text_width)
    require(
        "/" in model or Path(model).is_dir(),
        f"The NAT of {folder.name} was trained with a text encoder in a folder {model!r}, which is not part of the "
        "model; give that folder as --text-encoder.",
    )
    encoder = load_encoder(model, device, precision)
    encoder.require_shape(nat.text_width, nat.text_length, f"the NAT of {folder.name}")
    require(
        not nat.text_fingerprint or encoder.fingerprint == nat.text_fingerprint,
        f"The NAT of {folder.name} was trained with text encoder {nat.text_fingerprint[:12]}, but {model} is "
        f"{encoder.fingerprint[:12]}; give the former as --text-encoder.",
    )
    return encoder


def encoded(encoder: TextEncoder, captions: Sequence[str]) -> Iterator[States]:
    """Yield the states of captions in order, float16 (n, L, D), with n at most 256."""
    for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
        states = encoder.encode(captions[start : start + _CAPTIONS_AT_ONCE]).states
        yield states.half().cpu().numpy()
