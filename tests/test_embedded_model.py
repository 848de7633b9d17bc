"""The model that comes with the package: small, whole, and its classes can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adanat_cli.core.runs.info import describe
from adanat_cli.core.runs.models import resolve_model
from adanat_cli.core.runs.reporter import SilentReporter
from adanat_cli.core.runs.sample import SampleRequest, sample


def test_it_takes_at_most_18_megabytes() -> None:
    assert sum(file.stat().st_size for file in resolve_model("").path.rglob("*") if file.is_file()) <= 18e6


def test_it_knows_imagenets_numbers_and_its_parts_belong_together() -> None:
    about = describe("")
    assert about["classes"]["207"] == "golden retriever"
    assert set(about["matches"].values()) == {"yes"}
    assert about["image_size"] == 64
    assert "/" not in str(about["provenance"]["nat"]["data"])


def test_goldfish_are_warmer_than_the_seashore(tmp_path: Path) -> None:
    request = SampleRequest(tmp_path, classes=("goldfish", "seashore"), num_images=16, image_format="npz", device="cpu")
    sample(request, SilentReporter())
    with np.load(tmp_path / "samples.npz") as arrays:
        images, labels = arrays["arr_0"].astype(float), arrays["arr_1"]
    warmth = (images[..., 0] - images[..., 2]).mean(axis=(1, 2))  # red minus blue
    assert warmth[labels == 1].mean() > warmth[labels == 978].mean() + 30
