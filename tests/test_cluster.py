"""examples/cluster/: the job runs as SLURM would run it, and the figures of the pages are those of the commands."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.reading import read_json
from tests.image_files import write_imagenet64
from tests.pages import ROOT

CLUSTER = ROOT / "examples" / "cluster"
PAGES = (CLUSTER / "README.md", CLUSTER / "billion.md")
FAKES = """
srun() {  # as many tasks as the job has, each with its number; the highest exit code; one that fails ends the others
    [ "$1" = --kill-on-bad-exit=1 ] && shift
    local rank code=0 tasks=()
    for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
        SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & tasks+=($!)
    done
    trap 'kill -TERM "${tasks[@]}" 2> /dev/null' TERM
    for task in "${tasks[@]}"; do
        while kill -0 "$task" 2> /dev/null; do wait "$task" || code=$?; done
        wait "$task" || code=$?
    done
    return $code
}
scontrol() {
    case $1 in
        show) echo 127.0.0.1 ;;
        requeue) echo "requeued $2" ;;
    esac
}
export -f srun scontrol
exec bash "$1"
"""


def test_the_job_goes_back_into_the_queue_and_ends_with_a_measured_policy(tmp_path: Path, warm: dict[str, str]) -> None:
    """Two tasks on made-up images of 64 x 64 pixels; the first time the job is told to leave in the NAT's training."""
    write_imagenet64(tmp_path / "data", 24, (1, 207, 2))
    folder = tmp_path / "run"
    short = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node",
        "SLURM_NTASKS": "2",
        "DATASET": "imagenet64",
        "DATA": str(tmp_path / "data"),
        "MODEL": "imagenet64",
        "FOLDER": str(folder),
        "STEPS": "2",
        "PROTOCOL": "small",
        "TOKENIZE": "--shard-size 8",
        "NAT": "--size nano --updates 24 --batch-size 8 --precision fp32 --fsdp --save-every 2",
        "STATS": "--split validation --install --updates 2",
        "POLICY": "--reward fid --updates 1 --trajectories 8 --eval-images 8 --batch-size 8 --precision fp32",
        "EVALUATION": "-n 8",
    }
    job = ["bash", "-c", FAKES, "job", str(CLUSTER / "imagenet256.sbatch")]
    settings = {**warm, **short}
    first = subprocess.Popen(job, env=settings, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not any(folder.glob("nat/checkpoints/*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said, errors = first.communicate(timeout=200)
    assert first.returncode == 143, errors
    assert f"requeued {os.getpid()}" in said
    assert re.search(r"Saved at update \d+ of 24", errors)
    again = subprocess.run(job, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "requeued" not in again.stdout
    assert len(TokenSet.open(folder / "tokens")) == 24
    assert ModelFolder(folder / "policy" / "model").policy_steps() == [2]
    results = read_json(folder / "evaluation" / "evaluation.json")["results"]
    assert [row["settings"]["schedule"] for row in results] == ["cosine", "learned"]
    assert {row["cost"]["num_processes"] for row in results} == {2}


def consoles(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page's console blocks, each with the lines that it is shown to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


PLANS = [(page.name, *shown) for page in PAGES for shown in consoles(page) if "--dry-run" in shown[0]]


@pytest.mark.parametrize(("page", "command", "lines"), PLANS, ids=[f"{page}: {words}" for page, words, _ in PLANS])
def test_figures_are_those_of_the_dry_run(
    page: str, command: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {**os.environ, "HF_HUB_OFFLINE": "1"})  # --nproc of a plan is left there
    monkeypatch.setattr(sys, "argv", words)
    before = dict(consoles(CLUSTER / page)).keys()
    for line in before:
        if line.startswith("printf"):
            subprocess.run(["bash", "-c", line], check=True)
    printed = CliRunner().invoke(app, words[1:], catch_exceptions=False).stdout
    assert lines
    for line in lines:
        assert line in printed.splitlines(), printed


def number(pattern: str, text: str) -> float:
    """The number that a pattern finds in a text."""
    found = re.search(pattern, text, re.M)
    assert found is not None, pattern
    return float(found[1].replace(",", ""))


def test_bytes_of_a_billion_images_are_those_of_a_generated_set() -> None:
    page = PAGES[1].read_text()
    script = [sys.executable, str(CLUSTER / "token_bytes.py"), "8000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(script, capture_output=True, text=True, check=True, env=environment).stdout
    for way in ("with flips", "without"):
        disk, memory = rf"^{way}: (\d+) bytes an image on disk", rf"^{way}: .* (\d+) in memory"
        # What a file has once weighs more in few rows.
        assert number(disk, page) == pytest.approx(number(disk, said), rel=0.03)
        assert number(memory, page) == number(memory, said)
    for size in (number(disk, page), number(memory, page)):  # of the sets without flips
        assert f"| {size:.0f} bytes | {size:.0f} GB |" in page
    opened, drawn = (number(rf"^{words} at ([\d,]+) images", page) for words in ("without.*opened", "order.*drawn"))
    assert f"| {1e9 / opened / 3600:.1f} hours |" in page
    assert f"| {1e9 / drawn / 60:.1f} minutes |" in page
    for name in ("A100", "H100"):
        hours = number(rf"^gpu hours.*{name} at 40% of its rate ([\d.]+)", page)
        assert f"| encoding, {name} | {hours} h for 1,281,167 | {hours * 1e9 / 1281167:.0f} hours |" in page
    for size, files in ((4096, "244,141"), (262144, "3,815")):
        assert f"{-(-(10**9) // size):,}" == files
        assert (
            f"{files} files of {10**9 / int(files.replace(',', '')) * number(disk, page) / 1e6:.{size < 10**5:d}f} MB"
            in page
        )


def test_scripts_and_pages_of_the_folder_are_linked_from_one_another() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            assert (CLUSTER / link).exists(), link
    assert os.access(CLUSTER / "imagenet256.sbatch", os.X_OK)
