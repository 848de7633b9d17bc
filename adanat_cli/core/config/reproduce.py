"""What ``adanat reproduce`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adanat_cli.core.config import shared
from adanat_cli.core.config.base import Seed, check_fields
from adanat_cli.core.config.option import argument, option
from adanat_cli.core.config.requests import PART_SIZE, whole_numbers
from adanat_cli.core.config.training import Precision

NUM_GROUPS = 10
"""Groups of images, without each of which a figure is computed again for its tolerance."""
LEAST_IMAGES = 2 * NUM_GROUPS
_FILES = "Files of a published benchmark"


@dataclass(frozen=True)
class ReproduceRequest:
    """Which figures to measure again, and with what.

    Attributes:
        part_size: images whose features are saved together.
    """

    name: str = argument(
        help="imagenet256, imagenet512, mscoco or cc3m for what the authors published; imagenet64, or any model folder "
        "or Hub id, for the results that the model itself records.",
        metavar="BENCHMARK",
    )
    output: Path | None = shared.output(
        None, help="Folder of the report and of the evaluations behind it.", show_default="reproductions/NAME"
    )
    num_samples: int | None = option(
        None,
        "--num-samples",
        "-n",
        help="Number of images of each figure; fewer widen the tolerance.",
        min=LEAST_IMAGES,
        show_default="as many as the published or recorded figure is of",
    )
    steps: tuple[int, ...] = option(
        (),
        help="Only the figures for these numbers of generation steps, such as 8 or 8,16.",
        kind=list[str],
        read=whole_numbers,
        show_default="all that there are",
    )
    protocol: str = option(
        "",
        help="Only the recorded results of this protocol, such as small; for a published benchmark, the protocol of "
        "--ref instead of the benchmark's own.",
        show_default=False,
    )
    model: str = option(
        "",
        "--model",
        "-m",
        help="Model folder or Hub id to measure instead of the authors'.",
        show_default="models/NAME, which is fetched",
        panel=_FILES,
    )
    tokenizer_file: Path | None = option(
        None, help="Tokenizer file of the authors, which is not on the Hub.", panel=_FILES
    )
    reference: Path | None = option(
        None,
        "--ref",
        help="Reference statistics.",
        show_default="the authors' own, fetched where they are on the Hub",
        panel=_FILES,
    )
    inception: Path | None = option(
        None, help="File of the Inception weights.", show_default="the cached copy, else a download", panel=_FILES
    )
    prompts_file: Path | None = option(
        None,
        "--prompts",
        help="Text file of captions, one per line.",
        show_default="the benchmark's, from --data-dir or the Hub",
        panel=_FILES,
    )
    data_dir: Path | None = option(None, help="Local copy of the benchmark's data, for its captions.", panel=_FILES)
    seed: Seed | None = shared.run(None, help="Random seed.", show_default="0; for recorded results their own")
    batch_size: int = shared.batch_size()
    device: str = shared.device()
    precision: Precision | None = shared.run(
        None,
        help="Number format of the networks; auto measures, but generates in fp32 on a CPU.",
        show_default="auto; for recorded results their own",
    )
    workers: int = shared.workers()
    part_size: int = PART_SIZE

    def __post_init__(self) -> None:
        check_fields(self)
