"""``adanat sample`` on a tiny model with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image, ImageSequence
from typer.testing import CliRunner

from adanat_cli.commands import sample as sample_command
from adanat_cli.commands.console import ConsoleReporter
from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.config import NATConfig, PolicyConfig, VQAEConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.pictures import save_png
from adanat_cli.jobs.sample.sample import sample

LABELS = {1: "goldfish, Carassius auratus", 3: "golden retriever", 5: "crane", 7: "crane", 8: "tench, Tinca tinca"}
NAT = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder with a policy for 3 steps."""
    torch.manual_seed(0)
    tokenizer_config = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(32, 32))
    policy_config = PolicyConfig(feature_width=16, grid=(4, 4), num_steps=3, hidden_width=16)
    nat = UViT(NAT)
    torch.nn.init.normal_(nat.mlm_layer.bias)  # a fresh NAT would leave every id equally likely
    networks = {
        "tokenizer": (tokenizer_config, build_tokenizer(tokenizer_config)),
        "nat": (NAT, nat),
        "policies/steps-3": (policy_config, PolicyNetwork(policy_config)),
    }
    folder = ModelFolder(tmp_path_factory.mktemp("model") / "tiny")
    folder.write_all([Component(name, config.to_dict(), net.state_dict()) for name, (config, net) in networks.items()])
    folder.write_labels(LABELS)
    return str(folder.path)


class Words(SilentReporter):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)

    warn = log


def run(model: str, output: Path, **fields: object) -> dict:
    return sample(SampleRequest(output=output, model=model, device="cpu", **fields), SilentReporter())


def pixels(files: list[str]) -> list[np.ndarray]:
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(image))
    return images


def test_images_are_written_under_names_that_tell_index_class_and_seed(model: str, tmp_path: Path) -> None:
    values = run(model, tmp_path, classes=("3", "GOLDFISH"), num_images=3, num_steps=2, seed=4)
    names = [Path(file).name for file in values["files"]]
    assert names == [
        "00000_class3_golden-retriever_seed4.png",
        "00001_class1_goldfish_seed4.png",
        "00002_class3_golden-retriever_seed4.png",
    ]
    assert all(image.shape == (16, 16, 3) for image in pixels(values["files"]))
    assert values["classes"] == {"1": LABELS[1], "3": LABELS[3]}
    # Two columns of images that are enlarged eight times, with a gap of 2 pixels, under a line of text.
    assert pixels([values["grid"]])[0].shape == (15 + 2 * 128 + 2, 2 * 128 + 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "grid.png", "samples.jsonl"]


def test_a_png_says_how_to_generate_it_again_and_a_repeated_run_writes_its_bytes(model: str, tmp_path: Path) -> None:
    fields = {"classes": ("3", "1"), "num_images": 2, "num_steps": 2, "seed": 4, "schedule": "cosine"}
    files = run(model, tmp_path / "a", **fields)["files"]
    with Image.open(files[1]) as image:
        facts = dict(image.text)
    expected = {"class": "1", "name": "goldfish", "seed": "4", "index": "1", "schedule": "cosine", "steps": "2"}
    assert facts == {"model": ModelFolder(Path(model)).title, **expected}
    again = run(model, tmp_path / "b", **fields)["files"]
    assert [Path(file).read_bytes() for file in again] == [Path(file).read_bytes() for file in files]


def test_a_png_holds_any_prompt(tmp_path: Path) -> None:
    pixels_, prompts = np.zeros((2, 2, 3), np.uint8), ("a red fox", "ein roter Fuchs für 狐", "a\udcff")
    for prompt in prompts:
        save_png(tmp_path / "a.png", pixels_, {"prompt": prompt})
        with Image.open(tmp_path / "a.png") as image:
            assert image.text == {"prompt": prompt.replace("\udcff", "\\udcff")}
            assert not np.asarray(image).any()


