"""The page: what to draw beside three tabs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from adanat_cli.jobs.studio.compare_tab import CompareTab
from adanat_cli.jobs.studio.draw_tab import DrawTab
from adanat_cli.jobs.studio.edit_tab import EditTab
from adanat_cli.jobs.studio.form import Form
from adanat_cli.jobs.studio.room import Room

_HEAD = """<h1>adanat studio</h1>
<p>Images from tokens: watch how a model decides them step by step, and steer how it does.</p>"""
_MOST_WAITING = 32
"""Drawings that may wait in the queue."""


def theme() -> Any:
    """The look of the page, with fonts that every machine has."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")


def build_page(room: Room, model: str) -> gr.Blocks:
    """Lay the page out.

    Args:
        room: shared by all sessions.
        model: chosen at first.

    Raises:
        AdaNATError: if there is no such model.
    """
    with gr.Blocks(title="adanat studio", analytics_enabled=False) as page:
        gr.HTML(_HEAD, elem_id="head")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                form = Form(room.models, model)
            with gr.Column(scale=3, min_width=320), gr.Tabs() as tabs:
                with gr.Tab("Draw", id="draw"):
                    drawn = DrawTab(room, form)
                with gr.Tab("Compare", id="compare"):
                    CompareTab(room, form, drawn)
                with gr.Tab("Edit", id="edit"):
                    EditTab(room, form, drawn, tabs)
    page.queue(max_size=_MOST_WAITING, default_concurrency_limit=8)
    return page
