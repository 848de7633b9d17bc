"""Train the small VQ autoencoder on images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from adanat_cli.core.data.batches import training_batches
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import DataConfig, TokenizerTrainingConfig, VQAEConfig
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.runs.devices import pick_precision
from adanat_cli.core.runs.ema import Ema
from adanat_cli.core.runs.pictures import image_grid, save_png, to_uint8
from adanat_cli.core.runs.reporter import Reporter
from adanat_cli.core.runs.run_folder import RunFolder
from adanat_cli.core.tokenizer.codebook import Codebook
from adanat_cli.core.tokenizer.losses import (
    PatchDiscriminator,
    PerceptualLoss,
    discriminator_loss,
    reconstruction_loss,
)
from adanat_cli.core.tokenizer.vqae import VQAE

_NUM_SHOWN = 16


@dataclass(frozen=True)
class TrainTokenizerRequest:
    """What one run of ``adanat train-tokenizer`` is asked for."""

    data: DataConfig
    tokenizer: VQAEConfig
    training: TokenizerTrainingConfig
    output: Path
    workers: int = 2
    half_precision_weights: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide the result; where it is written and by how many workers does not."""
        return {
            "data": self.data.to_dict(),
            "tokenizer": self.tokenizer.to_dict(),
            "training": self.training.to_dict(),
            "half_precision_weights": self.half_precision_weights,
        }


