"""What a user asks for: prompts from files of any kind, and classes that the model has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.sample.conditions import ClassConditions, read_prompts, warn_of_cut_prompts
from tests.clip_toy import make_clip

PROMPTS = ("a red bus", "zwei Käfer 🪲")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-16-le", ""),
        ("utf-16-be", ""),
        ("utf-16-be", "\ufeff"),
        ("utf-32", ""),
    ],
)
def test_prompts_are_read_as_editors_save_them(tmp_path: Path, encoding: str, mark: str, end: str) -> None:
    (tmp_path / "prompts.txt").write_bytes((mark + end.join([*PROMPTS, "", "  "])).encode(encoding))
    assert read_prompts(["first"], tmp_path / "prompts.txt") == ("first", *PROMPTS)


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\r"])
def test_only_line_ends_end_a_prompt(tmp_path: Path, letter: str) -> None:
    (tmp_path / "prompts.txt").write_text(f"a red{letter}bus\ntwo\n", encoding="utf-8", newline="")
    assert read_prompts((), tmp_path / "prompts.txt") == (f"a red{letter}bus", "two")


def test_a_mark_between_files_put_together_is_no_word(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n\ufefftwo\n\ufeff\n", encoding="utf-8-sig")
    assert read_prompts((), tmp_path / "prompts.txt") == ("one", "two")


@pytest.mark.parametrize(
    ("content", "message"), [(b"a\n\xe9\n", "expected UTF-8 or UTF-16"), (b"a\0b", "UTF-16"), (b" \n", "no prompts")]
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(AdaNATError, match=message):
        read_prompts((), tmp_path / "prompts.txt")


def test_a_prompt_of_bytes_that_are_no_text_is_refused() -> None:
    assert read_prompts([os.fsdecode("Käfer".encode()), "K\udcc3\udca4fer"], None) == ("Käfer", "Käfer")
    with pytest.raises(AdaNATError, match=r"Prompt 'K\\udce4fer' is not UTF-8"):
        read_prompts(["K\udce4fer"], None)


def test_a_prompt_that_is_cut_is_named(tmp_path: Path) -> None:
    encoder = TextEncoder(str(make_clip(tmp_path, ["red"], length=8)))
    told: list[str] = []
    warn_of_cut_prompts(["red " * 6], encoder, told.append)
    assert told == []
    warn_of_cut_prompts(["red", "red " * 7, "red " * 40], encoder, told.append)
    assert told == [
        "The text encoder reads 8 tokens of a prompt; the rest has no effect. Longer: 'red red red red red red red' "
        "(9 tokens) and 1 more."
    ]


@pytest.mark.parametrize(("encoding", "slug"), [("utf-8", "zwei-käfer-日本"), ("ascii", "zwei-k-fer")])
def test_names_of_files_have_letters_that_the_file_system_takes(
    monkeypatch: pytest.MonkeyPatch, encoding: str, slug: str
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    names = {0: "Zwei Käfer \udcff/日本, two beetles"}
    assert ClassConditions(torch.tensor([0]), names).slug(0) == f"class0_{slug}"