def test_images_are_the_same_at_any_batch_size_and_number_of_images(model: str, tmp_path: Path) -> None:
    fields = {"num_steps": 3, "seed": 1, "schedule": "cosine"}
    whole = pixels(run(model, tmp_path / "a", num_images=7, batch_size=7, **fields)["files"])
    assert len({image.tobytes() for image in whole}) > 1
    for name, num_images, batch_size in (("b", 7, 1), ("c", 7, 3), ("d", 4, 64)):
        again = pixels(run(model, tmp_path / name, num_images=num_images, batch_size=batch_size, **fields)["files"])
        assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=False))


def test_npz_holds_what_the_pngs_hold(model: str, tmp_path: Path) -> None:
    fields = {"classes": ("1", "8"), "num_images": 5, "num_steps": 2, "batch_size": 2}
    pngs = run(model, tmp_path / "png", **fields)["files"]
    (file,) = run(model, tmp_path / "npz", image_format="npz", **fields)["files"]
    with np.load(file) as arrays:
        assert arrays["arr_0"].dtype == np.uint8
        assert arrays["arr_1"].dtype == np.int64
        assert arrays["arr_1"].tolist() == [1, 8, 1, 8, 1]
        np.testing.assert_array_equal(arrays["arr_0"], np.stack(pixels(pngs)))
    assert sorted(path.name for path in (tmp_path / "npz").iterdir()) == ["grid.png", "samples.jsonl", "samples.npz"]


def test_without_a_class_all_seen_classes_take_turns(model: str, tmp_path: Path) -> None:
    values = run(model, tmp_path, num_images=10, num_steps=1)
    labels = [int(Path(file).name.split("_")[1].removeprefix("class")) for file in values["files"]]
    assert sorted(labels[:5]) == sorted(LABELS)
    assert labels[5:] == labels[:5]


@pytest.mark.parametrize(
    ("fields", "kind", "line"),
    [
        ({"num_steps": 3}, "learned", "Schedule: learned policy, 3 steps."),
        ({"num_steps": 4}, "cosine", "Schedule: cosine, 4 steps (the model has learned policies for 3 steps only)."),
        ({"num_steps": 3, "schedule": "cosine", "guidance_scale": 0.0}, "cosine", "Schedule: cosine, 3 steps."),
        ({"schedule": "halton", "sampling_temperature": 0.5}, "halton", "Schedule: halton, 8 steps."),
    ],
)
def test_the_schedule_is_chosen_and_said(model: str, tmp_path: Path, fields: dict, kind: str, line: str) -> None:
    words = Words()
    values = sample(SampleRequest(output=tmp_path, model=model, num_images=1, device="cpu", **fields), words)
    assert values["schedule"] == kind
    assert words.lines == [line]


def test_an_autonat_file_brings_its_number_of_steps(model: str, tmp_path: Path) -> None:
    strategy = {"manual_ratios": [0.5], "manual_temp": [1.0], "manual_samp_temp": [1.0, 1.2], "manual_cfg": [0.1, 2.0]}
    file = tmp_path / "strategy.yaml"
    file.write_text(yaml.safe_dump(strategy))
    values = run(model, tmp_path / "out", num_images=2, schedule=f"autonat:{file}", guidance_scale=2.0)
    assert values["num_steps"] == 2
    with pytest.raises(AdaNATError, match="schedule of 2 steps"):
        run(model, tmp_path / "out", num_images=2, schedule=f"autonat:{file}", num_steps=5)


