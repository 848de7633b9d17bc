"""The one reader of JSON: bounded in size, depth and digits, and never waiting for a pipe."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import json_text, parse_json, read_bytes, read_json, read_object, read_yaml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe\xff", "cannot be read as JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested too deeply"),
        (b"9" * 5000, "a whole number of 5000 digits"),
        (b"9" * 101, "a whole number of 101 digits"),
    ],
)
def test_what_is_no_json_of_a_person_is_refused_in_one_line(text: bytes, words: str) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        parse_json(text, "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_null(text: str) -> None:
    assert parse_json(f'{{"fid": {text}}}', "a.json") == {"fid": None}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_unicode_is_read(encoding: str) -> None:
    assert parse_json('{"a": "ä"}'.encode(encoding), "a.json") == {"a": "ä"}


def test_what_is_written_is_strict_json_and_comes_back(tmp_path: Path) -> None:
    values = {"surrogate \udcff": ["\x1b\u2028", 0.5, None, True], "fid": float("inf"), "kid": (float("nan"),)}
    (tmp_path / "a.json").write_text(json_text(values, indent=2), encoding="utf-8")
    refused = lambda name: pytest.fail(name)  # noqa: E731
    back = json.loads((tmp_path / "a.json").read_text("utf-8"), parse_constant=refused)
    assert back == {**values, "fid": None, "kid": [None]} == read_json(tmp_path / "a.json")


def test_pipes_folders_and_large_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"1" * 101)
    for name, words in (("pipe", "is not a file"), (".", r"is not a file|directory"), ("large", "larger than 100")):
        with pytest.raises(AdaNATError, match=words):
            read_bytes(tmp_path / name, 100)
    for name in ("absent", "a\0b", "x" * 5000):
        with pytest.raises(AdaNATError):
            read_bytes(tmp_path / name)
    (tmp_path / "list").write_text("[1]")
    with pytest.raises(AdaNATError, match="not a JSON object"):
        read_object(tmp_path / "list")


def test_yaml_is_plain_and_its_numbers_are_those_of_json(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: {b: 1e-3, c: 1.0e-05, d: 4e2}\ne: [true, null, 3, text]\n")
    assert read_yaml(file) == {"a": {"b": 1e-3, "c": 1e-5, "d": 400.0}, "e": [True, None, 3, "text"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {b: 1, b: 2}", "a key twice, 'b'"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor for the tag"),
        ("a: 1\nb: [", "a.yaml is not YAML: .*, line 2"),
        ("a: b: c", "mapping values are not allowed here, line 1"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(AdaNATError, match=words) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)
