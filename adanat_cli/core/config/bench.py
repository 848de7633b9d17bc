"""What ``adanat bench`` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, get_args

from adanat_cli.core.config import shared
from adanat_cli.core.config.acting import POLICY, SAMPLE, TRAIN, refuse_idle
from adanat_cli.core.config.base import Bounds, Count, Seed, check_fields, check_value
from adanat_cli.core.config.option import option
from adanat_cli.core.config.requests import whole_numbers
from adanat_cli.core.errors import require

Measured = Literal["sample", "tokenize", "train", "policy"]
Format = Literal["fp32", "bf16"]
_MEASURED: tuple[Measured, ...] = get_args(Measured)
_SAMPLING, _NAT = frozenset({SAMPLE}), frozenset({SAMPLE, TRAIN, POLICY})


def _words(texts: Sequence[str]) -> tuple[str, ...]:
    """Split words, one or several to a text."""
    return tuple(word for text in texts for word in text.split(","))


@dataclass(frozen=True)
class BenchRequest:
    """What one run of ``adanat bench`` is asked for; several steps, batches and formats are all combined."""

    model: str = shared.model()
    size: Literal["nano", "micro", "tiny", "mini", "small", "large", "muse"] | None = option(
        None,
        help="Measure a NAT of this size with random weights instead of a model: small, large and muse with the VQGAN "
        "on 256 x 256 pixels, the others with the embedded model's tokenizer shape on 64 x 64.",
    )
    measured: tuple[Measured, ...] = option(
        _MEASURED,
        "--measure",
        help="sample, tokenize, train or policy; several as sample,train or repeated.",
        kind=list[str],
        read=_words,
        show_default="all four",
    )
    num_steps: tuple[int, ...] = option(
        (4, 8),
        "--steps",
        help="Generation steps; several as 4,8,16 or repeated. Policy updates take the fewest, at least 2.",
        kind=list[str],
        read=whole_numbers,
        show_default="4,8",
        acts_on=frozenset({SAMPLE, POLICY}),
    )
    batch_sizes: tuple[int, ...] = option(
        (16,),
        "--batch-size",
        help="Images at a time; several as 1,16,64 or repeated.",
        kind=list[str],
        read=partial(whole_numbers, option="--batch-size"),
        show_default="16",
    )
    formats: tuple[Format, ...] = option(
        ("fp32",),
        "--precision",
        help="Number format of the NAT: fp32, bf16, or both as fp32,bf16.",
        kind=list[str],
        read=_words,
        show_default="fp32",
        acts_on=_NAT,
    )
    compiled: bool = option(False, "--compile", help="Also measure sampling with torch.compile.", acts_on=_SAMPLING)
    against: Literal["plain"] | None = option(
        None,
        help="plain: also time a loop of two whole forwards a step and one more at the end, in turn with ours, and "
        "print the median ratio.",
        acts_on=_SAMPLING,
    )
    num_images: Annotated[int | None, Bounds(1)] = option(
        None, "--num-images", "-n", help="Images of one sampling run; by default one batch.", min=1, acts_on=_SAMPLING
    )
    num_conditions: Annotated[int | None, Bounds(1)] = option(
        None,
        "--num-classes",
        help="Classes (or prompts) that the images cycle through; by default all that the model knows.",
        min=1,
        acts_on=_NAT,
    )
    repetitions: Count = option(3, help="Timed runs of each row, of which the median counts.", min=1)
    seed: Seed = shared.seed()
    device: str = shared.device()

    def __post_init__(self) -> None:
        check_fields(self)
        for name, values in (("--steps", self.num_steps), ("--batch-size", self.batch_sizes)):
            require(bool(values) and min(values) >= 1, f"{name} is {', '.join(map(str, values))}; expected at least 1.")
        for name, words, hint in (("--measure", self.measured, Measured), ("--precision", self.formats, Format)):
            for word in words:
                check_value(word, hint, name)
        require(
            not (self.model and self.size),
            "--model names a model and --size one with random weights; give one of them.",
        )
        refuse_idle(self, f"--measure {','.join(self.measured)}", *self.measured)
