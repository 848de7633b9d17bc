"""Train a NAT on a token set, from the first update to a model folder."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL.Image import Image
from torch import Tensor

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.folder import TEXT, ModelFolder
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import NATConfig, nat_preset
from adanat_cli.core.config.nat import nat_size
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import TokenSetInfo
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.models import load_tokenizer, model_names, resolve_model, resolve_tokens
from adanat_cli.jobs.resolve.text_encoders import (
    encoder_component,
    encoder_of,
    load_encoder,
    recorded_name,
    usual_encoder,
)
from adanat_cli.jobs.runtime.devices import Job, device_memory, make_accelerator, pick_device, settle_precision
from adanat_cli.jobs.runtime.group import num_processes
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.conditions import NO_CAPTION, CaptionConditions, ClassConditions, Conditions
from adanat_cli.jobs.sample.pictures import Pixels, image_grid
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import decode_tokens, sample_tokens
from adanat_cli.jobs.train.inputs import note_inputs
from adanat_cli.jobs.train.loop import MeteredLoop, Run, training_length
from adanat_cli.jobs.train.nat_batches import Indices, UpdateSource, hold_out, spread
from adanat_cli.jobs.train.nat_cost import count_parameters, update_memory
from adanat_cli.jobs.train.nat_start import (
    class_rows,
    code_rows,
    continues_tokenizer,
    first_weights,
    fit_to_tokens,
    start_shape,
)
from adanat_cli.jobs.train.nat_update import STATS, NATTrainer
from adanat_cli.jobs.train.start import Start, find_start

_GRID_COLUMNS, _GRID_ROWS = 8, 4
_GRID_SCHEDULE = CosineSchedule(8)
_TRIAL_OPERATIONS, _TRIAL_OPERATIONS_ON_GPU = 5e10, 2e13
"""Of the piece of an update that is timed, at most: about a second of one core, or of a GPU."""
_NUM_EXAMPLES = 16
_CAPTIONS_AT_ONCE = 2**16


@holds_output
def pretrain_nat(request: NATSettings, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a NAT.

    Returns:
        Where the model is and what was measured last; empty on processes other than the main one.

    Raises:
        AdaNATError: if tokens and tokenizer are not compatible, the run folder holds another run,
            or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        SystemExit: after SIGTERM or SIGHUP, once the state is saved.
    """
    accelerator = make_accelerator(request.device, request.training.batch_size)
    with accelerator.main_process_first():
        request = replace(request, tokens=resolve_tokens(request.tokens))
    start = find_start(request.start, "nat", request.output)
    tokens, model = TokenSet.open(request.tokens), tokenizer_model(request, start)
    encoder = caption_encoder(request, tokens, accelerator.device, start)
    shape = nat_shape(request, tokens.info, model, encoder, start)
    train_rows, held_out = hold_out(training_rows(tokens, request.classes), request.training.held_out)
    config = settle_precision(
        request.training, request.output, accelerator, lambda: _trial(request, shape, accelerator)
    )
    share = config.batch_size // accelerator.num_processes
    request = replace(request, accumulate=pieces_of(request, shape, share, config.precision))
    settings = {"nat": shape.to_dict(), "training": config.to_dict(), "data": data_identity(tokens, train_rows)}
    weights, line = _first_weights(request, start, tokens, train_rows, model)
    settings |= start.recorded() if start else {}
    length, told = training_length(config), (request.note, request.record, request.track)
    run = Run(request.output, settings, accelerator, reporter, length, *told)
    if accelerator.is_main_process:
        note_inputs(run.folder.path, request.inputs)
        if start:
            start.remember(run.folder)
    codes = load_tokenizer(model).codebook if config.code_init > 0 else None
    conditions: Conditions
    if shape.condition == "text":
        first = torch.from_numpy(tokens.first_caption[train_rows])
        conditions = CaptionConditions(first, tokens, encoder, accelerator.device)
    else:
        conditions = ClassConditions(torch.from_numpy(np.unique(tokens.labels[train_rows])), tokens.info.class_names)
    trainer = NATTrainer(shape, config, accelerator, codes, conditions.encode, weights, request.fsdp)
    trainer.nat.gradient_checkpointing = request.gradient_checkpointing
    if request.compiled:
        trainer.compile()
    if request.fsdp and not trainer.is_sharded:
        run.reporter.warn("--fsdp shares the NAT out over processes, but this is the only one, which holds it whole.")
    if run.is_new:
        if other := tokens.info.instead_of(request.dataset):
            run.reporter.warn(other)
        if line:
            run.reporter.log(line)
        run.reporter.log(
            f"Training {count_parameters(shape) / 1e6:.1f} M parameters on {len(train_rows)} images in "
            f"{config.precision}; {len(held_out)} images held out."
        )
    return NATLoop(run, trainer, request, tokens, train_rows, held_out, model, conditions, encoder).train()


