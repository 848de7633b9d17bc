"""``adanat evaluate`` of a text-conditional model: the images of its prompts, and how well they fit by CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.preference import PreferenceReward
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.evaluate import clip_scorer
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.image_sets import SampleFile
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.conditions import read_prompts
from adanat_cli.jobs.share.benchmarks import write_captions
from tests.clip_toy import make_clip, make_text_model
from tests.evaluation_toy import Patches, Said, Stops, evaluate_request, fail, make_evaluation_toy, parts, stats_request
from tests.evaluation_toy import rows as rows_of

pytest.importorskip("transformers")
WORDS = ["one", "two", "red", "blue", "ring", "cross"]
PROMPTS = ("one red ring", "two blue rings", "one blue cross")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random text NAT in the model of the toy, its encoder, a CLIP to measure with, and a file of captions."""
    folder = make_evaluation_toy(tmp_path_factory.mktemp("text"))
    make_clip(folder / "scorer", WORDS, image_size=24, length=7, hidden_size=8)
    make_text_model(ModelFolder(folder / "model"), folder / "encoder", WORDS)
    write_captions(folder / "captions.txt", PROMPTS)
    return folder


def rows(toy: Path, output: Path | str, **changes: Any) -> list[dict[str, Any]]:
    return rows_of(toy, output, **{"prompts": PROMPTS, "clip": str(toy / "scorer"), **changes})


def request(toy: Path, output: Path, **changes: Any) -> Any:
    return evaluate_request(toy, output, prompts=PROMPTS, clip=str(toy / "scorer"), **changes)


def adanat(command: str, toy: Path, *arguments: object) -> Any:
    fields = ["--model", toy / "model", "--steps", 2, "--device", "cpu", *arguments]
    done = CliRunner().invoke(app, [command, *map(str, fields)])
    assert done.exit_code == 0, done.stderr or done.exception
    return done


@pytest.fixture(scope="module")
def unbroken(toy: Path) -> dict[str, Any]:
    """The row of one evaluation from start to end, whose features are kept."""
    (row,) = rows(toy, "unbroken", keep_features=True)
    return row


def similarities(folder: Path) -> torch.Tensor:
    """(n,) of the kept features of an evaluation."""
    return torch.cat([load_file(file)["clip"] for file in sorted(folder.rglob("part-*"))])


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    names = ("clip_score", "fid", "kid", "inception_score")
    return all(one["metrics"][name] == pytest.approx(two["metrics"][name], rel=1e-5, abs=1e-5) for name in names)


