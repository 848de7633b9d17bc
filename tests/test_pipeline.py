"""The Pipeline draws what ``adanat sample`` draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import adanat_cli
from adanat_cli import Pipeline
from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import NATConfig, PolicyConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from tests.policy_toy import make_policy_toy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = ModelFolder(make_policy_toy(tmp_path_factory.mktemp("toy")) / "model")
    config = PolicyConfig(feature_width=16, grid=(4, 4), num_steps=3, hidden_width=16)
    folder.write(policy_component(3), config.to_dict(), PolicyNetwork(config).state_dict())
    return folder


@pytest.fixture(scope="module")
def pipeline(model: ModelFolder) -> Pipeline:
    return Pipeline.from_pretrained(str(model.path), device="cpu")


@pytest.mark.parametrize(
    "fields", [{}, {"num_steps": 3}, {"num_steps": 4, "schedule": "halton", "guidance_scale": 0.5}, {"seed": 7}]
)
def test_its_pixels_are_those_of_the_command(
    pipeline: Pipeline, model: ModelFolder, tmp_path: Path, fields: dict[str, object]
) -> None:
    request = SampleRequest(
        output=tmp_path,
        model=str(model.path),
        classes=("two", "0"),
        num_images=5,
        image_format="npz",
        batch_size=2,
        device="cpu",
        **fields,
    )
    sample(request, SilentReporter())
    samples = pipeline.sample(labels=["two", 0], num_images=5, batch_size=3, **fields)
    with np.load(tmp_path / "samples.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], np.stack([np.asarray(image) for image in samples.images]))
        assert arrays["arr_1"].tolist() == samples.labels == [1, 0, 1, 0, 1]
    assert samples.trace == []


def test_its_trace_is_that_of_the_command(pipeline: Pipeline, model: ModelFolder, tmp_path: Path) -> None:
    request = SampleRequest(
        output=tmp_path, model=str(model.path), classes=("one",), num_images=2, num_steps=3, trace=True, device="cpu"
    )
    written = [path for path in sample(request, SilentReporter())["traces"] if path.endswith(".json")]
    samples = pipeline.sample(labels="one", num_images=2, num_steps=3, batch_size=1, trace=True)
    assert [json.loads(Path(path).read_text())["steps"] for path in written] == samples.trace
    assert samples.schedule == "Schedule: learned policy, 3 steps."


def test_a_label_is_an_image_and_no_label_is_all_in_turn(pipeline: Pipeline) -> None:
    assert len(pipeline.sample(labels=[0, 2], num_steps=1).images) == 2
    assert len(pipeline.sample(labels=2, num_steps=1).images) == 1
    assert sorted(pipeline.sample(num_steps=1).labels[:3]) == [0, 1, 2]


@pytest.mark.parametrize("labels", [np.array([0, 2]), torch.tensor([0, 2]), range(0, 3, 2), (np.int64(0), "2")])
def test_labels_may_be_an_array(pipeline: Pipeline, labels: object) -> None:
    assert pipeline.sample(labels=labels, num_steps=1).labels == [0, 2]
    assert pipeline.sample(labels=np.int64(2), num_steps=1).labels == [2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": []}, "labels is empty"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": "a dog"}, "draws classes, not prompts"),
        ({"labels": "cat"}, "'cat'"),
        ({"num_images": 0}, "num_images is 0"),
        ({"seed": -1}, "seed is -1; expected at least 0 and less than"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected"),
        ({"num_steps": 99}, "have 16 tokens"),
        ({"num_steps": 2, "schedule": "learned"}, "no learned policy for 2 steps"),
    ],
)
def test_it_says_what_it_cannot_draw(pipeline: Pipeline, fields: dict[str, object], words: str) -> None:
    with pytest.raises(AdaNATError, match=words):
        pipeline.sample(**fields)


def test_a_number_format_that_does_not_exist_is_refused(model: ModelFolder) -> None:
    with pytest.raises(AdaNATError, match="precision is 'fp16'; expected 'auto', 'fp32', 'bf16'"):
        Pipeline.from_pretrained(str(model.path), device="cpu", precision="fp16")


def test_a_model_of_prompts_is_told_as_one(tmp_path: Path, model: ModelFolder) -> None:
    folder = ModelFolder(tmp_path / "text")
    folder.write("tokenizer", *model.read("tokenizer"))
    config = NATConfig(16, (4, 4), 16, 2, 2, condition="text", num_classes=0, text_width=8, text_length=4)
    torch.manual_seed(0)
    folder.write("nat", config.to_dict(), UViT(config).state_dict())
    with pytest.raises(AdaNATError, match="conditioned on text"):
        Pipeline(folder, "cpu").sample(labels=[0])


def test_a_revision_is_for_models_on_the_hub(model: ModelFolder) -> None:
    with pytest.raises(AdaNATError, match="is not an id on the Hub"):
        Pipeline.from_pretrained(str(model.path), revision="v1")
    with pytest.raises(AdaNATError, match="give one of them"):
        Pipeline.from_pretrained("user/repo@v1", revision="v2")


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = adanat_cli.Pipelines
