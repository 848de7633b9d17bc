"""Commands begin at once, in processor time beside that of the libraries that they need."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from adanat_cli.core.config import data_config
from adanat_cli.core.data import records
from adanat_cli.core.data.sources import open_source
from tests.image_files import png
from tests.policy_toy import make_policy_toy

ROOT = Path(__file__).parents[1]


def cpu_seconds(*words: object, cwd: Path = ROOT) -> float:
    """Processor time of Python with these arguments, the least of two."""
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def test_help_takes_little_more_than_the_library_that_draws_it() -> None:
    assert cpu_seconds("-m", "adanat_cli", "--help") < 1.7 * cpu_seconds("-c", "import typer.rich_utils")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("startup"))


SLOW = {"torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy", "matplotlib", "datasets", "timm"}
SAMPLE = "sample -m model --class 1 -n 1 --steps 1 --device cpu -o {out}"


def test_a_sample_takes_little_more_than_loading_pytorch(toy: Path) -> None:
    own = cpu_seconds("-m", "adanat_cli", *SAMPLE.format(out="timed").split(), cwd=toy)
    assert own < 1.7 * cpu_seconds("-c", "import torch")


def test_what_draws_one_image_loads_no_compiler(toy: Path) -> None:
    script = (
        "import sys; from adanat_cli.cli import main; sys.argv = ['adanat', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as left: assert not left.code, left.code\n"
        f"slow = {SLOW}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, *SAMPLE.format(out="sample").split()]
    done = subprocess.run(words, cwd=toy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sample -n 0", "--num-images is 0; expected at least 1"),
        ("sample --batch-size 0", "--batch-size is 0; expected at least 1"),
        ("sample --schedule linear", "'linear' is not known; expected learned"),
        ("sample --schedule table:none.yaml", "none.yaml does not exist"),
        ("edit none.png --box 1,1,2,2", "none.png does not exist; expected an image"),
    ],
)
def test_a_mistake_is_answered_before_pytorch_is_loaded(line: str, complaint: str, tmp_path: Path) -> None:
    script = (
        "import sys; from adanat_cli.cli import main; sys.argv = ['adanat', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as left: assert left.code, left.code\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    words = [sys.executable, "-c", script, *line.split()]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert complaint in done.stderr


def test_a_large_folder_is_opened_without_reading_an_image_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(4):
        (tmp_path / f"class {label}").mkdir()
        (tmp_path / f"class {label}" / "0000.png").write_bytes(png(label, 16))
        for number in range(1, 1000):
            os.link(tmp_path / f"class {label}" / "0000.png", tmp_path / f"class {label}" / f"{number:04d}.png")
    monkeypatch.setattr(records, "read_pixels", lambda *_: pytest.fail("it read an image"))
    tracemalloc.start()
    source = open_source(data_config(str(tmp_path), image_size=16))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.num_images == 4000
    assert kept / 4000 < 400  # bytes a file: 160 MB for a million were measured