def test_the_clip_score_is_that_of_the_images_which_sample_writes(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    drawn = adanat("sample", toy, "--prompts", toy / "captions.txt", "-n", 22, "-o", tmp_path, "--json")
    images = np.stack([np.asarray(Image.open(file)) for file in json.loads(drawn.stdout)["files"]])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    prompts = [PROMPTS[index % 3] for index in range(22)]
    expected = PreferenceReward(str(toy / "scorer")).score(pixels, prompts)
    torch.testing.assert_close(similarities(toy / "unbroken"), expected, atol=1e-6, rtol=0)
    assert expected.std() > 1e-3
    assert unbroken["metrics"]["clip_score"] == pytest.approx(100 * float(expected.mean()), rel=1e-5)
    (from_files,) = rows_of(toy, tmp_path / "out", images=tmp_path, steps=(), num_samples=None)
    assert from_files["metrics"]["fid"] == pytest.approx(unbroken["metrics"]["fid"], rel=1e-5)
    assert from_files["metrics"]["clip_score"] is None
    assert from_files["absent"]["clip_score"] == "image files do not record the prompt"


def test_numbers_of_prompts_in_a_file_are_not_taken_for_classes(toy: Path, tmp_path: Path) -> None:
    adanat("sample", toy, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--format", "npz", "-n", 4, "-o", tmp_path)
    images = SampleFile(tmp_path / "samples.npz", torch.device("cpu"))
    assert images.classes(4) is None
    assert "no classes" in images.missing_labels


def test_a_row_names_prompts_encoder_and_clip(toy: Path, unbroken: dict[str, Any]) -> None:
    settings = unbroken["settings"]
    digest = write_captions(toy / "again.txt", PROMPTS)
    assert (settings["num_prompts"], settings["prompts_sha256"]) == (3, digest)
    assert read_prompts((), toy / "again.txt") == PROMPTS
    assert settings["text_encoder"] == TextEncoder(str(toy / "encoder")).fingerprint
    assert settings["clip"] == "scorer"
    assert len(settings["clip_hash"]) == 64
    assert "classes" not in settings
    assert unbroken["metrics"]["accuracy"] is None
    assert unbroken["cost"]["tera_flops_per_image"] > 0


@pytest.mark.parametrize("changes", [{"batch_size": 22, "part_size": 22}, {"batch_size": 3, "part_size": 8}])
def test_batches_and_parts_change_nothing(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path, changes: dict[str, int]
) -> None:
    (row,) = rows(toy, tmp_path, **changes)
    assert same(row, unbroken)


def test_a_killed_evaluation_goes_on_to_the_same_numbers(toy: Path, unbroken: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(request(toy, tmp_path), Stops(12, fail))
    assert len(parts(tmp_path)) == 2
    with pytest.raises(AdaNATError, match=r"num_prompts was 3, now 2, prompts_sha256 was .*; repeat its settings"):
        rows(toy, tmp_path, prompts=PROMPTS[:2])
    with pytest.raises(AdaNATError, match=r"clip was .*scorer', now None, clip_hash was"):
        rows(toy, tmp_path, clip="none")
    counts = Stops(10**6, fail)
    (row,) = evaluate(request(toy, tmp_path), counts)["results"]
    assert counts.seen == 12
    assert row["metrics"] == unbroken["metrics"]


def test_an_image_follows_from_its_number_and_its_own_prompt(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    rows(toy, tmp_path, prompts=(PROMPTS[0], "two red crosses", PROMPTS[2]), num_samples=9, keep_features=True)
    is_same = similarities(tmp_path).isclose(similarities(toy / "unbroken")[:9], atol=1e-6)
    assert is_same.tolist() == [True, False, True] * 3


def test_prompts_are_encoded_a_batch_at_a_time(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, encode = [], TextEncoder.encode

    def spy(self: TextEncoder, prompts: Any) -> Any:
        sizes.append(len(prompts))
        return encode(self, prompts)

    monkeypatch.setattr(TextEncoder, "encode", spy)
    rows(toy, tmp_path, prompts=tuple(f"{word} ring" for word in WORDS), num_samples=10, clip="none")
    # Two parts of five images in batches of four; the empty prompt once, and image 0 whose operations are counted; then
    # the ten images of the report.
    assert sorted(sizes[:-3]) == [1, 1, 1, 1, 4, 4]
    assert sizes[-3:] == [4, 4, 2]


def test_a_table_has_the_clip_score_and_a_file_gives_one_image_a_prompt(toy: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"{one} {two}" for one in WORDS for two in WORDS))
    line = ["--ref", toy / "stats.npz", "--prompts", prompts, "--clip", toy / "scorer", "-o", tmp_path / "out"]
    shown = adanat("evaluate", toy, *line).stdout
    heads = next(row for row in shown.splitlines() if "measured" in row).strip("┃").split("┃")
    wanted = ["measured", "FID", "IS", "precision", "recall", "density", "coverage", "KID", "CLIP score", "images"]
    assert [head.strip() for head in heads][: len(wanted)] == wanted
    assert "CLIP score: 100 x mean cosine similarity of image and prompt by " in shown
    assert json.loads(adanat("evaluate", toy, *line, "--json").stdout)["results"][0]["settings"]["num_images"] == 36


def test_a_recorded_clip_score_names_its_clip(toy: Path, tmp_path: Path) -> None:
    (row,) = rows(toy, tmp_path, record=True)
    (noted,) = [result for result in ModelFolder(toy / "model").index.results if result["metric"] == "clip_score"]
    assert noted["value"] == row["metrics"]["clip_score"]
    assert (noted["clip"], noted["num_prompts"]) == ("scorer", 3)
    assert noted["clip_hash"] == row["settings"]["clip_hash"][:12]
    assert "clip_score" in (toy / "model" / "README.md").read_text()


def test_other_protocols_measure_prompts_too(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("evaluate", "stats"):
        monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{module}.load_extractor", lambda *_, **__: Patches())
    stats = stats_request(toy, tmp_path / "adm.npz", protocol="adm", data={"image_size": 16})
    make_stats(stats, SilentReporter())
    (row,) = rows(toy, tmp_path, reference=tmp_path / "adm.npz")
    assert row["metrics"]["sfid"] > 0
    assert row["metrics"]["clip_score"] is not None


def test_without_the_usual_clip_the_score_is_absent_with_a_reason(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_scorer, "DEFAULT_CLIP", str(tmp_path / "away"))

    said = Said()
    (row,) = evaluate(evaluate_request(toy, tmp_path, prompts=PROMPTS), said)["results"]
    assert row["metrics"]["clip_score"] is None
    assert row["absent"]["clip_score"] == f"CLIP model {tmp_path / 'away'} could not be loaded"
    assert row["metrics"]["fid"] == pytest.approx(unbroken["metrics"]["fid"], rel=1e-5)
    assert "clip" not in row["settings"]
    assert any("There will be no CLIP score" in line and "\n" not in line for line in said.warned)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read from"), (b"\n  \n", "holds no prompts"), (b"\xe9 red", "cannot be read from")],
)
def test_a_file_of_no_prompts_gets_one_line(toy: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    arguments = ["evaluate", "--model", str(toy / "model"), "--prompts", str(tmp_path / "prompts.txt")]
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    mistake = CliRunner().invoke(app, arguments).exception
    assert isinstance(mistake, AdaNATError)
    assert words in str(mistake)
    assert "\n" not in str(mistake)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": ()}, r"conditioned on text; give the prompts to measure it on: --prompts FILE"),
        ({"classes": ("3",)}, "conditioned on text; give --prompt instead of --class"),
        ({"prompts": ("red\nring",)}, "has several lines"),
        ({"clip": "no/such-model-folder/here"}, "CLIP model .no/such-model-folder/here. cannot be loaded"),
        ({"text_encoder": "no/such-model-folder/here"}, "cannot be loaded"),
        (
            {"images": Path("a"), "steps": ()},
            r"--prompt, --clip have no meaning with --images, whose images exist; leave them out",
        ),
        ({"model": "", "clip": ""}, "conditioned on classes; give --class"),
        ({"model": "", "prompts": ()}, "--clip compares images with prompts"),
        ({"num_samples": 1}, "--num-samples is 1"),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_generated(
    toy: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, **{"output": tmp_path, **changes})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluation.json").exists()