def train_tokenizer(request: TrainTokenizerRequest, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a tokenizer; returns what was measured last.

    Raises:
        AdaNATError: if the data cannot be read, the run folder holds another run, or training diverges.
    """
    accelerator = Accelerator()
    config = request.training
    folder = RunFolder(request.output, request.to_dict(), write=accelerator.is_main_process)
    source = open_source(request.data)
    trainer = TokenizerTrainer(request.tokenizer, config, accelerator)
    if state := folder.latest():
        trainer.load_state_dict(state)
        reporter.log(f"Resuming at update {trainer.step} of {config.steps}.")
    batches = _batches(source, request, trainer.step, accelerator)
    shown = _shown_images(source).to(accelerator.device)
    stats: dict[str, float] = {}
    try:
        with reporter.task("train-tokenizer", config.steps, "updates", trainer.step) as task:
            while trainer.step < config.steps:
                stats = trainer.update(next(batches))
                due = trainer.step == config.steps
                if due or trainer.step % config.log_every == 0:
                    folder.log(trainer.step, **stats)
                task.advance(1, loss=stats["reconstruction"], perplexity=stats["perplexity"])
                if due or trainer.step % config.sample_every == 0:
                    _show(trainer, shown, folder, accelerator)
                if due or trainer.step % config.save_every == 0:
                    folder.save(trainer.step, trainer.state_dict())
    except KeyboardInterrupt:
        folder.save(trainer.step, trainer.state_dict())
        raise
    psnr = _psnr(trainer, shown)
    if accelerator.is_main_process:
        _export(trainer, request, folder, {**stats, "psnr": psnr})
    accelerator.wait_for_everyone()
    reporter.log(f"Wrote the tokenizer to {folder.model}.")
    return {"model": str(folder.model), "steps": trainer.step, "psnr": psnr, **stats}


def plan(request: TrainTokenizerRequest) -> dict[str, Any]:
    """What ``train_tokenizer`` would do, without touching data."""
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in VQAE(request.tokenizer).parameters())
    return {
        **request.to_dict(),
        "output": str(request.output),
        "num_parameters": num_parameters,
        "tokens_per_image": request.tokenizer.num_tokens,
    }


class TokenizerTrainer:
    """The networks, optimizers and the one update of the training."""

    def __init__(self, shape: VQAEConfig, config: TokenizerTrainingConfig, accelerator: Accelerator) -> None:
        torch.manual_seed(config.seed)
        device = accelerator.device
        self.config, self._accelerator, self.step = config, accelerator, 0
        self.vqae = VQAE(shape).to(device, memory_format=torch.channels_last)
        self.discriminator = PatchDiscriminator(shape.image_size).to(device, memory_format=torch.channels_last)
        self._perceptual = PerceptualLoss(config.perceptual_backbone).to(device) if config.perceptual_backbone else None
        self.codebook = Codebook(self.vqae.codes, config.codebook_decay)
        rate = config.learning_rate
        self._optimizer = torch.optim.Adam(self.vqae.parameters(), rate, betas=(0.9, 0.99))
        self._discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), rate, betas=(0.5, 0.99))
        self.ema = Ema(self.vqae, config.ema_decay)
        self._vqae_pass = accelerator.prepare_model(self.vqae)
        self._discriminator_pass = accelerator.prepare_model(self.discriminator)
        sample = torch.rand(8, 3, shape.image_size, shape.image_size, device=device)
        self._dtype = pick_precision(config.precision, device, lambda dtype: self._trial(sample, dtype))

    def update(self, images: Tensor) -> dict[str, float]:
        """One update of autoencoder, codebook and discriminator on (B, 3, H, W) bytes."""
        config = self.config
        torch.manual_seed(hash((config.seed, self.step, self._accelerator.process_index)) % 2**63)
        self._set_rates()
        real = images.to(self._accelerator.device, non_blocking=True).float().div(255)
        real = real.contiguous(memory_format=torch.channels_last)
        adversarial = config.adversarial_weight > 0 and self.step >= config.adversarial_start
        self.discriminator.requires_grad_(False)
        with self._autocast():
            result = self._vqae_pass(real)
            reconstruction = reconstruction_loss(result.images, real)
            loss = reconstruction + config.commitment_weight * result.commitment
            if self._perceptual is not None:
                loss = loss + config.perceptual_weight * self._perceptual(result.images, real)
            if adversarial:
                loss = loss - config.adversarial_weight * self._discriminator_pass(result.images).float().mean()
        _step(self._optimizer, loss, self._accelerator)
        rank, world_size = self._accelerator.process_index, self._accelerator.num_processes
        self.codebook.update(result.latents.detach(), result.token_ids, self._sum, rank, world_size)
        self.ema.update(self.vqae)
        stats = {"reconstruction": reconstruction, "commitment": result.commitment}
        if adversarial:
            stats |= self._update_discriminator(real, result.images.detach())
        self.step += 1
        numbers = {name: float(value.detach()) for name, value in stats.items()}
        if not all(math.isfinite(value) for value in numbers.values()):
            raise AdaNATError(
                f"Training diverged at update {self.step} ({numbers}); the last saved state is kept. "
                "Try a lower --learning-rate."
            )
        return {**numbers, "perplexity": self.codebook.perplexity(), "learning_rate": config.learning_rate_at(self.step)}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on exactly."""
        return {
            "vqae": self.vqae.state_dict(),
            "ema": self.ema.state_dict(),
            "codebook": self.codebook.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "discriminator_optimizer": self._discriminator_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]
        self.vqae.load_state_dict(state["vqae"])
        self.ema.load_state_dict(state["ema"])
        self.codebook.load_state_dict(state["codebook"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])

    def averaged(self) -> VQAE:
        """A copy of the autoencoder with the averaged weights, in evaluation mode."""
        copy = VQAE(self.vqae.config)
        copy.load_state_dict(self.ema.state_dict())
        return copy.to(self._accelerator.device).eval()

    def _update_discriminator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        with self._autocast():
            real_logits, fake_logits = self._discriminator_pass(real), self._discriminator_pass(fake)
            loss = discriminator_loss(real_logits, fake_logits)
        _step(self._discriminator_optimizer, loss, self._accelerator)
        accuracy = 0.5 * ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean())
        return {"discriminator": loss, "discriminator_accuracy": accuracy}

    def _set_rates(self) -> None:
        for optimizer in (self._optimizer, self._discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate_at(self.step)

    def _autocast(self) -> torch.autocast:
        device = self._accelerator.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16)

    def _sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values, reduction="sum")

    def _trial(self, images: Tensor, dtype: torch.dtype) -> None:
        """One forward and backward pass, to time a number format."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = reconstruction_loss(self.vqae(images).images, images)
        loss.backward()
        self.vqae.zero_grad(set_to_none=True)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, accelerator: Accelerator) -> None:
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    optimizer.step()


def _batches(
    source: ImageSource, request: TrainTokenizerRequest, first_step: int, accelerator: Accelerator
) -> Iterator[Tensor]:
    """Yield this process's share of every update's images, (B, 3, H, W) bytes."""
    batches = training_batches(
        source,
        batch_size=request.training.batch_size // accelerator.num_processes,
        seed=request.training.seed,
        first_step=first_step,
        num_workers=request.workers,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    return (images for images, _ in batches)


def _shown_images(source: ImageSource) -> Tensor:
    """The first readable images as (n, 3, H, W) floats in [0, 1]."""
    pixels = [record.pixels for record in source.read(0, 2 * _NUM_SHOWN) if record.pixels is not None][:_NUM_SHOWN]
    if not pixels:
        raise AdaNATError("None of the first images can be read; check the data source.")
    return torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in pixels]).float().div(255)


@torch.no_grad()
def _show(trainer: TokenizerTrainer, images: Tensor, folder: RunFolder, accelerator: Accelerator) -> None:
    """Save originals above their reconstructions."""
    if accelerator.is_main_process:
        vqae = trainer.averaged()
        pairs = torch.cat([images, vqae.decode(vqae.encode(images))])
        save_png(folder.samples / f"step-{trainer.step:08d}.png", image_grid(to_uint8(pairs), columns=len(images)))


@torch.no_grad()
def _psnr(trainer: TokenizerTrainer, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB on (n, 3, H, W) images in [0, 1]."""
    vqae = trainer.averaged()
    error = (vqae.decode(vqae.encode(images)) - images).square().mean()
    return float(-10 * torch.log10(error))


def _export(
    trainer: TokenizerTrainer, request: TrainTokenizerRequest, folder: RunFolder, measured: dict[str, float]
) -> None:
    """Write the averaged weights as a model folder."""
    model = ModelFolder(folder.model)
    model.write(
        "tokenizer",
        request.tokenizer.to_dict(),
        trainer.averaged().state_dict(),
        dtype=torch.float16 if request.half_precision_weights else None,
        provenance={"command": "train-tokenizer", **request.to_dict(), "measured": measured},
    )
