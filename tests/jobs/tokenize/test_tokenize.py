from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adanat_cli.core.config import data_config
from adanat_cli.core.config.requests import TokenizeOptions, TokenizeRequest
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import read_summary
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.devices import start_processes
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.tokenize.preview import save_reconstructions
from adanat_cli.jobs.tokenize.tokenize import TokenizeResult, plan, run_tokenize, tokenize
from tests.evaluation_toy import Said
from tests.image_files import patch_tokenizer, png, write_class_folder
from tests.processes import run_two

WORKER = """
import sys
from pathlib import Path
from adanat_cli.core.config import data_config
from adanat_cli.core.data.sources import open_source
from adanat_cli.jobs.runtime.devices import start_processes
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.tokenize.shards import TokenizeOptions
from adanat_cli.jobs.tokenize.tokenize import tokenize
from tests.image_files import patch_tokenizer

folder, output = sys.argv[1], Path(sys.argv[2])
source = open_source(data_config(folder, image_size=16))
options = TokenizeOptions(batch_size=4, num_workers=1, shard_size=8)
tokenize(source, patch_tokenizer(), "f00d", output, options, SilentReporter(), start_processes("cpu"))
"""


def open_folder(root: Path, **fields: Any) -> ImageSource:
    return open_source(data_config(str(root), image_size=16, **fields))


def run(source: ImageSource, output: Path, fingerprint: str = "f00d", **options: Any) -> TokenizeResult:
    options = {"batch_size": 4, "num_workers": 2, "shard_size": 8, **options}
    asked, processes = TokenizeOptions(**options), start_processes("cpu")
    result = tokenize(source, patch_tokenizer(), fingerprint, output, asked, SilentReporter(), processes)
    assert result is not None
    return result


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_class_folder(tmp_path / "images", 30, size=16)


def test_ids_labels_and_flips_follow_the_images(images: Path, tmp_path: Path) -> None:
    result = run(open_folder(images), tmp_path / "tokens")
    assert (result.num_images, result.num_shards, result.num_shards_written) == (30, 4, 4)
    tokens = TokenSet.open(tmp_path / "tokens")
    assert tokens.info.grid == (4, 4)
    assert tokens.info.class_names == {0: "cat", 1: "dog"}
    assert tokens.labels.tolist() == [0] * 15 + [1] * 15
    plain, _ = tokens.batch(np.array([7]), np.array([False]))
    flipped, _ = tokens.batch(np.array([7]), np.array([True]))
    level, complement = round(14 / 255 * 63), round(241 / 255 * 63)
    assert plain[0].tolist() == [level, level, complement, complement] * 4
    assert flipped[0].tolist() == [complement, complement, level, level] * 4


def test_batch_size_and_workers_change_no_byte(images: Path, tmp_path: Path) -> None:
    run(open_folder(images), tmp_path / "a")
    run(open_folder(images), tmp_path / "b", batch_size=3, num_workers=0)
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")


def test_a_finished_run_writes_nothing_more(images: Path, tmp_path: Path) -> None:
    run(open_folder(images), tmp_path / "tokens")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "tokens").glob("*.parquet")}
    assert run(open_folder(images), tmp_path / "tokens").num_shards_written == 0
    assert times == {file: file.stat().st_mtime_ns for file in times}


def test_unreadable_images_are_left_out_and_listed(images: Path, tmp_path: Path) -> None:
    (images / "cat/004.png").write_bytes(b"nothing")
    (images / "dog/005.png").write_bytes(png(5, 16)[:45])
    result = run(open_folder(images, max_bad=0.1), tmp_path / "tokens")
    assert result.num_images == 28
    assert sorted(result.skipped) == ["cat/004.png", "dog/005.png"]
    assert len(TokenSet.open(tmp_path / "tokens")) == 28
    assert sorted(run(open_folder(images, max_bad=0.1), tmp_path / "tokens").skipped) == sorted(result.skipped)
    with pytest.raises(AdaNATError, match=r"2 of 30 images cannot be read.*cat/004\.png.*--max-bad"):
        run(open_folder(images, max_bad=0.05), tmp_path / "strict")


