"""The protocols against other people's programs on the same images and the same made-up weights."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.efficientnet import EfficientNet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import FrechetReference, Gaussian
from adanat_cli.core.metrics.inception import InceptionV3
from adanat_cli.core.metrics.manifold import manifold_scores
from adanat_cli.core.metrics.protocols import (
    CLEAN_FILE,
    CleanExtractor,
    EfficientNetExtractor,
    InceptionExtractor,
    SmallExtractor,
    TimmExtractor,
    as_bytes,
)
from adanat_cli.core.metrics.scores import inception_score, kernel_distance
from adanat_cli.jobs.sample.pictures import to_uint8

NUM, SIZE = 4, 40


def pictures(num: int, seed: int) -> Tensor:
    """(n, 3, H, W) bytes: coarse coloured patterns of different contrast, under noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 5, 5, generator=generator) * torch.rand(num, 1, 1, 1, generator=generator)
    smooth = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    return as_bytes(smooth + 0.2 * torch.rand(num, 3, SIZE, SIZE, generator=generator))


REAL, FAKE = pictures(NUM, 0), pictures(NUM, 1)


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    """Random weights under which images differ in all features and the classifier has opinions."""
    built = InceptionV3()
    generator = torch.Generator().manual_seed(0)
    for weight in built.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=(2 / weight[0].numel()) ** 0.5, generator=generator)
    norms = [module for module in built.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # of one batch, whose statistics make every channel tell images apart
    with torch.no_grad():
        built(nn.functional.interpolate(pictures(4, 3).float() / 127.5 - 1, (299, 299)))
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.clamp_(min=float(norm.running_var.mean()))  # few images leave some channels too quiet
    return built.eval()


@pytest.fixture(scope="module")
def ours(network: InceptionV3) -> tuple[Extraction, Extraction]:
    extractor = InceptionExtractor("adm", network, "")
    return extractor(REAL), extractor(FAKE)


@pytest.fixture(scope="module")
def theirs(network: InceptionV3, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], ...]:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network.state_dict(), path)
    wanted = ["2048", "logits_unbiased"]
    extractor = module.FeatureExtractorInceptionV3("check", wanted, feature_extractor_weights_path=str(path))
    seen: list[Tensor] = []
    extractor.Mixed_6d.branch1x1.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.inference_mode():
        outputs = [dict(zip(wanted, extractor(images), strict=True)) for images in (REAL, FAKE)]
    return tuple(output | {"mixed_6": conv} for output, conv in zip(outputs, seen, strict=True))


def close(actual: Tensor, expected: Tensor, relative: float = 2e-4) -> None:
    """Compare by the largest difference, relative to the spread of the values."""
    error = (actual - expected).abs().max() / expected.std()
    assert error < relative, float(error)


def test_adm_features_are_torch_fidelitys(
    ours: tuple[Extraction, Extraction], theirs: tuple[dict[str, Tensor], ...]
) -> None:
    for own, other in zip(ours, theirs, strict=True):
        close(own.features, other["2048"])
        assert own.logits is not None
        close(own.logits, other["logits_unbiased"])
        # Images differ in what they give, by far more than the tolerance.
        assert own.features.std(0).mean() > 0.01 * own.features.std()
        # The evaluator's spatial features: seven channels, channel last.
        assert own.spatial is not None
        close(own.spatial, other["mixed_6"].permute(0, 2, 3, 1)[..., :7].reshape(NUM, -1))


