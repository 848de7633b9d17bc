"""The Hugging Face Hub: ids, and one-line messages for everything that can go wrong."""

from __future__ import annotations

import errno
import logging
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.core.errors import AdaNATError, hide_secrets

RepoType = Literal["model", "dataset"]

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_SECRETS = ((re.compile(r"\bhf_\w+"), "hf_…"), (re.compile(r"(?i)\bbearer\s+\S+"), "Bearer …"))
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_OFFLINE = "HF_HUB_OFFLINE is set, and the cache does not have it; unset it and try again with a network."
_ANSWER_SECONDS = 120.0
"""Timeout of a request; the client's own default is none."""


@dataclass(frozen=True)
class HubId:
    """A repository and its branch, tag or commit ("" for the main branch)."""

    repo: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str, what: str = "Hub id") -> HubId:
        """Read ``user/repo[@revision]``.

        Raises:
            AdaNATError: if the text is not an id; ``what`` names the option that it came from.
        """
        found = _ID.fullmatch(text.strip())
        if found is None or "--" in found["repo"] or ".." in text or found["repo"].endswith(".git"):
            raise AdaNATError(
                f"{what} {text!r} is not an id on the Hub; expected user/repo or user/repo@revision, of letters, "
                "digits, '-', '_' and '.'."
            )
        return cls(found["repo"], found["revision"] or "")

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def looks_like_hub_id(text: str) -> bool:
    """Whether a text has the form ``user/repo[@revision]`` rather than that of a path."""
    name = text.partition("@")[0]
    return name.count("/") == 1 and not name.endswith("/") and not text.startswith((".", "/", "~"))


@contextmanager
def hub_errors(doing: str, name: HubId | str, repo_type: RepoType = "model") -> Iterator[None]:
    """Turn errors of the Hub's client inside the block into one line; silence its log, and its bars off a terminal.

    Args:
        doing: verb of the message: "fetch", "look into", "push to", ...
        name: repository.
        repo_type: "model" or "dataset".

    Raises:
        AdaNATError: for failures of network, Hub, account or disk; bugs keep their own exception.
    """
    from huggingface_hub import get_session
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    get_session().timeout = _ANSWER_SECONDS
    try:
        yield
    except Exception as error:
        if not _named(error, "HTTPError", "EntryNotFoundError", "OSError", "RuntimeError", "ValueError"):
            raise
        noun = "data set" if repo_type == "dataset" else "model"
        line = explain(error) or f"{one_line(_causes(error)[-1])}; try again, or look at https://status.huggingface.co."
        raise AdaNATError(f"Cannot {doing} {noun} {name}: {line}") from error
    finally:
        hub_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def explain(error: BaseException) -> str:
    """One line, without secrets, about what failed and what to try; "" if the Hub is not the cause."""
    chain = _causes(error)
    for explanation in (_of_disk, _of_offline, _of_repository, _of_status, _of_connection, _of_cache):
        if line := explanation(chain):
            return line
    return ""


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub could not be reached, or must not be (offline mode)."""
    chain = _causes(error)
    return bool(_of_offline(chain)) or (not _statuses(chain) and bool(_of_connection(chain)))


def is_final(error: BaseException) -> bool:
    """Whether a retry would give the same answer: the Hub refused, or cannot be reached."""
    statuses = _statuses(_causes(error))
    return is_unreachable(error) if not statuses else 400 <= statuses[0] < 500 and statuses[0] not in (408, 429)


def one_line(error: BaseException) -> str:
    """Message of an error: one short line without secrets."""
    return textwrap.shorten(scrub(str(error)), 200, placeholder=" …") or type(error).__name__


def scrub(text: str) -> str:
    """Remove tokens and signatures from a text."""
    from huggingface_hub import get_token

    with suppress(OSError):
        if token := get_token():
            text = text.replace(token, "…")
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return hide_secrets(text)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _statuses(chain: list[BaseException]) -> list[int]:
    """HTTP statuses of the Hub's answers."""
    responses: list[Any] = [getattr(error, "response", None) for error in chain]
    return [response.status_code for response in responses if response is not None]


