"""What a terminal offers: examples that parse, completion, the nearest name, and a rate that can be read."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adanat_cli.cli import app, loaded
from adanat_cli.commands import console, describe, tables, wording
from adanat_cli.commands.examples import EXAMPLES
from adanat_cli.core.errors import AdaNATError, nearest
from adanat_cli.jobs.resolve.models import resolve_model

GROUP: Any = typer.main.get_command(app)


def offered(line: str, **environment: str) -> list[str]:
    words = {"_ADANAT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(shlex.split(line)) - 1)}
    done = CliRunner().invoke(app, [], env={**words, **environment}, prog_name="adanat")
    return str(done.output).split()


@pytest.mark.parametrize("command", sorted(GROUP.commands))
def test_every_help_page_ends_with_two_examples_that_the_command_understands(command: str) -> None:
    page = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output.split())
    assert len(EXAMPLES[command]) == 2
    for words, line in EXAMPLES[command]:
        assert f"{words}: {line}" in page.partition("Examples")[2]
        program, name, *arguments = shlex.split(line)
        assert (program, name) == ("adanat", command)
        loaded(command).make_context(command, arguments)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("adanat sample --class golden_r", ["golden_retriever"]),
        ("adanat sample --schedule h", ["halton"]),
        ("adanat sample --model imagenet6", ["imagenet64"]),
        ("adanat train-tokenizer --dataset dig", ["digits"]),
        ("adanat train-policy --recipe pa", ["paper"]),
        ("adanat reproduce imagenet", ["imagenet256", "imagenet512", "imagenet64"]),
        ("adanat info imagenet6", ["imagenet64"]),
        ("adanat pull imagenet6", ["imagenet64"]),
        ("adanat pull cc", ["cc3m"]),
        ("adanat sam", ["sample"]),
    ],
)
def test_a_shell_completes_names(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_classes_are_those_of_the_model_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"0": "red fox, Vulpes", "1": "grey fox"}')
    assert offered(f"adanat sample --model {tmp_path} --class red") == ["red_fox"]
    (tmp_path / "labels.json").write_text("[")
    assert offered(f"adanat sample --model {tmp_path} --class red") == []


@pytest.mark.parametrize("line", ["adanat pull some", "adanat sample --model some"])
def test_models_in_the_cache_of_the_hub_are_offered_and_other_files_are_passed_over(line: str, tmp_path: Path) -> None:
    ours = (resolve_model("").path / "model_index.json").read_text()
    for repo, index in (
        ("some--model-a", ours),
        ("some--pipeline", '{"_class_name": "Diffusion"}'),
        ("some--broken", "["),
    ):
        folder = tmp_path / f"models--{repo}" / "snapshots" / "0123"
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text(index)
    assert offered(line, HF_HUB_CACHE=str(tmp_path)) == ["some/model-a"]
    assert offered(line, HF_HUB_CACHE=str(tmp_path / "none")) == []


def test_completion_loads_nothing_heavy() -> None:
    code = (
        "import sys; from adanat_cli.cli import app\n"
        "try: app([], prog_name='adanat')\nexcept SystemExit: pass\n"
        "sys.exit(str({'torch', 'numpy', 'datasets', 'accelerate', 'timm'} & set(sys.modules) or ''))"
    )
    line = "adanat sample --class golden"
    words = {
        "_ADANAT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": "3",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=words)
    assert "golden_retriever" in done.stdout
    assert done.stderr == "\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [("sample --stpes 3", "--steps"), ("smaple", "Did you mean 'sample'?"), ("sample --form png", "--format")],
)
def test_a_mistyped_command_or_option_gets_the_nearest(line: str, words: str) -> None:
    assert words in CliRunner().invoke(app, line.split()).output


def test_a_mistyped_model_gets_the_nearest() -> None:
    with pytest.raises(AdaNATError, match="did you mean imagenet64"):
        resolve_model("imagnet64")
    assert (nearest("Steps", ["seed", "steps"]), nearest("colour", ["steps"])) == ("steps", "")


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "2.0 updates/s"), (30.0, "30.0 s/update")])
def test_slow_work_says_the_seconds_of_one(seconds: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    meter = console._Meter(10, "updates", 3)
    assert meter.pace == ""
    now[0] = seconds
    meter.advance(1, {})
    assert meter.pace == words


def test_the_phase_of_a_slow_update_is_shown_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console._PlainTask("Training", 2, "updates", 0) as task:
        now[0] = 20.0
        task.advance(0, phase="rollout")
        assert capsys.readouterr().err == "Training: 0/2 updates  phase rollout\n"
        now[0] = 40.0
        task.advance(1, reward=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "Training: 1/2 updates, 40.0 s/update, 0:00:40 left  reward 0.5"


def test_info_lists_every_class_on_lines_of_a_terminal() -> None:
    names = {str(label): f"red-breasted bird {label}, Avis" for label in range(300)}
    lines = list(describe._classes(names))
    assert max(map(len, lines)) <= 110
    text = " ".join(line.strip() for line in lines)
    assert text.startswith("Classes     300: 0 red-breasted bird 0, 1 red-breasted bird 1,")
    assert all(any(f"{label} red-breasted bird {label}" in line for line in lines) for label in range(300))


def test_a_dry_run_loads_no_library_that_it_does_not_use() -> None:
    lines = ["train-tokenizer -d digits", "train-policy -d imagenet64", "pretrain-nat -d imagenet64 -t tokens"]
    heavy = {"datasets", "pandas", "timm", "torchvision", "matplotlib", "transformers", "torch._dynamo", "sympy"}
    code = (
        "import sys; from adanat_cli.cli import app\n"
        f"for line in {[*lines, 'tokenize -d imagenet64']}:\n"
        "    try: app([*line.split(), '--dry-run'])\n"
        "    except SystemExit as left: assert not left.code, line\n"
        f"    if loaded := {heavy} & set(sys.modules): sys.exit(f'{{line}}: {{loaded}}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.count("tokens per image: 64") == 4
    assert done.stderr == ""


def test_a_log_says_each_count_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console._PlainTask("Measuring", 2, "rows", 0) as task:
        for now[0] in (20.0, 40.0):
            task.advance()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "Measuring: 1/2 rows",
        "Measuring: 2/2 rows",
    ]


@pytest.mark.parametrize(("columns", "widest"), [(200, 29), (25, 20), (19, 14)])
def test_a_table_fits_the_terminal(columns: int, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "terminal_width", lambda: columns)
    lines = tables.drawn(("measured", "FID", "recall"), [["[red]", "8.123", "0.461"]])
    assert max(map(len, lines)) == widest
    assert all(cell in "\n".join(lines) for cell in ("[red]", "FID", "8.123", "recall", "0.461"))
    assert columns > 19 or lines == ["[red]", "  FID 8.123,", "  recall 0.461"]


def test_text_folds_at_the_terminal_and_nowhere_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wording.line_width() == 110
    monkeypatch.setattr(wording.sys.stdout, "isatty", lambda: True, raising=False)
    for columns, width in ((60, 60), (300, 110), (20, 40)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert wording.line_width() == width
