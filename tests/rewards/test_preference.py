"""Preference rewards by a tiny CLIP made up on the spot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from adanat_cli.core import pretrained as hub
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.preference import PreferenceReward
from tests.clip_toy import make_clip

transformers = pytest.importorskip("transformers")

NAMES = ("cat", "dog", "car")
WORDS = ["a", "photo", "of", "cat", "dog", "car", "red"]
SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"), WORDS, SIZE)


@pytest.fixture(scope="module")
def reward(folder: Path) -> PreferenceReward:
    return PreferenceReward(str(folder), NAMES)


def copied(folder: Path, place: Path) -> Path:
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


def test_scores_are_the_models_own_cosines(folder: Path, reward: PreferenceReward) -> None:
    images, prompts = torch.rand(2, 3, SIZE, SIZE), ["a photo of a cat", "red car"]
    model = transformers.CLIPModel.from_pretrained(folder)
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
    pixels = reward.normalize(images)
    with torch.no_grad():
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], pixel_values=pixels)
    expected = F.cosine_similarity(output.image_embeds, output.text_embeds)
    torch.testing.assert_close(reward.score(images, prompts), expected)
    assert reward.normalize.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_images_are_framed_as_by_the_models_own_processor(folder: Path, reward: PreferenceReward) -> None:
    pixels = torch.randint(0, 256, (3, 3, 40, 28), dtype=torch.uint8)
    pixels = F.avg_pool2d(pixels.float(), 5, stride=1, padding=2).round().byte()
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    expected = processor(list(pixels), return_tensors="pt")["pixel_values"]
    actual = reward.normalize(reward._framed(pixels.float() / 255))
    assert actual.shape == expected.shape
    # The processor rounds to bytes after resizing.
    torch.testing.assert_close(actual, expected, atol=2.5 / 255 / 0.26, rtol=0)


def test_a_label_is_the_prompt_of_its_class(reward: PreferenceReward) -> None:
    images, labels = torch.rand(4, 3, 24, 24), torch.tensor([2, 0, 1, 0])
    prompts = [f"a photo of a {NAMES[label]}" for label in labels]
    torch.testing.assert_close(reward.score(images, labels), reward.score(images, prompts))


def test_class_prompts_are_encoded_once(reward: PreferenceReward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward.clip, "get_text_features", lambda **_: pytest.fail("encoded again"))
    assert reward.score(torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).shape == (2,)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (64, 64), (40, 21)])
def test_any_image_size_gives_a_cosine_without_gradient(reward: PreferenceReward, height: int, width: int) -> None:
    images = torch.rand(3, 3, height, width, requires_grad=True)
    scores = reward.score(images, ["a cat", "a dog", "a red car " * 20])
    assert scores.shape == (3,)
    assert scores.abs().max() <= 1 + 1e-6
    assert not scores.requires_grad


def test_nothing_learns_and_training_mode_is_never_entered(reward: PreferenceReward) -> None:
    reward.train()
    assert not any(module.training for module in reward.modules())
    assert not any(weight.requires_grad for weight in reward.parameters())


def test_a_prompt_scores_the_same_in_any_company(reward: PreferenceReward) -> None:
    images, prompts = torch.rand(2, 3, 16, 16), ["cat", "a photo of a red car"]
    alone = torch.cat([reward.score(images[i : i + 1], prompts[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(reward.score(images, prompts), alone)


def test_wrong_calls_are_bugs(folder: Path) -> None:
    unnamed = PreferenceReward(str(folder))
    with pytest.raises(ValueError, match="names of the classes"):
        unnamed.score(torch.rand(1, 3, 16, 16), torch.tensor([0]))
    with pytest.raises(ValueError, match="2 images and 1 prompts"):
        unnamed.score(torch.rand(2, 3, 16, 16), ["a cat"])


def test_a_missing_transformers_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AdaNATError, match=r"pip install 'adanat\[text\]'") as caught:
        PreferenceReward("anything")
    assert "\n" not in str(caught.value)


def assert_refused(model: str, reason: str) -> None:
    with pytest.raises(AdaNATError, match=reason) as caught:
        PreferenceReward(model)
    assert "local folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_out_of_reach_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str) -> None:
        raise TimeoutError("Name or service not known")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, filename, revision: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", no_network)
    assert_refused("openai/clip-vit-base-patch32", "Name or service not known")
    assert_refused("no/such/folder", "cannot be loaded")


def test_an_empty_folder_is_told_in_one_line(tmp_path: Path) -> None:
    assert_refused(str(tmp_path), "cannot be loaded")


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    weights = copied(folder, tmp_path) / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    weights.unlink()
    assert_refused(str(tmp_path), "cannot be loaded")


def test_missing_weights_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    weights = copied(folder, tmp_path) / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if name != "visual_projection.weight"}
    save_file(kept, weights, metadata={"format": "pt"})
    assert_refused(str(tmp_path), "lacks weights .visual_projection.weight")


def test_another_architecture_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    config = copied(folder, tmp_path) / "config.json"
    config.write_text(json.dumps({"model_type": "bert"}))
    assert_refused(str(tmp_path), "is of type bert")
