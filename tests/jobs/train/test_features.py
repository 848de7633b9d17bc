"""The feature network is trained, measured, stored and found again."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import FeatureConfig, data_config
from adanat_cli.core.config.own_data import Scale, usual_features
from adanat_cli.core.data.batches import training_batches
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import FrechetReference, Moments
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.info import describe
from adanat_cli.jobs.train import features as module
from adanat_cli.jobs.train.features import (
    SmallNetworks,
    feature_moments,
    features_of_images,
    measure_accuracy,
    random_shifts,
    train_feature_network,
)
from tests.image_files import SIZE, write_class_folder

CONFIG = FeatureConfig(SIZE, 2, (8, 16))


def source(folder: Path, num_images: int = 12, **fields: object) -> ImageSource:
    write_class_folder(folder, num_images)
    return open_source(data_config(str(folder), image_size=SIZE, **fields))


def train(
    data: ImageSource, config: FeatureConfig = CONFIG, steps: int = 3, seed: int = 0, rate: float = 1e-3
) -> FeatureNetwork:
    return train_feature_network(data, config, steps, 4, rate, seed, "cpu", SilentReporter())


@cache
def untrained() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(CONFIG).eval()


def test_a_short_training_reads_digits() -> None:
    pytest.importorskip("sklearn")
    training, validation = (open_source(data_config("digits", split=split)) for split in ("train", "validation"))
    config = FeatureConfig(16, 10, (16, 32, 32))
    net = train_feature_network(training, config, 150, 32, 3e-3, 0, "cpu", SilentReporter(), flips=False)
    assert not net.training
    assert measure_accuracy(net, validation) > 0.9
    # Its features tell digits from their negatives, and hardly from other digits.
    reference = FrechetReference(feature_moments(net, training).gaussian())
    images = np.stack([validation.load(index).pixels for index in range(validation.num_images or 0)])
    same, negative = (reference.distance(features_of_images(net, pixels)) for pixels in (images, 255 - images))
    assert same < 0.1 * negative


def test_images_without_classes_are_told_apart_by_quarter_turns(tmp_path: Path) -> None:
    folder, top = tmp_path / "flat", np.linspace(0, 255, SIZE, dtype=np.uint8)[:, None, None]
    folder.mkdir()
    for number in range(12):  # dark above
        Image.fromarray(np.broadcast_to(top, (SIZE, SIZE, 3)) // (1 + number % 3)).save(folder / f"{number}.png")
    data = open_source(data_config(str(folder), image_size=SIZE))
    networks = SmallNetworks("own", tmp_path / "run", data, data, torch.device("cpu"), SilentReporter())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "usual_features", lambda _: {**usual_features(Scale(12)), "steps": 40})
        net = networks.measuring(ModelFolder(tmp_path / "model"))
    assert net.config.num_classes == 4
    assert measure_accuracy(net, data) == 1


def test_all_that_takes_long_shows_its_progress(tmp_path: Path) -> None:
    data, seen = source(tmp_path / "images"), dict[tuple[str, int | None], int]()

    class Counts(SilentReporter):
        def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Any:
            class Counted(type(SilentReporter().task("", None))):  # type: ignore[misc]
                def advance(self, amount: int = 1, **shown: Any) -> None:
                    seen[description, total] = seen.get((description, total), 0) + amount

            return Counted()

    networks = SmallNetworks("own", tmp_path / "run", data, data, torch.device("cpu"), Counts())
    networks.install(ModelFolder(tmp_path / "model"), updates=3)
    assert seen == {("Training the feature network", 3): 3, ("Measuring its accuracy", 12): 12}


def test_processes_share_the_images_out_and_know_the_moments_of_all(tmp_path: Path) -> None:
    data, shares = source(tmp_path), []
    for rank in range(5):
        group = SimpleNamespace(
            process_index=rank, num_processes=5, device="cpu", gather=lambda own: shares.append(own) or own
        )
        feature_moments(untrained(), data, accelerator=group)
    joined, whole = Moments(), feature_moments(untrained(), data)
    for share in shares:
        joined.merge(share[0])
    assert [int(share[0, 0]) for share in shares] == [2, 2, 3, 2, 3]
    for part, same in zip(joined.gaussian(), whole.gaussian(), strict=True):
        torch.testing.assert_close(part, same)


def test_a_seed_gives_one_network_and_leaves_other_randomness_alone(tmp_path: Path) -> None:
    data = source(tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = train(data).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = train(data).state_dict(), train(data, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_moments_are_those_of_all_images_however_they_come(tmp_path: Path) -> None:
    data, net = source(tmp_path, 20), untrained()
    pixels = np.stack([record.pixels for record in data.read() if record.pixels is not None])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    features = features_of_images(net, pixels)
    assert features.shape == (20, 16)
    assert not features.requires_grad
    for images in (pixels, tensor, tensor / 255):
        torch.testing.assert_close(features_of_images(net, images, batch_size=3), features, rtol=1e-5, atol=1e-6)
    expected = np.cov(features.double().numpy(), rowvar=False)
    for images in (data, pixels):
        moments = feature_moments(net, images)
        assert moments.num == 20
        np.testing.assert_allclose(moments.covariance.numpy(), expected, atol=1e-9)
    assert features_of_images(net, pixels[:0]).shape == (0, 16)


def test_unreadable_images_are_left_out_up_to_the_tolerated_share(tmp_path: Path) -> None:
    write_class_folder(tmp_path, 10)
    (tmp_path / "cat" / "000.png").write_bytes(b"no image")
    tolerant, strict = (open_source(data_config(str(tmp_path), image_size=SIZE, max_bad=bad)) for bad in (0.2, 0.01))
    assert feature_moments(untrained(), tolerant).num == 9
    assert 0 <= measure_accuracy(untrained(), tolerant) <= 1
    with pytest.raises(AdaNATError, match="cannot be read"):
        feature_moments(untrained(), strict)


def test_a_source_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = source(tmp_path)
    with pytest.raises(AdaNATError, match="read at 8 pixels, and the feature network is for 16"):
        train(data, CONFIG.replace(image_size=16))
    wide = source(tmp_path / "other", num_classes=5)
    with pytest.raises(AdaNATError, match="has 5 classes, and the feature network 2"):
        measure_accuracy(untrained(), wide)
    with pytest.raises(AdaNATError, match="at least 1"):
        train(data, steps=0)


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="diverged"):
        train(source(tmp_path), rate=1e30, steps=30)


def test_batches_without_flips_hold_the_same_images_upright(tmp_path: Path) -> None:
    data = source(tmp_path)
    mixed_batches, upright_batches = (
        list(itertools.islice(training_batches(data, 4, 0, flips=flips), 6)) for flips in (True, False)
    )
    num_flipped = 0
    for (mixed, labels, _), (upright, same_labels, _) in zip(mixed_batches, upright_batches, strict=True):
        assert torch.equal(labels, same_labels)
        flipped = (mixed != upright).flatten(1).any(1)
        num_flipped += int(flipped.sum())
        assert torch.equal(mixed[flipped].flip(3), upright[flipped])
        assert bool((upright[:, 0, 0, 0] < 12).all())  # the number of the image is in its left half
    assert 0 < num_flipped < 24


def test_shifts_move_images_and_repeat_their_border() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(200, 3, 4, 4)
    shifted = random_shifts(images, 1, torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    corners = {tuple(image[0, 0, :2].tolist()) for image in shifted}
    # The first row, or the one before (repeated) or after, read from column 0, -1 (repeated) or 1.
    assert corners == {(0, 1), (0, 0), (1, 2), (4, 5), (4, 4), (5, 6)}
    assert torch.equal(random_shifts(images, 0, torch.Generator()), images)


def test_a_model_folder_holds_the_network(tmp_path: Path) -> None:
    folder, net = ModelFolder(tmp_path / "model"), untrained()
    folder.write("features", CONFIG.to_dict(), net.state_dict())
    loaded = load_features(folder)
    assert loaded is not None
    assert not loaded.training
    images = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(loaded.features(images), net.features(images))
    values = describe(str(folder.path))
    assert values["image_size"] == SIZE
    assert values["components"]["features"]["summary"] == "16 features of 8 pixels, 2 classes"


def test_a_model_without_the_network_has_none(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("tokenizer", {"image_size": 8}, {"weight": torch.zeros(1)})
    assert load_features(folder) is None
