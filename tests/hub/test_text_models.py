"""A text model whose encoder was a folder here: what leaves this machine is whole, and tells of no place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.describe import model_lines
from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.checkpoints.portable import portable
from adanat_cli.core.config import NATConfig, PolicyConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.share_requests import PullRequest, PushRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.resolve.models import resolve_tokens
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.share.info import describe
from adanat_cli.jobs.share.pull import pull
from adanat_cli.jobs.share.push import push
from tests.clip_toy import make_clip
from tests.hub.server import HubServer

pytest.importorskip("transformers")
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def adanat(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.stderr or done.exception
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, an encoder, encoded tokens and a hardly trained NAT; later, the encoder has moved."""
    home = tmp_path_factory.mktemp("someones-home")
    rows: dict[str, list[Any]] = {"image": [], "captions": []}
    for name, colour in COLOURS.items():
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        rows["image"] += 8 * [{"bytes": file.getvalue(), "path": None}]
        rows["captions"] += 8 * [[name]]
    rows["image"].append({"bytes": b"no image", "path": str(home / "broken.png")})
    rows["captions"].append(["red"])
    (home / "pictures").mkdir()
    pq.write_table(pa.table(rows), home / "pictures" / "train.parquet")
    make_clip(home / "clip", list(COLOURS))
    data = ("--dataset", home / "pictures", "--image-size", 8, "--max-bad", 0.1)
    pixels = ("--downsampling", 2, "--codebook-size", 8, "--colour", "--output", home / "pixels")
    tokenizer = adanat("train-tokenizer", *data, *pixels)["model"]
    states = ("--encode-captions", "--text-encoder", home / "clip", "--output", home / "tokens")
    adanat("tokenize", *data, "--tokenizer", tokenizer, *states)
    made_of = ("--dataset", home / "pictures", "--tokens", home / "tokens", "--model", tokenizer)
    short = ("--size", "nano", "--steps", 2, "--batch-size", 4, "--precision", "fp32", "--output", home / "nat")
    adanat("pretrain-nat", *made_of, *short)
    (home / "clip").rename(home / "elsewhere")
    return home


def drawn(model: str, output: Path) -> list[bytes]:
    """Pixels of two images; the files also name the model."""
    request = SampleRequest(
        output=output, model=model, num_images=2, num_steps=2, prompts=("red", "blue"), device="cpu"
    )
    return [Image.open(file).tobytes() for file in sample(request, SilentReporter())["files"]]


def test_a_pulled_model_draws_what_it_drew_and_no_pushed_file_tells_where_anything_lay(
    hub: HubServer, home: Path, tmp_path: Path
) -> None:
    model = home / "nat" / "model"
    before = drawn(str(model), tmp_path / "before")
    push(PushRequest(str(model), "tester/text", num_images=2, device="cpu"), SilentReporter())
    files = hub.repos["models/tester/text"].commits[hub.repos["models/tester/text"].branches["main"]]
    assert {"text/config.json", "text/model.safetensors", "text/tokenizer.json"} <= set(files)
    for name, content in files.items():
        assert str(home).encode() not in content, name
        assert home.name.encode() not in content, name
        assert str(Path.cwd()).encode() not in content, name
    assert drawn("tester/text", tmp_path / "hub") == before
    pull(PullRequest("tester/text", tmp_path / "copy"), SilentReporter())
    assert drawn(str(tmp_path / "copy"), tmp_path / "after") == before


def test_the_card_shows_captions_that_the_model_was_trained_on(hub: HubServer, home: Path, tmp_path: Path) -> None:
    source, folder = ModelFolder(home / "nat" / "model"), ModelFolder(tmp_path / "model")
    folder.write_all([source.component(name) for name in source.index.components])
    nat = NATConfig.from_dict(source.config("nat"), "nat")
    policy = PolicyConfig(nat.width, nat.grid, 2, hidden_width=8, nat_fingerprint=source.fingerprint("nat"))
    folder.write(policy_component(2), policy.to_dict(), PolicyNetwork(policy).state_dict())
    push(PushRequest(str(folder.path), "tester/shown", num_images=2, device="cpu"), SilentReporter())
    files = hub.repos["models/tester/shown"].commits[hub.repos["models/tester/shown"].branches["main"]]
    card = files["README.md"].decode()
    assert "](samples.png)\n\nPrompts of the samples: red; blue." in card
    for picture in ("samples.png", "curves-steps-2.png", "samples-steps-2.png"):
        assert f"]({picture})" in card
        assert files[picture].startswith(b"\x89PNG")