def _first_weights(
    request: NATSettings, start: Start | None, tokens: TokenSet, rows: Indices, model: ModelFolder
) -> tuple[Mapping[str, Tensor] | None, str]:
    """Weights to start from, and a line that says which; None for random ones, and where a saved state has them."""
    if start is None:
        return None, ""
    require(
        request.training.code_init == 0,
        f"--code-init {request.training.code_init} draws new word embeddings, but those of --from {start.model} are "
        "kept; leave one of the two out.",
    )
    if start.is_resumed:
        return None, ""
    found = class_rows(start.folder, tokens.info) if tokens.info.condition == "class" else None
    lines = [found.line(np.unique(tokens.labels[rows]).tolist())] if found else []
    codes = code_rows(start.folder, model) if continues_tokenizer(model, start.folder) else None
    if codes is not None:
        lines.append(f"rows of {len(codes) - 1:,} codes from the nearest of its {codes[-1]:,}")
    rest = f": {'; '.join(lines)}" if lines else ""
    return first_weights(start.folder, found, codes), f"Starting from {start.model}{rest}."


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
    shards, pieces = num_processes() if request.fsdp else 1, 1
    half = device_memory(pick_device(request.device)) / 2

    def needed() -> int:
        return update_memory(shape, -(-share // pieces), precision, shards, request.gradient_checkpointing)

    while pieces < share and 0 < half < needed():
        pieces *= 2
    return min(pieces, share)


class NATLoop(MeteredLoop):
    """Training of a NAT."""

    trainer: NATTrainer
    shown = ("loss", "accuracy")
    advice = "a lower --learning-rate or --precision fp32"

    def __init__(
        self,
        run: Run,
        trainer: NATTrainer,
        request: NATSettings,
        tokens: TokenSet,
        rows: Indices,
        held_out: Indices,
        model: ModelFolder,
        conditions: Conditions,
        encoder: TextEncoder | None,
    ) -> None:
        """Connect the parts: rows of the token set to train on and to measure on, and whose tokenizer made them."""
        super().__init__(run, trainer, trainer.config, STATS)
        self.request, self.tokens, self.rows, self.held_out = request, tokens, rows, held_out
        self.model, self.conditions, self.encoder = model, conditions, encoder
        shape = trainer.nat.config
        null = shape.num_classes if shape.condition == "class" else NO_CAPTION
        self.source = UpdateSource(tokens, rows, trainer.config, shape.num_tokens, null, tokens.info.has_flips)

    def learn(self) -> Tensor:
        """Learn from one batch."""
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        update = self.source.update(self.trainer.step, rank, world_size, self.request.accumulate)
        return self.trainer.update(update, self.config.learning_rate_at(self.trainer.step))

    def show(self) -> tuple[dict[str, float], Image]:
        """Measure the averaged weights, on training images where none are held out, and draw a grid with them."""
        name, rows = ("held_out", self.held_out) if len(self.held_out) else ("training", spread(self.rows))
        values = self.trainer.measure(self.source.fixed(rows))
        self.measured = {f"{name}_{key}": value for key, value in values.items()}
        return self.measured, image_grid(self._sample(), _GRID_COLUMNS)

    def _sample(self) -> Pixels:
        """Generate images of classes, or of captions, spread over those seen, one a column."""
        conditions, indices = self.conditions.spread(_GRID_COLUMNS), range(_GRID_COLUMNS * _GRID_ROWS)
        nat = ConditionedNAT(self.trainer.averaged, conditions)
        token_ids = sample_tokens(nat, _GRID_SCHEDULE, self.config.seed, indices)
        tokenizer = load_tokenizer(self.model, self.accelerator.device, self.tokens.info.image_size)
        return decode_tokens(tokenizer, token_ids)

    def export(self) -> None:
        """Write the averaged weights and the tokenizer as a model folder."""
        exported = ModelFolder(self.folder.model)
        fingerprint = self.model.fingerprint("tokenizer")
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
            self.trainer.averaged.state_dict(),
            dtype=torch.float16 if self.request.half else None,
            image_size=self.tokens.info.image_size,
            provenance={
                "command": "pretrain-nat",
                "data": self.tokens.info.source,
                "num_images": len(self.rows),
                **self._examples(),
                "size": nat_size(self.trainer.nat.config.to_dict()),
                "update": self.trainer.step,
                "training": self.run.settings["training"],
                **({"from": self.run.settings["from"]} if "from" in self.run.settings else {}),
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


def _trial(request: NATSettings, shape: NATConfig, accelerator: Accelerator) -> Job:
    """An update in a given number format, to be timed: of a process's images, or of as many as take a second."""
    device, share = accelerator.device, request.training.batch_size // accelerator.num_processes
    most = _TRIAL_OPERATIONS_ON_GPU if device.type == "cuda" else _TRIAL_OPERATIONS
    rows = max(1, min(share, int(most / (6 * count_parameters(shape) * shape.num_tokens))))
    torch.manual_seed(request.training.seed)
    nat = UViT(shape).to(device)
    ids = torch.randint(shape.codebook_size, (rows, shape.num_tokens), device=device)
    condition = torch.zeros(rows, dtype=torch.int64, device=device)
    if shape.condition == "text":
        condition = torch.zeros(rows, shape.text_length, shape.text_width, device=device)

    def job(dtype: torch.dtype) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = nat(ids, condition).logits.float().logsumexp(dim=-1).mean()
        loss.backward()

    return job


def tokenizer_model(request: NATSettings, start: Start | None) -> ModelFolder:
    """The model whose tokenizer is meant: the named one, that of ``--from``, the data set's own, or the default."""
    if start and not request.model:
        folder = start.folder
        require(
            folder.exists(),
            f"{folder.path} is missing, whose tokenizer this run takes; give --from {start.model} again, or --model.",
        )
        return folder
    return resolve_model(request.model or (request.dataset if request.dataset in model_names() else ""))


def caption_encoder(
    request: NATSettings, tokens: TokenSet, device: torch.device, start: Start | None
) -> TextEncoder | None:
    """Load the text encoder of captions that are not encoded yet; None where there is nothing to encode.

    Raises:
        AdaNATError: if it cannot be had, or the captions were encoded by another than the one that is asked for.
    """
    info = tokens.info
    if info.condition != "text":
        return None
    if tokens.states is None:
        half = request.training.precision == "bf16" or (request.training.precision == "auto" and device.type == "cuda")
        precision = torch.bfloat16 if half else torch.float32
        if start and (base := start_shape(start)).condition == "text":
            return encoder_of(start.folder, base, request.text_encoder, device, precision)
        return load_encoder(request.text_encoder or usual_encoder(request.dataset), device, precision)
    require(
        not request.text_encoder or recorded_name(request.text_encoder) == info.text_encoder,
        f"The captions in {request.tokens} were encoded by {info.text_encoder}, not by {request.text_encoder}; leave "
        "--text-encoder out, or tokenize without --encode-captions.",
    )
    return None


def nat_shape(
    request: NATSettings,
    info: TokenSetInfo,
    model: ModelFolder,
    encoder: TextEncoder | None = None,
    start: Start | None = None,
) -> NATConfig:
    """The NAT for these tokens.

    Raises:
        AdaNATError: if another tokenizer made them, the size is for another condition, or the NAT to start from
            does not fit them.
    """
    require(
        info.condition == "text" or not request.text_encoder,
        "--text-encoder encodes captions: it has no meaning with a token set of class labels; leave it out.",
    )
    if start:  # before the tokenizer that is usual, which is the start's own
        base = start_shape(start)
        if not start.is_resumed and continues_tokenizer(model, start.folder):
            base = base.replace(codebook_size=info.codebook_size, tokenizer_fingerprint=info.tokenizer_fingerprint)
        base = fit_to_tokens(base, request.size, info, encoder, start.model)
    actual = tokens_fingerprint(model)
    require(
        info.tokenizer_fingerprint == actual,
        f"The tokens in {request.tokens} were made by tokenizer {info.tokenizer_fingerprint[:12] or '(unknown)'}, "
        f"but the one of {model.name} is {actual[:12]}; give its model as --model, or run `adanat tokenize` again.",
    )
    if start:
        return base.replace(tokenizer_fingerprint=actual)
    text: dict[str, Any] = {"num_classes": info.num_classes}
    if info.condition == "text":
        text = {
            "condition": "text",
            "text_encoder": recorded_name(encoder.model) if encoder else info.text_encoder,
            "text_fingerprint": encoder.fingerprint if encoder else info.text_fingerprint,
            "text_width": encoder.width if encoder else info.text_width,
            "text_length": encoder.length if encoder else info.text_length,
        }
    shape = nat_preset(
        request.size,
        codebook_size=info.codebook_size,
        grid=info.grid,
        tokenizer_fingerprint=actual,
        **request.shape,
        **text,
    )
    require(
        shape.condition == info.condition,
        f"--size {request.size} is conditioned on text, but {request.tokens} holds class labels; choose another size.",
    )
    return shape


def data_identity(tokens: TokenSet, rows: Indices) -> dict[str, Any]:
    """What distinguishes this training data from other data, wherever it lies."""
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
