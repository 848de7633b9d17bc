"""Train a NAT on a token set, from the first update to a model folder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import DATA_PRESETS, NATConfig, NATTrainingConfig, nat_preset, tokenizer_config
from adanat_cli.core.data.token_set import TokenSet, TokenSetInfo, read_header, shard_files
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.runs.classes import find_classes
from adanat_cli.core.runs.devices import Job, make_accelerator, settle_precision
from adanat_cli.core.runs.interrupts import deferred_interrupts
from adanat_cli.core.runs.meter import Meter
from adanat_cli.core.runs.models import load_tokenizer, model_names, resolve_model
from adanat_cli.core.runs.nat_batches import Indices, UpdateSource, hold_out
from adanat_cli.core.runs.nat_trainer import STATS, NATTrainer
from adanat_cli.core.runs.pictures import Pixels, image_grid, save_png
from adanat_cli.core.runs.reporter import Reporter, SilentReporter
from adanat_cli.core.runs.run_folder import RunFolder
from adanat_cli.core.runs.sampling import decode_tokens, sample_tokens
from adanat_cli.core.runs.token_sets import resolve_tokens

_GRID_COLUMNS, _GRID_ROWS = 8, 4
_GRID_SCHEDULE = CosineSchedule(8)
_TRIAL_ROWS = 32


@dataclass(frozen=True)
class PretrainNATRequest:
    """What one run of ``adanat pretrain-nat`` is asked for.

    Attributes:
        dataset: preset or source that the tokens come from; names the default model.
        tokens: folder of the token set, or its Hub id ``user/repo[@revision]``.
        size: preset of the NAT.
        training: the settings that decide the result.
        output: run folder.
        model: whose tokenizer made the tokens; "" for the data set's own, else the default model.
        classes: ids or names to train on; empty takes all.
        accumulate: pieces that a process cuts its share of a batch into, to save memory.
        device: "" for the best one here.
        half: whether to export 16-bit weights.
    """

    dataset: str
    tokens: Path
    size: str
    training: NATTrainingConfig
    output: Path
    model: str = ""
    classes: tuple[str, ...] = ()
    accumulate: int = 1
    device: str = ""
    half: bool = False


def pretrain_nat(request: PretrainNATRequest, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a NAT.

    Returns:
        Where the model is and what was measured last; empty on processes other than the main one.

    Raises:
        AdaNATError: if tokens and tokenizer do not belong together, the run folder holds another run,
            or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    accelerator = make_accelerator(request.device, request.training.batch_size)
    share = request.training.batch_size // accelerator.num_processes
    require(
        1 <= request.accumulate <= share,
        f"--accumulate is {request.accumulate}; expected 1 to {share}, a process's images.",
    )
    with accelerator.main_process_first():
        request = replace(request, tokens=resolve_tokens(request.tokens))
    tokens, model = TokenSet.open(request.tokens), _model(request)
    shape = _shape(request, tokens.info, model)
    train_rows, held_out = hold_out(_rows(tokens, request.classes))
    config = settle_precision(
        request.training, request.output, accelerator, lambda: _trial(request, shape, accelerator.device)
    )
    settings = {
        "nat": shape.to_dict(),
        "training": config.to_dict(),
        "data": _identity(tokens, train_rows),
    }
    with accelerator.main_process_first():
        folder = RunFolder(request.output, settings, write=accelerator.is_main_process)
        state = folder.latest()
    codes = load_tokenizer(model).codebook if config.code_init > 0 else None
    trainer = NATTrainer(shape, config, accelerator, codes)
    if not accelerator.is_main_process:
        reporter = SilentReporter()
    run = _Run(request, config, accelerator, reporter, folder, trainer, tokens, train_rows, held_out, model)
    if state:
        trainer.load_state_dict(state)
        run.measured = state["measured"]
        del state  # as large as the weights and the optimizer together
        reporter.log(f"Resuming at update {trainer.step} of {config.steps}.")
    else:
        reporter.log(
            f"Training {_millions(trainer.nat)} parameters on {len(train_rows)} images in {config.precision}; "
            f"{len(held_out)} images held out."
        )
    run.train()
    accelerator.wait_for_everyone()
    return {"model": str(folder.model), "steps": trainer.step, **run.measured} if accelerator.is_main_process else {}


def plan(request: PretrainNATRequest) -> dict[str, Any]:
    """What ``pretrain_nat`` would do: the grid is that of the token set, if it is there, else the tokenizer's own."""
    model = _model(request)
    if shards := shard_files(request.tokens):
        shape = _shape(request, read_header(shards[0]).info, model)
    else:
        tokenizer = tokenizer_config(model.config("tokenizer"), str(model.path))
        shape = nat_preset(
            request.size,
            codebook_size=tokenizer.codebook_size,
            grid=tokenizer.grid,
            num_classes=DATA_PRESETS.get(request.dataset, {}).get("num_classes", 1000),
            tokenizer_fingerprint=model.fingerprint("tokenizer"),
        )
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in UViT(shape).parameters())
    rows = -(-request.training.batch_size // request.accumulate)
    return {
        "dataset": request.dataset,
        "tokens": str(request.tokens),
        "model": str(model.path),
        "output": str(request.output),
        "nat": shape.to_dict(),
        "training": request.training.to_dict(),
        "num_parameters": num_parameters,
        "tokens_per_image": shape.num_tokens,
        "tokens_per_update": shape.num_tokens * request.training.batch_size,
        "megabytes_on_one_process": _memory(shape, num_parameters, rows, request.training.precision) // 2**20,
    }


def _memory(shape: NATConfig, num_parameters: int, rows: int, precision: str) -> int:
    """Rough bytes of an update: weights, gradients, two moments and the average, and what backward keeps."""
    size = 2 if precision == "bf16" else 4
    # Per block and token: two norms' inputs and outputs, q, k, v, attention, hidden layer before and after GELU.
    per_block = (9 + 2 * shape.mlp_ratio) * shape.width * size
    sequence = rows * (shape.num_tokens + max(shape.text_length, 1))
    logits = 3 * 4 * rows * shape.num_tokens * shape.codebook_size
    return 20 * num_parameters + (shape.depth + 1) * per_block * sequence + logits


@dataclass
class _Run:
    """One run's parts, and what the loop does with them."""

    request: PretrainNATRequest
    config: NATTrainingConfig
    accelerator: Accelerator
    reporter: Reporter
    folder: RunFolder
    trainer: NATTrainer
    tokens: TokenSet
    rows: Indices
    held_out: Indices
    model: ModelFolder
    measured: dict[str, float] = field(default_factory=dict)

    def train(self) -> None:
        """Update until done; measure, show and save on the way."""
        config, trainer, accelerator = self.config, self.trainer, self.accelerator
        source, place = self._source(), (accelerator.process_index, accelerator.num_processes)
        meter = Meter(STATS, config.batch_size, accelerator)
        with (
            deferred_interrupts() as interrupt,
            self.reporter.task("Training", config.steps, "updates", trainer.step) as task,
        ):
            while trainer.step < config.steps:
                update = source.update(trainer.step, *place, self.request.accumulate)
                rate = config.learning_rate_at(trainer.step)
                meter.add(trainer.update(update, rate))
                fields = self._log(meter, rate) if self._due(config.log_every) else {}
                task.advance(1, **fields)
                with meter.paused():
                    if self._due(config.sample_every):
                        self._show(source)
                    # Others go on until the main process, which alone saves, has left.
                    stop = interrupt.raised and accelerator.is_main_process
                    if stop or self._due(config.save_every):
                        self._save(meter)
                if stop:
                    raise KeyboardInterrupt
        if accelerator.is_main_process:
            self._export()

    def _due(self, every: int) -> bool:
        return self.trainer.step % every == 0 or self.trainer.step == self.config.steps

    def _source(self) -> UpdateSource:
        shape = self.trainer.nat.config
        return UpdateSource(
            self.tokens, self.rows, self.config, shape.num_tokens, shape.num_classes, self.tokens.info.has_flips
        )

    def _log(self, meter: Meter, rate: float) -> dict[str, float]:
        """Note the means since the last note; returns what is shown beside the bar."""
        self._check(meter)
        values = meter.read()
        self.folder.log(self.trainer.step, **values, learning_rate=rate)
        speed = values.pop("images_per_second")  # no property of the model
        self.measured = {**self.measured, **values}
        return {key: values[key] for key in ("loss", "accuracy")} | {"img/s": speed}

    def _check(self, meter: Meter) -> None:
        """Stop before anything that is not a number reaches the disk."""
        if not meter.is_finite():
            raise AdaNATError(
                f"Training diverged before update {self.trainer.step}: loss or gradient is not a number. The last "
                f"saved state in {self.folder.path} is kept; try a lower --learning-rate or --precision fp32 "
                "with another --output."
            )

    def _save(self, meter: Meter) -> None:
        self._check(meter)
        if self.accelerator.is_main_process:
            self.folder.save(self.trainer.step, {**self.trainer.state_dict(), "measured": self.measured})
            self._export()

    def _show(self, source: UpdateSource) -> None:
        """Measure the averaged weights on held-out images, and draw a grid with them."""
        if not self.accelerator.is_main_process:
            return
        if len(self.held_out):
            values = self.trainer.measure(source.fixed(self.held_out))
            self.measured = {**self.measured, **values}
            self.folder.log(self.trainer.step, **values)
        save_png(self.folder.samples / f"step-{self.trainer.step:08d}.png", image_grid(self._sample(), _GRID_COLUMNS))

    def _sample(self) -> Pixels:
        """Generate images of classes spread over those seen, one class a column."""
        seen, device = np.unique(self.tokens.labels[self.rows]), self.accelerator.device
        columns = seen[np.linspace(0, len(seen) - 1, _GRID_COLUMNS).round().astype(int)]
        labels = torch.from_numpy(np.tile(columns, _GRID_ROWS)).to(device)
        indices = torch.arange(len(labels))
        token_ids = sample_tokens(self.trainer.averaged, _GRID_SCHEDULE, labels, self.config.seed, indices)
        return decode_tokens(load_tokenizer(self.model, device, self.tokens.info.image_size), token_ids)

    def _export(self) -> None:
        """Write the averaged weights and the tokenizer as a model folder."""
        exported = ModelFolder(self.folder.model)
        fingerprint = self.tokens.info.tokenizer_fingerprint
        if not (exported.exists() and exported.has("tokenizer") and exported.fingerprint("tokenizer") == fingerprint):
            values, tensors = self.model.read("tokenizer")
            provenance = self.model.index.provenance.get("tokenizer", {})
            values = {**values, "image_size": self.tokens.info.image_size}
            exported.write("tokenizer", values, tensors, provenance=provenance)
        seen = np.unique(self.tokens.labels[self.rows])
        exported.write_labels({int(label): self.tokens.info.class_names.get(int(label), str(label)) for label in seen})
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
                "size": self.request.size,
                "update": self.trainer.step,
                "training": self.config.to_dict(),
                "measured": self.measured,
            },
        )
        write_card(exported)


