"""From a token set's name to its folder."""

from __future__ import annotations

from pathlib import Path

from adanat_cli.core.checkpoints.hub import fetch_folder
from adanat_cli.core.data.token_set import SUMMARY
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.hub import HubId, looks_like_hub_id

_FILES = ("tokens-*.parquet", "*.states.npy", "text/*.json", "text/*.safetensors", SUMMARY, "README.md")


def resolve_tokens(tokens: Path) -> Path:
    """Find a token set: a folder, or a data set ``user/repo[@revision]`` on the Hub, which is fetched whole.

    Raises:
        AdaNATError: if it is on the Hub and cannot be had.
    """
    name = str(tokens)
    if tokens.exists() or not looks_like_hub_id(name):
        return tokens
    try:
        return fetch_folder(HubId.parse(name, "Token set"), _FILES, "dataset")
    except AdaNATError as error:
        raise AdaNATError(f"{error} There is no folder {name} here either.") from error
