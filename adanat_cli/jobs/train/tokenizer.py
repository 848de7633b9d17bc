"""Train the small VQ autoencoder on images, from the first update to a model folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import PixelConfig, VQAEConfig
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.data.batches import training_batches
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import require
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.core.tokenizer.losses import reconstruction_loss
from adanat_cli.core.tokenizer.vqae import VQAE
from adanat_cli.jobs.runtime.devices import make_accelerator, settle_precision
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter, Task
from adanat_cli.jobs.sample.pictures import image_grid, save_png, to_uint8
from adanat_cli.jobs.tokenize.preview import psnr, reconstruct, spread_records
from adanat_cli.jobs.tokenize.shards import as_images
from adanat_cli.jobs.train.loop import MeteredLoop, open_run, training_length
from adanat_cli.jobs.train.meter import Meter
from adanat_cli.jobs.train.run_folder import RunFolder
from adanat_cli.jobs.train.tokenizer_update import STATS, TokenizerTrainer

_NUM_SHOWN, _NUM_MEASURED = 16, 256


@holds_output
def train_tokenizer(request: TokenizerSettings, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a tokenizer.

    Returns:
        Where it is and what was measured last; empty on processes other than the main one.

    Raises:
        AdaNATError: if the data cannot be read, the run folder holds another run, or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        SystemExit: after SIGTERM or SIGHUP, once the state is saved.
    """
    if isinstance(request.tokenizer, PixelConfig):
        return _write_pixels(request, request.tokenizer)
    accelerator = make_accelerator(request.device, request.training.batch_size)
    source = open_source(request.data)
    shape = request.tokenizer
    training = settle_precision(
        request.training, request.output, accelerator, lambda: _trial(shape, request.training.seed, accelerator)
    )
    # Where the data lies and how many threads decode it change nothing.
    settings = {
        "data": source.identity(),
        "tokenizer": request.tokenizer.to_dict(),
        "training": training.to_dict(),
    }
    folder, state = open_run(request.output, settings, accelerator, reporter, training_length(training))
    trainer = TokenizerTrainer(shape, training, accelerator)
    if not accelerator.is_main_process:
        reporter = SilentReporter()
    reporter.log(source.describe())
    run = _Run(request, accelerator, reporter, folder, trainer, source, settings)
    if state is not None:
        run.resume(state)
        del state  # as large as the weights and the optimizers together
    elif request.note:
        reporter.log(request.note)
    run.train()
    accelerator.wait_for_everyone()
    return {"model": str(folder.model), "steps": trainer.step, **run.measured} if accelerator.is_main_process else {}


def _write_pixels(request: TokenizerSettings, config: PixelConfig) -> dict[str, Any]:
    """Write a tokenizer that has nothing to learn."""
    RunFolder(request.output, {"tokenizer": config.to_dict()})
    model = ModelFolder(request.output / "model")
    provenance = {"command": "train-tokenizer", "tokenizer": config.to_dict()}
    model.write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict(), provenance=provenance)
    write_card(model)
    return {"model": str(model.path), "steps": 0}


def plan(request: TokenizerSettings) -> dict[str, Any]:
    """What ``train_tokenizer`` would do, without touching data."""
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in build_tokenizer(request.tokenizer).parameters())
    return {
        "data": request.data.to_dict(),
        "tokenizer": request.tokenizer.to_dict(),
        "training": request.training.to_dict(),
        "output": str(request.output),
        "num_parameters": num_parameters,
        "tokens_per_image": request.tokenizer.num_tokens,
        "tokens_per_update": request.tokenizer.num_tokens * request.training.batch_size,
        "megabytes_on_one_process": _memory(request, num_parameters) // 2**20,
        **({"note": request.note} if request.note else {}),
    }


def _memory(request: TokenizerSettings, num_parameters: int) -> int:
    """Rough bytes of an update: weights, gradients, two moments and the average, and what backward keeps."""
    shape = request.tokenizer
    if isinstance(shape, PixelConfig):
        return 0
    # Per place, encoder and decoder each: a resampling, and two norms, activations and convolutions a residual block.
    floats = sum(
        2 * (4 + 6 * shape.num_res_blocks) * width / 4**level for level, width in enumerate(shape.channels, start=1)
    )
    size = 2 if request.training.precision == "bf16" else 4
    return 20 * num_parameters + int(size * request.training.batch_size * shape.image_size**2 * (12 + floats))


