"""What the commands that fetch, share and describe models are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adanat_cli.core.config import shared
from adanat_cli.core.config.base import check_fields
from adanat_cli.core.config.option import REQUIRED, argument, option

_UNRECORDED = "Not recorded in the files"


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and what the files do not say.

    Attributes:
        origin: what else to record about where the files come from.
    """

    files: tuple[Path, ...] = argument(help="Weight files, one network each.", metavar="FILE…")
    output: Path = shared.output(REQUIRED, help="Model folder to create or to add to.", metavar="MODEL")
    kind: Literal["auto", "vqgan", "nat", "policy"] = option(
        "auto", help="Kind of network in the files; auto decides by the names of the weights."
    )
    num_steps: int | None = option(
        None,
        "--steps",
        help="Generation steps that the policy is for; by default what the file records.",
        min=1,
        panel=_UNRECORDED,
    )
    residual: bool | None = option(
        None,
        "--residual/--no-residual",
        help="Whether the policy's outputs are added to the cosine schedule; by default decided by the file's layout.",
        show_default=False,
        panel=_UNRECORDED,
    )
    smoothing: float | None = option(
        None,
        help="Exponential smoothing of the policy's outputs over the steps; by default 0.8 for AdaGen's files, else 0.",
        panel=_UNRECORDED,
    )
    num_heads: int | None = option(
        None,
        help="Number of attention heads; by default that of the published NAT of this width.",
        min=1,
        panel=_UNRECORDED,
    )
    image_size: int | None = option(
        None,
        help="Side of the images in pixels; by default what follows from grid and tokenizer.",
        min=1,
        panel=_UNRECORDED,
    )
    replace: bool = option(False, help="Replace components that the model already has.")
    entry: str = option(
        "",
        help="Entry of the file to use, such as model; by default an average (ema) if there is one.",
        show_default=False,
        panel=_UNRECORDED,
    )
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PullRequest:
    """What to fetch, and where to."""

    name: str = argument(help="Hub id user/repo\\[@revision], or a known name, as `adanat info` lists them.")
    output: Path | None = shared.output(
        None,
        help="Model folder to create or to add to. Without it, a Hub model stays in the Hub client's cache, where "
        "--model finds it, and a known name goes to models/NAME.",
    )
    components: tuple[str, ...] = option(
        (), "--component", help="Fetch only this part, such as nat or policies/steps-8; repeat for several."
    )
    num_steps: int | None = option(
        None, "--steps", help="Fetch only what sampling with the policy for N generation steps needs.", min=1
    )
    tokenizer_file: Path | None = option(
        None, help="Tokenizer file of a known model whose tokenizer is not on the Hub."
    )
    replace: bool = option(False, help="Replace parts that the output folder already has.")


@dataclass(frozen=True)
class PushRequest:
    """What to push, and where to."""

    source: str = argument(help="Model folder or name; with --tokens, folder of a token set.", metavar="MODEL")
    repo: str = argument(help="Hub id user/repo\\[@branch].", metavar="USER/REPO")
    kind: Literal["model", "tokens"] = option(
        "model",
        "--tokens",
        help="Push a token set, as a data set on the Hub.",
        kind=bool,
        read=("model", "tokens").__getitem__,
    )
    private: bool = option(False, help="Make a new repository private.")
    revision: str = option("", help="Branch to push to; created if missing.")
    message: str = option("", help="Commit message.")
    license: str = option(
        "", help="License of the weights, for the card, such as mit; by default what the model records."
    )
    num_images: int = option(16, "--samples", help="Number of images to draw for the card; 0 for no pictures.", min=0)
    device: str = shared.device()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class InfoRequest:
    """What to describe: a model, or a benchmark."""

    model: str = argument(
        "", help="Model folder, name or Hub id; by default the embedded model and all known names.", show_default=False
    )
    full: bool = option(
        False, help="Also show how each component was made: fingerprint, origin and the settings of its training."
    )
    dataset: str = option(
        "", "--dataset", "-d", help="Show a benchmark instead: imagenet256, imagenet512, mscoco or cc3m."
    )
    data_dir: Path | None = shared.data(None, help="Local copy of the data set, read instead of the Hub.")
    captions: Path | None = option(
        None, help="With --dataset: text file for the captions that the benchmark is evaluated on, one per line."
    )
    num_captions: int | None = option(None, help="Number of captions to write; by default the benchmark's own.", min=1)