def test_a_trace_tells_every_step(model: str, tmp_path: Path) -> None:
    values = run(model, tmp_path, classes=("3",), num_images=3, num_steps=3, batch_size=2, trace=True, seed=9)
    pictures = [path for path in values["traces"] if path.endswith(".png")]
    numbers = [json.loads(Path(path).read_text()) for path in values["traces"] if path.endswith(".json")]
    assert len(pictures) == len(numbers) == 3
    assert all(picture.shape[1] > 300 for picture in pixels(pictures))
    animations = [path for path in values["traces"] if path.endswith(".gif")]
    assert len(animations) == 3
    for animation, final in zip(animations, pixels(values["files"]), strict=True):
        with Image.open(animation) as gif:
            frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]
            assert gif.info["loop"] == 0
        assert (frames[0] == 128).all()
        greys = [(frame == 128).all(-1).sum() for frame in frames]
        assert sorted(greys, reverse=True) == greys  # less and less is undecided
        assert np.abs(frames[-1] - final.repeat(8, 0).repeat(8, 1)).max() <= 16  # a GIF has 256 colours
    for index, trace in enumerate(numbers):
        assert (trace["index"], trace["class"], trace["seed"], trace["grid"]) == (index, 3, 9, [4, 4])
        assert [step["step"] for step in trace["steps"]] == [1, 2, 3]
        for step in trace["steps"]:
            assert len(step["token_ids"]) == 16
            assert max(step["token_ids"]) < 16
            assert len(step["masked_positions"]) == step["num_masked"]
            assert 0 <= step["remask_ratio"] < 1


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"num_images": 0}, "--num-images is 0"),
        ({"num_steps": 0}, "--steps is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"schedule": "cosin"}, "'cosin' is not known; did you mean cosine. Expected learned, cosine, halton"),
        ({"schedule": "linear"}, "'linear' is not known; expected learned, cosine, halton"),
        ({"schedule": "autonat:"}, "names no file"),
        ({"schedule": "autonat:/no/such.yaml"}, "does not exist"),
        ({"schedule": "learned", "num_steps": 5}, "no learned policy for 5 steps .it has them for 3"),
        ({"num_steps": 3, "guidance_scale": 2.0}, "add --schedule cosine"),
        ({"remask_temperature": -1.0}, "--remask-temperature is -1.0"),
        ({"guidance_scale": -3.0}, r"--guidance-scale is -3.0; expected a number, 0 \(unguided\) or more"),
        ({"text_encoder": "a"}, "--text-encoder encodes prompts: it has no meaning with model"),
        ({"schedule": "halton", "sampling_temperature": 0.0}, "--sampling-temperature is 0"),
        ({"classes": ("2",)}, "Class 2 was never shown to this model, which knows 5 classes such as goldfish"),
        ({"classes": ("golfish",)}, "did you mean goldfish .1."),
        ({"classes": ("retriever",)}, "did you mean golden retriever .3."),
        ({"classes": ("zzzz",)}, "adanat info"),
        ({"classes": ("crane",)}, "several classes: 5, 7; give the id"),
        ({"classes": ("+-3",)}, "adanat info"),
        ({"num_steps": 17}, "images of this model have 16 tokens; expected 1 to 16"),
        ({"schedule": "cosine", "guidance_scale": 1e39}, "expected at most 10000"),
        ({"device": "meta"}, "expected cuda, cuda:N, mps or cpu"),
        ({"grid": Path("/")}, "--grid / is a folder"),
        ({"grid": Path("/dev/null")}, "/dev/null: it is a device or a pipe"),
        ({"grid": Path("samples.jsonl")}, "--grid samples.jsonl would be a PNG"),
        ({"output": Path("/proc/nowhere")}, "Cannot write to /proc/nowhere"),
        ({"model": "/no/such/model"}, "no/such/model"),
    ],
)
def test_a_mistake_gets_one_clear_line_before_any_weights_are_read(
    model: str, tmp_path: Path, fields: dict, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adanat_cli.jobs.sample.sampler.load_nat", lambda *_: pytest.fail("weights were read"))
    request = SampleRequest(**{"output": tmp_path, "model": model, **fields})
    with pytest.raises(AdaNATError, match=complaint) as caught:
        sample(request, SilentReporter())
    assert "\n" not in str(caught.value)


def test_every_step_of_a_batch_is_shown(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("adanat_cli.commands.console._PLAIN_SECONDS", -1.0)
    request = SampleRequest(output=tmp_path, model=model, num_images=3, num_steps=2, batch_size=2, device="cpu")
    sample(request, ConsoleReporter())
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Sampling")]
    steps = [line.rpartition("step ")[2] if "step " in line else line.split()[1] for line in shown]
    assert steps == ["1/2", "2/2", "2/3", "1/2", "2/2", "3/3"]


def test_the_grid_takes_the_place_of_no_image(model: str, tmp_path: Path) -> None:
    first = Path(run(model, tmp_path / "once", num_images=1)["files"][0]).name
    with pytest.raises(AdaNATError, match="is the name of one of the images"):
        run(model, tmp_path / "out", num_images=1, grid=tmp_path / "out" / first)


def test_a_class_is_found_by_id_name_or_synonym_in_any_capitals() -> None:
    asked = ["8", "Tinca  TINCA", "goldfish", "goldfish, carassius auratus"]
    assert find_classes(asked, LABELS, 10) == [8, 8, 1, 1]
    assert find_classes(["9"], {}, 10) == [9]
    for text in ("10", "-1", "dog"):
        with pytest.raises(AdaNATError, match="from 0 to 9"):
            find_classes([text], {}, 10)


SHOWN = {
    1: "goldfish, Carassius auratus",
    107: "jellyfish",
    207: "golden retriever",
    291: "lion",
    972: "cliff, drop-off",
}


@pytest.mark.parametrize(
    "asked",
    [
        *("golden_retriever", "golden-retriever", "GOLDEN RETRIEVER", " Golden  retriever ", "goldenRetriever"),
        *("n02099601", "N02099601", "n02099601-golden_retriever", "n02099601 golden retriever", "+207", "class207"),
        *(
            "class 207",
            "class207_golden-retriever",
            "class207_golden-retr",
            "207_golden_retriever",
            "\uff12\uff10\uff17",
        ),
        "golden retriever (207)",
    ],
)
def test_a_class_is_found_however_label_lists_and_file_names_write_it(asked: str) -> None:
    assert find_classes([asked], SHOWN, 1000) == [207]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("207.0", "not an id; expected an integer"),
        ("1e2", "not an id; expected an integer"),
        ("9" * 20, "not an id; expected an integer"),
        ("-1", "expected an id from 0 to 999"),
        ("207,208", "several; give each separately: --class 207 --class 208"),
        ("golden retriever;lion", "--class 'golden retriever' --class lion"),
        ("class208", "Class 208 was never shown"),
        ("class207_lion", "not one of the 5"),
        ("n01440764", r"'n01440764' \(tench\) is not one of the 5"),
        ("retriever", r"did you mean golden retriever \(207\)"),
        ("jelly fishes", r"did you mean jellyfish \(107\)"),
        ("carassius", r"did you mean carassius auratus \(1\)\?$"),
        (" ", "name of a class is empty"),
        ("--", "not one of the 5"),
        ("lemon", "not one of the 5"),  # rather than the lion, with which it shares three letters
        ("x" * 9999, "xxx…' is not one of the 5"),
    ],
)
def test_what_is_no_class_gets_one_line_that_helps(asked: str, told: str) -> None:
    with pytest.raises(AdaNATError, match=told) as caught:
        find_classes([asked], SHOWN, 1000)
    assert "\n" not in str(caught.value)


def test_names_win_over_their_loose_forms_and_stand_for_themselves_where_ids_do_not_reach() -> None:
    assert find_classes(["re-sign", "resign"], {0: "resign", 1: "re-sign"}, 2) == [1, 0]
    assert find_classes(["1990", "class0", "1"], {0: "1990", 1: "2000"}, 2) == [0, 0, 1]
    # A synset is no class of a numbering that is not ImageNet's.
    with pytest.raises(AdaNATError, match="golden retriever"):
        find_classes(["n02099601"], {207: "a bus"}, 1000)


def test_the_command_prints_one_json_object(model: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(sample_command.command)
    line = ["--model", model, "--class", "golden retriever", "-n", "2", "--steps", "2", "-o", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, [*line, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["num_images"] == 2
    assert len(values["files"]) == 2


def test_classes_that_are_not_drawn_are_said(model: str, tmp_path: Path) -> None:
    for number, told in ((2, 1), (3, 0)):
        words = Words()
        request = SampleRequest(
            output=tmp_path / str(number), model=model, classes=("1", "3", "8"), num_images=number, num_steps=3
        )
        sample(request, words)
        line = "--num-images 2 draws only the first 2 of the 3 classes; give --num-images 3."
        assert words.lines.count(line) == told
