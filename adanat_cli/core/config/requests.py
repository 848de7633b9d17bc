"""What each command is asked for: the options of the command line, and the arguments of its job in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adanat_cli.core.config.training import Precision
from adanat_cli.core.errors import require

PART_SIZE = 250
"""Images of a part. A killed run loses less than one for each process; whole ones keep the numbers the same."""
Kind = Literal["adaptive", "static", "search", "tuned"]


@dataclass(frozen=True)
class TokenizeOptions:
    """How a data set is turned into tokens.

    Attributes:
        batch_size: images in one pass of the tokenizer; None for as many as bounded memory allows.
        num_workers: decoding threads.
        shard_size: images of the source per shard.
        num_images: stop after so many images of the source; None takes all.
        flips: also store the ids of the flipped images.
    """

    batch_size: int | None = None
    num_workers: int = 2
    shard_size: int = 4096
    num_images: int | None = None
    flips: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_size", "num_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}; expected at least 1.")


@dataclass(frozen=True)
class TokenizeRequest:
    """What one run of ``adanat tokenize`` is asked for.

    Attributes:
        dataset: preset or source of its own.
        data_fields: fields of ``DataConfig``; None leaves a preset's value.
        classes: ids or names to keep; empty keeps all.
        model: folder, name or Hub id of the model with the tokenizer.
        output: folder of the token set; None writes none.
        preview: PNG of reconstructions; None writes none.
        device: name, or "" for the best one here.
        options: sizes and workers.
        encode_captions: whether to store the text encoder's states of all captions.
        text_encoder: Hub id or folder; "" for the benchmark's.
    """

    dataset: str
    data_fields: dict[str, Any]
    classes: tuple[str, ...]
    model: str
    output: Path | None
    preview: Path | None
    device: str
    options: TokenizeOptions
    encode_captions: bool = False
    text_encoder: str = ""


@dataclass(frozen=True)
class SampleRequest:
    """What one run of ``adanat sample`` is asked for.

    Attributes:
        output: folder to write to.
        model: folder, name or Hub id.
        classes: ids or names, in turn over the images; empty draws evenly from all that the model has seen.
        prompts: for a text-conditional model, in turn over the images.
        text_encoder: Hub id or folder; "" for the model's own.
        num_images: in the whole run.
        num_steps: T; None for 8, or what a schedule file says.
        schedule: "learned", "cosine", "halton", "autonat:FILE", "table:FILE"; "" is learned if possible, else cosine.
        temperature: factor on the schedule's re-masking temperature (sampling temperature of "halton").
        guidance: factor on the schedule's guidance scale.
        seed: image i depends on (seed, i) and its class only.
        image_format: "png" writes a file per image, "npz" one ``samples.npz`` with arr_0 and arr_1.
        grid: picture of the first 100 images; None writes ``grid.png`` into the folder.
        trace: whether to write how the first 8 images came about.
        batch_size: images at a time.
        overwrite: whether to remove what an earlier run has written into the folder.
    """

    output: Path
    model: str = ""
    classes: tuple[str, ...] = ()
    num_images: int = 16
    num_steps: int | None = None
    schedule: str = ""
    temperature: float | None = None
    guidance: float | None = None
    seed: int = 0
    image_format: Literal["png", "npz"] = "png"
    grid: Path | None = None
    trace: bool = False
    batch_size: int = 64
    device: str = ""
    precision: Precision = "auto"
    prompts: tuple[str, ...] = ()
    text_encoder: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class EvaluateRequest:
    """What one run of ``adanat evaluate`` is asked for.

    Attributes:
        reference: .npz of reference statistics; None for the model's own.
        output: folder of the results; None for ``evaluations/<name>``.
        model: folder or name; generates where neither ``images`` nor ``samples`` is given, and has the feature
            network of the protocol "small".
        images: folder of image files to measure instead.
        samples: .npz of images to measure instead.
        classes: ids or names that take turns; empty for all that the model has seen.
        prompts: for a text-conditional model, in turn over the images.
        text_encoder: of a text-conditional model: Hub id or folder; "" for the model's own.
        clip: of the CLIP score of a text-conditional model: Hub id or folder; "" for the usual one where it can be
            had, "none" for no such score.
        protocol: "adm", "paper", "clean", "small" or "timm/NAME"; "" as the reference says.
        inception: file of the Inception weights; None where they are found without.
        num_samples: images to measure; None for as many as the model was trained on, 1,000 to 50,000 (of prompts,
            30,000), or for all of a folder or file.
        steps: numbers of steps; empty for 8, or what a schedule file says.
        schedules: words of ``--schedule``; empty for the learned one if the model has it, else cosine.
        temperature: factor on a fixed schedule's re-masking temperature.
        guidance: factor on a fixed schedule's guidance scale.
        seed: image i depends on (seed, i) and its class or prompt only.
        batch_size: images to generate at a time.
        keep_features: whether features stay on disk afterwards.
        record: whether to note the results in the model's index and card.
        workers: threads that decode image files.
        device: "" for the best one here.
        precision: of the NAT.
        part_size: images whose features are saved together.
    """

    reference: Path | None = None
    output: Path | None = None
    model: str = ""
    images: Path | None = None
    samples: Path | None = None
    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    text_encoder: str = ""
    clip: str = ""
    protocol: str = ""
    inception: Path | None = None
    num_samples: int | None = None
    steps: tuple[int, ...] = ()
    schedules: tuple[str, ...] = ()
    temperature: float | None = None
    guidance: float | None = None
    seed: int = 0
    batch_size: int = 64
    keep_features: bool = False
    record: bool = False
    workers: int = 2
    device: str = ""
    precision: Precision = "auto"
    part_size: int = PART_SIZE


@dataclass(frozen=True)
class StatsRequest:
    """What one run of ``adanat stats`` is asked for.

    Attributes:
        dataset: preset or source of its own.
        data_fields: fields of ``DataConfig``; None leaves a preset's value.
        output: .npz file to write.
        install: whether to put a copy into the model as well.
        classes: ids or names to keep; "all" keeps all; empty keeps those that the model has seen, if there is one.
        protocol: "adm", "paper", "clean", "small" or "timm/NAME"; "" for "small" if the model has a feature network.
        model: folder or name, for "small", and for the classes and the size of the images.
        inception: file of the Inception weights; None where they are found without.
        num_images: stop after so many images of the source; None takes all.
        num_features: images whose features are stored, for precision, recall and KID.
        seed: of the choice of those.
        workers: threads that decode images.
        device: "" for the best one here.
        part_size: images whose features are saved together.
    """

    dataset: str
    data_fields: dict[str, Any]
    output: Path
    install: bool = False
    classes: tuple[str, ...] = ()
    protocol: str = ""
    model: str = ""
    inception: Path | None = None
    num_images: int | None = None
    num_features: int = 10_000
    seed: int = 0
    workers: int = 2
    device: str = ""
    part_size: int = PART_SIZE


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and what the files do not tell.

    Attributes:
        files: weight files, one network each.
        output: model folder to make or to add to.
        kind: of every file; "auto" tells by the names of the weights.
        num_steps: T of the policies.
        residual: of the policies; None follows the layout of the file.
        smoothing: of the policies; None follows the layout of the file.
        num_heads: of the NAT; None takes that of the preset of its width.
        image_size: in pixels; None takes the model's, or the NAT's grid times the tokenizer's downsampling.
        replace: whether a component that the model has may be replaced.
        entry: of the files to take the weights from; "" takes an average where there is one.
        origin: what else to note of where the files come from.
    """

    files: tuple[Path, ...]
    output: Path
    kind: Literal["auto", "vqgan", "nat", "policy"] = "auto"
    num_steps: int | None = None
    residual: bool | None = None
    smoothing: float | None = None
    num_heads: int | None = None
    image_size: int | None = None
    replace: bool = False
    entry: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PullRequest:
    """What one run of ``adanat pull`` is asked for.

    Attributes:
        name: known name, or Hub id ``user/repo[@revision]``.
        output: model folder to make or to add to; None leaves a Hub model in the client's cache, and puts a known
            model into ``models/NAME``.
        components: to fetch; empty takes all, or what ``num_steps`` needs.
        num_steps: fetch what sampling in so many steps needs.
        tokenizer_file: a known model's tokenizer, where that is not on the Hub.
        replace: whether components that the output has may be replaced.
    """

    name: str
    output: Path | None = None
    components: tuple[str, ...] = ()
    num_steps: int | None = None
    tokenizer_file: Path | None = None
    replace: bool = False


@dataclass(frozen=True)
class PushRequest:
    """What one run of ``adanat push`` is asked for.

    Attributes:
        source: model folder or name; folder of a token set.
        repo: Hub id ``user/repo[@branch]``.
        kind: what the source is.
        private: whether a new repository is private.
        message: of the commit; "" for one that names the command.
        license: of the weights, for the card; "" for what the model tells.
        num_images: in the card's picture; 0 draws none, and no curves either.
        device: to draw on; "" for the best one here.
    """

    source: str
    repo: str
    kind: Literal["model", "tokens"] = "model"
    private: bool = False
    message: str = ""
    license: str = ""
    num_images: int = 16
    device: str = ""