def _named(error: BaseException, *names: str) -> bool:
    """Whether a class of the error has one of the names, whichever HTTP library the client uses."""
    return any(base.__name__ in names for base in type(error).__mro__)


def _of_disk(chain: list[BaseException]) -> str:
    for error in chain:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full; free some space, or set HF_HOME to a folder on a larger disk."
        if isinstance(error, PermissionError):
            return (
                f"{error.filename or 'the cache'} cannot be written; set HF_HOME to a folder of yours, or correct its "
                "permissions."
            )
    return ""


def _of_offline(chain: list[BaseException]) -> str:
    if any(_named(error, "OfflineModeIsEnabled") for error in chain):
        return _OFFLINE
    return ""


def _of_repository(chain: list[BaseException]) -> str:
    """What the Hub reports as missing or closed."""
    for error in chain:
        if _named(error, "GatedRepoError"):
            return f"it is gated; ask for access on its page, then {_LOG_IN}."
        if _named(error, "DisabledRepoError"):
            return "the Hub has disabled it; choose another."
        if _named(error, "RepositoryNotFoundError"):
            return f"there is none of this name on the Hub, or it is private; check the name, or {_LOG_IN}."
        if _named(error, "RevisionNotFoundError"):
            return "it has no such revision; give an existing branch, tag or commit, or leave @revision out."
        if _named(error, "RemoteEntryNotFoundError"):
            return "it does not have the required file; check the id and the revision."
        if _named(error, "HFValidationError"):
            return f"{one_line(error)}; expected user/repo."
        if _named(error, "LocalTokenNotFoundError"):
            return f"you are not logged in; {_LOG_IN}."
    return ""


def _of_status(chain: list[BaseException]) -> str:
    for error in chain:
        response: Any = getattr(error, "response", None)
        if response is None:
            continue
        status = response.status_code
        if status == 401:
            return f"the Hub does not accept your token; {_LOG_IN} to a valid one."
        if status == 403:
            return (
                "your token does not have the permission; use one that does "
                "(https://huggingface.co/settings/tokens), or another user/repo."
            )
        if status == 429:
            wait = str(response.headers.get("Retry-After", ""))
            when = f"in {wait} seconds" if wait.isdecimal() else "in a few minutes"
            return f"the Hub limits the rate of requests (429); try again {when}, or {_LOG_IN} for a higher limit."
        if status >= 500:
            return f"the Hub has an internal error ({status}); try again later (https://status.huggingface.co)."
        return f"the Hub refused ({status}): {one_line(error)}"
    return ""


def _of_connection(chain: list[BaseException]) -> str:
    from huggingface_hub import constants

    endpoint = scrub(constants.ENDPOINT)
    for error in chain:
        if "Consistency check failed" in str(error):  # the client has no class for it; only the wording depends on it
            return "the transfer was interrupted; run the same command again, complete files are kept."
        if _named(error, "TimeoutException", "TimeoutError"):
            return f"{endpoint} does not answer in time; try again, or set HF_HUB_OFFLINE=1 to use the cache."
        if _named(error, "RemoteProtocolError", "ReadError", "WriteError"):
            return "the connection was lost during the transfer; run the same command again, complete files are kept."
        if _named(error, "TransportError", "ConnectionError", "gaierror"):
            if constants.HF_HUB_OFFLINE:  # the data library reports it as a lost connection
                return _OFFLINE
            return (
                f"{endpoint} cannot be reached; check network, proxy and HF_ENDPOINT, or set "
                "HF_HUB_OFFLINE=1 to use the cache."
            )
        if _named(error, "FileMetadataError"):
            return f"{endpoint} does not answer as a Hub does; check HF_ENDPOINT and the proxy."
    return ""


def _of_cache(chain: list[BaseException]) -> str:
    if any(_named(error, "LocalEntryNotFoundError") for error in chain):
        return "the Hub cannot be reached, and the cache does not have it; check the network and try again."
    return ""
