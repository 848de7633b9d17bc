"""The rooms import downwards only, and help needs no PyTorch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "adanat_cli"
GROUND = {"errors", "reading", "config", "hub", "pretrained", "efficientnet"}
FIRST = {"data", "tokenizer", "text", "nat", "generation", "rewards", "metrics", "checkpoints"}
MAY_SEE = {
    "__init__": set(),
    "errors": set(),
    "reading": {"errors"},
    "config": {"errors"},
    "hub": {"errors"},
    "pretrained": {"errors", "hub"},
    "efficientnet": {"errors", "reading", "pretrained"},
    **dict.fromkeys(FIRST, GROUND),
    "policy": GROUND | {"generation"},
    "ppo": GROUND | {"generation", "policy"},
}
JOBS = ["runtime", "resolve", "sample", "studio", "tokenize", "train", "bench", "evaluate", "share", "reproduce"]
"""Rooms of ``jobs``; each sees those before it, and all of ``core``."""


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names a module imports, absolute."""
    tree = ast.parse(path.read_text())
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute in this house"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(dotted: str) -> str | None:
    """The room of ``core`` that a module lies in; a file directly under ``core`` is a room of its own."""
    parts = dotted.split(".")
    return parts[2] if parts[:2] == ["adanat_cli", "core"] and len(parts) > 2 else None


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_of_ideas_point_down_only(path: Path) -> None:
    relative = path.relative_to(PACKAGE.parent)
    room = room_of(".".join(relative.with_suffix("").parts))
    assert room in MAY_SEE, f"{relative} is in no room of this house"
    for name in imported(path):
        seen = room_of(name)
        assert seen is None or seen == room or seen in MAY_SEE[room], f"{relative} imports {name}"
        inside = name == "adanat_cli" or name == "adanat_cli.__version__" or name.startswith("adanat_cli.core")
        assert inside or not name.startswith("adanat_cli"), f"{relative} looks up at {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "jobs").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_of_jobs_point_down_only(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    room = relative.parts[1] if len(relative.parts) > 2 else JOBS[0]
    assert room in JOBS, f"{relative} is in no room of this house"
    for name in imported(path):
        assert not name.startswith("adanat_cli.commands"), f"{relative} looks up at {name}"
        if name.startswith("adanat_cli.jobs."):
            seen = name.split(".")[2]
            assert JOBS.index(seen) <= JOBS.index(room), f"{relative} imports {name}"


def test_errors_and_configuration_need_the_standard_library_only() -> None:
    for path in (PACKAGE / "core" / "errors.py", *(PACKAGE / "core" / "config").glob("*.py")):
        for name in imported(path):
            assert name.split(".")[0] in sys.stdlib_module_names | {"adanat_cli"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("*.py")), ids=lambda path: path.name)
def test_commands_load_jobs_only_when_called(path: Path) -> None:
    for name in imported(path, top_level_only=True):
        assert not name.startswith("adanat_cli.jobs"), f"{path.name} imports {name} at its top"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_fit_on_a_few_screens(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            most = 30 if path.parent.name == "commands" and node.name == "command" else 60
            assert node.end_lineno - node.lineno < most, f"{path.name}: {node.name}"


def test_no_room_holds_more_than_a_fifth_of_the_package() -> None:
    lines: Counter[tuple[str, ...]] = Counter()
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).parts[:2]] += path.read_text().count("\n")
    assert max(lines.values()) <= lines.total() / 5


def test_the_walks_of_the_page_on_the_code_lead_to_what_they_name() -> None:
    walks = (PACKAGE.parent / "examples" / "reading_the_code.md").read_text()
    steps = re.findall(r"`([\w.]+)`\s+\(`([\w/]+\.py)`\)", walks)
    assert len(steps) >= 9
    for name, file in steps:
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", (PACKAGE / file).read_text()), f"{file} has no {name}"


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"], ["--version"]])
def test_help_answers_without_pytorch(arguments: list[str]) -> None:
    code = (
        "import sys; from adanat_cli.cli import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'datasets', 'accelerate', 'timm', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
