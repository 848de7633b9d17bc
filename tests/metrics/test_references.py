"""Reference statistics: three formats, what is refused, and round trips."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics import npz
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.frechet import FrechetReference, Gaussian, Moments
from adanat_cli.core.metrics.npz import Archive
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.metrics.references import (
    Reference,
    check_reference,
    compare_classes,
    extractor_fields,
    holds_statistics,
    read_reference,
    write_reference,
)
from tests.mutations import as_json, mutations


@dataclass
class Stub:
    """An extractor by name only."""

    protocol: str = "adm"
    name: str = "inception-fid"
    weights_hash: str = "a" * 64
    feature_width: int = 5

    def __call__(self, images: Tensor) -> Extraction:
        raise NotImplementedError


class MakesAFile:
    """Pickled, it would leave a file behind on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gaussian(width: int = 5, seed: int = 0) -> Gaussian:
    moments = Moments()
    moments.add(draw(40, width, seed=seed))
    return moments.gaussian()


def stub_reference() -> Reference:
    return Reference(gaussian(), num_images=40, **extractor_fields(Stub()))


def arrays(width: int = 5) -> dict[str, Any]:
    mean, covariance = gaussian(width)
    return {"mu": mean.numpy(), "sigma": covariance.numpy()}


def save(path: Path, **values: Any) -> Path:
    np.savez(path, **values)
    return path


def test_pytorch_fid_files_are_read(tmp_path: Path) -> None:
    reference = read_reference(save(tmp_path / "stats.npz", **arrays()))
    assert (reference.format, reference.protocol, reference.num_images) == ("pytorch-fid", "", 0)
    assert reference.spatial is reference.features is reference.images is None
    assert FrechetReference(reference.gaussian).distance(gaussian()) == pytest.approx(0, abs=1e-9)
    assert len(reference.sha256) == 64


