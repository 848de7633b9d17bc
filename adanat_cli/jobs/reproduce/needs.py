"""The files that a published figure takes: which are here, where the others are, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.checkpoints.hub import cached_file, file_facts
from adanat_cli.core.config import BENCHMARKS, Benchmark
from adanat_cli.core.config.published import PUBLISHED
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.resolve.inception_weights import (
    CLEAN_URL,
    INCEPTION_URL,
    cache_folder,
    found_inception,
    published_hash,
)
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.registry import PULLED, known_models
from adanat_cli.jobs.share.benchmarks import describe_benchmark

_INCEPTION_BYTES, _FLOAT_BYTES = 95_000_000, 4


@dataclass(frozen=True)
class Need:
    """One thing that a measurement takes.

    Attributes:
        part: what it is for, such as "nat".
        file: its name.
        here: where it is on this machine; "" if it is missing.
        place: where it can be had.
        by_hand: whether no command fetches it.
        num_bytes: its size; 0 if unknown.
        is_exact: whether the size is known rather than estimated from the number of weights.
        sha256: its hash, or the first digits of it; "" if unknown.
        advice: what to do about it where it is missing.
    """

    part: str
    file: str
    here: str
    place: str = ""
    by_hand: bool = False
    num_bytes: int = 0
    is_exact: bool = False
    sha256: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


def needs_of(request: ReproduceRequest, steps: tuple[int, ...]) -> list[Need]:
    """What the figures of a benchmark take, at these numbers of steps.

    Raises:
        AdaNATError: if a given model or file does not exist.
    """
    benchmark = BENCHMARKS[request.name]
    folder = model_folder(request)
    needs = [_weights(request, folder, part) for part in ("tokenizer", "nat", *map(policy_component, steps))]
    needs += [_reference(request), *_inception(request)]
    return [*needs, *_text(request, benchmark)]


def with_facts(needs: list[Need]) -> list[Need]:
    """Add what the Hub says of the missing files that are there, as far as it can be reached."""
    found, reachable = [], True
    for need in needs:
        repo, _, file = need.place.partition(": ")
        if reachable and file and not need.here:
            try:
                num_bytes, sha256 = file_facts(HubId.parse(repo), file)
                need = replace(need, num_bytes=num_bytes, is_exact=True, sha256=sha256)
            except AdaNATError:
                reachable = False
        found.append(need)
    return found


def model_folder(request: ReproduceRequest) -> ModelFolder:
    """The model to measure, which may lack parts.

    Raises:
        AdaNATError: if another than the authors' is given and there is none.
    """
    return resolve_model(request.model) if request.model else ModelFolder(PULLED / request.name)


def reference_file(request: ReproduceRequest) -> Path | None:
    """The reference statistics on this machine, if they are here.

    Raises:
        AdaNATError: if a given file does not exist.
    """
    if request.reference is not None:
        if not request.reference.is_file():
            raise AdaNATError(f"--ref {request.reference} does not exist; give a file of reference statistics.")
        return request.reference
    place = PUBLISHED[request.name].reference
    kept = cache_folder() / Path(place.file).name
    if kept.is_file():
        return kept
    return cached_file(HubId(place.repo), place.file) if place.repo else None


def _weights(request: ReproduceRequest, folder: ModelFolder, part: str) -> Need:
    """One network of the model."""
    name, known = request.name, known_models().get(request.name)
    source = next((one for one in known.sources if one.component == part), None) if known else None
    file = source.file if source else f"{part}/model.safetensors"
    if folder.exists() and folder.has(part):
        return Need(part, file, folder.name)
    if request.model:
        advice = f"model {folder.name} lacks it; {_making(name, part, folder.name)}"
        return Need(part, file, "", by_hand=True, advice=advice)
    size = _FLOAT_BYTES * describe_benchmark(name)["parameters"][part.partition("/")[0].replace("policies", "policy")]
    if source and source.repo:
        return Need(part, file, "", f"{source.repo}: {file}", False, size, advice=f"adanat pull {name}")
    if source:
        if request.tokenizer_file is not None and request.tokenizer_file.is_file():
            return Need(part, file, str(request.tokenizer_file))
        if request.tokenizer_file is not None:
            raise AdaNATError(
                f"--tokenizer-file {request.tokenizer_file} does not exist; download it from {source.page}."
            )
        advice = f"download it and add --tokenizer-file {Path(file).name}"
        return Need(part, file, "", source.page, True, size, advice=advice)
    number = part.rpartition("-")[2]
    if number.isdecimal() and (place := PUBLISHED[name].policies.get(int(number))):
        advice = f"download it, then: adanat import FILE --steps {number} --output {PULLED / name}"
        return Need(part, place.file, "", place.page, True, advice=advice)
    if part == "tokenizer":
        return _shared_tokenizer(name, size)
    advice = f"no published file is known; {_making(name, part, str(PULLED / name))}"
    return Need(part, file, "", by_hand=True, num_bytes=size, advice=advice)


def _shared_tokenizer(name: str, num_bytes: int) -> Need:
    """The tokenizer of a benchmark whose model is not published: all have the same."""
    source = known_models()["imagenet256"].sources[0]
    advice = (
        f"download it, then: adanat import {source.file} --output {PULLED / name} --image-size "
        f"{BENCHMARKS[name].image_size}"
    )
    return Need("tokenizer", source.file, "", source.page, True, num_bytes, advice=advice)


def _making(name: str, part: str, model: str) -> str:
    """How a network of one's own is made."""
    if part == "tokenizer":
        return "take that of another benchmark, or `adanat import` one"
    if part == "nat":
        return f"train one: adanat pretrain-nat --dataset {name} --tokens TOKENS --model {model}"
    number = part.rpartition("-")[2]
    return f"train one: adanat train-policy --dataset {name} --model {model} --steps {number} --recipe paper --install"