def test_adm_measures_are_torch_fidelitys(
    ours: tuple[Extraction, Extraction], theirs: tuple[dict[str, Tensor], ...]
) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    (real, fake), (real_theirs, fake_theirs) = ours, theirs
    # Every 32nd feature: roots of 2048 x 2048 matrices take them ten seconds.
    statistics = [fid_features_to_statistics(output["2048"][:, ::32]) for output in (fake_theirs, real_theirs)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    a, b = (Gaussian(part.mean(0), torch.cov(part.T)) for part in (real.features[:, ::32], fake.features[:, ::32]))
    assert FrechetReference(a).distance(b) == pytest.approx(fid, rel=1e-3)

    kid = kid_features_to_metric(
        fake_theirs["2048"], real_theirs["2048"], kid_subsets=5, kid_subset_size=3, verbose=False
    )
    distance = kernel_distance(real.features, fake.features, 5, 3)
    assert distance.mean == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-3)

    isc = isc_features_to_metric(fake_theirs["logits_unbiased"], 2, True, 2020)
    assert fake.logits is not None
    assert inception_score(fake.logits, 2).mean == pytest.approx(isc["inception_score_mean"], rel=1e-4)
    assert isc["inception_score_mean"] > 1.01

    prc = prc_features_to_metric(fake_theirs["2048"], real_theirs["2048"], prc_neighborhood=2, verbose=False)
    scores = manifold_scores(real.features, fake.features, 2, 2)
    assert (scores.precision, scores.recall) == pytest.approx((prc["precision"], prc["recall"]), abs=1e-6)


def test_features_of_an_image_do_not_depend_on_its_batch(
    network: InceptionV3, ours: tuple[Extraction, Extraction]
) -> None:
    extractor = InceptionExtractor("adm", network, "")
    alone = [torch.cat(parts) for parts in zip(*(extractor(part) for part in REAL[:2].split(1)), strict=True)]
    for together, apart in zip(ours[0], alone, strict=True):
        close(apart, together[:2])


def test_adm_rounds_floats_to_bytes_and_paper_does_not(network: InceptionV3) -> None:
    floats = (REAL[:1].float() + 0.4) / 255
    adm, paper = InceptionExtractor("adm", network, ""), InceptionExtractor("paper", network, "")
    assert torch.equal(adm(floats).features, adm(REAL[:1]).features)
    exact, rounded = paper(REAL[:1].float() / 255).features, paper(REAL[:1]).features
    assert torch.equal(exact, rounded)
    assert not torch.allclose(paper(floats).features, exact, rtol=1e-4)
    # The protocols are not the same measure.
    difference = (adm(REAL[:1]).features - exact).abs().mean()
    assert difference > 0.01 * exact.std()


def test_rounding_is_that_of_saved_images() -> None:
    floats = (
        torch.tensor([-1.0, 0.0, 0.499 / 255, 0.5 / 255, 1.5 / 255, 0.7, 1.0, 2.0]).view(1, 1, 2, 4).expand(2, 3, 2, 4)
    )
    assert torch.equal(as_bytes(floats), torch.from_numpy(to_uint8(floats)).permute(0, 3, 1, 2))


def test_double_precision_changes_the_last_digits_only(
    network: InceptionV3, ours: tuple[Extraction, Extraction]
) -> None:
    exact = InceptionExtractor("adm", network.double(), "")(REAL[:1])
    network.float()
    assert exact.features.dtype == torch.float32
    close(ours[0].features[:1], exact.features)