def test_a_token_set_brings_its_encoder_and_tells_no_place(hub: HubServer, home: Path) -> None:
    push(PushRequest(str(home / "tokens"), "tester/captions", "tokens"), SilentReporter())
    repo = hub.repos["datasets/tester/captions"]
    files = repo.commits[repo.branches["main"]]
    assert "broken.png (row 16)" in json.loads(files["token_set.json"])["skipped"]
    for name, content in files.items():
        assert home.name.encode() not in content, name
    there = resolve_tokens(Path("tester/captions"))
    assert (there / "text" / "model.safetensors").read_bytes() == (home / "tokens/text/model.safetensors").read_bytes()


def test_a_model_without_its_encoder_asks_for_it_and_its_card_says_why_it_shows_nothing(
    hub: HubServer, home: Path, tmp_path: Path
) -> None:
    whole, bare = ModelFolder(home / "nat" / "model"), ModelFolder(tmp_path / "bare")
    bare.write_all([whole.component("tokenizer"), whole.component("nat")])
    # As an older edition wrote it.
    write_json(bare.path / "nat" / "config.json", {**whole.config("nat"), "text_encoder": str(home / "gone" / "clip")})
    push(PushRequest(str(bare.path), "tester/bare", device="cpu"), SilentReporter())
    files = hub.repos["models/tester/bare"].commits[hub.repos["models/tester/bare"].branches["main"]]
    assert json.loads(files["nat/config.json"])["text_encoder"] == "clip"
    assert b"Samples are not shown: the text encoder was not at hand" in files["README.md"]
    assert "samples.png" not in files
    assert read_json(bare.path / "nat" / "config.json")["text_encoder"] == str(home / "gone" / "clip")
    with pytest.raises(AdaNATError, match=r"in a folder 'clip', which is not part of the model; .*--text-encoder"):
        drawn("tester/bare", tmp_path)
    given = SampleRequest(
        output=tmp_path / "given",
        model="tester/bare",
        prompts=("red",),
        num_images=1,
        text_encoder=str(home / "elsewhere"),
    )
    assert sample(given, SilentReporter())["files"]


def test_info_tells_of_the_encoder_and_of_no_classes(home: Path) -> None:
    text = "\n".join(model_lines(describe(str(home / "nat" / "model")), full=True))
    assert "text: CLIP text tower of width 16, 8 tokens" in text
    assert "text of width 16 by clip" in text
    assert "captions: red; blue" in text
    assert "Classes" not in text
    assert "{" not in text


@pytest.mark.parametrize(
    ("told", "public"),
    [
        ("/home/me/pictures", "pictures"),
        ("/home/me/pictures (train)", "pictures (train)"),
        ("~/data", "data"),
        ("../data", "data"),
        ("dino=/home/me/vit.safetensors", "dino=vit.safetensors"),
        ("table:C:\\me\\best.yaml", "table:best.yaml"),
        ("cannot read '/home/me/a.jpg' here", "cannot read 'a.jpg' here"),
        ("openai/clip-vit-large-patch14@main", "openai/clip-vit-large-patch14@main"),
        ("https://host/a/b", "https://host/a/b"),
        ("see https://host/a/b", "see https://host/a/b"),
        ("and/or, 1/2", "and/or, 1/2"),
    ],
)
def test_a_path_of_this_machine_becomes_its_last_name(told: str, public: str) -> None:
    assert portable({"a": [told, 1, None], "b": 0.5}) == {"a": [public, 1, None], "b": 0.5}


def test_a_model_folder_is_written_without_paths(home: Path, tmp_path: Path) -> None:
    folder, source = ModelFolder(tmp_path / "model"), ModelFolder(home / "nat" / "model")
    values, tensors = source.read("tokenizer")
    folder.write("tokenizer", values, tensors, provenance={"data": {"source": "/home/me/pictures"}})
    for _ in range(2):
        folder.put_results([{"metric": "fid", "value": np.pi, "dataset": "/home/me/stats.npz"}])
    write_card(folder)
    assert len(folder.index.results) == 1
    assert "/home/me" not in (folder.path / "model_index.json").read_text() + folder.card()
