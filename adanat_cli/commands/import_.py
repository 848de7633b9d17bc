"""``adanat import``: bring the authors' weight files into a model folder."""

from __future__ import annotations

from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.share_requests import ImportRequest


@options.takes(ImportRequest, options.Printing)
def command(request: ImportRequest, printing: options.Printing) -> None:
    """Import the authors' weights (VQGAN, NAT, AdaNAT or AdaGen policy) into a model folder.

    Files are read without running what a pickle asks for, and stored as safetensors.
    """
    from adanat_cli.jobs.share.import_weights import import_weights

    job.run(import_weights, request, printing, _lines)


def _lines(values: dict[str, Any]) -> list[str]:
    names = ", ".join(part["component"] for part in values["components"])
    return [f"Model: {values['model']}", f"Imported: {names}"]
