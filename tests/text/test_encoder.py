"""Prompts to states and embeddings, by a tiny CLIP made up on the spot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from adanat_cli.core import pretrained
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.text.encoder import TextEncoder
from tests.clip_toy import make_clip
from tests.mutations import as_json, mutations

transformers = pytest.importorskip("transformers")

WORDS = ["a", "red", "green", "square", "circle"]
LENGTH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"), WORDS, length=LENGTH)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(str(folder))


def test_prompts_are_padded_with_zeros_and_cut_to_length(encoder: TextEncoder) -> None:
    start, end = 7, 8
    ids = encoder.token_ids(["a red square", "", "a red square " * 9])
    assert ids[0].tolist() == [start, 2, 3, 5, end, 0, 0, 0]
    assert ids[1].tolist() == [start, end, 0, 0, 0, 0, 0, 0]
    assert ids[2, 0] == start
    assert ids[2, -1] == end


def test_states_and_embeddings_are_the_models_own_without_a_mask(folder: Path, encoder: TextEncoder) -> None:
    model = transformers.CLIPModel.from_pretrained(folder)
    prompts = ["a red square", "green"]
    with torch.no_grad():
        text = model.text_model(input_ids=encoder.token_ids(prompts))
        pooled = F.normalize(model.text_projection(text.pooler_output), dim=-1)
    encoded = encoder.encode(prompts)
    assert encoded.states.shape == (2, LENGTH, encoder.width)
    torch.testing.assert_close(encoded.states, text.last_hidden_state)
    torch.testing.assert_close(encoded.pooled, pooled)
    torch.testing.assert_close(encoded.pooled.norm(dim=-1), torch.ones(2))


def test_a_prompt_is_encoded_the_same_in_any_company(encoder: TextEncoder) -> None:
    prompts = ["red", "a green circle", "red", ""]
    together = encoder.encode(prompts)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(together.states[row], encoder.encode([prompt]).states[0])
    assert torch.equal(together.states[0], together.states[2])
    torch.testing.assert_close(together.states[3], encoder.null.states[0])


def test_the_empty_prompt_is_encoded_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder.null
    monkeypatch.setattr(encoder, "encode", lambda prompts: pytest.fail("encoded again"))
    assert encoder.null is first


def test_half_precision_stays_close_and_comes_out_as_float32(folder: Path, encoder: TextEncoder) -> None:
    half = TextEncoder(str(folder), precision=torch.bfloat16).encode(["a red square"])
    assert half.states.dtype == torch.float32
    torch.testing.assert_close(half.states, encoder.encode(["a red square"]).states, atol=0.05, rtol=0.05)


def test_the_fingerprint_tells_weights_apart_but_not_copies(folder: Path, encoder: TextEncoder) -> None:
    again, changed = TextEncoder(str(folder)), TextEncoder(str(folder))
    with torch.no_grad():
        next(changed.tower.parameters()).add_(1e-3)
    assert again.fingerprint == encoder.fingerprint != changed.fingerprint


def test_nothing_learns_and_training_mode_is_never_entered(encoder: TextEncoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_a_context_of_another_shape_is_refused(encoder: TextEncoder) -> None:
    encoder.require_shape(16, LENGTH, "the NAT")
    with pytest.raises(AdaNATError, match=r"8 states of width 16, but the NAT reads 77 of width 768.*--text-encoder"):
        encoder.require_shape(768, 77, "the NAT")


def test_a_missing_transformers_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AdaNATError, match=r"pip install 'adanat\[text\]'") as caught:
        TextEncoder("anything")
    assert "\n" not in str(caught.value)


def test_an_encoder_out_of_reach_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str) -> None:
        assert "/resolve/v1/" in url
        raise TimeoutError("Name or service not known")

    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda repo, filename, revision: None)
    monkeypatch.setattr(pretrained, "get_hf_file_metadata", no_network)
    with pytest.raises(AdaNATError, match="Name or service not known") as caught:
        TextEncoder("openai/clip-vit-large-patch14@v1")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(transformers.CLIPModel.from_pretrained(folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(AdaNATError, match="cannot be loaded"):
        TextEncoder(str(tmp_path))


@pytest.mark.filterwarnings("ignore")  # of transformers, about what is wrong with the file
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_one_wrong_value_in_an_encoder_is_one_line(encoder: TextEncoder, tmp_path: Path, file: str) -> None:
    encoder.save(tmp_path)
    path = tmp_path / file
    for what, changed in mutations(json.loads(path.read_text()), sparse=83):
        path.write_text(as_json(changed))
        try:
            TextEncoder(str(tmp_path)).encode(["a red square"])
        except AdaNATError as error:
            if "\n" in str(error):
                pytest.fail(f"{what}: {error}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 10**9}, "larger network than its weights"),
        ({"hidden_size": 2**20}, "larger network than its weights"),
        ({"num_hidden_layers": -(10**9)}, "larger network than its weights"),
        ({"eos_token_id": "x"}, "cannot be loaded"),
    ],
)
def test_a_configuration_larger_than_its_weights_builds_nothing(
    encoder: TextEncoder, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    encoder.save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(AdaNATError, match=words):
        TextEncoder(str(tmp_path))


def test_an_encoder_of_no_numbers_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * torch.nan}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(AdaNATError, match="values that are not finite"):
        TextEncoder(str(tmp_path))
