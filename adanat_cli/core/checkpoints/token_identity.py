"""Whose ids a tokenizer gives: its own, or those of another, of which only the decoder was trained further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.files import fingerprint
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import VQAEConfig, tokenizer_config
from adanat_cli.core.errors import require

if TYPE_CHECKING:
    from torch import Tensor

_ENCODER = ("encoder.", "codes")


def encoder_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the weights of a ``VQAE`` that decide the ids of an image: encoder and codes."""
    return fingerprint({name: tensor for name, tensor in tensors.items() if name.startswith(_ENCODER)})


def tokens_fingerprint(folder: ModelFolder, check: bool = True) -> str:
    """The fingerprint that token sets and NATs of a model's tokenizer record.

    It is that of all its weights; where only the decoder was trained further, it is that of the tokenizer before,
    whose token sets and NATs remain valid.

    Args:
        folder: the model.
        check: whether to read the weights, to see that encoder and codes are still those of the tokenizer before.

    Raises:
        AdaNATError: if the model has no tokenizer, or its encoder or codes are not those that its config.json names.
    """
    config = tokenizer_config(folder.config("tokenizer"), f"{folder.path}/tokenizer/config.json")
    if not isinstance(config, VQAEConfig) or not config.tokens_of:
        return folder.fingerprint("tokenizer")
    if not check:
        return config.tokens_of
    found = encoder_fingerprint(folder.read("tokenizer")[1])
    require(
        found == config.encoder_fingerprint,
        f"The tokenizer of {folder.path} claims the tokens of tokenizer {config.tokens_of[:12]}, but its encoder and "
        f"codes are {found[:12]} instead of {config.encoder_fingerprint[:12]}; fetch it again, or train its decoder "
        "again with `adanat train-tokenizer --from MODEL --freeze-encoder`.",
    )
    return config.tokens_of
