"""A protocol's name leads to its network, its weights and their hash, or to one line that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.inception import InceptionV3
from adanat_cli.core.metrics.protocols import CLEAN_FILE
from adanat_cli.jobs.resolve.extractors import load_extractor
from adanat_cli.jobs.runtime.reporter import SilentReporter


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ADANAT_INCEPTION", raising=False)


def test_one_network_in_two_files_has_one_hash_and_is_not_taken_for_the_published(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, notes = InceptionV3().state_dict(), Notes()
    torch.save(state, tmp_path / "weights.pth")
    # Files of PyTorch 0.4 have no counters of training steps.
    save_file(
        {name: tensor for name, tensor in state.items() if "num_batches" not in name},
        tmp_path / "weights.safetensors",
    )
    adm, paper = (
        load_extractor(protocol, inception=tmp_path / file, reporter=notes)
        for protocol, file in (("adm", "weights.pth"), ("paper", "weights.safetensors"))
    )
    assert adm.weights_hash == paper.weights_hash
    assert len(adm.weights_hash) == 64
    assert (adm.protocol, paper.protocol, adm.name, adm.feature_width) == ("adm", "paper", "inception-fid", 2048)
    assert len(notes.warnings) == 2
    assert "is not the published file" in notes.warnings[0]
    image = torch.full((1, 3, 8, 8), 0.5)
    output = adm(image)
    assert output.logits is not None
    assert output.spatial is not None
    assert (output.features.shape, output.logits.shape, output.spatial.shape) == ((1, 2048), (1, 1008), (1, 2023))
    # One grey is a grey in any resizing; what is left is the rounding to bytes and the scale.
    torch.testing.assert_close(paper(image).features, output.features, rtol=0.1, atol=0.1)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(AdaNATError, match=r"resnet\.safetensors holds no weights of the Inception network"):
        load_extractor("adm", inception=tmp_path / "resnet.safetensors")


def test_the_models_own_features_need_no_download(tmp_path: Path) -> None:
    folder, config = ModelFolder(tmp_path / "model"), FeatureConfig(16, 3, (8, 16))
    torch.manual_seed(0)
    network = FeatureNetwork(config).eval()
    folder.write("features", config.to_dict(), network.state_dict())
    extractor = load_extractor("small", folder=folder)
    assert (extractor.protocol, extractor.name, extractor.feature_width) == ("small", "features", 16)
    assert extractor.weights_hash == folder.fingerprint("features")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(extractor(images).features, network.features(images.float() / 255))


def test_a_model_without_features_says_so(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    folder.write("nat", {}, {"weight": torch.zeros(2)})
    with pytest.raises(AdaNATError, match="has no features/"):
        load_extractor("small", folder=folder)
    with pytest.raises(AdaNATError, match="--model"):
        load_extractor("small")


def test_timm_networks_come_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    extractor = load_extractor(f"timm/test_vit={file}")
    assert (extractor.protocol, extractor.name) == ("timm", "timm/test_vit")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert extractor(images).features.shape == (2, extractor.feature_width)
    again = load_extractor(f"timm/test_vit={file}")
    assert again.weights_hash == extractor.weights_hash
    assert torch.equal(again(images).features, extractor(images).features)
    for name, message in (
        (f"test_vit={tmp_path / 'weights.pth'}", "no other kind is read"),
        (f"test_vit={tmp_path / 'none.safetensors'}", "does not exist"),
        (f"test_resnet={file}", "weights are of another network"),
        ("no_such_network", "cannot be loaded"),
    ):
        with pytest.raises(AdaNATError, match=message) as caught:
            load_extractor(f"timm/{name}")
        assert "\n" not in str(caught.value)


class StandIn(nn.Module):
    """With what clean-fid asks of its network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2048, 8, 64), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_clean_fids_network_is_loaded_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="fetch https://nvlabs"):
        load_extractor("clean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(StandIn()).save(str(tmp_path / CLEAN_FILE))
    extractor = load_extractor("clean", inception=tmp_path)
    assert (extractor.protocol, len(extractor.weights_hash)) == ("clean", 64)
    assert extractor(torch.rand(2, 3, 20, 20)).features.shape == (2, 2048)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(
        AdaNATError, match="expected adm, paper, clean, efficientnet, efficientnet-lite0, small or timm/NAME"
    ):
        load_extractor("fid")
