"""What README.md and the pages in examples/ show, as commands to run.

``python tests/pages.py examples/own_images.md [FOLDER]`` runs a page as it stands, in a folder that has pictures of
coloured shapes under the names that the pages use, and prints the seconds of every command.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md")), ROOT / "examples" / "imagenet64" / "README.md")

SHORT = {
    "sample": "-n 2 --precision fp32",
    "edit": "-n 2 --precision fp32",
    "tokenize": "--workers 0",
    "train-tokenizer": "--updates 2 --batch-size 4 --precision fp32",
    "pretrain-nat": "--updates 2 --batch-size 8 --precision fp32",
    "train-policy": "--updates 1 --trajectories 8 --eval-images 8 --batch-size 8 --precision fp32",
    "evaluate": "-n 4",
    "stats": "-n 12",
    "bench": "--steps 2 --batch-size 1 --repetitions 1",
    "info": "",
    "reproduce": "-n 20",
}
"""Command -> options that make it short; of an option that is given twice, the last counts."""

SHORTER = {
    "train-policy (?!.*--reward|.*--kind)": "--recipe default --discriminator pyramid --discriminator-updates 1 "
    "--discriminator-batch 4 --config short.yaml",
    "stats .*--install": "--updates 2",
    "bench --size large": "--size nano",
}
"""Line -> options beside those of its command."""

PARSED = r"models/|/data/|\.pth|\.ckpt|mscoco|runs/coco|VIRTUAL_|\byou/|adanat (pull|push|studio|reproduce)"
"""Lines that need the Hub, published weights, or a reference of others, do not end, or take minutes: their options are
read and no more."""

PLANNED = r"imagenet256 .*(--tokens|--tokenizer|--data-dir)|\bDATA\b"
"""Lines that need ImageNet: those of commands that have --dry-run print their plan."""

Way = Literal["runs", "plans", "parses", "exists"]


@dataclass(frozen=True)
class Shown:
    """A command, or the Python code, of one fenced block.

    Attributes:
        page: name of the file, from the root of the project.
        line: line of the page, from 1.
        language: bash or python.
        text: one command, or a whole block of Python.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where to look for it."""
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"


def shown(page: Path) -> Iterator[Shown]:
    """What the blocks of a page show, in order."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    for block in re.finditer(r"^```(bash|python)\n(.*?)^```", text, re.M | re.S):
        first = text.count("\n", 0, block.start(2)) + 1
        if block[1] == "python":
            yield Shown(name, first, "python", block[2])
            continue
        for number, line in enumerate(block[2].splitlines()):
            if line.strip():
                yield Shown(name, first + number, "bash", line)


def way(command: str) -> Way:
    """How far a test goes with a command."""
    words = shlex.split(command)
    if words[0] != "adanat":
        return "exists"
    if re.search(PLANNED, command):
        return "plans" if words[1] in ("tokenize", "train-tokenizer", "pretrain-nat", "train-policy") else "parses"
    return "parses" if re.search(PARSED, command) else "runs"


def shortened(command: str) -> str:
    """The command with fewer updates and images, before its redirection."""
    line, arrow, file = command.replace("--steps 4,8", "--steps 4").partition(" > ")
    extra = [SHORT[shlex.split(line)[1]], *(more for part, more in SHORTER.items() if re.search(part, line))]
    return " ".join(part for part in (line, *extra, arrow + file) if part)


def write_shapes(folder: Path, num_images: int, size: int = 64) -> None:
    """Pictures of circles, squares and triangles in a folder per class, of colours and places that follow from i."""
    for number in range(num_images):
        kind, random = ("circle", "square", "triangle")[number % 3], np.random.default_rng(number)
        picture = Image.new("RGB", (size, size), tuple(random.integers(160, 256, 3).tolist()))
        x, y = random.integers(size // 3, 2 * size // 3, 2).tolist()
        r, colour = int(random.integers(size // 6, size // 3)), tuple(random.integers(0, 160, 3).tolist())
        draw, box = ImageDraw.Draw(picture), (x - r, y - r, x + r, y + r)
        if kind == "circle":
            draw.ellipse(box, fill=colour)
        elif kind == "square":
            draw.rectangle(box, fill=colour)
        else:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        picture.save(folder / kind / f"{number:04d}.png")


def prepare(folder: Path, page: Path, num_images: int = 24) -> None:
    """Write what a reader of the page has: pictures, masks, images of another program; and settings of short forms."""
    (folder / "short.yaml").write_text("discriminator:\n  warmup_updates: 1\n")
    if page.stem == "quick_start":  # makes its own
        return
    if page.stem == "editing":  # masks have the names of images
        picture, mask = Image.linear_gradient("L").resize((96, 64)).convert("RGB"), Image.new("L", (96, 64))
        ImageDraw.Draw(mask).ellipse((30, 10, 60, 40), fill=255)
        for name, image in (("photos", picture), ("masks", mask)):
            (folder / name).mkdir()
            image.save(folder / name / "a.png")
        picture.save(folder / "photo.png")
        mask.save(folder / "mask.png")
        return
    write_shapes(folder / "photos", num_images)
    write_shapes(folder / "theirs", 6)
    shutil.copytree(ROOT / "tests" / "fixtures" / "digits", folder / "runs" / "digits-nat" / "model")
    np.savez(folder / "samples.npz", np.zeros((4, 64, 64, 3), np.uint8))
    (folder / "examples").symlink_to(ROOT / "examples")


def run(command: str, folder: Path) -> float:
    """Run a command in a shell; returns seconds on the clock.

    Raises:
        AssertionError: if it fails, with what it said.
    """
    started = time.perf_counter()
    line = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}{done.stderr[-1500:]}"
    return time.perf_counter() - started


def main(page: Path, folder: Path) -> None:
    """Run a page as it stands, and print the seconds of every command: on the clock, and of all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        prepare(folder, page, num_images=300)
    names: dict[str, Any] = {}
    os.chdir(folder)
    for part in shown(page):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if part.language == "python":
            exec(part.text, names)
        elif way(part.text) == "runs":
            seconds = run(part.text, folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{seconds:7.1f} s {spent:7.1f} s  {part.text}", flush=True)
        else:
            print(f"      -         -    {part.text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2] if sys.argv[2:] else "page").resolve())
