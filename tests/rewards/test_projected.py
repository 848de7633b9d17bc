"""The projected discriminator against the reference; its frames, its state and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.adversarial import discriminator_loss
from adanat_cli.core.rewards.backbones import DINO, VisionTransformerBackbone
from adanat_cli.core.rewards.projected import ProjectedDiscriminator, draw_crop, from_reference
from tests.rewards.reference_weights import discriminator_state
from tests.support import analytic_input, fixture, fixture_json, image

ARRAYS, KEYS = fixture("disc"), fixture_json("disc_keys")
CLASS_KEYS = KEYS["projected_class_cond"]["keys"]
TOLERANCE = 1e-4
IMAGES = image(2, 256, 256)
LABELS = torch.from_numpy(ARRAYS["full.labels"]).long()
# Small enough to build at once, of the same architecture.
TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def reference_state() -> dict[str, Tensor]:
    return discriminator_state(CLASS_KEYS)


def projected(num_classes: int = 0, text_width: int = 0, backbone: str = DINO) -> ProjectedDiscriminator:
    return ProjectedDiscriminator(VisionTransformerBackbone(backbone, pretrained=False), num_classes, text_width)


def tiny(num_classes: int = 0, text_width: int = 0) -> ProjectedDiscriminator:
    return projected(num_classes, text_width, TINY)


def assert_agrees(actual: Tensor, name: str) -> None:
    np.testing.assert_allclose(actual.numpy(), ARRAYS[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_names_shapes_and_counts_are_the_references() -> None:
    with torch.device("meta"):
        model = projected(num_classes=1000)
    renamed = from_reference({name: torch.empty(shape, device="meta") for name, shape in CLASS_KEYS.items()})
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in renamed.items()
    }
    assert sum(weight.numel() for weight in model.parameters()) == KEYS["projected_class_cond"]["n_params"]
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 10_285_440


def test_heads_under_a_text_have_the_references_names_and_shapes() -> None:
    with torch.device("meta"):
        state = projected(text_width=20).trainable_state()
    first = {name: list(tensor.shape) for name, tensor in state.items() if name.startswith("heads.0.")}
    assert first == KEYS["projected_text_cond_heads_only_cdim20"]
    assert not any(name.startswith("mapping") for name in state)


@torch.no_grad()
def test_class_conditional_logits_agree_with_the_reference(reference_state: dict[str, Tensor]) -> None:
    model = projected(num_classes=1000)
    model.load_state_dict(from_reference(reference_state))
    assert model.mapping is not None
    features = model.backbone.features(IMAGES)
    for index, layer in enumerate(features):
        expected = ARRAYS[f"full.dino_feat{index}_stride"]
        assert layer.shape == (2, 384, 196)
        strided = layer[:, :: 384 // expected.shape[1], :: 196 // expected.shape[2]]
        np.testing.assert_allclose(strided.numpy(), expected, rtol=0, atol=TOLERANCE, err_msg=f"layer {index}")
    assert_agrees(model.mapping(LABELS)[:, ::16], "full.mapped_label")

    real = model.train()(IMAGES, LABELS)
    assert_agrees(real, "full.train1_logits")
    for kind in ("bce", "hinge"):
        loss = discriminator_loss(real, real.flip(0), kind)
        assert_agrees(loss, f"full.{kind}_real_train1_fake_flipped")
    assert_agrees(model.eval()(IMAGES, LABELS, crop=(7, 19)), "full.eval_logits_crop_7_19")
    assert_agrees(model(IMAGES, LABELS).mean(1, keepdim=True).sigmoid(), "full.reward")


@torch.no_grad()
def test_text_conditional_logits_agree_with_the_reference(reference_state: dict[str, Tensor]) -> None:
    model = projected(text_width=20)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.trainable_state().items()}
    backbone = {name: tensor for name, tensor in reference_state.items() if name.startswith("dino.")}
    model.load_state_dict(from_reference({**backbone, **discriminator_state(shapes)}))
    texts = analytic_input("text_embeds", (2, 20), 1, 0)
    assert_agrees(model.train()(IMAGES, texts), "text.train1_logits")


def test_only_heads_and_mapping_learn_and_the_backbone_stays_in_evaluation_mode() -> None:
    model = tiny(num_classes=5).train()
    assert model.heads.training
    assert not any(module.training for module in model.backbone.modules())
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    model(images, torch.tensor([0, 4])).mean().backward()
    assert images.grad is None
    assert all(weight.grad is None for weight in model.backbone.parameters())
    assert all(weight.grad is not None for weight in model.heads.parameters())
    assert not model.eval().heads.training


@pytest.mark.parametrize(
    ("model_arguments", "condition"),
    [({}, None), ({"num_classes": 3}, torch.tensor([0, 1, 2])), ({"text_width": 7}, torch.randn(3, 7))],
)
@torch.no_grad()
def test_any_image_size_and_condition_gives_980_logits(
    model_arguments: dict[str, int], condition: Tensor | None
) -> None:
    model = tiny(**model_arguments).eval()
    for height, width in [(32, 32), (224, 224), (256, 320), (96, 300)]:
        logits = model(torch.rand(3, 3, height, width), condition)
        assert logits.shape == (3, 980)
        assert torch.isfinite(logits).all()


@torch.no_grad()
def test_a_batch_that_the_reference_cannot_group_is_judged() -> None:
    assert tiny().eval()(torch.rand(9, 3, 32, 32), None).shape == (9, 980)


@torch.no_grad()
def test_a_text_counts_by_its_direction_only() -> None:
    model, images, texts = tiny(text_width=7).eval(), torch.rand(2, 3, 32, 32), torch.randn(2, 7)
    torch.testing.assert_close(model(images, 5 * texts), model(images, texts), atol=1e-2, rtol=0)
    assert (model(images, texts.flip(0)) - model(images, texts)).abs().max() > 0.1


@torch.no_grad()
def test_features_kept_from_before_give_the_same_logits() -> None:
    model, images, labels = tiny(num_classes=3).eval(), torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    torch.testing.assert_close(
        model.logits(model.backbone.features(images), labels), model(images, labels), atol=0, rtol=0
    )


def test_half_of_the_batches_are_cropped_at_every_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = [draw_crop(226, 225, generator, 224) for _ in range(2000)]
    offsets = {crop for crop in crops if crop is not None}
    assert 900 < sum(crop is None for crop in crops) < 1100
    assert offsets == {(row, column) for row in range(3) for column in range(2)}


def test_a_crop_follows_from_the_generator_and_small_images_get_none() -> None:
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    assert [draw_crop(256, 256, first, 224) for _ in range(20)] == [draw_crop(256, 256, second, 224) for _ in range(20)]
    assert all(draw_crop(64, 256, first, 224) is None for _ in range(20))
    assert all(draw_crop(64, 256, first, 0) is None for _ in range(20))


@torch.no_grad()
def test_the_trainable_state_survives_and_leaves_the_backbone_out() -> None:
    model, other = tiny(num_classes=3).eval(), tiny(num_classes=3).eval()
    other.backbone.load_state_dict(model.backbone.state_dict())
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    model.train()(images, labels)
    state = model.eval().trainable_state()
    assert not any(name.startswith("backbone") for name in state)
    other.load_trainable_state(state)
    torch.testing.assert_close(other(images, labels), model(images, labels), atol=0, rtol=0)


def test_the_authors_checkpoint_loads_with_its_wrapper_and_backbone() -> None:
    model = tiny(num_classes=3)
    theirs = {
        "module." + name.replace("backbone.model.", "dino.model.model."): torch.full_like(tensor, 0.5)
        for name, tensor in model.state_dict().items()
    }
    before = model.backbone.model.cls_token.clone()
    model.load_trainable_state(theirs)
    assert all((tensor == 0.5).all() for tensor in model.trainable_state().values())
    assert torch.equal(model.backbone.model.cls_token, before)


def test_a_state_of_another_discriminator_is_refused_in_one_line() -> None:
    for other in (tiny(), tiny(num_classes=4)):
        with pytest.raises(AdaNATError, match="expected those of a discriminator") as caught:
            tiny(num_classes=3).load_trainable_state(other.trainable_state())
        assert "\n" not in str(caught.value)


def test_label_and_text_together_are_a_bug() -> None:
    with pytest.raises(ValueError, match="not both"):
        tiny(num_classes=3, text_width=4)
