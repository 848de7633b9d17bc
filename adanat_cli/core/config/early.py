"""Mistakes in what is to be drawn that show at once, before PyTorch is loaded."""

from __future__ import annotations

from pathlib import Path

from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError, not_known, require

_KINDS = "learned, cosine, halton, autonat:FILE or table:FILE"


def check_early(request: SampleRequest | EditRequest) -> None:
    """Check numbers, the name of the schedule, and that files are there.

    Raises:
        AdaNATError: naming the option.
    """
    if isinstance(request, SampleRequest):
        number = request.num_images
        require(number is None or number >= 1, f"--num-images is {number}; expected at least 1.")
    else:
        request.check_files()
    steps = request.num_steps
    require(steps is None or steps >= 1, f"--steps is {steps}; expected at least 1.")
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")
    file = schedule_file(request.schedule)
    require(file is None or file.exists(), f"Schedule file {file} does not exist; fetch or write it again.")


def schedule_file(text: str) -> Path | None:
    """The file that a ``--schedule`` names; None for the others.

    Raises:
        AdaNATError: if there is no such schedule, or the name of the file is missing.
    """
    kind, _, file = text.partition(":")
    if kind in ("autonat", "table"):
        require(bool(file), f"--schedule {text} names no file; expected {kind}:FILE.")
        return Path(file)
    if text not in ("", "learned", "cosine", "halton"):
        kinds = ("learned", "cosine", "halton", "autonat:FILE", "table:FILE")
        raise AdaNATError(not_known(f"--schedule {text!r}", text, kinds, _KINDS))
    return None
