"""From the name of a protocol to an extractor that is ready to run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from adanat_cli.core.checkpoints.entries import choose, entries
from adanat_cli.core.checkpoints.files import fingerprint
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.foreign import read_foreign
from adanat_cli.core.checkpoints.strict import load_strict
from adanat_cli.core.efficientnet import EfficientNet, Variant
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.inception import InceptionV3
from adanat_cli.core.metrics.protocols import (
    CleanExtractor,
    EfficientNetExtractor,
    InceptionExtractor,
    SmallExtractor,
    TimmExtractor,
)
from adanat_cli.core.metrics.references import Reference, check_reference
from adanat_cli.core.pretrained import load_timm
from adanat_cli.core.reading import sha256_of
from adanat_cli.jobs.resolve.inception_weights import INCEPTION_URL, clean_weights, inception_weights, published_hash
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.devices import Processes
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter

_PROTOCOLS = ("adm", "paper", "clean", "efficientnet", "efficientnet-lite0", "small")
_TIMM = "timm/"
_COUNTER = "num_batches_tracked"
_MARK = "Conv2d_1a_3x3.conv.weight"


def check_protocol(protocol: str) -> None:
    """Refuse a name that is no protocol.

    Raises:
        AdaNATError: naming the protocols.
    """
    require(
        protocol in _PROTOCOLS or protocol.startswith(_TIMM),
        f"Protocol {protocol!r} is not known; expected {', '.join(_PROTOCOLS)} or timm/NAME.",
    )


def load_extractor(
    protocol: str,
    processes: Processes | None = None,
    *,
    folder: ModelFolder | None = None,
    inception: Path | None = None,
    reporter: Reporter | None = None,
) -> Extractor:
    """Load the network of a protocol.

    Args:
        protocol: "adm", "paper", "clean", "efficientnet", "efficientnet-lite0", "small", "timm/NAME" or
            "timm/NAME=FILE.safetensors".
        processes: processes that call this together; None for this one alone, on the CPU.
        folder: the model whose ``features/`` protocol small takes.
        inception: file of weights, or a folder that holds it; see ``inception_weights`` and ``clean_weights``.
        reporter: shows a download, and warns of weights that are not the published ones.

    Raises:
        AdaNATError: if the protocol is not known, or its network cannot be had.
    """
    check_protocol(protocol)
    reporter = reporter or SilentReporter()
    device = processes.device if processes else torch.device("cpu")
    if protocol in ("adm", "paper"):
        path = inception_weights(inception, processes.state if processes else None, reporter)
        inception_v3, weights_hash = load_inception(path, reporter)
        return InceptionExtractor("adm" if protocol == "adm" else "paper", inception_v3.to(device), weights_hash)
    if protocol == "clean":
        file = clean_weights(inception)
        return CleanExtractor(file.parent, sha256_of(file), device)
    if protocol in ("efficientnet", "efficientnet-lite0"):
        variant: Variant = "lite1" if protocol == "efficientnet" else "lite0"
        network = EfficientNet(variant, f"Protocol {protocol}", f"--protocol timm/tf_efficientnet_{variant}.in1k")
        return EfficientNetExtractor(network.to(device))
    if protocol == "small":
        return _load_small(folder, device)
    return _load_timm(protocol.removeprefix(_TIMM), device, processes)


def extractor_of(
    reference: Reference, processes: Processes, reporter: Reporter, folder: ModelFolder | None = None
) -> Extractor:
    """Load the network that a reference was made with; that of the field's files, which name none, is adm's.

    Protocol small takes the ``features/`` of ``folder``.

    Raises:
        AdaNATError: if it cannot be had, or is another one.
    """
    name = reference.extractor if reference.protocol == _TIMM.rstrip("/") else reference.protocol or "adm"
    extractor = load_extractor(name, processes, folder=folder, reporter=reporter)
    check_reference(reference, extractor)
    return extractor


def identity(extractor: Extractor) -> dict[str, str]:
    """Return what decides the features of given images, as JSON values."""
    return {"protocol": extractor.protocol, "extractor": extractor.name, "weights_hash": extractor.weights_hash}


def load_inception(path: Path, reporter: Reporter) -> tuple[InceptionV3, str]:
    """Load the Inception network, in evaluation mode and float32, with the hash of its weights.

    The hash is of the numbers, so that a copy in safetensors has the same one.

    Args:
        path: PyTorch file or safetensors; pickled code is never run.
        reporter: warns where the file is not the published one.

    Raises:
        AdaNATError: if the file is missing or damaged, or its weights do not fit the network.
    """
    weights = read_foreign(path)
    expected = published_hash(INCEPTION_URL)
    if not weights.sha256.startswith(expected):
        reporter.warn(
            f"{path} is not the published file (sha256 {weights.sha256[:12]}, published {expected}); results are "
            "comparable with others only if its weights are the same."
        )
    found = entries(weights, (_MARK,))
    require(bool(found), f"{path} holds no weights of the Inception network: it has no {_MARK}; give another file.")
    stored = found[choose(list(found), str(path))]
    numbers = {name: tensor for name, tensor in stored.items() if not name.endswith(_COUNTER)}
    # Files of old PyTorch versions lack these counters of training steps, which evaluation never reads.
    counters = {
        name.replace("running_mean", _COUNTER): torch.tensor(0) for name in numbers if name.endswith("running_mean")
    }
    return load_strict(InceptionV3, counters | numbers, str(path)), fingerprint(numbers)


def _load_small(folder: ModelFolder | None, device: torch.device) -> SmallExtractor:
    if folder is None:
        raise AdaNATError("Protocol small measures with a model's own features/; name the model with --model.")
    network = load_features(folder, device)
    if network is None:
        raise AdaNATError(
            f"Model {folder.name} has no features/ to measure with; choose another model or protocol, or train one "
            "with `adanat stats --install`."
        )
    return SmallExtractor(network, folder.fingerprint("features"))


def _load_timm(name: str, device: torch.device, processes: Processes | None) -> TimmExtractor:
    advice = "give a name that timm has weights for, or local weights with timm/NAME=FILE.safetensors"
    # The first process of a machine downloads; the others find the file.
    with processes.state.local_main_process_first() if processes else nullcontext():
        network = load_timm(name, "Feature network", advice)
    weights_hash = fingerprint(network.state_dict())
    from timm.data import resolve_model_data_config  # load_timm has said so if timm cannot be imported

    return TimmExtractor(
        name.partition("=")[0], network.eval().to(device), resolve_model_data_config(network), weights_hash
    )
