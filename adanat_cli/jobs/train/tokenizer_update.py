"""The networks, optimizers and the one update of tokenizer training."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.config import TokenizerTrainingConfig, VQAEConfig
from adanat_cli.core.tokenizer.codebook import Codebook
from adanat_cli.core.tokenizer.losses import (
    PatchDiscriminator,
    PerceptualLoss,
    discriminator_loss,
    reconstruction_loss,
)
from adanat_cli.core.tokenizer.vqae import VQAE
from adanat_cli.jobs.runtime.seeding import stream_seed
from adanat_cli.jobs.train.averages import Ema

STATS = ("reconstruction", "commitment", "discriminator", "discriminator_accuracy")
"""What an update measures, in this order; the last two are 0 until the discriminator enters."""


class TokenizerTrainer:
    """Holds what changes during training."""

    def __init__(self, shape: VQAEConfig, config: TokenizerTrainingConfig, accelerator: Accelerator) -> None:
        """Draw fresh weights from the seed, the same in every process."""
        torch.manual_seed(config.seed)
        device, rate = accelerator.device, config.learning_rate
        self.config, self._accelerator, self.step = config, accelerator, 0
        self.vqae = VQAE(shape).to(device).to(memory_format=torch.channels_last)
        self.discriminator = PatchDiscriminator(shape.image_size).to(device).to(memory_format=torch.channels_last)
        self._perceptual = PerceptualLoss(config.perceptual_backbone).to(device) if config.perceptual_backbone else None
        self.codebook = Codebook(self.vqae.codes, config.codebook_decay)
        self._optimizer = torch.optim.Adam(self.vqae.parameters(), rate, betas=(0.9, 0.99))
        self._discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), rate, betas=(0.5, 0.99))
        self.ema = Ema(self.vqae, config.ema_decay)
        self._vqae_pass = accelerator.prepare_model(self.vqae)
        self._discriminator_pass = accelerator.prepare_model(self.discriminator)

    def update(self, images: Tensor) -> Tensor:
        """One update of autoencoder, codebook and discriminator.

        Args:
            images: (B, 3, H, W) bytes, this process's share.

        Returns:
            (4,) float: ``STATS`` of this process, on the device, so that nothing waits for them.
        """
        config, rank, world_size = self.config, self._accelerator.process_index, self._accelerator.num_processes
        torch.manual_seed(stream_seed(config.seed, self.step, rank))
        self._set_rates()
        real = images.to(self._accelerator.device, non_blocking=True).float().div(255)
        real = real.contiguous(memory_format=torch.channels_last)
        adversarial = config.adversarial_weight > 0 and self.step >= config.adversarial_start
        # The autoencoder's gradient passes through the discriminator without collecting there.
        self.discriminator.requires_grad_(False)
        with self._autocast():
            result = self._vqae_pass(real)
            reconstruction = reconstruction_loss(result.images, real)
            loss = reconstruction + config.commitment_weight * result.commitment
            if self._perceptual is not None:
                loss = loss + config.perceptual_weight * self._perceptual(result.images, real)
            if adversarial:
                # Not the distributed wrapper, which would wait for gradients that are switched off here.
                loss = loss - config.adversarial_weight * self.discriminator(result.images).float().mean()
        self._descend(self._optimizer, loss)
        self.codebook.update(result.latents.detach(), result.token_ids, self._sum, rank, world_size)
        self.ema.update(self.vqae, self.step)
        judged = self._update_discriminator(real, result.images.detach()) if adversarial else real.new_zeros(2)
        self.step += 1
        return torch.cat([torch.stack([reconstruction, result.commitment]).detach(), judged])

    def averaged(self) -> VQAE:
        """A copy of the autoencoder with the averaged weights, in evaluation mode."""
        copy = VQAE(self.vqae.config)
        copy.load_state_dict(self.ema.state_dict())
        return copy.to(self._accelerator.device).eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on exactly."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "vqae": self.vqae,
            "ema": self.ema,
            "codebook": self.codebook,
            "discriminator": self.discriminator,
            "optimizer": self._optimizer,
            "discriminator_optimizer": self._discriminator_optimizer,
        }

    def _update_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """One update of the discriminator; returns its loss and accuracy."""
        self.discriminator.requires_grad_(True)
        with self._autocast():
            real_logits, fake_logits = self._discriminator_pass(torch.cat([real, fake])).chunk(2)
            loss = discriminator_loss(real_logits, fake_logits)
        self._descend(self._discriminator_optimizer, loss)
        accuracy = 0.5 * ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean())
        return torch.stack([loss.detach(), accuracy])

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        optimizer.step()

    def _set_rates(self) -> None:
        rate = self.config.learning_rate_at(self.step)
        shares = {self._optimizer: 1.0, self._discriminator_optimizer: self.config.discriminator_rate}
        for optimizer, share in shares.items():
            for group in optimizer.param_groups:
                group["lr"] = share * rate

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self._accelerator.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values, reduction="sum")
