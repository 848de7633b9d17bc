"""From the id or name of a class, as a user writes it, to its id."""

from __future__ import annotations

import difflib
import random
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from adanat_cli.core.data.labels import imagenet_synsets
from adanat_cli.core.errors import AdaNATError

_NUM_LISTED = 5
_ID = re.compile(r"[+-]?\d{1,18}")
_NUMBERED = (re.compile(r"(?:class)?[\s_-]*(\d{1,18})[\W_]+(.+)", re.I), re.compile(r"(.+?)\s*\((\d{1,18})\)"))
"""Id and name together, as in file names and label lists: ``class207_golden-retriever``, ``lion (291)``."""
_NUMBERED_ALONE = re.compile(r"class[\s_-]*(\d{1,18})", re.I)
_SYNSET = re.compile(r"(n\d{8})(?:[\W_].*)?", re.I)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.I)
_HINT = {"this model": "; `adanat info` lists them all."}


def short_name(name: str) -> str:
    """Return the first of a name's comma-separated synonyms."""
    return name.split(",")[0].strip()


def find_classes(
    requested: Sequence[str], labels: Mapping[int, str], num_classes: int, owner: str = "this model"
) -> list[int]:
    """Return the id of each requested class.

    Args:
        requested: ids, names, or one of a name's comma-separated synonyms, in any case and with any separators
            (``golden_retriever``); WordNet ids if the numbering is ImageNet's.
        labels: id -> name of the classes of the model or data; empty if they are not recorded.
        num_classes: number of classes in the numbering; if ``labels`` is empty, all ids below it are valid.
        owner: model or data that is searched, for the error message.

    Raises:
        AdaNATError: if a class is unknown, was not in the training data, or has the name of another.
    """
    return [_find_class(text.strip(), labels, num_classes, owner) for text in requested]


def classes_in_turn(requested: Sequence[str], names: Mapping[int, str], num_classes: int, seed: int) -> list[int]:
    """Return the classes that images cycle through: the requested ones, or all in a seeded order.

    Args:
        requested: ids or names; empty for all.
        names: id -> name of the classes that the model was trained on; empty if they are not recorded.
        num_classes: number of classes in the numbering.
        seed: random seed of the order.

    Raises:
        AdaNATError: if a class is unknown, was not in the training data, or has the name of another.
    """
    classes = find_classes(requested, names, num_classes)
    if not classes:
        classes = sorted(names) or list(range(num_classes))
        # Shuffled, so that a few images show classes from the whole numbering.
        random.Random(seed).shuffle(classes)
    return classes


def shared_ids(
    names: Mapping[int, str], num_classes: int, labels: Mapping[int, str], num_known: int
) -> dict[int, int] | None:
    """Find a model's classes in data: by their names, else by a numbering of the same length.

    Args:
        names: id -> name in the data; empty if it has no names.
        num_classes: number of classes in the data's numbering.
        labels: id -> name of the classes that the model was trained on.
        num_known: number of classes in the model's numbering.

    Returns:
        Id in the data -> id in the model; None if the two cannot be matched.
    """
    ids = {_words(short_name(name)): label for label, name in names.items()}
    wanted = {_words(short_name(name)): label for label, name in labels.items()}
    shared = ids.keys() & wanted.keys()
    unique = len(ids) == len(names) and len(wanted) == len(labels)
    # One side may lack classes; if each has classes of its own, a common name may be a coincidence.
    if shared and unique and shared in (ids.keys(), wanted.keys()):
        return {ids[name]: wanted[name] for name in shared}
    return {label: label for label in labels} if num_classes == num_known and same_names(names, labels) else None


def same_names(names: Mapping[int, str], labels: Mapping[int, str], share: float = 0.5) -> bool:
    """Whether two numberings can be the same: a share of their common ids, at least, have the same names.

    Lists of the same classes differ in some words. Names that are ids themselves are ignored.
    """
    both = [label for label in names.keys() & labels.keys() if not (_is_id(names[label]) or _is_id(labels[label]))]
    same = [_words(short_name(names[label])) == _words(short_name(labels[label])) for label in both]
    return sum(same) >= share * len(same)


def rows_by_name(names: Mapping[int, str], labels: Mapping[int, str]) -> dict[int, int]:
    """Find classes of data that a model knows under another number.

    Args:
        names: id -> name in the data.
        labels: id -> name of the classes that the model was trained on.

    Returns:
        Id in the data -> id in the model; names that several classes share are left out.
    """
    known: dict[str, set[int]] = {}
    for label, name in labels.items():
        for key in map(_key, _synonyms(name)):
            known.setdefault(key, set()).add(label)
    found: dict[int, int] = {}
    for label, name in names.items():
        places = known.get(_key(name)) or known.get(_key(short_name(name))) or set(_synset(name, labels))
        if len(places) == 1 and not _ID.fullmatch(name):
            found[label] = min(places)
    return found


def numbered_as_imagenet(names: Mapping[int, str], num_classes: int) -> bool:
    """Whether classes have ImageNet-1k's numbers: they are 1,000, and their names, where there are some, agree."""
    return num_classes == 1000 and same_names(names, dict(imagenet_synsets().values()))


def _is_id(name: str) -> bool:
    return bool(_ID.fullmatch(name) or _SYNSET.fullmatch(name))


