"""What ``adanat studio`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adanat_cli.core.config import shared
from adanat_cli.core.config.base import Bounds, check_fields
from adanat_cli.core.config.option import option


@dataclass(frozen=True)
class StudioRequest:
    """Where the page is served, and what it begins with."""

    model: str = shared.model()
    port: Annotated[int, Bounds(0, 65535)] = option(7860, help="Port on 127.0.0.1; 0 takes any free one.")
    browser: bool = option(False, "--browser", help="Open the page in the browser.")
    text_encoder: str = shared.text_encoder(purpose="encodes prompts")
    device: str = shared.device()

    def __post_init__(self) -> None:
        check_fields(self)