def _reference(request: ReproduceRequest) -> Need:
    """The statistics of real images."""
    place = PUBLISHED[request.name].reference
    name = Path(place.file).name
    if here := reference_file(request):
        return Need("reference", here.name, str(here))
    if place.repo:
        where = f"{place.repo}: {place.file}"
        return Need("reference", name, "", where, num_bytes=place.num_bytes, advice="fetched by this command")
    advice = f"download it, and add --ref {name} or put it at {cache_folder() / name}"
    return Need("reference", name, "", place.page, True, place.num_bytes, sha256=place.sha256, advice=advice)


def _inception(request: ReproduceRequest) -> Iterator[Need]:
    """The Inception network, where the protocol needs it."""
    protocol = request.protocol or BENCHMARKS[request.name].protocol
    if protocol not in ("adm", "paper", "clean"):
        return
    url = CLEAN_URL if protocol == "clean" else INCEPTION_URL
    name, here = url.rpartition("/")[2], found_inception(request.inception, url)
    by_hand = protocol == "clean"  # its hash is not published
    advice = f"put it at {cache_folder() / name}, or add --inception {name}" if by_hand else "fetched by this command"
    yield Need("inception", name, here, url, by_hand, _INCEPTION_BYTES, False, published_hash(name), advice)


def _text(request: ReproduceRequest, benchmark: Benchmark) -> Iterator[Need]:
    """Captions and their encoder, where the benchmark is of text."""
    if benchmark.condition != "text":
        return
    advice = "pip install 'adanat[text]'"
    here = "installed" if find_spec("transformers") else ""
    yield Need("text encoder", benchmark.text_encoder, here, benchmark.text_encoder, not here, advice=advice)
    number = f"{benchmark.eval_images:,} captions"
    if request.prompts_file or request.data_dir:
        yield Need("captions", number, str(request.prompts_file or request.data_dir))
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", benchmark.source):
        yield Need("captions", number, "", benchmark.source, advice="read from the Hub by this command, or --data-dir")
    else:
        advice = f"give --data-dir ({benchmark.layout}), or --prompts FILE with one caption a line"
        yield Need("captions", number, "", benchmark.source, True, advice=advice)