class StandIn(nn.Module):
    """As small as clean-fid's network may be: 2048 features of (B, 3, 299, 299) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2048, 8, 64), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(StandIn()).save(str(folder / CLEAN_FILE))
    return folder


def test_clean_features_are_clean_fids_own(clean_folder: Path, tmp_path: Path) -> None:
    for index, image in enumerate(REAL):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cleanfid import fid
        from cleanfid.inception_torchscript import InceptionV3W

        model = InceptionV3W(str(clean_folder), download=False)
        expected = fid.get_folder_features(
            str(tmp_path), model, num_workers=0, device=torch.device("cpu"), mode="clean", verbose=False
        )
    extractor = CleanExtractor(clean_folder, "hash")
    together = extractor(REAL)
    assert together.logits is together.spatial is None
    assert together.features.shape == (NUM, extractor.feature_width)
    close(together.features, torch.from_numpy(expected))
    close(extractor(REAL.float() / 255).features, together.features)
    close(torch.cat([extractor(part).features for part in REAL.split(3)]), together.features)


def test_a_damaged_clean_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / CLEAN_FILE).write_bytes(b"no program")
    with pytest.raises(AdaNATError, match="cannot be loaded as clean-fid's network") as caught:
        CleanExtractor(tmp_path, "")
    assert "\n" not in str(caught.value)


def test_an_installation_without_clean_fid_or_with_another_torchvision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanfid.inception_torchscript", None)
    with pytest.raises(AdaNATError, match="torchvision from the same index as PyTorch"):
        CleanExtractor(Path(), "")


def random_timm(name: str) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    built = timm.create_model(name, pretrained=False, num_classes=0).eval()
    return built, resolve_model_data_config(built)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_timm_features_are_those_of_timms_own_preparation(name: str) -> None:
    built, config = random_timm(name)
    extractor = TimmExtractor(name, built, config, "hash")
    images = pictures(3, 2)
    transform = timm.data.create_transform(
        config["input_size"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=1.0,
        crop_mode="squash",
    )
    with torch.inference_mode():
        prepared = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
        expected = built(prepared)
    # PIL rounds resized pixels to bytes.
    close(extractor(images).features, expected, 0.05)
    assert extractor.feature_width == expected.shape[1]
    assert (extractor.protocol, extractor.name) == ("timm", f"timm/{name}")
    # Images of the network's own size are not resized at all.
    size = config["input_size"][1]
    fitting = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        close(extractor(fitting).features, built((fitting.float() / 255 - mean) / std))
    close(torch.cat([extractor(part).features for part in images.split(2)]), extractor(images).features)


def test_small_features_are_those_of_the_models_own_network_on_bytes() -> None:
    torch.manual_seed(0)
    built = FeatureNetwork(FeatureConfig(SIZE - SIZE % 32, 3, (8, 16))).eval()
    extractor = SmallExtractor(built, "hash")
    images = REAL[..., : SIZE - SIZE % 32, : SIZE - SIZE % 32]
    output = extractor((images.float() + 0.3) / 255)
    with torch.inference_mode():
        expected = built(images.float() / 255)
    torch.testing.assert_close(output.features, expected.features)
    torch.testing.assert_close(output.logits, expected.logits)
    assert extractor.feature_width == 16
    with pytest.raises(AdaNATError, match="takes images"):
        extractor(REAL)


def test_extractors_tell_tf32_from_float32(network: InceptionV3) -> None:
    # On a GPU, convolutions round to TF32 unless told otherwise; the setting is left as it was found.
    seen: list[bool] = []
    watch = network.Conv2d_1a_3x3.register_forward_hook(lambda *call: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    InceptionExtractor("adm", network, "")(REAL[:1])
    watch.remove()
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("size", [SIZE, 200])  # which grow and shrink
def test_efficientnet_sees_what_pillows_bicubic_filter_makes_of_bytes(size: int) -> None:
    network = EfficientNet("lite1", "It", "that")
    extractor = EfficientNetExtractor(network)
    floats = nn.functional.interpolate(REAL[:2].float() / 255, (size, size))
    channels = [
        np.asarray(Image.fromarray(channel.numpy().astype(np.float32)).resize((160, 160), Image.Resampling.BICUBIC))
        for channel in as_bytes(floats).flatten(0, 1)
    ]
    pixels = torch.from_numpy(np.stack(channels)).view(2, 3, 160, 160).clamp(0, 255)
    with torch.inference_mode():
        maps = network.network.forward_features((pixels - 127) / 128)
        features = network.network.forward_head(maps, pre_logits=True)
    found = extractor(floats)
    close(found.features, features, 1e-3)
    assert found.logits is not None
    close(found.logits, network.network.classifier(features), 1e-3)
    assert found.spatial is None
    assert (extractor.name, extractor.feature_width) == ("tf_efficientnet_lite1", features.shape[1])
