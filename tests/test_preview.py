"""``adanat sample --preview``: the colours of half blocks are those of the image, and nothing else is disturbed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.preview import half_blocks, obstacle, show
from adanat_cli.jobs.sample.pictures import save_png


def terminal(width: int = 80, **settings: Any) -> Console:
    fields: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor", "no_color": False, **settings}
    return Console(file=io.StringIO(), width=width, **fields)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def colours(text: str) -> np.ndarray:
    """The pixels (2, columns, 3) of every line of half blocks in escape codes, joined to (rows, columns, 3)."""
    rows = []
    for line in text.splitlines():
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line)
        if cells:
            rows += [[cell[:3] for cell in cells], [cell[3:] for cell in cells]]
    return np.array(rows).astype(np.uint8)


def test_every_letter_shows_two_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    console = terminal()
    console.print(half_blocks(Image.fromarray(pixels), 6))
    np.testing.assert_array_equal(colours(printed(console)), pixels)


@pytest.mark.parametrize(("width", "columns"), [(80, 2), (33, 1), (20, 1), (120, 3)])
def test_as_many_pictures_are_drawn_as_the_terminal_has_room_for(tmp_path: Path, width: int, columns: int) -> None:
    files = []
    for number in range(7):
        files.append(str(tmp_path / f"{number}.png"))
        save_png(Path(files[-1]), np.full((64, 64, 3), 10 * number, np.uint8), {"name": f"class {number} [red]" * 9})
    console = terminal(width)
    show(files, console)
    text = printed(console)
    side = min(32, width)
    drawn = colours(text)
    assert drawn.shape == (2 * side, columns * side, 3)
    corners = [int(drawn[row * side, column * side, 0]) for row in range(2) for column in range(columns)]
    assert corners == [10 * number for number in range(2 * columns)]
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert all(len(line) <= width for line in plain.splitlines())
    assert f"The first {2 * columns} of 7 images." in " ".join(plain.split())


def test_where_nothing_can_be_drawn_the_reason_is_told() -> None:
    assert obstacle(terminal()) == ""
    assert obstacle(terminal(no_color=True)) == "the terminal shows no colours"
    assert obstacle(terminal(color_system=None)) == "the terminal shows no colours"
    assert obstacle(terminal(force_terminal=False)) == "there is no terminal"
    assert "5 letters wide" in obstacle(terminal(5))


def test_the_result_on_stdout_stays_clean(tmp_path: Path) -> None:
    asked = ["sample", "-n", "1", "--steps", "1", "--device", "cpu", "-o", str(tmp_path), "--preview", "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert json.loads(done.stdout)["num_images"] == 1
    assert "--preview draws nothing: there is no terminal. The images are in" in done.stderr
    colourful = CliRunner().invoke(app, asked, env={"FORCE_COLOR": "1", "COLUMNS": "40"}, catch_exceptions=False)
    assert json.loads(colourful.stdout)["num_images"] == 1
    assert "▀" in colourful.stderr
    refused = CliRunner().invoke(app, [*asked, "--format", "npz"])
    assert "--preview draws PNG files, and --format is npz" in str(refused.exception)