def as_older_editions_wrote_it(tokens: Path) -> None:
    """A set without hashes, whose shards do not tell where the skipped images are."""
    for file in tokens.glob("*.parquet"):
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"adanat_shard"])
        about.pop("skipped_at", None)
        table = table.replace_schema_metadata({**table.schema.metadata, b"adanat_shard": json.dumps(about)})
        pq.write_table(table, file)
    summary = json.loads((tokens / "token_set.json").read_text())
    del summary["sha256"], summary["files_digest"]
    (tokens / "token_set.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("old", [False, True])
def test_an_image_that_was_repaired_is_taken_in(images: Path, tmp_path: Path, old: bool) -> None:
    run(open_folder(images), tmp_path / "whole")
    (images / "cat/004.png").write_bytes(b"nothing")
    (images / "dog/025.png").write_bytes(b"nothing")
    run(open_folder(images, max_bad=0.1), tmp_path / "tokens")
    if old:
        as_older_editions_wrote_it(tmp_path / "tokens")
    (images / "cat/004.png").write_bytes(png(4, 16))
    again = run(open_folder(images, max_bad=0.1), tmp_path / "tokens")
    assert (again.num_images, again.num_shards_written, list(again.skipped)) == (29, 1, ["dog/025.png"])
    (images / "dog/025.png").write_bytes(png(25, 16))
    run(open_folder(images), tmp_path / "tokens")
    assert old or shard_bytes(tmp_path / "tokens") == shard_bytes(tmp_path / "whole")
    assert len(TokenSet.open(tmp_path / "tokens")) == 30


def test_a_shard_that_was_damaged_since_is_not_taken_for_whole(images: Path, tmp_path: Path) -> None:
    run(open_folder(images), tmp_path / "tokens")
    hashes = read_summary(tmp_path / "tokens")["sha256"]
    name, content = next(iter(shard_bytes(tmp_path / "tokens").items()))
    assert hashes[name] == hashlib.sha256(content).hexdigest()
    (tmp_path / "tokens" / name).write_bytes(content[:10] + bytes([content[10] ^ 1]) + content[11:])
    for has_summary in (True, False):  # without one, the checksums of its pages tell
        if not has_summary:
            (tmp_path / "tokens" / "token_set.json").unlink()
        with pytest.raises(AdaNATError, match=rf"{name} is .*remove it and run the same"):
            run(open_folder(images), tmp_path / "tokens")
    (tmp_path / "tokens" / name).unlink()
    assert run(open_folder(images), tmp_path / "tokens").num_shards_written == 1
    assert read_summary(tmp_path / "tokens")["sha256"] == hashes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "beef"}, "tokenizer_fingerprint was 'f00d', now 'beef'"),
        ({"flips": False}, "has_flips was True, now False"),
        ({"shard_size": 10}, "shard_size was 8, now 10"),
        ({"num_images": 12}, "num_images was None, now 12"),
    ],
)
def test_tokens_of_other_settings_are_refused(
    images: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(open_folder(images), tmp_path / "tokens")
    with pytest.raises(AdaNATError, match=message):
        run(open_folder(images), tmp_path / "tokens", **change)


def test_files_that_are_replaced_under_a_run_are_no_part_of_its_tokens(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "data")
    run(open_folder(copy), tmp_path / "tokens")
    for shard in sorted((tmp_path / "tokens").glob("*.parquet"))[1:]:
        shard.unlink()
    file = min(copy.rglob("*.png"))
    status, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AdaNATError, match="files that have changed since: images 0 to 7"):
        run(open_folder(copy), tmp_path / "tokens")
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    moved = shutil.move(copy, tmp_path / "elsewhere/data")
    assert run(open_folder(moved), tmp_path / "tokens").num_shards_written > 0


def test_an_image_that_was_repaired_changes_no_other_shard(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "data")
    file = min(copy.rglob("*.png"))
    content = file.read_bytes()
    file.write_bytes(b"")
    run(open_folder(copy, max_bad=0.5), tmp_path / "tokens")
    file.write_bytes(content)
    run(open_folder(copy, max_bad=0.5), tmp_path / "tokens")


def test_tokens_of_other_data_are_refused(images: Path, tmp_path: Path) -> None:
    run(open_folder(images), tmp_path / "tokens")
    (images / "dog/999.png").write_bytes(png(9, 16))
    with pytest.raises(AdaNATError, match="source_images was 30, now 31"):
        run(open_folder(images), tmp_path / "tokens")


def test_only_the_asked_images_are_covered(images: Path, tmp_path: Path) -> None:
    result = run(open_folder(images).keep((1,)), tmp_path / "tokens", num_images=10)
    assert result.num_images == 10
    assert set(TokenSet.open(tmp_path / "tokens").labels.tolist()) == {1}


