"""``adanat edit`` and ``Pipeline.edit`` on a toy model with random weights: 16 x 16 pixels, 4 x 4 tokens."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from adanat_cli import Pipeline
from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.edit import Box, EditRequest, Sides, read_box, read_sides
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.jobs.evaluate.image_sets import ImageFolder
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.edit import edit
from adanat_cli.jobs.sample.sample import sample
from tests.policy_toy import make_policy_toy

BOX = Box(4, 5, 7, 6)
"""Columns 4 to 10 and rows 5 to 10: the tokens in rows and columns 1 and 2."""
DRAWN = [5, 6, 9, 10]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = ModelFolder(make_policy_toy(tmp_path_factory.mktemp("toy")) / "model")
    config = PolicyConfig(feature_width=16, grid=(4, 4), num_steps=3, hidden_width=16)
    folder.write(policy_component(3), config.to_dict(), PolicyNetwork(config).state_dict())
    return str(folder.path)


@pytest.fixture(scope="module")
def pipeline(model: str) -> Pipeline:
    return Pipeline.from_pretrained(model, device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of the model's size."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        save(folder / f"p{number}.png", photo(16, 16, number))
    return folder


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(file: Path, pixels: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def run(model: str, image: Path, output: Path, **fields: Any) -> dict[str, Any]:
    fields = {"num_steps": 3, "device": "cpu", **fields}
    return edit(EditRequest(image, output=output, model=model, **fields), SilentReporter())


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def outside(box: Box, size: int = 16) -> np.ndarray:
    mask = np.ones((size, size), bool)
    mask[box.y : box.y + box.height, box.x : box.x + box.width] = False
    return mask


@pytest.mark.parametrize("fields", [{}, {"schedule": "cosine"}, {"schedule": "halton", "classes": ("two",)}])
def test_pixels_outside_the_box_are_the_images_own(model: str, images: Path, tmp_path: Path, fields: dict) -> None:
    values = run(model, images / "p0.png", tmp_path, box=BOX, variations=3, **fields)
    results, kept = [pixels(file) for file in values["files"]], outside(BOX)
    assert len(results) == 3
    for result in results:
        assert np.array_equal(result[kept], photo(16, 16)[kept])
        assert not np.array_equal(result[~kept], photo(16, 16)[~kept])
    assert len({result.tobytes() for result in results}) == 3


def test_kept_tokens_never_change_and_the_masked_count_follows_the_schedule(
    model: str, pipeline: Pipeline, images: Path, tmp_path: Path
) -> None:
    values = run(model, images / "p0.png", tmp_path, box=BOX, num_steps=4, variations=2, trace=True)
    traces = [json.loads(Path(file).read_text()) for file in values["traces"] if file.endswith(".json")]
    ratios = CosineSchedule(4).table[:, 0].float()
    kept = [place for place in range(16) if place not in DRAWN]
    assert len(traces) == 2
    for variation, trace in enumerate(traces):
        assert trace["drawn_positions"] == DRAWN
        assert (trace["image"], trace["variation"], trace["class"]) == ("p0.png", variation, None)
        assert [step["num_masked"] for step in trace["steps"]] == (ratios * len(DRAWN)).floor().int().tolist()
        given = [[step["token_ids"][place] for place in kept] for step in trace["steps"]]
        assert given == [given[0]] * 4
        assert all(set(step["masked_positions"]) <= set(DRAWN) for step in trace["steps"])
    samples = pipeline.edit(images / "p0.png", box=BOX, num_steps=4, variations=2, trace=True)
    assert samples.trace == [trace["steps"] for trace in traces]
    assert samples.labels == [3, 3]


def test_an_all_white_mask_draws_what_sample_draws(model: str, pipeline: Pipeline, tmp_path: Path) -> None:
    image, white = photo(16, 16), np.ones((16, 16), bool)
    for schedule in ("learned", "cosine", "halton"):
        asked = {"labels": ["two", "zero"], "num_steps": 3, "seed": 4, "trace": True, "schedule": schedule}
        edited = pipeline.edit(image, white, variations=4, **asked)
        assert edited.trace == pipeline.sample(num_images=4, **asked).trace
    asked = {"classes": ("two", "zero"), "num_steps": 3, "seed": 4}
    file, mask = save(tmp_path / "a.png", image), save(tmp_path / "m.png", np.full((16, 16), 255, np.uint8))
    results = run(model, file, tmp_path / "edits", mask=mask, variations=4, **asked)["files"]
    request = SampleRequest(output=tmp_path / "samples", model=model, num_images=4, device="cpu", **asked)
    drawn = sample(request, SilentReporter())["files"]
    assert all(np.array_equal(pixels(one), pixels(other)) for one, other in zip(results, drawn, strict=True))


def test_a_folder_gives_what_each_image_gives_alone_at_any_batch_size(model: str, images: Path, tmp_path: Path) -> None:
    fields = {"box": BOX, "variations": 2, "classes": ("one",), "seed": 3}
    whole = run(model, images, tmp_path / "all", **fields)
    names = [Path(file).name for file in whole["files"]]
    assert names == [f"{i:05d}_p{i // 2}_class0_one_seed3.png" for i in range(6)]
    height, width, _ = pixels(whole["grid"]).shape  # 128 pixels each, under the names of the images and of the class
    assert (width, height > 3 * 130 - 2) == (3 * 130 - 2, True)
    small = run(model, images, tmp_path / "small", **fields, batch_size=4)
    alone = [file for n in range(3) for file in run(model, images / f"p{n}.png", tmp_path / f"{n}", **fields)["files"]]
    for one, two, three in zip(whole["files"], small["files"], alone, strict=True):
        assert np.array_equal(pixels(one), pixels(two))
        assert np.array_equal(pixels(one), pixels(three))
    assert ImageFolder(tmp_path / "all", 0, torch.device("cpu")).num_images == 6


def test_what_is_not_edited_is_said(model: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(16, 16, number)) for number in range(2)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "more").mkdir()
    words = ["edit", str(tmp_path), "--box", "4,5,7,6", "--model", model, "-c", "two", "-c", "zero", "-n", "1"]
    result = CliRunner().invoke(app, [*words, "--steps", "3", "--output", str(tmp_path.parent / "out"), "--device=cpu"])
    told = " ".join(result.stderr.split())
    assert "moving.gif holds several pictures; only the first is edited." in told
    assert "more are not edited; give a sub-folder itself" in told
    assert "bits" not in told
    assert "--variations 1 draws only the first of the 2 classes; give --variations 2." in told


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_the_loss_of_16_bits_is_said(model: str, tmp_path: Path, kind: str) -> None:
    channels = 3 if kind == "colour" else 1
    rows = b"".join(b"\0" + bytes(16 * channels * 2) for _ in range(16))
    size = struct.pack(">IIBBBBB", 16, 16, 16, 2 if kind == "colour" else 0, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    words = ["edit", str(tmp_path / "deep.png"), "--box", "4,5,7,6", "--model", model, "--steps", "1", "--device=cpu"]
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "deep.png has more than 8 bits a channel; results have 8, also where nothing is drawn." in told


def test_masks_of_a_folder_are_found_by_name(model: str, images: Path, tmp_path: Path) -> None:
    for number, suffix in enumerate(("png", "bmp", "png")):
        mask = np.zeros((16, 16), np.uint8)
        mask[4 * number : 4 * number + 2] = 255
        save(tmp_path / "masks" / f"p{number}.{suffix}", mask)
    values = run(model, images, tmp_path / "out", mask=tmp_path / "masks")
    for number, file in enumerate(values["files"]):
        changed = (pixels(file) != photo(16, 16, number)).any(-1)
        assert changed.any(1).nonzero()[0].tolist() == [4 * number, 4 * number + 1]
    (tmp_path / "masks" / "p1.bmp").unlink()
    with pytest.raises(AdaNATError, match=r"masks holds no mask for p1\.png; expected an image of the same name"):
        run(model, images, tmp_path / "out", mask=tmp_path / "masks")


@pytest.mark.parametrize("schedule", ["learned", "cosine"])
def test_an_edit_without_a_class_takes_no_null_forward(
    pipeline: Pipeline, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    features = pipeline.nat.features

    def counted(token_ids: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        sizes.append(len(token_ids))
        return features(token_ids, condition)

    monkeypatch.setattr(pipeline.nat, "features", counted)
    asked = {"box": BOX, "num_steps": 3, "schedule": schedule, "variations": 2}
    pipeline.edit(photo(16, 16), **asked)
    assert sizes == [2, 2, 2]
    pipeline.edit(photo(16, 16), labels=["one"], **asked)
    assert sizes[3:] == [4, 4, 4]


def test_a_batch_of_whole_and_partial_masks_gives_what_each_gives_alone(
    model: str, images: Path, tmp_path: Path
) -> None:
    for number in range(3):
        mask = np.full((16, 16), 255, np.uint8)
        mask[:8] *= number % 2
        save(tmp_path / "masks" / f"p{number}.png", mask)
    fields = {"mask": tmp_path / "masks", "classes": ("one",)}
    whole = run(model, images, tmp_path / "all", **fields)["files"]
    for number, file in enumerate(whole):
        (alone,) = run(model, images / f"p{number}.png", tmp_path / f"{number}", **fields)["files"]
        assert np.array_equal(pixels(file), pixels(alone))


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (50, 50), (9, 12)])
def test_at_full_size_only_masked_pixels_differ(pipeline: Pipeline, shape: tuple[int, int]) -> None:
    image, mask = photo(*shape), np.zeros(shape, bool)
    mask[2:7, 1:6] = True
    (result,) = pipeline.edit(image, mask, full_size=True, num_steps=2).images
    changed = (np.asarray(result) != image).any(-1)
    assert result.size == shape[::-1]
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.9
    (small,) = pipeline.edit(image, mask, num_steps=2).images
    assert small.size == (16, 16)


def test_an_extended_image_lies_in_its_frame(pipeline: Pipeline) -> None:
    image = photo(16, 16)
    large = pipeline.edit(image, extend={"left": 4, "right": 4}, full_size=True, num_steps=2)
    assert large.images[0].size == (24, 16)
    assert np.array_equal(np.asarray(large.images[0])[:, 4:20], image)
    assert pipeline.edit(image, extend={"left": 4, "right": 4}, num_steps=2).images[0].size == (16, 11)
    assert pipeline.edit(image, extend=8, num_steps=2).images[0].size == (16, 16)
    assert pipeline.edit(image, extend=8, box=(0, 0, 1, 1), full_size=True, num_steps=2).images[0].size == (32, 32)


def test_python_makes_what_the_command_makes(model: str, pipeline: Pipeline, images: Path, tmp_path: Path) -> None:
    words = ["edit", str(images / "p1.png"), "--box", "0,0,3,2", "--extend", "top=2,bottom=3", "-n", "2", "--json"]
    words += ["--class", "two", "-c", "0", "--steps", "3", "--full-size", "--seed", "5", "-m", model]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["schedule"] == "learned"
    assert values["classes"].keys() == {"0", "1"}
    for image in (images / "p1.png", photo(16, 16, 1), Image.fromarray(photo(16, 16, 1))):
        made = pipeline.edit(
            *(image, None, (0, 0, 3, 2), {"top": 2, "bottom": 3}, ["two", 0]),
            num_steps=3,
            full_size=True,
            seed=5,
            batch_size=1,
        )
        assert made.labels == [1, 0]
        for one, other in zip(made.images, values["files"], strict=True):
            assert np.array_equal(np.asarray(one), pixels(other))


def test_the_same_run_repeats_and_another_seed_differs(model: str, images: Path, tmp_path: Path) -> None:
    first = run(model, images / "p0.png", tmp_path, box=BOX)["files"]
    content = Path(first[0]).read_bytes()
    assert run(model, images / "p0.png", tmp_path, box=BOX, batch_size=3)["files"] == first
    assert Path(first[0]).read_bytes() == content
    with pytest.raises(AdaNATError, match=r"belongs to another run \(1 edit of p0.png, seed 0\); choose another --out"):
        run(model, images / "p0.png", tmp_path, box=Box(0, 0, 4, 4))
    other = run(model, images / "p0.png", tmp_path, box=BOX, seed=1)["files"]
    assert Path(other[0]).read_bytes() != content
    run(model, images / "p0.png", tmp_path, box=Box(0, 0, 4, 4), overwrite=True)
    assert len(list(tmp_path.glob("0*.png"))) == 1


def test_without_an_output_each_run_finds_a_folder_of_its_own(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = save(tmp_path / "p.png", photo(16, 16))
    found = []
    for change in ({}, {"seed": 1}, {}):
        request = EditRequest(image, box=BOX, num_steps=1, model=model, device="cpu", **change)
        found.append(edit(request, SilentReporter())["output"])
    save(image, photo(16, 16, 1))  # the same name, another picture
    request = EditRequest(image, box=BOX, num_steps=1, model=model, device="cpu")
    assert [*found, edit(request, SilentReporter())["output"]] == ["edits", "edits-2", "edits", "edits-3"]


@pytest.mark.parametrize(("fields", "expected"), [({"classes": ("1",)}, {"class": "1"}), ({}, {})])
def test_a_result_says_how_to_draw_it_again(
    model: str, images: Path, tmp_path: Path, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    written = run(model, images, tmp_path, box=BOX, variations=2, seed=4, full_size=True, **fields)["files"]
    with Image.open(written[3]) as image:
        facts = dict(image.text)
    name = facts.pop("name")
    assert name == ("no class" if not fields else name)
    place = {"index": "3", "image": "p1.png", "variation": "1", "seed": "4", "schedule": "learned", "steps": "3"}
    assert facts == {"model": ModelFolder(Path(model)).title, **place, **expected}


def test_results_are_not_written_among_masks(model: str, images: Path, tmp_path: Path) -> None:
    for file in images.iterdir():
        save(tmp_path / file.name, np.full((16, 16), 255, np.uint8))
    with pytest.raises(AdaNATError, match="is the folder of the masks"):
        run(model, images, tmp_path, mask=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": "none.png"}, "none.png does not exist; expected an image or a folder of images"),
        ({"image": ".", "box": Box(0, 0, 2, 2)}, "text.png cannot be read as an image: not an image file"),
        ({"image": "empty"}, "empty holds no images; expected PNG, JPEG"),
        ({"image": "text.png"}, "text.png cannot be read as an image: not an image file that Pillow knows"),
        ({"box": None}, "Nothing says what to change"),
        ({"box": Box(10, 10, 10, 10)}, "reaches beyond .*a.png, which has 16 x 16 pixels"),
        ({"mask": "none.png"}, "none.png does not exist; expected --mask FILE"),
        ({"mask": "small.png"}, "small.png has 8 x 8 pixels, and .*a.png 16 x 16; expected a mask of the image's size"),
        ({"mask": "text.png"}, "text.png cannot be read"),
        (
            {"mask": "hole.png"},
            "hole.png is transparent in parts, .*; expected white where to change, black elsewhere",
        ),
        ({"mask": "black.png", "box": None}, "its mask is black everywhere"),
        ({"extend": Sides(left=200)}, "--extend leaves nothing of .*a.png to keep: on the model's 16 x 16 pixels"),
        ({"classes": ("cat",)}, "Class 'cat' is not one"),
        ({"classes": ("7",)}, "Class 7 does not exist in this model; expected an id from 0 to 2"),
        ({"prompts": ("a cat",)}, "is conditioned on classes; give --class"),
        ({"text_encoder": "a"}, "--text-encoder encodes prompts"),
        ({"num_steps": 17}, "images of this model have 16 tokens"),
        ({"num_steps": 3, "guidance_scale": 2.0}, "add --schedule cosine"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"output": "."}, "is the folder of the images"),
        ({"output": "a.png"}, "a.png: a file is in the way; choose another --output"),
        ({"model": "/no/such/model"}, "no/such/model"),
    ],
)
def test_a_mistake_gets_one_line_before_any_weights_are_read(
    model: str, tmp_path: Path, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adanat_cli.jobs.sample.sampler.load_nat", lambda *_: pytest.fail("weights were read"))
    save(tmp_path / "a.png", photo(16, 16))
    save(tmp_path / "small.png", photo(8, 8))
    save(tmp_path / "black.png", np.zeros((16, 16), np.uint8))
    save(tmp_path / "hole.png", np.pad(np.zeros((16, 15, 4), np.uint8), ((0, 0), (0, 1), (0, 0)), constant_values=255))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    paths = {name: tmp_path / fields[name] for name in ("image", "mask", "output") if name in fields}
    if fields.get("output") == ".":
        (tmp_path / "text.png").unlink()
        paths["image"] = tmp_path
    asked = {"image": tmp_path / "a.png", "box": BOX, "output": tmp_path / "out", "model": model, "device": "cpu"}
    with pytest.raises(AdaNATError, match=words) as caught:
        edit(EditRequest(**{**asked, **fields, **paths}), SilentReporter())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Nothing says what to change"),
        ({"box": (0, 0, 1, 1), "variations": 0}, "variations is 0"),
        ({"box": (0, 0, 1)}, "--box is '0,0,1'; expected x,y,width,height"),
        ({"extend": {"up": 3}}, "--extend is 'up=3'; expected pixels for all sides"),
        ({"mask": np.zeros((16, 16), np.float32)}, r"The mask is an array of float32 and shape \(16, 16\)"),
        ({"mask": np.ones((8, 16), bool)}, "The mask has 16 x 8 pixels, and the image 16 x 16"),
        ({"box": (0, 0, 1, 1), "prompts": "a cat"}, "draws classes, not prompts"),
        ({"box": (0, 0, 1, 1), "labels": []}, "labels is empty"),
    ],
)
def test_python_says_what_it_cannot_edit(pipeline: Pipeline, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AdaNATError, match=words):
        pipeline.edit(photo(16, 16), **fields)


def test_boxes_and_sides_are_read_as_they_are_typed() -> None:
    assert read_box(" 1, 2,3 ,4") == Box(1, 2, 3, 4)
    assert read_sides("16") == Sides(16, 16, 16, 16)
    assert read_sides("left=16, bottom=2") == Sides(left=16, bottom=2)
    for text in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,2,2", "0,0,0,2"):
        with pytest.raises(AdaNATError, match="--box is"):
            read_box(text)
    for text in ("", "0", "-3", "left", "left=a", "up=2", "left=1,left=2", "left=0", "16,16"):
        with pytest.raises(AdaNATError, match="--extend is"):
            read_sides(text)
