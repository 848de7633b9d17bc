"""What the models that come from the Hugging Face Hub have in common."""

from __future__ import annotations

import textwrap

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache


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
