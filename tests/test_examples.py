"""The scripts in examples/ and the commands in the README run."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]
ADANAT = [line for line in COMMANDS if line.startswith("adanat ")]
ON_THE_EMBEDDED_MODEL = [
    line
    for line in ADANAT
    if line.startswith(("adanat sample", "adanat info")) and not re.search("runs/|models/|/data/|you/", line)
]


def with_adanat_on_path(folder: Path, **variables: str) -> dict[str, str]:
    """An environment in which `adanat` is this checkout's, run by this Python."""
    script = folder / "bin" / "adanat"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m adanat_cli "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **variables}


def test_the_imagenet64_example_ends_in_samples(tmp_path: Path) -> None:
    """On made-up images in the layout that the script asks for."""
    from tests.image_files import write_imagenet64

    write_imagenet64(tmp_path / "data")
    environment = with_adanat_on_path(tmp_path, TOKENIZER_UPDATES="2", NAT_UPDATES="2")
    script = [str(ROOT / "examples" / "imagenet64.sh"), str(tmp_path / "data"), str(tmp_path / "run")]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "preview.png").exists()
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 101


def test_the_paper_in_miniature_ends_in_samples_a_table_and_a_picture(tmp_path: Path) -> None:
    """The digits' tokenizer and NAT, hastily trained, then one way of finding a schedule beside the fixed one."""
    pytest.importorskip("sklearn")
    way = "adaptive, FID"
    script = [sys.executable, str(ROOT / "examples" / "digits.py"), "run", "--quick", "--images", "100", "--ways", way]
    environment = with_adanat_on_path(tmp_path, TOKENIZER_UPDATES="30", NAT_UPDATES="20")
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 101
    assert way in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results) == {"fixed (cosine)", way}
    assert all(set(rows[0]) == {"distance", "accuracy", "precision", "recall"} for rows in results.values())
    assert all(row["distance"] > 0 for rows in results.values() for row in rows)
    assert (tmp_path / "run" / "results.png").exists()


def test_the_bench_prints_speed_and_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--protocol", "small", "--num-images", "20", "--image-size", "16", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["bench_features.py", *options])
    runpy.run_path(str(ROOT / "examples" / "bench_features.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small, 20 images of 16 pixels, cpu")
    speed, memory, disk = (float(re.findall(r"[\d.]+", line)[0]) for line in lines[1:])
    assert speed > 0
    assert memory > 10
    # 256 features and 1,000 logits of 4 bytes, besides a header.
    assert disk == pytest.approx(4 * 1256 / 1024, rel=0.02)


@pytest.mark.parametrize("line", ON_THE_EMBEDDED_MODEL)
def test_readme_commands_on_the_embedded_model_run(line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        line, shell=True, capture_output=True, text=True, env=with_adanat_on_path(tmp_path), cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ADANAT)
def test_readme_commands_use_options_that_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    options = {word for word in words if word.startswith("-")}
    shown = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    for option in options:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown), f"{option} is not an option of {words[0]}"


def test_pictures_in_the_readme_exist() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()
