"""Train a NAT on a token set, from the first update to a model folder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.folder import TEXT, ModelFolder
from adanat_cli.core.config import NATConfig, NATTrainingConfig, nat_preset
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.core.data.token_set import TokenSet, TokenSetInfo
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.models import load_tokenizer, model_names, resolve_model, resolve_tokens
from adanat_cli.jobs.resolve.text_encoders import (
    encoder_component,
    load_encoder,
    recorded_name,
    usual_encoder,
)
from adanat_cli.jobs.runtime.devices import Job, device_memory, make_accelerator, pick_device, settle_precision
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter, Task
from adanat_cli.jobs.sample.conditions import NO_CAPTION, CaptionConditions, ClassConditions, Conditions
from adanat_cli.jobs.sample.pictures import Pixels, image_grid, save_png
from adanat_cli.jobs.sample.sampler import decode_tokens, sample_tokens
from adanat_cli.jobs.train.averages import Meter
from adanat_cli.jobs.train.loop import MeteredLoop, open_run, training_length
from adanat_cli.jobs.train.nat_batches import Indices, UpdateSource, hold_out, spread
from adanat_cli.jobs.train.nat_update import STATS, NATTrainer, update_memory
from adanat_cli.jobs.train.run_folder import RunFolder

_GRID_COLUMNS, _GRID_ROWS = 8, 4
_GRID_SCHEDULE = CosineSchedule(8)
_TRIAL_ROWS = 32
_NUM_EXAMPLES = 16
_CAPTIONS_AT_ONCE = 2**16


@holds_output
def pretrain_nat(request: NATSettings, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a NAT.

    Returns:
        Where the model is and what was measured last; empty on processes other than the main one.

    Raises:
        AdaNATError: if tokens and tokenizer do not belong together, the run folder holds another run,
            or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        SystemExit: after SIGTERM or SIGHUP, once the state is saved.
    """
    accelerator = make_accelerator(request.device, request.training.batch_size)
    with accelerator.main_process_first():
        request = replace(request, tokens=resolve_tokens(request.tokens))
    tokens, model = TokenSet.open(request.tokens), tokenizer_model(request)
    encoder = caption_encoder(request, tokens, accelerator.device)
    shape = nat_shape(request, tokens.info, model, encoder)
    train_rows, held_out = hold_out(training_rows(tokens, request.classes), request.training.held_out)
    config = settle_precision(
        request.training, request.output, accelerator, lambda: _trial(request, shape, accelerator.device)
    )
    share = config.batch_size // accelerator.num_processes
    request = replace(request, accumulate=pieces_of(request, shape, share, config.precision))
    settings = {
        "nat": shape.to_dict(),
        "training": config.to_dict(),
        "data": data_identity(tokens, train_rows),
    }
    folder, state = open_run(request.output, settings, accelerator, reporter, training_length(config))
    codes = load_tokenizer(model).codebook if config.code_init > 0 else None
    conditions: Conditions
    if shape.condition == "text":
        first = torch.from_numpy(tokens.first_caption[train_rows])
        conditions = CaptionConditions(first, tokens, encoder, accelerator.device)
    else:
        conditions = ClassConditions(torch.from_numpy(np.unique(tokens.labels[train_rows])), tokens.info.class_names)
    trainer = NATTrainer(shape, config, accelerator, codes, conditions.encode)
    if not accelerator.is_main_process:
        reporter = SilentReporter()
    run = _Run(
        request,
        config,
        accelerator,
        reporter,
        folder,
        trainer,
        tokens,
        train_rows,
        held_out,
        model,
        conditions,
        encoder,
    )
    if state is not None:
        run.resume(state)
        del state  # as large as the weights and the optimizer together
    else:
        if request.note:
            reporter.log(request.note)
        reporter.log(
            f"Training {_millions(trainer.nat)} parameters on {len(train_rows)} images in {config.precision}; "
            f"{len(held_out)} images held out."
        )
    run.train()
    accelerator.wait_for_everyone()
    return {"model": str(folder.model), "steps": trainer.step, **run.measured} if accelerator.is_main_process else {}


