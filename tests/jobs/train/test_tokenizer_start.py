"""A tokenizer that starts from another's weights: with a frozen encoder, all that reads its tokens stays valid."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import PixelConfig, PolicyConfig, VQAEConfig, nat_preset
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.config.training_requests import TrainTokenizerRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy.static import build_policy
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.core.tokenizer.vqae import VQAE
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.info import describe
from adanat_cli.jobs.train.nat_start import continues_tokenizer
from adanat_cli.jobs.train.plans import plan_tokenizer
from adanat_cli.jobs.train.settings import tokenizer_settings
from adanat_cli.jobs.train.tokenizer import TokenizerTrainer, train_tokenizer
from tests.image_files import write_class_folder
from tests.jobs.train.test_nat import At

SHAPE = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(8, 16))
QUICK: dict[str, Any] = {
    "steps": 4,
    "batch_size": 4,
    "warmup_steps": 0,
    "learning_rate": 1e-2,
    "ema_decay": 0.5,
    "precision": "fp32",
    "decay": "constant",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a whole model: tokenizer, NAT, policy, labels and a recorded result."""
    folder = tmp_path_factory.mktemp("start")
    write_class_folder(folder / "shapes", 12, ("circle", "square"), 20)
    torch.manual_seed(0)
    model = ModelFolder(folder / "base")
    model.write("tokenizer", SHAPE.to_dict(), build_tokenizer(SHAPE).state_dict(), provenance={"license": "mit"})
    nat = nat_preset(
        "micro", codebook_size=16, grid=(4, 4), num_classes=2, tokenizer_fingerprint=model.fingerprint("tokenizer")
    )
    model.write("nat", nat.to_dict(), UViT(nat).state_dict(), provenance={"num_images": 12})
    policy = PolicyConfig(feature_width=nat.width, grid=(4, 4), num_steps=3, nat_fingerprint=model.fingerprint("nat"))
    facts = {"distance": 1.0, "fixed_distance": 2.0, "kind": "adaptive"}
    model.write("policies/steps-3", policy.to_dict(), build_policy(policy).state_dict(), provenance=facts)
    model.write_labels({0: "circle", 1: "square"})
    model.put_results([{"metric": "fid", "value": 1.0}])
    (folder / "statistics.npz").write_bytes(b"of real images")
    model.write_reference(folder / "statistics.npz", "efficientnet")
    return folder


def settled(
    toy: Path,
    output: str,
    base: str = "base",
    half: bool = False,
    codebook_size: int | None = None,
    **training: Any,
) -> TokenizerSettings:
    asked = TrainTokenizerRequest(
        str(toy / "shapes"),
        start=str(toy / base) if base else "",
        output=toy / output,
        codebook_size=codebook_size,
        training={**QUICK, **training},
        half=half,
        workers=0,
        device="cpu",
    )
    return tokenizer_settings(asked)


def images() -> Tensor:
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def decoded(toy: Path) -> ModelFolder:
    """The model of a run that trained the decoder alone."""
    return ModelFolder(train_tokenizer(settled(toy, "decoder", freeze_encoder=True), SilentReporter())["model"])


def test_before_the_first_update_the_weights_are_those_of_the_model(toy: Path) -> None:
    request, base = settled(toy, "fresh"), load_tokenizer(ModelFolder(toy / "base")).state_dict()
    assert isinstance(request.tokenizer, VQAEConfig)
    assert request.tokenizer == SHAPE
    trainer = TokenizerTrainer(SHAPE, request.training.replace(seed=5), Accelerator(cpu=True), base)
    for state in (trainer.vqae.state_dict(), trainer.averaged().state_dict()):
        assert all(torch.equal(state[name], base[name]) for name in base)


def test_codes_that_start_from_others_stay_near_them(toy: Path) -> None:
    base = load_tokenizer(ModelFolder(toy / "base")).state_dict()
    trainer = TokenizerTrainer(SHAPE, settled(toy, "fresh").training, Accelerator(cpu=True), base)
    trainer.update((255 * images()).byte())
    assert float((trainer.vqae.codes * base["codes"]).sum(-1).min()) > 0.9