@pytest.mark.parametrize("compress", [False, True])
def test_guided_diffusion_batches_are_read_and_their_images_in_parts(tmp_path: Path, compress: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    spatial = {"mu_s": np.zeros(2023, np.float32), "sigma_s": np.eye(2023, dtype=np.float32)}
    write = np.savez_compressed if compress else np.savez
    write(tmp_path / "VIRTUAL.npz", arr_0=images, **arrays(), **spatial)
    reference = read_reference(tmp_path / "VIRTUAL.npz")
    assert reference.format == "adm"
    assert reference.spatial is not None
    assert reference.spatial.covariance.dtype == torch.float64
    assert reference.images is not None
    assert reference.images.shape == (7, 4, 4, 3)
    batches = list(reference.images.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    extractor = Stub()
    fields = {
        "source": "ImageNet, validation",
        "classes": {207: 30, 1: 10},
        "image_size": 64,
        "recognition": Recognition(0.25, 0.5, 1.0),
    }
    written = Reference(
        gaussian(), gaussian(6, seed=1), draw(9, 5), num_images=40, **extractor_fields(extractor), **fields
    )
    write_reference(tmp_path / ".hidden.part", written)
    read = read_reference(tmp_path / ".hidden.part")
    for name in (
        "num_images",
        "protocol",
        "extractor",
        "weights_hash",
        "resize",
        "source",
        "classes",
        "image_size",
        "recognition",
        "format",
    ):
        assert getattr(read, name) == getattr(written, name), name
    assert read.num_images == 40
    torch.testing.assert_close(read.gaussian, written.gaussian, rtol=0, atol=1e-15)
    torch.testing.assert_close(read.spatial, written.spatial, rtol=0, atol=1e-15)
    torch.testing.assert_close(read.features, written.features, rtol=0, atol=0)
    check_reference(read, extractor)
    # The same again gives the same file.
    for name in ("again", "once more"):
        write_reference(tmp_path / name, read)
    assert read_reference(tmp_path / "again").sha256 == read_reference(tmp_path / "once more").sha256


def test_the_compact_form_gives_the_moments_of_its_features(tmp_path: Path) -> None:
    features = 3 * draw(40, 5).abs()
    moments = Moments()
    moments.add(features)
    written = Reference(moments.gaussian(), None, features, num_images=40, **extractor_fields(Stub()), classes={1: 40})
    write_reference(tmp_path / "compact.npz", written, compact=True)
    write_reference(tmp_path / "whole.npz", written)
    read = read_reference(tmp_path / "compact.npz")
    assert holds_statistics(Archive(tmp_path / "compact.npz"))
    assert (read.num_images, read.classes, read.format) == (40, {1: 40}, "adanat")
    torch.testing.assert_close(read.features, features.half().float(), rtol=0, atol=0)
    torch.testing.assert_close(read.gaussian, read_reference(tmp_path / "whole.npz").gaussian, rtol=2e-3, atol=2e-3)
    with pytest.raises(ValueError, match="features of all images"):
        write_reference(tmp_path / "part.npz", replace(written, num_images=41), compact=True)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((3, 5), np.float16), r"shape \(3, 5\) for 40 images, and no moments"),
        (np.zeros((40,), np.float16), r"expected \(n, 40\)"),
        (np.float16(1), "features of shape"),
        (np.full((40, 5), np.inf, np.float16), "not finite"),
        (np.zeros((40, 5), np.int8), "expected floats"),
    ],
)
def test_a_damaged_compact_form_is_refused_in_one_line(tmp_path: Path, features: Any, message: str) -> None:
    write_reference(tmp_path / "a.npz", stub_reference())
    metadata = np.load(tmp_path / "a.npz")["metadata"]
    with pytest.raises(AdaNATError, match=message) as caught:
        read_reference(save(tmp_path / "b.npz", features=features, metadata=metadata))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("protocol", "paper", "protocol adm, .* paper"),
        ("name", "other", "feature network inception-fid, .* other"),
        ("weights_hash", "b" * 64, "weights aaaaaaaaaaaa, .* bbbbbbbbbbbb"),
        ("feature_width", 6, "width 5"),
    ],
)
def test_a_reference_of_another_measure_is_refused(field: str, value: Any, message: str) -> None:
    reference, extractor = stub_reference(), Stub()
    check_reference(reference, extractor)
    setattr(extractor, field, value)
    with pytest.raises(AdaNATError, match=message):
        check_reference(reference, extractor)


