"""Serve the page on this machine until it is interrupted."""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from adanat_cli.core.config.studio import StudioRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.runtime.reporter import Reporter

HOST = "127.0.0.1"
_LARGEST_UPLOAD = "64mb"


def serve(request: StudioRequest, reporter: Reporter) -> dict[str, Any]:
    """Serve the page; returns how many images were drawn once Ctrl-C ends it.

    Nothing leaves the machine: the page loads nothing from elsewhere, and Gradio's analytics are off.

    Raises:
        AdaNATError: if Gradio is missing, the port is taken, or there is no such model.
    """
    require(
        importlib.util.find_spec("gradio") is not None,
        "The studio needs Gradio, which is not installed; try: pip install 'adanat[ui]'.",
    )
    port = _free_port(request.port)
    with tempfile.TemporaryDirectory(prefix="adanat-studio-") as folder:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(Path(folder) / "uploads"),
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), HOST))),
        }
        return _serve(request, reporter, port, Path(folder))


def _serve(request: StudioRequest, reporter: Reporter, port: int, folder: Path) -> dict[str, Any]:
    # Gradio reads its environment when it is imported.
    from adanat_cli.jobs.studio.assets import script
    from adanat_cli.jobs.studio.models import Models
    from adanat_cli.jobs.studio.page import build_page, theme
    from adanat_cli.jobs.studio.room import Room

    models = Models(pick_device(request.device), request.text_encoder)
    room = Room(models, folder / "drawings", request.device, request.text_encoder)
    page = build_page(room, request.model)
    page.launch(
        server_name=HOST,
        server_port=port,
        inbrowser=request.browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=_LARGEST_UPLOAD,
        theme=theme(),
        css=script("style.css"),
    )
    url = f"http://{HOST}:{port}"
    try:
        reporter.log(f"The studio is open at {url} (Ctrl-C ends it).")
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)
    return {"url": url, "num_images": room.num_images}


def _free_port(port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        AdaNATError: if another program has it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise AdaNATError(
                f"Port {port} cannot be used ({error.strerror}); choose another with --port, or 0 for any free one."
            ) from error
        return int(probe.getsockname()[1])
