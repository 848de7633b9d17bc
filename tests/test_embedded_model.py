"""The model that comes with the package: small, whole, and its classes can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adanat_cli.core.checkpoints.card import model_card
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.share.info import describe


def test_it_takes_at_most_20_megabytes() -> None:
    assert sum(file.stat().st_size for file in resolve_model("").path.rglob("*") if file.is_file()) <= 20e6


def test_it_knows_imagenets_numbers_and_its_parts_belong_together() -> None:
    about = describe("")
    assert about["classes"]["207"] == "golden retriever"
    assert set(about["matches"].values()) == {"yes"}
    assert about["image_size"] == 64
    assert "/" not in str(about["provenance"]["nat"]["data"])


def test_its_card_is_written_from_its_index_and_tells_its_policies_and_what_was_measured() -> None:
    folder = resolve_model("")
    assert folder.name == "imagenet64"  # in messages, wherever it is installed
    card = folder.card()
    assert card == model_card(folder), "write it again: `write_card(resolve_model(''))`"
    for words in ("# imagenet64", "license: mit", "## Policy for 4 steps", "## Policy for 8 steps", "protocol small"):
        assert words in card
    measured = {(one["schedule"], one["num_steps"]): one for one in folder.index.results if one["metric"] == "fid"}
    assert set(measured) == {("cosine", 4), ("cosine", 8), ("learned", 4), ("learned", 8)}
    for (schedule, steps), one in measured.items():
        assert folder.fingerprint("nat").startswith(str(one["nat"]))
        if schedule == "learned":
            assert folder.fingerprint(f"policies/steps-{steps}").startswith(str(one["policy"]))
    assert "<" not in card.split("## Use")[1].split("| component")[0]  # its lines run as they are


def test_it_brings_real_images_of_its_classes_in_features_of_imagenet() -> None:
    folder = resolve_model("")
    file = folder.reference("efficientnet")
    assert file is not None
    reference = read_reference(file)
    assert set(reference.classes or ()) == set(folder.labels())
    assert reference.weights_hash.startswith("77cc7160")
    assert reference.recognition == Recognition(0.502, 0.757, 0.838)


def test_goldfish_are_warmer_than_the_seashore(tmp_path: Path) -> None:
    request = SampleRequest(
        output=tmp_path, classes=("goldfish", "seashore"), num_images=16, image_format="npz", device="cpu"
    )
    sample(request, SilentReporter())
    with np.load(tmp_path / "samples.npz") as arrays:
        images, labels = arrays["arr_0"].astype(float), arrays["arr_1"]
    warmth = (images[..., 0] - images[..., 2]).mean(axis=(1, 2))  # red minus blue
    assert warmth[labels == 1].mean() > warmth[labels == 978].mean() + 30