def pieces_of(request: NATSettings, shape: NATConfig, share: int, precision: str) -> int:
    """The pieces of a process's share of a batch: those asked for, or as few as half of the memory holds.

    Raises:
        AdaNATError: if there are more pieces than images.
    """
    require(
        0 <= request.accumulate <= share,
        f"--accumulate is {request.accumulate}; expected 1 to {share}, a process's images.",
    )
    if request.accumulate:
        return request.accumulate
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in UViT(shape).parameters())
    memory, pieces = device_memory(pick_device(request.device)), 1
    while (
        pieces < share and memory and 2 * update_memory(shape, num_parameters, -(-share // pieces), precision) > memory
    ):
        pieces *= 2
    return min(pieces, share)


@dataclass
class _Run(MeteredLoop):
    """One run's parts, and what the loop does with them."""

    request: NATSettings
    config: NATTrainingConfig
    accelerator: Accelerator
    reporter: Reporter
    folder: RunFolder
    trainer: NATTrainer
    tokens: TokenSet
    rows: Indices
    held_out: Indices
    model: ModelFolder
    conditions: Conditions
    encoder: TextEncoder | None
    measured: dict[str, float] = field(default_factory=dict)

    advice = "a lower --learning-rate or --precision fp32"

    def __post_init__(self) -> None:
        self.num_updates, self.save_every = self.config.steps, self.config.save_every
        self.meter = Meter(STATS, self.config.batch_size, self.accelerator)
        self.source = self._source()

    def update(self, task: Task) -> None:
        """Learn from one batch."""
        place = (self.accelerator.process_index, self.accelerator.num_processes)
        update = self.source.update(self.trainer.step, *place, self.request.accumulate)
        rate = self.config.learning_rate_at(self.trainer.step)
        self.meter.add(self.trainer.update(update, rate))
        task.advance(1, **(self._log(rate) if self.due(self.config.log_every) else {}))

    def observe(self, task: Task) -> None:
        """Measure and draw with the averaged weights."""
        if self.due(self.config.sample_every) and self.accelerator.is_main_process:
            self._show()

    def _source(self) -> UpdateSource:
        shape = self.trainer.nat.config
        null = shape.num_classes if shape.condition == "class" else NO_CAPTION
        return UpdateSource(self.tokens, self.rows, self.config, shape.num_tokens, null, self.tokens.info.has_flips)

    def _log(self, rate: float) -> dict[str, float]:
        """Note the means since the last note; returns what is shown beside the bar."""
        self.check()
        values = self.meter.read()
        self.folder.log(self.trainer.step, **values, learning_rate=rate)
        return {key: values[key] for key in ("loss", "accuracy")} | {"img/s": values["images_per_second"]}

    def _show(self) -> None:
        """Measure the averaged weights, which are what is exported, and draw a grid with them."""
        name, rows = ("held_out", self.held_out) if len(self.held_out) else ("training", spread(self.rows))
        values = self.trainer.measure(self.source.fixed(rows))
        self.measured = {f"{name}_{key}": value for key, value in values.items()}
        self.folder.log(self.trainer.step, **self.measured)
        save_png(self.folder.samples / f"step-{self.trainer.step:08d}.png", image_grid(self._sample(), _GRID_COLUMNS))

    def _sample(self) -> Pixels:
        """Generate images of classes, or of captions, spread over those seen, one a column."""
        conditions, indices = self.conditions.spread(_GRID_COLUMNS), range(_GRID_COLUMNS * _GRID_ROWS)
        token_ids = sample_tokens(self.trainer.averaged, _GRID_SCHEDULE, conditions, self.config.seed, indices)
        tokenizer = load_tokenizer(self.model, self.accelerator.device, self.tokens.info.image_size)
        return decode_tokens(tokenizer, token_ids)

    def export(self) -> None:
        """Write the averaged weights and the tokenizer as a model folder."""
        exported = ModelFolder(self.folder.model)
        fingerprint = self.tokens.info.tokenizer_fingerprint
        if not (exported.exists() and exported.has("tokenizer") and exported.fingerprint("tokenizer") == fingerprint):
            values, tensors = self.model.read("tokenizer")
            provenance = self.model.index.provenance.get("tokenizer", {})
            values = {**values, "image_size": self.tokens.info.image_size}
            exported.write("tokenizer", values, tensors, provenance=provenance)
        if isinstance(self.conditions, ClassConditions):
            names, seen = self.conditions.names, self.conditions.turns.tolist()
            exported.write_labels({label: names.get(label, str(label)) for label in seen})
        elif not exported.has(TEXT) and (text := encoder_component(self.encoder, self.request.tokens)):
            exported.write_all([replace(text, provenance={"copy of": self.trainer.nat.config.text_encoder})])
        exported.write(
            "nat",
            self.trainer.nat.config.to_dict(),
            self.trainer.ema.state_dict(),
            dtype=torch.float16 if self.request.half else None,
            image_size=self.tokens.info.image_size,
            provenance={
                "command": "pretrain-nat",
                "data": self.tokens.info.source,
                "num_images": len(self.rows),
                **self._examples(),
                "size": self.request.size,
                "update": self.trainer.step,
                "training": self.config.to_dict(),
                "measured": self.measured,
            },
        )
        write_card(exported)

    def _examples(self) -> dict[str, Any]:
        """A few of the captions that the NAT was trained on, for those who look for prompts."""
        if isinstance(self.conditions, ClassConditions):
            return {}
        numbers = self.conditions.spread(_NUM_EXAMPLES).turns.numpy()
        return {"captions": list(dict.fromkeys(self.tokens.captions(numbers)))}


def _trial(request: NATSettings, shape: NATConfig, device: torch.device) -> Job:
    """A piece of an update in a given number format, to be timed."""
    torch.manual_seed(request.training.seed)
    nat = UViT(shape).to(device)
    ids = torch.randint(shape.codebook_size, (_TRIAL_ROWS, shape.num_tokens), device=device)
    condition = torch.zeros(_TRIAL_ROWS, dtype=torch.int64, device=device)
    if shape.condition == "text":
        condition = torch.zeros(_TRIAL_ROWS, shape.text_length, shape.text_width, device=device)

    def job(dtype: torch.dtype) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = nat(ids, condition).logits.float().logsumexp(dim=-1).mean()
        loss.backward()

    return job


def _millions(nat: UViT) -> str:
    return f"{sum(parameter.numel() for parameter in nat.parameters()) / 1e6:.1f} M"


def tokenizer_model(request: NATSettings) -> ModelFolder:
    """The model whose tokenizer is meant: the named one, the data set's own, or the default."""
    return resolve_model(request.model or (request.dataset if request.dataset in model_names() else ""))


def caption_encoder(request: NATSettings, tokens: TokenSet, device: torch.device) -> TextEncoder | None:
    """Load the text encoder of captions that are not encoded yet; None where there is nothing to encode.

    Raises:
        AdaNATError: if it cannot be had, or the captions were encoded by another than the one that is asked for.
    """
    info = tokens.info
    if info.condition != "text":
        return None
    if tokens.states is None:
        half = request.training.precision == "bf16" or (request.training.precision == "auto" and device.type == "cuda")
        named = request.text_encoder or usual_encoder(request.dataset)
        return load_encoder(named, device, torch.bfloat16 if half else torch.float32)
    require(
        not request.text_encoder or recorded_name(request.text_encoder) == info.text_encoder,
        f"The captions in {request.tokens} were encoded by {info.text_encoder}, not by {request.text_encoder}; leave "
        "--text-encoder out, or tokenize without --encode-captions.",
    )
    return None


def _text_fields(info: TokenSetInfo, encoder: TextEncoder | None) -> dict[str, Any]:
    """What the NAT's configuration says of its context."""
    fingerprint = encoder.fingerprint if encoder else info.text_fingerprint
    return {
        "condition": "text",
        "text_encoder": recorded_name(encoder.model) if encoder else info.text_encoder,
        "text_fingerprint": fingerprint,
        "text_width": encoder.width if encoder else info.text_width,
        "text_length": encoder.length if encoder else info.text_length,
    }


def nat_shape(
    request: NATSettings, info: TokenSetInfo, model: ModelFolder, encoder: TextEncoder | None = None
) -> NATConfig:
    """The NAT for these tokens.

    Raises:
        AdaNATError: if another tokenizer made them, or the size is for another condition.
    """
    actual = model.fingerprint("tokenizer")
    require(
        info.tokenizer_fingerprint == actual,
        f"The tokens in {request.tokens} were made by tokenizer {info.tokenizer_fingerprint[:12] or '(unknown)'}, "
        f"but the one of {model.path} is {actual[:12]}; give its model as --model, or run `adanat tokenize` again.",
    )
    text = _text_fields(info, encoder) if info.condition == "text" else {"num_classes": info.num_classes}
    shape = nat_preset(
        request.size, codebook_size=info.codebook_size, grid=info.grid, tokenizer_fingerprint=actual, **text
    )
    require(
        shape.condition == info.condition,
        f"--size {request.size} is conditioned on text, but {request.tokens} holds class labels; choose another size.",
    )
    return shape


def data_identity(tokens: TokenSet, rows: Indices) -> dict[str, Any]:
    """What tells this training data from other data, wherever it lies."""
    checksum = zlib.crc32(tokens.labels[rows].tobytes(), zlib.crc32(tokens.tokens[rows].tobytes()))
    info = tokens.info
    found = {"source": info.source, "has_flips": info.has_flips, "num_images": len(rows), "crc32": checksum}
    if info.condition == "text":
        texts = 0
        for start in range(0, tokens.num_captions, _CAPTIONS_AT_ONCE):
            numbers = np.arange(start, min(start + _CAPTIONS_AT_ONCE, tokens.num_captions))
            texts = zlib.crc32("\n".join(tokens.captions(numbers)).encode(), texts)
        found["captions_crc32"] = texts
    return found


def training_rows(tokens: TokenSet, classes: tuple[str, ...]) -> Indices:
    """Rows of the wanted classes, or all."""
    require(len(tokens) > 0, "The token set is empty; run `adanat tokenize` again.")
    if not classes:
        return np.arange(len(tokens))
    info = tokens.info
    require(info.condition == "class", "The token set holds captions and no classes to choose by; leave --class out.")
    wanted = find_classes(classes, info.class_names, info.num_classes, "the token set")
    rows = np.flatnonzero(np.isin(tokens.labels, wanted))
    require(len(rows) > 0, f"The token set holds no image of class {', '.join(classes)}; choose other classes.")
    return rows