def _model(request: PretrainNATRequest) -> ModelFolder:
    """The model whose tokenizer is meant: the named one, the data set's own, or the default."""
    return resolve_model(request.model or (request.dataset if request.dataset in model_names() else ""))


def _shape(request: PretrainNATRequest, info: TokenSetInfo, model: ModelFolder) -> NATConfig:
    """The NAT for these tokens.

    Raises:
        AdaNATError: if another tokenizer made them, or they carry captions.
    """
    require(
        info.condition == "class",
        f"{request.tokens} holds captions; pretrain-nat trains on class labels: give a token set with labels.",
    )
    actual = model.fingerprint("tokenizer")
    require(
        info.tokenizer_fingerprint == actual,
        f"The tokens in {request.tokens} were made by tokenizer {info.tokenizer_fingerprint[:12] or '(unknown)'}, "
        f"but the one of {model.path} is {actual[:12]}; give its model as --model, or run `adanat tokenize` again.",
    )
    shape = nat_preset(
        request.size,
        codebook_size=info.codebook_size,
        grid=info.grid,
        num_classes=info.num_classes,
        tokenizer_fingerprint=actual,
    )
    require(
        shape.condition == info.condition,
        f"--size {request.size} is conditioned on text, but {request.tokens} holds class labels; choose another size.",
    )
    return shape


