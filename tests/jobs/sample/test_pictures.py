"""Plots with names of strangers."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from adanat_cli.jobs.sample.pictures import plot_text, save_figure


@pytest.mark.parametrize("name", ["$x^$", "$\\foo$ costs $5", "\x1b[31m\udcff\0", "日本 _"])
def test_a_name_is_drawn_as_it_is_and_nothing_is_said_of_it(tmp_path: Path, name: str) -> None:
    figure = Figure(figsize=(1, 1))
    figure.suptitle(plot_text(name))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        save_figure(tmp_path / "a.png", figure, dpi=30)
    assert not told
    assert (tmp_path / "a.png").stat().st_size > 0
