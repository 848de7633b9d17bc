"""Mistakes in what ``adanat evaluate`` is given: one line each, before anything is generated."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.option import options_of
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.errors import AdaNATError
from tests.evaluation_toy import (
    GIVEN,
    make_evaluation_toy,
    rows,
)
from tests.image_files import png


@pytest.mark.parametrize("damage", ["flipped", "cut", "no settings", "other settings", "stray"])
def test_damaged_features_are_told_in_one_line(toy: Path, tmp_path: Path, damage: str) -> None:
    rows(toy, tmp_path, keep_features=True, num_samples=10)
    (tmp_path / "evaluation.json").unlink()
    folder = tmp_path / "features" / "cosine-2"
    part, state = folder / "part-00001.safetensors", folder / "state.json"
    content = bytearray(part.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
        part.write_bytes(content)
    elif damage == "cut":
        part.write_bytes(content[:-9])
    elif damage == "stray":
        (folder / "part-a.safetensors").write_bytes(b"")
        assert rows(toy, tmp_path, num_samples=10)[0]["metrics"]["fid"] > 0
        return
    else:
        state.unlink() if damage == "no settings" else state.write_text("[]")
    with pytest.raises(
        AdaNATError, match=r"(is|or) damaged; remove .* and run|is missing or damaged; remove"
    ) as caught:
        rows(toy, tmp_path, num_samples=10)
    assert "\n" not in str(caught.value)


def broken_npz(folder: Path, how: str) -> Path:
    path, images = folder / f"{how}.npz", np.zeros((8, 16, 16, 3), np.uint8)
    if how == "pickled":
        np.savez(path, arr_0=np.array([{"a": 1}] * 8, dtype=object))
    elif how == "floats":
        np.savez(path, arr_0=images.astype(np.float32))
    elif how == "flat":
        np.savez(path, arr_0=images.reshape(8, -1))
    elif how == "other":
        np.savez(path, images=images)
    elif how == "noise":
        path.write_bytes(b"not an archive")
    elif how == "flipped":
        with zipfile.ZipFile(path, "w") as archive:
            np.savez(folder / "whole.npz", arr_0=images + 7)
            archive.writestr("arr_0.npy", zipfile.ZipFile(folder / "whole.npz").read("arr_0.npy"))
        content = bytearray(path.read_bytes())
        content[2000] ^= 255
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pickled", "pickled objects"),
        ("floats", "expected bytes"),
        ("flat", "expected bytes"),
        ("other", "holds no arr_0"),
        ("noise", "not an .npz archive"),
        ("flipped", "damaged"),
        ("missing", "does not exist"),
    ],
)
def test_a_file_of_something_else_gets_one_line(toy: Path, tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, tmp_path / "out", samples=broken_npz(tmp_path, how), **GIVEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((), "holds no images"),
        ((16,), "holds one image"),
        ((16, 16, 8), r"a-0.png has 16 x 16 pixels and b-2.png has 8 x 8"),
        ((8, 8), "takes images .B, 3, 16, 16."),
    ],
)
def test_a_folder_that_cannot_be_measured_gets_one_line(
    toy: Path, tmp_path: Path, sizes: tuple[int, ...], words: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{'b' if size != sizes[0] else 'a'}-{number}.png").write_bytes(png(number, size))
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, tmp_path / "out", images=folder, **GIVEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_samples": 1}, "--num-samples is 1"),
        ({"num_samples": 10**12}, "2 to 100,000,000 images"),
        ({"num_samples": 10**8, "protocol": "paper"}, "--protocol is paper"),
        ({"steps": (17,)}, "have 16 tokens"),
        ({"steps": (0,)}, "--steps is 0"),
        ({"schedules": ("cosin",)}, "'cosin' is not known"),
        ({"protocol": "efficientnets"}, "Protocol 'efficientnets' is not known; expected adm, paper"),
        ({"classes": ("lion",)}, "lion"),
        ({"reference": Path("/no/such.npz")}, "/no/such.npz"),
        ({"output": Path("/proc/nowhere")}, "Cannot write to /proc/nowhere"),
        ({"model": "/no/such/model"}, "/no/such/model"),
        ({"images": Path("/no/such")}, "--steps has no meaning"),
        ({"images": Path("/no/such"), "steps": ()}, "/no/such is not a folder"),
        ({"images": Path("a"), "samples": Path("b")}, "one at a time"),
        ({"batch_size": 0}, "--batch-size is 0"),
        *(
            ({kind: Path("a"), "steps": (), field: value}, f"{option} has no meaning with --{kind}")
            for kind in ("images", "samples")
            for field, value, option in (
                ("remask_temperature", 2.0, "--remask-temperature"),
                ("guidance_scale", 0.0, "--guidance-scale"),
                ("text_encoder", "a", "--text-encoder encodes prompts: it"),
                ("precision", "bf16", "--precision"),
                ("seed", 1, "--seed"),
                ("record", True, "--record"),
                ("prompts", ("a dog",), "--prompt"),
                ("prompts_file", Path("/no/such.txt"), "--prompts"),
            )
        ),
        ({"text_encoder": "a"}, "--text-encoder encodes prompts: it has no meaning with model .*classes"),
        ({"inception": Path("a")}, "--inception is for adm, paper and clean: it has no meaning with protocol small"),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_generated(
    toy: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, **{"output": tmp_path, **changes})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluation.json").exists()


EVERYWHERE = {
    "reference",
    "output",
    "model",
    "images",
    "samples",
    "reconstruct",
    "data",
    "protocol",
    "num_samples",
    "keep_features",
    "part_size",
}
UNFELT = {"batch_size", "workers", "device", "spread"}


def test_of_every_option_it_is_said_where_it_acts() -> None:
    named = {name for name, one in options_of(EvaluateRequest).items() if one.acts_on or one.protocols}
    assert {field.name for field in dataclasses.fields(EvaluateRequest)} - named == EVERYWHERE | UNFELT


def test_steps_beside_schedules_from_files_are_refused(toy: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.yaml"
    names = ("remask_ratio", "sampling_temperature", "remask_temperature", "guidance_scale")
    table.write_text(yaml.safe_dump({name: [0.5, 0.1] for name in names}))
    with pytest.raises(AdaNATError, match="--steps 3 has no meaning with schedules from files"):
        rows(toy, tmp_path / "out", steps=(2, 3), schedules=(f"table:{table}",))


def test_a_foreign_reference_needs_a_protocol(toy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(16), sigma=np.eye(16))
    with pytest.raises(AdaNATError, match=r"does not record the protocol.*--protocol adm"):
        rows(toy, tmp_path, reference=tmp_path / "foreign.npz")
    with pytest.raises(AdaNATError, match="features of width 16"):
        rows(toy, tmp_path, reference=tmp_path / "foreign.npz", protocol="small")


def test_a_reference_of_other_weights_is_refused(toy: Path, tmp_path: Path) -> None:
    other = make_evaluation_toy(tmp_path / "other")
    config, tensors = ModelFolder(other / "model").read("features")
    ModelFolder(other / "model").write("features", config, {key: tensor + 1 for key, tensor in tensors.items()})
    with pytest.raises(AdaNATError, match="computed with weights"):
        rows(other, tmp_path, reference=toy / "stats.npz")


def test_a_reference_of_another_protocol_is_refused_before_weights_are_sought(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"--protocol is adm, and .*stats\.npz was made with protocol small"):
        rows(toy, tmp_path, protocol="adm", inception=tmp_path / "missing.pth")
