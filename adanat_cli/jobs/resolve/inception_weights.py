"""Where the Inception weights come from: a given file, a cached file, or one download."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter

if TYPE_CHECKING:
    from accelerate import PartialState

INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_VARIABLE = "ADANAT_INCEPTION"
CLEAN_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
"""clean-fid's TorchScript file. Its hash is not published, so it is not downloaded automatically."""
_TIMEOUT_SECONDS, _BYTES_AT_ONCE = 30, 2**20


def cache_folder() -> Path:
    """Folder of downloads: ``$XDG_CACHE_HOME/adanat``, by default ``~/.cache/adanat``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adanat"


def inception_weights(
    path: Path | None = None,
    state: PartialState | None = None,
    reporter: Reporter | None = None,
    url: str = INCEPTION_URL,
) -> Path:
    """Find the weights of the Inception network, in the first of these places that has them.

    The given path; the file that ``ADANAT_INCEPTION`` names; the file cached from an earlier download; a download by
    one process per machine, which gets its name only after its hash was checked.

    Args:
        path: file, or a folder that holds one of the published name.
        state: the processes that call this together; None for this one alone.
        reporter: shows the download.
        url: URL, whose last part ends in the first digits of the file's sha256, as in PyTorch's hub.

    Raises:
        AdaNATError: if a file that was named does not exist, or the download fails.
    """
    name = url.rpartition("/")[2]
    if named := _named(path, name):
        return named
    kept = cache_folder() / name
    failure: AdaNATError | None = None
    if state is None or state.is_local_main_process:
        try:
            if not kept.is_file():
                _download(url, kept, reporter or SilentReporter())
        except AdaNATError as error:
            failure = error
    if state is not None:
        state.wait_for_everyone()  # after a failure, too, so that no process waits until its timeout
    if failure:
        raise failure
    require(kept.is_file(), f"{name} could not be downloaded by the first process of this machine, which says why.")
    return kept


def clean_weights(path: Path | None = None) -> Path:
    """Find clean-fid's TorchScript file: the given path, ``ADANAT_INCEPTION`` if it has that name, or the cached file.

    Raises:
        AdaNATError: if it does not exist.
    """
    name = CLEAN_URL.rpartition("/")[2]
    kept = cache_folder() / name
    advice = f"fetch {CLEAN_URL} and name it with --inception, or put it at {kept}"
    if path is not None:
        found = _file(path, name)
        require(
            found.name == name, f"Protocol clean needs clean-fid's {name}, under that name, and got {path}; {advice}."
        )
    else:
        variable = os.environ.get(INCEPTION_VARIABLE)
        found = _file(Path(variable), name) if variable else kept
        if found.name != name or not found.is_file():
            found = kept
    require(found.is_file(), f"Protocol clean needs {found}, which does not exist; {advice}.")
    return found


def found_inception(path: Path | None, url: str = INCEPTION_URL) -> str:
    """Where ``inception_weights`` would find the file on this machine; "" if it would download it.

    Raises:
        AdaNATError: if a file that was named does not exist.
    """
    name = url.rpartition("/")[2]
    kept = cache_folder() / name
    return str(_named(path, name) or (kept if kept.is_file() else ""))


def published_hash(name: str) -> str:
    """Return the digits of the sha256 at the end of a published file's name; "" if there are none."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return match[1] if match else ""


def _named(path: Path | None, name: str) -> Path | None:
    """The file that the user names, if any."""
    variable = os.environ.get(INCEPTION_VARIABLE)
    by = "--inception" if path is not None else INCEPTION_VARIABLE
    path = path if path is not None else Path(variable) if variable else None
    if path is None:
        return None
    file = _file(path, name)
    require(file.is_file(), f"{file}, which {by} names, does not exist; give {name}, or leave it out to download it.")
    return file


def _file(path: Path, name: str) -> Path:
    """Return the file at a path, which is a file or a folder that holds one of the name."""
    return path / name if path.is_dir() else path


def _download(url: str, target: Path, reporter: Reporter) -> None:
    """Fetch a file whole, or not at all."""
    digest = hashlib.sha256()
    with atomic_path(target) as temporary:
        with temporary.open("wb") as file:
            for data in _received(url, target, reporter):
                digest.update(data)
                file.write(data)
        expected, actual = published_hash(target.name), digest.hexdigest()
        require(
            actual.startswith(expected),
            f"{url} gave another file than the published one (sha256 {actual[:12]}, expected {expected}), which was "
            f"not kept; {_advice(target)}.",
        )


def _received(url: str, target: Path, reporter: Reporter) -> Iterator[bytes]:
    """Yield the bytes of a file; a failed transfer raises an ``AdaNATError``."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            length = int(response.headers.get("Content-Length") or 0)
            received = 0
            with reporter.task(f"Fetching {target.name}", length or None, "bytes") as task:
                while data := response.read(_BYTES_AT_ONCE):
                    received += len(data)
                    task.advance(len(data))
                    yield data
            if received < length:
                raise ConnectionError(f"broke off after {received} of {length} bytes")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdaNATError(f"{url} cannot be fetched ({_reason(error)}); {_advice(target)}.") from error


def _advice(target: Path) -> str:
    return (
        f"fetch it elsewhere and put it at {target}, or name it with --inception FILE or {INCEPTION_VARIABLE}; "
        "--protocol small measures with the model's own features/ and needs no download"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the response as well
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__
