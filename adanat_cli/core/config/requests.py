"""What the commands that work on images are asked for: their options, and the arguments of their jobs in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from adanat_cli.core.config import shared
from adanat_cli.core.config.acting import DATASET, MODEL, PROMPTS
from adanat_cli.core.config.base import Bounds, Count, Seed, check_fields
from adanat_cli.core.config.data import DataConfig
from adanat_cli.core.config.option import REQUIRED, Asked, option, part
from adanat_cli.core.config.training import Precision
from adanat_cli.core.errors import AdaNATError

PART_SIZE = 250
"""Images of a part. A killed run loses less than one for each process; whole ones keep the numbers the same."""
_SomeCount = Annotated[int | None, Bounds(1)]
_MODEL_OR_DATASET = MODEL | {DATASET}
_SMALL = frozenset({"small"})
_GENERATION, _IMAGES, _TEXT = "Generation", "Existing images", "Text to image"


def whole_numbers(texts: Sequence[str], option: str = "--steps") -> tuple[int, ...]:
    """Read the whole numbers of an option, one or several to a text."""
    try:
        return tuple(int(number) for text in texts for number in text.split(","))
    except ValueError as error:
        raise AdaNATError(f"{option} is {','.join(texts)!r}; expected whole numbers such as 4,8,16.") from error


@dataclass(frozen=True)
class TokenizeOptions:
    """How a data set is turned into tokens."""

    batch_size: _SomeCount = option(
        None, help="Images per pass of the tokenizer; by default as many as a bounded amount of memory allows.", min=1
    )
    num_workers: int = shared.workers()
    shard_size: Count = option(4096, help="Images per file of the token set.", min=1)
    num_images: _SomeCount = shared.data(None, help="Stop after N images.", min=1)
    flips: bool = option(True, "--flips/--no-flips", help="Also store the tokens of the flipped images.")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TokenizeRequest:
    """What one run of ``adanat tokenize`` is asked for; without ``output`` it writes no token set."""

    dataset: str = shared.dataset()
    data: Asked = part(DataConfig)
    classes: tuple[str, ...] = shared.classes()
    model: str = option(
        "",
        "--tokenizer",
        "--model",
        "-m",
        help="Model folder, name or Hub id with the tokenizer; by default the embedded one.",
    )
    output: Path | None = shared.output(None, help="Folder of the token set.")
    preview: Path | None = option(
        None, help="PNG file for images above their reconstructions; the PSNR is printed as well."
    )
    preview_only: bool = option(False, help="Write the preview and nothing else.")
    device: str = shared.device()
    options: TokenizeOptions = field(default_factory=TokenizeOptions)
    encode_captions: bool = shared.data(
        False,
        help="Also store the text encoder's states of all captions (77 x 768 float16 are 118 kB each), so that "
        "pretrain-nat need not encode them.",
    )
    text_encoder: str = shared.text_encoder()


@dataclass(frozen=True)
class SampleRequest:
    """What one run of ``adanat sample`` is asked for; image i depends on (seed, i) and its class or prompt only."""

    classes: tuple[str, ...] = option(
        (),
        "--class",
        "-c",
        help="Class id or name; repeat to cycle through several. By default all classes that the model was trained on, "
        "cycled through in an order that follows from the seed.",
        acts_on=MODEL,
    )
    prompts: tuple[str, ...] = shared.prompts()
    prompts_file: Path | None = option(None, "--prompts", help="Text file of prompts, one per line.")
    num_images: int | None = option(
        None, "--num-images", "-n", help="Number of images.", show_default="16, or one for each prompt of a file"
    )
    num_steps: int | None = shared.num_steps()
    model: str = shared.model()
    output: Path | None = shared.output(
        None,
        help="Folder for the images of one run.",
        show_default="samples; samples-2 and so on if that holds other images",
    )
    overwrite: bool = shared.overwrite()
    schedule: str = shared.schedule()
    sampling_temperature: float | None = shared.sampling_temperature()
    remask_temperature: float | None = shared.remask_temperature()
    guidance_scale: float | None = shared.guidance_scale()
    image_format: Literal["png", "npz"] = option(
        "png",
        "--format",
        help="png: one file per image; npz: one samples.npz, as guided-diffusion's evaluator reads it.",
    )
    grid: Path | None = option(
        None,
        help="File for the grid of the first 100 images, one column per class that was given.",
        show_default="OUTPUT/grid.png; grid-2.png and so on beside that of another run",
    )
    trace: bool = shared.trace()
    seed: Seed = shared.seed(acts_on=MODEL)
    batch_size: int = shared.batch_size()
    text_encoder: str = shared.text_encoder(acts_on=frozenset({PROMPTS}), purpose="encodes prompts")
    device: str = shared.device()
    precision: Precision = shared.precision(acts_on=MODEL)
    compiled: bool = shared.compiled()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class EvaluateRequest:
    """What one run of ``adanat evaluate`` is asked for.

    Attributes:
        part_size: images whose features are saved together.
        spread: metrics whose standard error and bias are estimated.
    """

    reference: Path | None = option(
        None,
        "--ref",
        help="Reference statistics: a file of `adanat stats`, of guided-diffusion or of pytorch-fid (.npz); by default "
        "the model's own.",
        show_default=False,
    )
    output: Path | None = shared.output(
        None, help="Folder of evaluation.json, report.html and plots/.", show_default="evaluations/<model or folder>"
    )
    model: str = option(
        "",
        "--model",
        "-m",
        help="Model folder or name; by default the embedded model. With --images or --samples, the model whose "
        "features/ to use.",
    )
    images: Path | None = option(None, help="Folder of PNG or JPEG files of one size to measure.", panel=_IMAGES)
    samples: Path | None = option(None, help=".npz with the images in arr_0 to measure.", panel=_IMAGES)
    reconstruct: str = shared.data(
        "",
        metavar="DATASET",
        help="Measure the model's tokenizer (rFID and PSNR): encode and decode images of a data set, given as for "
        "`adanat stats --dataset`, and by default of the model's classes.",
    )
    data: Asked = part(DataConfig, acts_on=frozenset({DATASET}), purpose="is for --reconstruct")
    classes: tuple[str, ...] = option(
        (),
        "--class",
        "-c",
        help="Class id or name; repeat to cycle through several. By default all; with --reconstruct, those in the data "
        "that the model has seen, and `all` includes the others.",
        panel=_GENERATION,
        acts_on=_MODEL_OR_DATASET,
    )
    prompts: tuple[str, ...] = shared.prompts(panel=_TEXT)
    prompts_file: Path | None = option(
        None,
        "--prompts",
        help="Text file of prompts, one per line, such as `adanat info --dataset mscoco --captions FILE` writes.",
        panel=_TEXT,
        acts_on=MODEL,
    )
    text_encoder: str = option(
        "",
        help="CLIP model that encodes prompts: Hub id or folder; by default the model's own.",
        panel=_TEXT,
        acts_on=frozenset({PROMPTS}),
        purpose="encodes prompts",
    )
    clip: str = option(
        "",
        help="CLIP model for the CLIP score: Hub id or folder, or none to leave the score out.",
        show_default="openai/clip-vit-large-patch14 if available",
        panel=_TEXT,
        acts_on=frozenset({PROMPTS}),
        purpose="compares images with prompts",
    )
    protocol: str = shared.protocol("the reference's own")
    inception: Path | None = shared.inception()
    num_samples: int | None = option(
        None,
        "--num-samples",
        "-n",
        help="Number of images to measure.",
        show_default="as many as the model was trained on, from 1,000 to 50,000 (30,000 for prompts); one for each "
        "prompt of a file; all existing images (50,000 at most with --reconstruct)",
    )
    steps: tuple[int, ...] = option(
        (),
        help="Generation steps, such as 8 or 4,8,16; several are compared in a table and a plot.",
        panel=_GENERATION,
        kind=list[str],
        read=whole_numbers,
        acts_on=MODEL,
    )
    schedules: tuple[str, ...] = option(
        (),
        "--schedule",
        help="learned, cosine, halton, autonat:FILE or table:FILE; repeat to compare.",
        panel=_GENERATION,
        acts_on=MODEL,
    )
    sampling_temperature: float | None = shared.sampling_temperature()
    remask_temperature: float | None = shared.remask_temperature()
    guidance_scale: float | None = shared.guidance_scale()
    seed: Seed = shared.seed(acts_on=MODEL)
    num_seeds: int = option(
        1,
        "--seeds",
        help="Measure with N consecutive seeds, beginning with --seed; the table shows mean ± standard deviation.",
        metavar="N",
        panel=_GENERATION,
        acts_on=MODEL,
    )
    batch_size: int = shared.batch_size()
    keep_features: bool = option(False, help="Keep the features on disk, under OUTPUT/features.")
    record: bool = option(
        False, help="Also record the results in the model's index and card.", acts_on=_MODEL_OR_DATASET
    )
    workers: int = shared.workers()
    device: str = shared.device()
    precision: Precision = shared.precision(acts_on=MODEL)
    compiled: bool = shared.compiled()
    part_size: int = PART_SIZE
    spread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StatsRequest:
    """What one run of ``adanat stats`` is asked for.

    Attributes:
        part_size: images whose features are saved together.
    """

    dataset: str = shared.dataset()
    output: Path = shared.output(REQUIRED, help="File to write, such as stats.npz.")
    data: Asked = part(DataConfig)
    install: bool = option(
        False,
        help="Also install the statistics in the model, for `adanat evaluate` without --ref; a model without features/ "
        "first gets a small network that is trained on the same data (images of up to 128 pixels). For protocols small "
        "and efficientnet.",
    )
    updates: _SomeCount = option(
        None,
        help="Updates of the small network that --install trains; by default the preset's, or by the number of images.",
        min=1,
        protocols=_SMALL,
    )
    half: bool = option(False, help="Store the small network that --install trains in 16 bits.", protocols=_SMALL)
    classes: tuple[str, ...] = shared.data(
        (),
        "--class",
        "-c",
        help="Class id or name, or all; repeat for several. By default those that the model was trained on.",
    )
    protocol: str = shared.protocol("small if the model has features/")
    model: str = shared.model()
    inception: Path | None = shared.inception()
    num_images: int | None = shared.num_images(min=2)
    num_features: int = option(
        10_000, help="Number of images whose features are stored, for precision, recall and KID.", min=0
    )
    seed: Seed = shared.seed()
    workers: int = shared.workers()
    device: str = shared.device()
    part_size: int = PART_SIZE

    def __post_init__(self) -> None:
        check_fields(self)