@dataclass
class _Run(MeteredLoop):
    """One run's parts, and what the loop does with them."""

    request: TokenizerSettings
    accelerator: Accelerator
    reporter: Reporter
    folder: RunFolder
    trainer: TokenizerTrainer
    source: ImageSource
    settings: dict[str, Any]
    measured: dict[str, float] = field(default_factory=dict)
    exports_with_states = False
    advice = "a lower --learning-rate"

    def __post_init__(self) -> None:
        config = self.trainer.config
        self.num_updates, self.save_every = config.steps, config.save_every
        self.meter = Meter(STATS, config.batch_size, self.accelerator)

    def train(self) -> None:
        """Update until done; measure, show and save on the way."""
        self._images = self._batches()
        self._shown = self._shown_images() if self.accelerator.is_main_process else None
        super().train()

    def update(self, task: Task) -> None:
        """Learn from one batch."""
        self.meter.add(self.trainer.update(next(self._images)))
        task.advance(1, **(self._log() if self.due(self.trainer.config.log_every) else {}))

    def observe(self, task: Task) -> None:
        """Show what the averaged weights make of some images."""
        if self._shown is not None and self.due(self.trainer.config.sample_every):
            self._show(self._shown)

    def _log(self) -> dict[str, float]:
        """Note the means since the last note; returns what is shown beside the bar."""
        self.check()
        trainer = self.trainer
        values = {**self.meter.read(), "perplexity": trainer.codebook.perplexity()}
        self.folder.log(trainer.step, **values, learning_rate=trainer.config.learning_rate_at(trainer.step - 1))
        return {key: values[key] for key in ("reconstruction", "perplexity")} | {"img/s": values["images_per_second"]}

    def _batches(self) -> Iterator[Tensor]:
        """Yield this process's share of every update's images, (B, 3, H, W) bytes."""
        config, accelerator = self.trainer.config, self.accelerator
        batches = training_batches(
            self.source,
            batch_size=config.batch_size // accelerator.num_processes,
            seed=config.seed,
            first_step=self.trainer.step,
            num_workers=self.request.workers,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        return (images for images, _ in batches)

    def _shown_images(self) -> Tensor:
        """Readable images as (n, 3, H, W) floats in [0, 1], spread over the source; they are trained on as well."""
        records = spread_records(self.source, _NUM_MEASURED)
        require(bool(records), f"None of the first images of {self.source.config.source} can be read.")
        return as_images(records, self.trainer.vqae)

    def _show(self, images: Tensor) -> None:
        """Save originals above their reconstructions by the averaged weights, which are what is exported."""
        vqae, step = self.trainer.averaged(), self.trainer.step
        decoded = reconstruct(vqae, images)
        self.measured = {"psnr": psnr(decoded, images), "perplexity": self.trainer.codebook.perplexity()}
        self.folder.log(step, psnr=self.measured["psnr"])
        pairs = torch.cat([images[:_NUM_SHOWN], decoded[:_NUM_SHOWN]])
        save_png(
            self.folder.samples / f"step-{step:08d}.png", image_grid(to_uint8(pairs), min(_NUM_SHOWN, len(images)))
        )

    def export(self) -> None:
        """Write the averaged weights as a model folder."""
        model = ModelFolder(self.folder.model)
        model.write(
            "tokenizer",
            self.request.tokenizer.to_dict(),
            self.trainer.averaged().state_dict(),
            dtype=torch.float16 if self.request.half else None,
            provenance={"command": "train-tokenizer", **self.settings, "measured": self.measured},
        )
        write_card(model)


def _trial(shape: VQAEConfig, seed: int, accelerator: Accelerator) -> Any:
    """A forward and backward pass in a given number format, to be timed."""
    torch.manual_seed(seed)
    vqae = VQAE(shape).to(accelerator.device).to(memory_format=torch.channels_last)
    images = torch.rand(8, 3, shape.image_size, shape.image_size, device=accelerator.device)

    def job(dtype: torch.dtype) -> None:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = reconstruction_loss(vqae(images).images, images)
        loss.backward()

    return job
