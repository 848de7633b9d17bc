"""What ``adanat edit`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from adanat_cli.core.config import shared
from adanat_cli.core.config.acting import MODEL, PROMPTS
from adanat_cli.core.config.base import Bounds, Seed, check_fields
from adanat_cli.core.config.option import argument, option
from adanat_cli.core.config.training import Precision
from adanat_cli.core.errors import AdaNATError, require


class Box(NamedTuple):
    """A rectangle in pixels of an image, from its upper left corner."""

    x: int
    y: int
    width: int
    height: int


class Sides(NamedTuple):
    """Pixels at the four sides of an image."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def read_box(text: str) -> Box:
    """Read ``x,y,width,height``.

    Raises:
        AdaNATError: if these are not four whole numbers, or describe no pixel.
    """
    try:
        box = Box(*(int(number) for number in text.split(",")))
    except (TypeError, ValueError) as error:
        raise AdaNATError(
            f"--box is {text!r}; expected x,y,width,height in pixels of the image, such as 16,16,32,32."
        ) from error
    fits = min(box.x, box.y) >= 0 and min(box.width, box.height) >= 1
    require(fits, f"--box is {text!r}; expected x and y of at least 0, and width and height of at least 1.")
    return box


def read_sides(text: str) -> Sides:
    """Read one number for all sides, or ``left=16,right=16``.

    Raises:
        AdaNATError: if this is neither, a side is named twice or below 0, or nothing is added.
    """
    try:
        if "=" not in text:
            sides = Sides(*[int(text)] * 4)
        else:
            pairs = [(side.strip(), int(number)) for side, number in (part.split("=") for part in text.split(","))]
            sides = Sides(**dict(pairs))
            require(len(dict(pairs)) == len(pairs), f"--extend is {text!r}, which names a side twice; name each once.")
    except (TypeError, ValueError) as error:
        raise AdaNATError(
            f"--extend is {text!r}; expected pixels for all sides, such as 16, or for some of left, top, right and "
            "bottom, such as left=16,right=16."
        ) from error
    require(min(sides) >= 0 and max(sides) > 0, f"--extend is {text!r}; expected pixels to add, 1 or more.")
    return sides


@dataclass(frozen=True)
class EditRequest:
    """What one run of ``adanat edit`` is asked for; variation i of an image depends on (seed, i) and its class only."""

    image: Path = argument(metavar="IMAGE", help="Image to edit, or a folder of images.")
    mask: Path | None = option(
        None,
        help="Image as large as the one to edit: white is drawn anew, black is kept. In a folder, the mask of each "
        "image has its name. With --box as well, what either names is drawn.",
    )
    box: Box | None = option(
        None,
        metavar="X,Y,W,H",
        help="Rectangle to draw anew, in pixels of the image: its upper left corner, width and height. With "
        "--mask as well, what either names is drawn.",
        kind=str,
        read=read_box,
    )
    extend: Sides = option(
        Sides(),
        metavar="PIXELS",
        help="Pixels to add around the image, for all sides or as in left=16,right=16. The extended image is scaled to "
        "the model's size, and the new parts are drawn.",
        kind=str,
        read=read_sides,
    )
    classes: tuple[str, ...] = option(
        (),
        "--class",
        "-c",
        help="Class id or name of what to draw; repeat to cycle through several. By default none: what is kept decides "
        "alone.",
        acts_on=MODEL,
    )
    prompts: tuple[str, ...] = shared.prompts()
    variations: Annotated[int | None, Bounds(1)] = option(
        None,
        "--variations",
        "-n",
        help="Number of results for each image.",
        min=1,
        show_default="1, or one for each class or prompt",
    )
    full_size: bool = option(
        False,
        help="Paste what was drawn into the image at its own size; by default results have the model's size.",
    )
    num_steps: int | None = shared.num_steps()
    model: str = shared.model()
    output: Path | None = shared.output(
        None,
        help="Folder for the results of one run.",
        show_default="edits; edits-2 and so on if that holds other images",
    )
    overwrite: bool = shared.overwrite()
    schedule: str = shared.schedule()
    sampling_temperature: float | None = shared.sampling_temperature()
    remask_temperature: float | None = shared.remask_temperature()
    guidance_scale: float | None = shared.guidance_scale()
    trace: bool = shared.trace()
    seed: Seed = shared.seed(acts_on=MODEL)
    batch_size: int = shared.batch_size()
    text_encoder: str = shared.text_encoder(acts_on=frozenset({PROMPTS}), purpose="encodes prompts")
    device: str = shared.device()
    precision: Precision = shared.precision(acts_on=MODEL)

    def __post_init__(self) -> None:
        check_fields(self)

    def check_files(self) -> None:
        """Raise an ``AdaNATError`` if image or mask are not there."""
        files = (self.image, "an image or a folder of images"), (self.mask, "--mask FILE, or a folder of masks")
        for path, what in files:
            require(path is None or path.exists(), f"{path} does not exist; expected {what}.")


@dataclass(frozen=True)
class EditSettings(EditRequest):
    """One run of ``adanat edit``, settled: where it writes, and how many results each image gets."""

    output: Path = Path("edits")
    variations: int = 1