def _identity(tokens: TokenSet, rows: Indices) -> dict[str, Any]:
    """What tells this training data from other data, wherever it lies."""
    checksum = zlib.crc32(tokens.labels[rows].tobytes(), zlib.crc32(tokens.tokens[rows].tobytes()))
    info = tokens.info
    return {"source": info.source, "has_flips": info.has_flips, "num_images": len(rows), "crc32": checksum}


def _rows(tokens: TokenSet, classes: tuple[str, ...]) -> Indices:
    """Rows of the wanted classes, or all."""
    require(len(tokens) > 0, "The token set is empty; run `adanat tokenize` again.")
    if not classes:
        return np.arange(len(tokens))
    info = tokens.info
    wanted = find_classes(classes, info.class_names, info.num_classes, "the token set")
    rows = np.flatnonzero(np.isin(tokens.labels, wanted))
    require(len(rows) > 0, f"The token set holds no image of class {', '.join(classes)}; choose other classes.")
    return rows


def _trial(request: PretrainNATRequest, shape: NATConfig, device: torch.device) -> Job:
    """A piece of an update in a given number format, to be timed."""
    torch.manual_seed(request.training.seed)
    nat = UViT(shape).to(device)
    ids = torch.randint(shape.codebook_size, (_TRIAL_ROWS, shape.num_tokens), device=device)
    labels = torch.zeros(_TRIAL_ROWS, dtype=torch.int64, device=device)

    def job(dtype: torch.dtype) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = nat(ids, labels).logits.float().logsumexp(dim=-1).mean()
        loss.backward()

    return job


def _millions(nat: UViT) -> str:
    return f"{sum(parameter.numel() for parameter in nat.parameters()) / 1e6:.1f} M"
