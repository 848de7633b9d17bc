"""The adversarial reward: a discriminator that learns while the policy does."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.config import DiscriminatorConfig
from adanat_cli.core.rewards.augment import differentiable_augment
from adanat_cli.core.rewards.projected import draw_crop

STATS = ("discriminator_loss", "discriminator_accuracy", "real_logit", "fake_logit", "mismatched_logit")
"""The statistics of a discriminator update, in order; the last one only where it sees mismatched pairs."""


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: str) -> Tensor:
    """Return the scalar loss of a discriminator.

    Args:
        real_logits: (B, L), the logits of real images.
        fake_logits: (B, L), the logits of generated images.
        kind: "bce" (binary cross-entropy) or "hinge".

    Source: AdaNAT (arXiv 2409.00342), the discriminator's objective; Geometric GAN (arXiv 1705.02894) for the hinge.
    """
    if kind == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def mismatched_pairs(images: Tensor, condition: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give images the conditions of others in their batch: pairs that only a look at both can tell from real ones.

    Args:
        images: (B, 3, H, W).
        condition: (B,) int64 labels, or (B, E) text embeddings.
        most: largest number of pairs, at most B.
        generator: on the CPU; draws which image lends its condition.

    Returns:
        Up to ``most`` images with a condition that differs from their own; none where all conditions are the same.

    Source: GAN-CLS (arXiv 1605.05396), algorithm 1.
    """
    shift = int(torch.randint(1, max(len(images), 2), (), generator=generator))
    others = condition.roll(shift, 0)
    differing = (others != condition).reshape(len(images), -1).any(1).nonzero()[:most, 0]
    return images[differing], others[differing]


class AdversarialReward:
    """Score images by a discriminator, and train it to distinguish them from real ones."""

    def __init__(self, discriminator: nn.Module, config: DiscriminatorConfig, crop_size: int = 0) -> None:
        """Wrap a discriminator and make its optimizer.

        Args:
            discriminator: maps images (B, 3, H, W) in [0, 1] and a condition to (B, L) logits; may be wrapped for
                several processes.
            config: loss, reward, augmentation and optimizer settings.
            crop_size: side in pixels of the random crop that half of the batches get; 0 for no crops.
        """
        self.discriminator, self.config, self._crop_size = discriminator, config, crop_size
        self.optimizer = torch.optim.Adam(
            [weight for weight in discriminator.parameters() if weight.requires_grad],
            config.learning_rate,
            betas=(config.beta1, config.beta2),
        )

    @torch.no_grad()
    def score(self, images: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Return (B,) rewards, higher for images that look real; the generator draws the crop.

        Source: AdaNAT (arXiv 2409.00342), adversarial reward: the sigmoid of the mean logit. The reward "logit" omits
        the sigmoid.
        """
        self.discriminator.eval()
        logit = self._logits(images, condition, generator).mean(-1)
        return logit.sigmoid() if self.config.reward == "sigmoid" else logit

    def update(
        self,
        real: tuple[Tensor, Tensor],
        fake: tuple[Tensor, Tensor],
        generator: torch.Generator,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> Tensor:
        """Take one optimizer step on real and generated images, each with its condition.

        Of the generated images, the share ``config.mismatched`` gives way to real images with wrong conditions.

        Returns:
            (4,) values of ``STATS``, on the device; (5,) where a share is mismatched.
        """
        self.discriminator.train()
        pairs = [real, fake]
        if num := round(self.config.mismatched * len(fake[0])):
            wrong = mismatched_pairs(*real, num, generator)
            pairs = [real, (fake[0][num:], fake[1][num:]), *([wrong] if len(wrong[0]) else [])]
        real_logits, fake_logits, *wrong_logits = (
            self._logits(differentiable_augment(images, generator, self.config.augment), condition, generator)
            for images, condition in pairs
        )
        loss = discriminator_loss(real_logits, torch.cat([fake_logits, *wrong_logits]), self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        backward(loss)
        self.optimizer.step()
        real_mean, fake_mean = real_logits.detach().mean(-1), fake_logits.detach().mean(-1)
        accuracy = 0.5 * ((real_mean > 0).float().mean() + (fake_mean < 0).float().mean())
        stats = [loss.detach(), accuracy, real_mean.mean(), fake_mean.mean()]
        if num:
            stats.append(wrong_logits[0].detach().mean() if wrong_logits else real_mean.new_zeros(()))
        return torch.stack(stats)

    def _logits(self, images: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        if not self._crop_size:
            return self.discriminator(images, condition).float()
        crop = draw_crop(images.shape[-2], images.shape[-1], generator, self._crop_size)
        return self.discriminator(images, condition, crop).float()