def test_a_file_that_does_not_say_what_made_it_is_taken_for_inception_features() -> None:
    wide = Reference(Gaussian(torch.zeros(2048), torch.eye(2048)), format="pytorch-fid")
    for protocol in ("adm", "paper", "clean"):
        check_reference(wide, Stub(protocol, feature_width=2048))
    with pytest.raises(AdaNATError, match="protocol 'small'"):
        check_reference(wide, Stub("small", "features", feature_width=2048))
    with pytest.raises(AdaNATError, match="width 5 and does not record"):
        check_reference(Reference(gaussian(), format="pytorch-fid"), Stub())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": None}, "holds mu; expected mu and sigma"),
        ({"mu": np.zeros((1, 5))}, r"mu of shape \(1, 5\)"),
        ({"sigma": np.eye(4)}, r"sigma of shape \(4, 4\)"),
        ({"mu": np.full(5, np.nan)}, "mu, sigma: .* not finite"),
        ({"sigma": np.triu(np.ones((5, 5)))}, "not symmetric"),
        ({"sigma": -np.eye(5)}, "negative variances"),
        ({"mu": np.zeros(5, complex)}, "complex128; expected floats"),
        ({"mu": np.array([None] * 5)}, "pickled objects, which are never loaded"),
        ({"mu_s": np.zeros(2023)}, "no sigma_s"),
        ({"mu_s": np.zeros(3), "sigma_s": np.eye(3)}, "width 3; expected 2023"),
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "expected images"),
        ({"features": np.zeros((3, 4), np.float32)}, r"expected \(n, 5\)"),
        ({"features": np.full((3, 5), np.inf, np.float32)}, "features that are not finite"),
        ({"metadata": np.array("{")}, "metadata .* cannot be read"),
        ({"metadata": np.array(json.dumps({"format_version": 1, "num_images": 3}))}, "metadata .* cannot be read"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    values = {name: value for name, value in (arrays() | changes).items() if value is not None}
    path = save(tmp_path / "stats.npz", **values)
    with pytest.raises(AdaNATError, match=message) as caught:
        read_reference(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("classes", [["1"], {"one": 2}, {"1": "2"}, {"1": -2}, {"9" * 5000: 1}])
def test_classes_are_numbers_of_images_and_older_files_do_not_tell_them(tmp_path: Path, classes: Any) -> None:
    write_reference(tmp_path / "a.npz", stub_reference())
    assert read_reference(tmp_path / "a.npz").classes is None
    with np.load(tmp_path / "a.npz") as file:
        values = dict(file)
    metadata = json.loads(str(values["metadata"])) | {"classes": classes}
    with pytest.raises(AdaNATError, match=r"metadata .* cannot be read"):
        read_reference(save(tmp_path / "b.npz", **values | {"metadata": np.array(json.dumps(metadata))}))


@pytest.mark.parametrize(
    ("reference", "images", "counts"),
    [
        ({1: 5, 2: 5, 3: 5}, {1, 4}, {"reference": 3, "images": 2, "shared": 1}),
        ({1: 5, 2: 5}, {2, 1}, {}),
        (None, {1}, {}),
        ({1: 5}, None, {}),
    ],
)
def test_classes_are_compared_where_both_sides_tell_theirs(reference: Any, images: Any, counts: dict[str, int]) -> None:
    assert compare_classes(reference, images) == counts


@pytest.mark.parametrize("shares", [{"top1": 0.5}, {"top1": 0.1, "top5": 0.2, "among": 1.5}, [0.1, 0.2, 0.3], 0.5])
def test_recognition_is_three_shares_and_older_files_have_none(tmp_path: Path, shares: Any) -> None:
    write_reference(tmp_path / "a.npz", stub_reference())
    assert read_reference(tmp_path / "a.npz").recognition is None
    with np.load(tmp_path / "a.npz") as archive:
        values = dict(archive)
    metadata = json.loads(str(values["metadata"])) | {"recognition": shares}
    with pytest.raises(AdaNATError, match=r"metadata .* cannot be read"):
        read_reference(save(tmp_path / "b.npz", **values | {"metadata": np.array(json.dumps(metadata))}))


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    write_reference(tmp_path / "a.npz", stub_reference())
    with np.load(tmp_path / "a.npz") as file:
        values = dict(file)
    metadata = json.loads(str(values["metadata"])) | {"format_version": 2}
    with pytest.raises(AdaNATError, match="format version 2"):
        read_reference(save(tmp_path / "b.npz", **values | {"metadata": np.array(json.dumps(metadata))}))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "evil.npz"
    save(path, **arrays(), arr_0=np.array([MakesAFile(trap)], dtype=object))
    with pytest.raises(AdaNATError, match="never loaded"):
        read_reference(path)
    assert not trap.exists()


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.npz", **arrays(), arr_0=np.zeros((64, 8, 8, 3), np.uint8)).read_bytes()
    path = tmp_path / "damaged.npz"
    for data, message in (
        (whole[: len(whole) // 2], r"no.* \.npz archive"),
        (b"", r"no.* \.npz archive"),
        (b"PK\x03\x04 and something else", r"no.* \.npz archive"),
        (whole.replace(b"NUMPY", b"NIMPY"), "damaged"),
        (whole.replace(b"(5, 5), }", b"(9, 9), }"), "damaged|expected"),
    ):
        path.write_bytes(data)
        with pytest.raises(AdaNATError, match=message):
            read_reference(path)
    # A flipped value shows in the checksum of its array.
    (tmp_path / "flipped.npz").write_bytes(whole.replace(bytes(8), bytes(7) + b"\x01"))
    with pytest.raises(AdaNATError, match="damaged"):
        Archive(tmp_path / "flipped.npz").read("arr_0")
    with pytest.raises(AdaNATError, match="does not exist"):
        read_reference(tmp_path / "none.npz")
    with pytest.raises(AdaNATError, match=r"no.* \.npz archive"):
        read_reference(Path(__file__))


def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(10))
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", buffer.getvalue().replace(b"(10,), }            ", b"(10000000000000,), }"))
    with pytest.raises(AdaNATError, match="does not fit its shape"):
        Archive(path).read("mu")


def test_arrays_in_column_order_are_read_whole_and_not_in_parts(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    archive = Archive(save(tmp_path / "a.npz", x=values, s=np.float64(1)))
    np.testing.assert_array_equal(archive.read("x"), values)
    assert archive.read("s").shape == ()
    for name in ("x", "s"):
        with pytest.raises(AdaNATError, match="row by row"):
            next(archive.parts(name, 2))


def test_features_of_other_formats_become_float32(tmp_path: Path) -> None:
    features = draw(4, 5).half().numpy()
    moments = {name: value.astype(">f8") for name, value in arrays().items()}
    reference = read_reference(save(tmp_path / "a.npz", **moments, features=features))
    assert reference.features is not None
    assert reference.features.dtype == torch.float32
    torch.testing.assert_close(reference.features, torch.from_numpy(features).float())
    torch.testing.assert_close(reference.gaussian, gaussian())
    assert replace(reference, sha256="") != reference


def write_npy(path: Path, name: str, header: str, content: bytes) -> None:
    """Put an array with any header into a new archive."""
    padded = header.encode("latin-1") + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + content)


@pytest.mark.parametrize(
    "header",
    [
        "(" * 9000 + ")" * 9000,
        "-" * 9000 + "1",
        "[" * 90 + "]" * 90,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1" + "0" * 5000 + ",)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': 4}",
        "{'descr': ['<f8'], 'fortran_order': False, 'shape': (4,)}",
        "{'descr': [('a', '<f8', (2, 2))], 'fortran_order': 1, 'shape': (1,)}",
        "{'descr': '<U1', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<f8', [1]: 2}",
    ],
)
def test_a_header_of_any_kind_is_refused_in_one_line(tmp_path: Path, header: str) -> None:
    write_npy(tmp_path / "a.npz", "mu", header, bytes(32))
    with pytest.raises(AdaNATError, match=r"damaged|pickled") as caught:
        Archive(tmp_path / "a.npz").read("mu")
    assert "\n" not in str(caught.value)


def test_what_expands_to_gigabytes_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_MAX_BYTES", 2**20)
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((2**18 + 1, 4), np.uint8))
    archive = Archive(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < 2**12
    for whole in (lambda: archive.read("features"), lambda: list(archive.parts("features", 2**20))):
        with pytest.raises(AdaNATError, match="GiB of memory"):
            whole()
    assert sum(len(part) for part in archive.parts("features", 2**10)) == 2**18 + 1


def test_one_wrong_value_in_the_metadata_is_one_line(tmp_path: Path) -> None:
    whole = replace(stub_reference(), classes={3: 40}, recognition=Recognition(0.25, 0.5, 1.0))
    write_reference(tmp_path / "whole.npz", whole)
    with np.load(tmp_path / "whole.npz") as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    for what, changed in mutations(json.loads(str(parts["metadata"])), sparse=7):
        np.savez(tmp_path / "a.npz", **{**parts, "metadata": np.array(as_json(changed))})
        try:
            read_reference(tmp_path / "a.npz")
            message = ""
        except AdaNATError as error:
            message = str(error)
        assert "\n" not in message, what
        assert len(message) < 1000, what