def _words(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", name.casefold()))


def _find_class(text: str, labels: Mapping[int, str], num_classes: int, owner: str) -> int:
    if not text:
        raise AdaNATError(f"The name of a class is empty; give an id or a name of a class of {owner}.")
    if _ID.fullmatch(text) and (_is_known(int(text), labels, num_classes) or not _named(text, labels)):
        return _check_id(int(text), labels, num_classes, owner)
    if alone := _NUMBERED_ALONE.fullmatch(text):
        return _check_id(int(alone[1]), labels, num_classes, owner)
    found = _named(text, labels) or _numbered(text, labels, num_classes) or _synset(text, labels)
    if len(found) > 1:
        ids = ", ".join(str(label) for label in sorted(found))
        raise AdaNATError(f"Class {_shown(text)} is the name of several classes: {ids}; give the id.")
    if not found:
        raise AdaNATError(_unknown(text, labels, num_classes, owner))
    return found[0]


def _named(text: str, labels: Mapping[int, str]) -> list[int]:
    """Classes of this name; separators count only if they distinguish names."""
    wanted, key = _spaced(text), _key(text)
    exact = [label for label, name in labels.items() if wanted in map(_spaced, _synonyms(name))]
    return exact or [label for label, name in labels.items() if key and key in map(_key, _synonyms(name))]


def _numbered(text: str, labels: Mapping[int, str], num_classes: int) -> list[int]:
    """The class of this id and name; the name may be cut, as in file names."""
    for pattern, (id_group, name_group) in zip(_NUMBERED, ((1, 2), (2, 1)), strict=True):
        if found := pattern.fullmatch(text):
            label, key = int(found[id_group]), _key(found[name_group])
            names = map(_key, _synonyms(labels.get(label, "")))
            if key and _is_known(label, labels, num_classes) and any(name.startswith(key) for name in names):
                return [label]
    return []


def _synset(text: str, labels: Mapping[int, str]) -> list[int]:
    """The class of a WordNet id, if the numbering is ImageNet's: the names for its id must match."""
    found = _SYNSET.fullmatch(text)
    label, name = imagenet_synsets().get(found[1].lower(), (-1, "")) if found else (-1, "")
    same = set(map(_key, _synonyms(name))) & set(map(_key, _synonyms(labels.get(label, ""))))
    return [label] if label in labels and same else []


def _is_known(label: int, labels: Mapping[int, str], num_classes: int) -> bool:
    return 0 <= label < num_classes and (not labels or label in labels)


def _check_id(label: int, labels: Mapping[int, str], num_classes: int, owner: str) -> int:
    if not 0 <= label < num_classes:
        raise AdaNATError(f"Class {label} does not exist in {owner}; expected an id from 0 to {num_classes - 1}.")
    if labels and label not in labels:
        raise AdaNATError(
            f"Class {label} was never shown to {owner}, which knows {len(labels)} classes such as "
            f"{_some(labels)}{_HINT.get(owner, '.')}"
        )
    return label


def _unknown(text: str, labels: Mapping[int, str], num_classes: int, owner: str) -> str:
    shown = _shown(text)
    if _NUMBER.fullmatch(text):
        return f"Class {shown} is not an id; expected an integer from 0 to {num_classes - 1}, in digits only."
    if not labels:
        return f"Class {shown} cannot be found: {owner} has no class names; give an id from 0 to {num_classes - 1}."
    parts = [part.strip() for part in re.split(r"[,;|/+]", text) if part.strip()]
    if len(parts) > 1 and any(_ID.fullmatch(part) or _named(part, labels) for part in parts):
        each = " ".join(f"--class {shlex.quote(part)}" for part in parts[:_NUM_LISTED])
        return f"Class {shown} is not one class but several; give each separately: {each}."
    wanted = _spaced(text)
    by_synonym = {_spaced(synonym): label for label, name in labels.items() for synonym in _synonyms(name)}
    close = difflib.get_close_matches(wanted, by_synonym, n=3, cutoff=0.7)
    # One word of a name ("retriever") is below the cutoff of difflib.
    close += [synonym for synonym in by_synonym if wanted in synonym and synonym not in close]
    nearest: dict[int, str] = {}
    for synonym in close:
        # Of a name's synonyms one suffices, rather than all of them together.
        if synonym in nearest.setdefault(by_synonym[synonym], synonym):
            nearest[by_synonym[synonym]] = synonym
    if nearest:
        listed = ", ".join(f"{synonym} ({label})" for label, synonym in list(nearest.items())[:_NUM_LISTED])
        return f"Class {shown} is not one that {owner} knows; did you mean {listed}?"
    return (
        f"Class {shown} is not one of the {len(labels)} that {owner} knows, such as "
        f"{_some(labels)}{_HINT.get(owner, '.')}"
    )


def _synonyms(name: str) -> Iterable[str]:
    """Return the ways to write a name: whole, and each comma-separated part."""
    return dict.fromkeys([name, *name.split(",")])


def _spaced(text: str) -> str:
    """A name for comparison: case, spaces and Unicode forms are normalized."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _key(text: str) -> str:
    """Letters and digits of a name."""
    return re.sub(r"[\W_]+", "", _spaced(text))


def _shown(text: str) -> str:
    """A requested class in a message, with the name for a WordNet id."""
    known = _SYNSET.fullmatch(text) and imagenet_synsets().get(text[:9].lower())
    return repr(text if len(text) <= 60 else f"{text[:59]}…") + (f" ({short_name(known[1])})" if known else "")


def _some(labels: Mapping[int, str]) -> str:
    """A few classes from the whole numbering."""
    ids = sorted(labels)
    chosen = ids[:: max(1, len(ids) // _NUM_LISTED)][:_NUM_LISTED]
    return ", ".join(f"{short_name(labels[label])} ({label})" for label in chosen)