def test_codes_that_are_added_come_from_the_images_beside_the_old_ones(toy: Path) -> None:
    base = load_tokenizer(ModelFolder(toy / "base")).state_dict()
    request = settled(toy, "more", codebook_size=40)
    assert isinstance(request.tokenizer, VQAEConfig)
    trainer = TokenizerTrainer(request.tokenizer, request.training, Accelerator(cpu=True), base)
    trainer.update((255 * images()).byte())
    codes = trainer.vqae.codes
    assert float((codes[:16] * base["codes"]).sum(-1).min()) > 0.9
    latents = build_tokenizer(SHAPE)
    latents.load_state_dict(base)
    assert isinstance(latents, VQAE)
    with torch.no_grad():
        nearest = (codes[16:] @ latents.latents((255 * images()).byte() / 255).flatten(0, 1).T).amax(-1)
    assert float((nearest > 0.9999).float().mean()) > 0.5  # others happened to be used, and are means of their latents
    model = ModelFolder(train_tokenizer(request, SilentReporter())["model"])
    assert load_tokenizer(model).config.codebook_size == 40
    assert continues_tokenizer(model, ModelFolder(toy / "base"))
    assert model.index.provenance["tokenizer"]["from"]["weights"] == ModelFolder(toy / "base").fingerprint("tokenizer")
    train_tokenizer(settled(toy, "more"), SilentReporter())  # a finished run keeps its codes
    assert settled(toy, "more").tokenizer == request.tokenizer


def test_a_frozen_encoder_keeps_the_tokens_while_the_decoder_learns(toy: Path, decoded: ModelFolder) -> None:
    before, after = load_tokenizer(ModelFolder(toy / "base")), load_tokenizer(decoded)
    assert torch.equal(before.encode(images()), after.encode(images()))
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor) == (not name.startswith("decoder.")), name


def test_a_frozen_encoder_gives_the_same_tokens_in_bf16(toy: Path) -> None:
    vqae = load_tokenizer(ModelFolder(toy / "base"))
    assert isinstance(vqae, VQAE)
    expected = vqae.latents(images())
    vqae.freeze_encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vqae.latents(images()), expected)
        assert vqae(images()).images.dtype == torch.bfloat16


def test_the_whole_model_comes_along_without_what_the_old_decoder_drew(toy: Path, decoded: ModelFolder) -> None:
    base = ModelFolder(toy / "base")
    assert decoded.index.components == base.index.components
    assert decoded.labels() == base.labels()
    reference = decoded.reference("efficientnet")
    assert reference is not None
    assert reference.read_bytes() == b"of real images"
    assert decoded.index.results == ()
    assert decoded.index.provenance["policies/steps-3"] == {"kind": "adaptive"}
    assert decoded.index.provenance["tokenizer"]["from"]["weights"] == base.fingerprint("tokenizer")
    assert decoded.index.provenance["tokenizer"]["license"] == "mit"
    assert "No quality metric has been measured" in decoded.card()
    assert "`tokenizer` was trained further from the tokenizer of base" in decoded.card()
    values = describe(str(decoded.path))
    assert set(values["matches"].values()) == {"yes"}
    assert "with a decoder trained further" in values["components"]["tokenizer"]["summary"]


def test_token_sets_and_nats_of_the_model_before_stay_valid(toy: Path, decoded: ModelFolder) -> None:
    original = ModelFolder(toy / "base").fingerprint("tokenizer")
    assert decoded.fingerprint("tokenizer") != original
    assert tokens_fingerprint(decoded) == original
    assert not continues_tokenizer(decoded, ModelFolder(toy / "base")), "a NAT needs no other rows for the same tokens"
    load_nat(decoded)
    again = train_tokenizer(settled(toy, "again", "decoder/model", freeze_encoder=True), SilentReporter())
    assert tokens_fingerprint(ModelFolder(again["model"])) == original


