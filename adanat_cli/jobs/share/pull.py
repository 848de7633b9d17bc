"""Fetch a model: from the Hub, or by a known name from the place where its authors published it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.files import atomic_path, check_writable
from adanat_cli.core.checkpoints.folder import CARD_FILE, TEXT, ModelFolder, policy_component
from adanat_cli.core.checkpoints.hub import HubFolder, commit_of, fetch_file
from adanat_cli.core.config.share_requests import ImportRequest, PullRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.resolve.models import model_names, resolve_model
from adanat_cli.jobs.resolve.registry import KnownModel, WeightSource, known_models
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.share.import_weights import check_output, import_weights


def pull(request: PullRequest, reporter: Reporter) -> dict[str, Any]:
    """Fetch the requested components that are not on this machine yet.

    Returns:
        Folder of the model, size of each component in bytes, and components that have to be downloaded by hand.

    Raises:
        AdaNATError: if there is no such model or component, or a transfer fails; complete components are kept.
    """
    known = known_models().get(request.name)
    require(
        known is not None or request.tokenizer_file is None,
        f"--tokenizer-file is for known models ({', '.join(known_models())}), not for {request.name}.",
    )
    if known is not None:
        output = ModelFolder(request.output or known.folder)
        with output_held(output.path):
            return _pull_known(known, request, output, reporter)
    names = [*model_names(), *known_models()]
    require(
        "/" in request.name or request.name in names,
        f"Model {request.name!r} is not a known name ({', '.join(names)}); expected one of them or a Hub id user/repo.",
    )
    if request.name in model_names():
        source = resolve_model(request.name)
    else:
        source = HubFolder(HubId.parse(request.name, "Model"))
    names = _wanted(request, source.index.components, source.name)
    if request.output is None:
        _fetch(source, names, reporter)
        return _result(source, names, [])
    output = ModelFolder(request.output)
    with output_held(output.path):
        _copy(source, names, output, request.replace, reporter)
    return _result(output, names, [])


def _wanted(request: PullRequest, available: Sequence[str], model: str) -> list[str]:
    """The requested components, in the model's order.

    Raises:
        AdaNATError: if the model lacks one.
    """
    require("" not in request.components, "--component is empty; give a part such as nat, or leave it out for all.")
    requested = set(request.components)
    if request.num_steps is not None:
        requested |= {"tokenizer", "nat", policy_component(request.num_steps), *({TEXT} & set(available))}
    missing = sorted(requested - set(available))
    require(not missing, f"Model {model} has no {', '.join(missing)}; choose among {', '.join(available)}.")
    return [name for name in available if name in requested or not requested]


def _fetch(source: ModelFolder, names: Sequence[str], reporter: Reporter) -> None:
    """Fetch components, labels and card into the cache of the Hub's client."""
    with reporter.task("Fetching", len(names), "components") as task:
        for name in names:
            source.files(name)
            task.advance(1)
    source.labels()
    source.card()


def _copy(source: ModelFolder, names: Sequence[str], output: ModelFolder, replacing: bool, reporter: Reporter) -> None:
    """Write components into a folder one by one, each of them complete or not at all."""
    check_output(output)
    check_writable(output.path)
    index = source.index
    present = output.index.components if output.exists() else ()
    origin = {"hub": str(source.hub_id)} if isinstance(source, HubFolder) else {}
    with reporter.task("Fetching", len(names), "components") as task:
        for name in names:
            same = name in present and _identity(output, name) == _identity(source, name)
            require(
                same or replacing or name not in present,
                f"{output.name} has another {name} than {source.name}; add --replace, or choose another --output.",
            )
            if not same:
                part = source.component(name)
                part = replace(part, provenance={**part.provenance, **origin})
                output.write_all([part], image_size=index.image_size or None)
            output.take_references(source, name)
            task.advance(1)
    if (labels := source.labels()) and not output.labels():
        output.write_labels(labels)
    if index.results:
        output.put_results(index.results)
    if (card := source.card()) and not output.card():
        with atomic_path(output.path / CARD_FILE) as temporary:
            temporary.write_text(card, encoding="utf-8")


def _identity(folder: ModelFolder, component: str) -> tuple[str, dict[str, Any]]:
    return folder.fingerprint(component), folder.config(component)


def _pull_known(known: KnownModel, request: PullRequest, output: ModelFolder, reporter: Reporter) -> dict[str, Any]:
    """Fetch a published model's files and convert each into a component."""
    check_output(output)
    check_writable(output.path)
    names = _wanted(request, [source.component for source in known.sources], known.name)
    sources = [source for source in known.sources if source.component in names]
    missing, failed = [], []
    for source in sources:
        given = request.tokenizer_file if source.component == "tokenizer" else None
        if output.exists() and output.has(source.component) and not request.replace:
            continue
        if not source.repo and given is None:
            missing.append({"component": source.component, "file": source.file, "page": source.page})
            continue
        try:
            _import(source, given, output, request.replace, reporter)
        except AdaNATError as error:
            failed.append(f"{source.component}: {error}")
    if failed:
        present = ", ".join(output.index.components) if output.exists() else "nothing yet"
        raise AdaNATError(f"{output.name} has {present}; could not fetch {' '.join(failed)}")
    if not output.exists():
        part = missing[0]
        raise AdaNATError(
            f"The {part['component']} of {known.name} is not on the Hub; download {part['file']} from {part['page']} "
            "and give it as --tokenizer-file."
        )
    write_card(output)
    return _result(output, [name for name in names if output.has(name)], missing)


def _import(source: WeightSource, given: Path | None, output: ModelFolder, replace: bool, reporter: Reporter) -> None:
    """Convert one file, from the Hub or given by the user, and record its origin."""
    if given is not None:
        file, origin = given, {"page": source.page}
    else:
        reporter.log(f"Fetching {source.file} from {source.repo}.")
        file = fetch_file(HubId(source.repo, source.revision), source.file)
        origin = {"hub": f"{source.repo}@{commit_of(file, source.file)}", "path": source.file}
    request = ImportRequest(
        files=(file,),
        output=output.path,
        kind=source.kind,
        num_steps=source.num_steps,
        replace=replace,
        origin={**origin, "license": source.license},
    )
    import_weights(request, reporter)


def _result(folder: ModelFolder, names: Sequence[str], missing: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "model": str(folder.path),
        "components": {name: folder.header(name).num_bytes for name in names},
        "missing": missing,
    }
