"""Whatever is typed is read, or refused with our own words: no error of Python's comes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from adanat_cli.core.config.config_file import _SECTIONS, Command, config_file
from adanat_cli.core.config.edit import Box, Sides, read_box, read_sides
from adanat_cli.core.config.requests import whole_numbers
from adanat_cli.core.data.addresses import expand_braces
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.tables import read_autonat, read_table
from adanat_cli.core.reading import parse_json, read_yaml
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.schedules import choose_schedule

NAMES = {0: "tench, Tinca tinca", 1: "crane", 2: "crane", 207: "golden retriever", 7: "3", 9: "größe"}
TYPED = st.one_of(st.text(max_size=30), st.text("0123456789+-_.,=:{}() \n\tleftpx²٣einfa", max_size=24))
WORDS = st.one_of(TYPED, st.sampled_from([*NAMES.values(), "n02099601", "class207_golden-retriever", "lion (7)"]))
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda child: st.one_of(st.lists(child, max_size=4), st.dictionaries(st.text(max_size=8), child, max_size=4)),
    max_leaves=8,
)
READERS = {
    "--box": read_box,
    "--extend": read_sides,
    "--steps": lambda text: whole_numbers([text]),
    "braces": expand_braces,
    "--schedule": lambda text: choose_schedule(text, None),
    "JSON": lambda text: parse_json(text, "it"),
    "--class": lambda text: find_classes([text], NAMES, 1000),
}


def refusal(call: Callable[[], object]) -> str:
    """What is said against it; "" where it succeeds."""
    try:
        call()
    except AdaNATError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("reader", READERS)
@given(text=WORDS)
def test_any_words_are_read_or_refused(reader: str, text: str) -> None:
    assume("\0" not in text)  # which no command line holds
    assert len(refusal(lambda: READERS[reader](text))) < 600 + 6 * len(text)


@given(st.tuples(*[st.integers(0, 10**6)] * 2, *[st.integers(1, 10**6)] * 2))
def test_a_box_is_read_as_it_is_written(numbers: tuple[int, int, int, int]) -> None:
    assert read_box(",".join(map(str, numbers))) == Box(*numbers)


@given(st.dictionaries(st.sampled_from(Sides._fields), st.integers(0, 10**6), min_size=1))
def test_sides_are_read_as_they_are_written(sides: dict[str, int]) -> None:
    assume(any(sides.values()))
    assert read_sides(",".join(f"{side}={number}" for side, number in sides.items())) == Sides(**sides)


@given(st.integers(0, 999))
def test_a_class_is_found_by_its_number_and_its_own_name(number: int) -> None:
    names = {label: f"class number {label} of many" for label in range(1000)}
    for text in (str(number), f"+{number}", names[number], names[number].upper().replace(" ", "_")):
        assert find_classes([text], names, 1000) == [number]


@pytest.mark.parametrize("read", [read_yaml, read_table, read_autonat])
@given(content=st.one_of(st.binary(max_size=60), ANY.map(lambda value: repr(value).encode("utf-8", "replace"))))
def test_any_file_is_read_or_refused_by_name(
    read: Callable[[Path], object], content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "typed.yaml"
    file.write_bytes(content)
    said = refusal(lambda: read(file))
    assert not said or file.name in said


SETTINGS = sorted({name for sections in _SECTIONS.values() for part in sections.values() for name in part.settings})
PARTS = st.dictionaries(st.sampled_from(SETTINGS), ANY, max_size=3)
KINDS = st.fixed_dictionaries({"kind": ANY})
SECTIONS = st.sampled_from(sorted({key for sections in _SECTIONS.values() for key in sections}))


@pytest.mark.parametrize("command", _SECTIONS)
@example(values={"tokenizer": {"kind": ["vqae"]}})  # a word is looked up in a table, in which a list cannot be
@given(values=st.one_of(ANY, st.dictionaries(SECTIONS, st.one_of(ANY, PARTS, KINDS), max_size=3)))
def test_any_settings_of_a_file_are_taken_or_refused_by_its_name(command: Command, values: object) -> None:
    said = refusal(lambda: config_file(values, "a.yaml", command))
    assert not said or "a.yaml" in said