def test_a_changed_encoder_is_refused(toy: Path, decoded: ModelFolder, tmp_path: Path) -> None:
    values, tensors = decoded.read("tokenizer")
    other = ModelFolder(tmp_path / "other")
    other.write("tokenizer", values, {**tensors, "codes": tensors["codes"].flip(0)})
    other.write("nat", *decoded.read("nat"))
    with pytest.raises(AdaNATError, match=r"claims the tokens of tokenizer .* but its encoder and codes are"):
        load_nat(other)
    whole = train_tokenizer(settled(toy, "whole", "decoder/model"), SilentReporter())
    trained = ModelFolder(whole["model"])
    assert trained.index.components == ("tokenizer",)
    assert tokens_fingerprint(trained) == trained.fingerprint("tokenizer")
    trained.write("nat", *decoded.read("nat"))
    with pytest.raises(AdaNATError, match="was trained with tokenizer"):
        load_nat(trained)


def test_a_frozen_encoder_is_not_rounded(toy: Path) -> None:
    base = ModelFolder(toy / "base")
    exported = ModelFolder(
        train_tokenizer(settled(toy, "half", half=True, freeze_encoder=True), SilentReporter())["model"]
    )
    assert exported.header("tokenizer").dtypes == ("F16", "F32")
    assert tokens_fingerprint(exported) == base.fingerprint("tokenizer")


def test_a_run_is_resumed_from_the_same_weights_only(toy: Path, decoded: ModelFolder) -> None:
    train_tokenizer(settled(toy, "resumed", freeze_encoder=True, save_every=2), SilentReporter())
    longer = settled(toy, "resumed", "", steps=6)
    assert longer.training.freeze_encoder
    model = ModelFolder(train_tokenizer(longer, SilentReporter())["model"])
    assert model.has("nat")
    assert tokens_fingerprint(model) == ModelFolder(toy / "base").fingerprint("tokenizer")
    with pytest.raises(AdaNATError, match=r"from\.weights was"):
        settled(toy, "resumed", "decoder/model")


def test_a_killed_run_with_a_frozen_encoder_needs_no_from(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(settled(toy, "killed", freeze_encoder=True), At(2, lambda: signal.raise_signal(signal.SIGINT)))
    assert not (toy / "killed" / "model").exists()
    model = ModelFolder(train_tokenizer(settled(toy, "killed", ""), SilentReporter())["model"])
    assert model.index.components == ModelFolder(toy / "base").index.components
    assert str(toy) not in json.dumps(model.index.provenance)


def test_what_does_not_fit_is_one_clear_line(toy: Path, tmp_path: Path, decoded: ModelFolder) -> None:
    with pytest.raises(AdaNATError, match="name its model with --from"):
        settled(toy, "refused", "", freeze_encoder=True)
    asked = TrainTokenizerRequest("digits", start=str(toy / "base"), output=toy / "refused", codebook_size=8)
    with pytest.raises(AdaNATError, match=r"--codebook-size 8 is another shape than that .* \(16\).* add codes"):
        tokenizer_settings(asked)
    with pytest.raises(AdaNATError, match=r"--codebook-size 32 is another shape than that .* \(16\)"):
        settled(toy, "refused", codebook_size=32, freeze_encoder=True)
    with pytest.raises(AdaNATError, match=r"--image-size 32 is another shape"):
        tokenizer_settings(replace(asked, codebook_size=None, data={"image_size": 32}))
    pixels = PixelConfig()
    ModelFolder(tmp_path / "pixels").write("tokenizer", pixels.to_dict(), build_tokenizer(pixels).state_dict())
    with pytest.raises(AdaNATError, match="of kind pixels; only kind vqae"):
        tokenizer_settings(replace(asked, start=str(tmp_path / "pixels")))
    assert plan_tokenizer(settled(toy, "planned"))["from"]["model"] == "base"
    assert not (toy / "planned").exists()


def test_ordinary_tokenizers_stay_readable_for_earlier_versions() -> None:
    assert "tokens_of" not in json.dumps(SHAPE.to_dict())
    with pytest.raises(AdaNATError, match="expected both or none"):
        SHAPE.replace(tokens_of="0" * 64)
