"""What the models that come from the Hugging Face Hub have in common."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn

from adanat_cli.core.errors import AdaNATError, require

_WEIGHTS = "model.safetensors"


def load_timm(name_or_file: str, what: str, advice: str, pretrained: bool = True) -> Any:
    """Build a network of timm without a head; pickled weights are never read, also not as a fallback.

    Args:
        name_or_file: name in timm, or ``NAME=FILE.safetensors`` for local weights.
        what: the network is here, for messages, such as "Discriminator backbone".
        advice: what to try where it cannot be had.
        pretrained: False leaves a network without a file random, which downloads nothing.

    Raises:
        AdaNATError: if the network is not known to timm, its weights cannot be had or do not fit, or timm cannot be
            imported.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        # RuntimeError: torchvision, which timm imports, was built for another PyTorch.
        raise AdaNATError(
            f"timm cannot be imported ({one_line(error)}); install it, and torchvision from the same index as PyTorch."
        ) from error
    name, _, file = name_or_file.partition("=")
    if file:
        require(
            Path(file).suffix == ".safetensors",
            f"{what} {file} is not a .safetensors file, and no other kind is read; {advice}.",
        )
        require(Path(file).is_file(), f"{what} {file} does not exist; {advice}.")
    overlay = {"file": file} if file else {"hf_hub_filename": _WEIGHTS}
    random_state = torch.get_rng_state()
    try:
        if pretrained and not file:
            config = timm.get_pretrained_cfg(name)
            if config is None or not config.hf_hub_id:
                raise ValueError("timm has no weights of this name")
            require_reachable(config.hf_hub_id, _WEIGHTS)
        model = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, num_classes=0)
        if pretrained and file and (left := _left_random(model, name, random_state)):
            raise ValueError(f"its weights are of another network: {left} is not among them")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise AdaNATError(f"{what} {name_or_file!r} cannot be loaded ({one_line(error)}); {advice}.") from error
    return model


def _left_random(model: nn.Module, name: str, random_state: torch.Tensor) -> str:
    """Name of a weight that loading has left as it was drawn, if any: timm passes over what a file lacks."""
    import timm

    now = torch.get_rng_state()
    torch.set_rng_state(random_state)
    drawn = dict(timm.create_model(name, pretrained=False, num_classes=0).named_parameters())
    torch.set_rng_state(now)
    for parameter, value in model.named_parameters():
        if parameter.endswith(".weight") and value.ndim > 1 and torch.equal(value, drawn[parameter]):
            return parameter
    return ""


def require_reachable(repo: str, filename: str) -> None:
    """Ask the Hub once for a file that is not in the cache.

    Without a network the libraries' own downloads try again for most of a minute before they say so.

    Raises:
        OSError: if the file cannot be had.
    """
    if isinstance(try_to_load_from_cache(repo, filename), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename))
    except Exception as error:  # which HTTP client's errors these are differs between versions of the library
        raise OSError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """What an error says, short enough for a message of ours."""
    return textwrap.shorten(str(error), 200, placeholder=" …") or type(error).__name__