def test_streams_give_the_tokens_of_the_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    files = sorted(images.rglob("*.png"))
    rows = {"image": [file.read_bytes() for file in files], "label": [int(f.parent.name == "dog") for f in files]}
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "table/train.parquet")
    stream = open_folder(tmp_path / "table", streaming=True, num_classes=2)
    run(stream, tmp_path / "streamed")
    assert sorted(shard_bytes(tmp_path / "streamed")) == [f"tokens-0000{number}.parquet" for number in range(4)]
    (tmp_path / "streamed/tokens-00002.parquet").unlink()
    assert run(stream, tmp_path / "streamed").num_shards_written == 1
    run(open_folder(images), tmp_path / "plain")
    streamed, plain = TokenSet.open(tmp_path / "streamed"), TokenSet.open(tmp_path / "plain")
    assert np.array_equal(streamed.tokens, plain.tokens)
    assert np.array_equal(streamed.labels, plain.labels)


def test_two_processes_write_the_same_shards(images: Path, tmp_path: Path, warm: dict[str, str]) -> None:
    run(open_folder(images), tmp_path / "alone")
    run_two(warm, WORKER, images, tmp_path / "shared")
    assert shard_bytes(tmp_path / "shared") == shard_bytes(tmp_path / "alone")
    assert len(TokenSet.open(tmp_path / "shared")) == 30


def test_the_picture_shows_originals_above_reconstructions(images: Path, tmp_path: Path) -> None:
    from PIL import Image

    psnr = save_reconstructions(open_folder(images), patch_tokenizer(), tmp_path / "preview.png", num_images=10)
    assert psnr > 35  # flat patches in 64 levels lose little
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.size == (8 * 18 - 2, 4 * 18 - 2)


def write_model(folder: Path) -> Path:
    from adanat_cli.core.checkpoints.folder import ModelFolder
    from adanat_cli.core.config import VQAEConfig
    from adanat_cli.core.tokenizer.build import build_tokenizer

    torch.manual_seed(0)
    config = VQAEConfig(image_size=16, codebook_size=64, channels=(32, 32))
    ModelFolder(folder).write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict())
    return folder


def test_a_request_joins_model_data_and_picture(images: Path, tmp_path: Path) -> None:
    model, options = write_model(tmp_path / "model"), TokenizeOptions(num_workers=0)
    request = TokenizeRequest(
        str(images),
        {},
        ("dog",),
        str(model),
        tmp_path / "tokens",
        preview=tmp_path / "p.png",
        device="cpu",
        options=options,
    )
    said = Said()
    values = run_tokenize(request, said)
    assert said.logged[0] == "images (train): 15 images in 1 of 2 classes (dog)."
    assert (values["num_images"], values["num_shards"]) == (15, 1)
    assert np.isfinite(values["psnr"])
    assert (tmp_path / "p.png").exists()
    assert len(TokenSet.open(tmp_path / "tokens").info.tokenizer_fingerprint) == 64


@pytest.mark.parametrize("data", ["imagenet64", "imagenet256"])
def test_a_dry_run_counts_operations_of_networks(data: str) -> None:
    values = plan(TokenizeRequest(data))
    assert values["tera_flops_per_image"] > 0


def test_a_dry_run_knows_tokenizers_without_a_network(images: Path, tmp_path: Path) -> None:
    from adanat_cli.core.checkpoints.folder import ModelFolder
    from adanat_cli.core.config import PixelConfig

    ModelFolder(tmp_path).write("tokenizer", PixelConfig(image_size=16).to_dict(), {})
    assert plan(TokenizeRequest(str(images), model=str(tmp_path)))["tokens_per_image"] == 256


def test_the_command_prints_one_json_object(images: Path, tmp_path: Path) -> None:
    import json

    import typer
    from typer.testing import CliRunner

    from adanat_cli.commands.tokenize import command

    app = typer.Typer()
    app.command()(command)
    arguments = [
        "-d",
        str(images),
        "--tokenizer",
        str(write_model(tmp_path / "model") / "tokenizer"),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "tokens"), "--workers", "0", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_images"] == 30
    assert CliRunner().invoke(app, arguments).exit_code == 2
    only = CliRunner().invoke(app, [*arguments, "--preview", str(tmp_path / "p.png"), "--preview-only"])
    assert only.exit_code == 0, only.output
    assert "PSNR" in only.stdout
