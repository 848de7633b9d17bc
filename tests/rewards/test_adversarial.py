"""The adversarial reward with the small discriminator."""

from __future__ import annotations

import pytest
import torch

from adanat_cli.core.config import DiscriminatorConfig
from adanat_cli.core.rewards.adversarial import AdversarialReward, discriminator_loss, mismatched_pairs
from adanat_cli.core.rewards.backbones import EfficientNetBackbone
from adanat_cli.core.rewards.projected import ProjectedDiscriminator
from adanat_cli.core.rewards.pyramid import PyramidDiscriminator


def reward(**fields: object) -> AdversarialReward:
    torch.manual_seed(0)
    config = DiscriminatorConfig(backbone="pyramid", learning_rate=2e-3, **fields)
    return AdversarialReward(PyramidDiscriminator(8, num_classes=2, width=16), config)


def images(bright: bool, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise whose upper (class 0) or lower (class 1) half is brighter in real images."""
    labels = torch.arange(32) % 2
    pixels = 0.5 * torch.rand(32, 3, 8, 8, generator=generator)
    if bright:
        pixels[labels == 0, :, :4] += 0.3
        pixels[labels == 1, :, 4:] += 0.3
    return pixels, labels


@pytest.mark.parametrize(("kind", "expected"), [("bce", 2 * 0.313262), ("hinge", 0.0)])
def test_losses_by_hand(kind: str, expected: float) -> None:
    loss = discriminator_loss(torch.ones(2, 3), -torch.ones(2, 3), kind)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("augment", ["", "color,translation,cutout"])
def test_real_images_come_to_pay_more(augment: str) -> None:
    judge, generator = reward(augment=augment), torch.Generator().manual_seed(0)
    for _ in range(60):
        stats = judge.update(images(True, generator), images(False, generator), generator)
    real, fake = (judge.score(*images(bright, generator), generator) for bright in (True, False))
    assert real.shape == (32,)
    assert (real.mean() - fake.mean()) > 1
    assert stats[1] > 0.8  # accuracy


def test_the_condition_counts() -> None:
    judge, generator = reward(), torch.Generator().manual_seed(0)
    for _ in range(200):
        pixels, labels = images(True, generator)
        judge.update((pixels, labels), (pixels, 1 - labels), generator)
    pixels, labels = images(True, generator)
    assert judge.score(pixels, labels, generator).mean() > judge.score(pixels, 1 - labels, generator).mean() + 0.5


def test_mismatched_pairs_are_real_images_with_a_condition_that_is_not_theirs() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 8, 8)
    labels = torch.arange(12) % 3
    for _ in range(20):
        found, wrong = mismatched_pairs(pixels, labels, 5, generator)
        assert len(found) == len(wrong) <= 5
        assert (found[:, 0, 0, 0].long() % 3 != wrong).all()
    texts = torch.eye(4).repeat(3, 1)
    found, wrong = mismatched_pairs(pixels, texts, 12, generator)
    assert (wrong.argmax(1) != found[:, 0, 0, 0].long() % 4).all()
    assert len(mismatched_pairs(pixels, torch.zeros(12), 5, generator)[0]) == 0


def test_mismatched_pairs_teach_a_discriminator_to_look_at_the_condition() -> None:
    """Generated images here are real ones of their class, only darker: the condition tells nothing of them."""
    margins = []
    for share in (0.0, 0.5):
        judge, generator = reward(mismatched=share), torch.Generator().manual_seed(0)
        for _ in range(40):
            pixels, labels = images(True, generator)
            stats = judge.update(images(True, generator), (0.5 * pixels, labels), generator)
        assert len(stats) == (5 if share else 4)
        pixels, labels = images(True, generator)
        right, wrong = (judge.score(pixels, shown, generator) for shown in (labels, 1 - labels))
        margins.append(float((right - wrong).mean()))
    assert margins[1] > margins[0] + 0.5


def test_one_class_has_no_mismatched_pairs() -> None:
    judge, generator = reward(mismatched=0.5), torch.Generator().manual_seed(0)
    pixels, labels = images(True, generator)
    stats = judge.update((pixels, 0 * labels), (pixels, 0 * labels), generator)
    assert stats.isfinite().all()


def test_the_papers_reward_is_the_sigmoid_of_the_mean_logit() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, labels = images(True, generator)
    logit, share = (reward(reward=form).score(pixels, labels, generator) for form in ("logit", "sigmoid"))
    torch.testing.assert_close(share, logit.sigmoid())


def test_scores_do_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, labels = images(True, generator)
    judge = reward()
    torch.testing.assert_close(
        judge.score(pixels, labels, generator)[:3], judge.score(pixels[:3], labels[:3], generator)
    )


def crops(
    photographs: list[torch.Tensor], generator: torch.Generator, swapped: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen crops of 64 pixels with the numbers of their photographs, or each with the other's number."""
    labels = torch.arange(16) % 2
    corners = torch.randint(300, (16, 2), generator=generator).tolist()
    pixels = torch.stack(
        [photographs[label][:, y : y + 64, x : x + 64] for label, (y, x) in zip(labels.tolist(), corners, strict=True)]
    )
    return pixels, 1 - labels if swapped else labels


def test_heads_on_efficientnet_learn_what_shows_the_class_that_was_asked_for() -> None:
    """Three seeds put all pairs of unseen crops in order after these eight updates."""
    datasets = pytest.importorskip("sklearn.datasets")
    pictures = [datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    photographs = [torch.tensor(picture).permute(2, 0, 1) / 255 for picture in pictures]
    torch.manual_seed(0)
    model = ProjectedDiscriminator(EfficientNetBackbone(64), num_classes=2, condition_width=16)
    judge = AdversarialReward(model, DiscriminatorConfig("efficientnet", learning_rate=5e-3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        judge.update(crops(photographs, generator, False), crops(photographs, generator, True), generator)
    right, wrong = (judge.score(*crops(photographs, generator, swapped), generator) for swapped in (False, True))
    assert float((right[:, None] > wrong).float().mean()) > 0.9
