"""Push a model or a token set to the Hub, with a card that says how to use it and lists its results."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.card import is_handwritten, model_card
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import CARD_FILE, FURTHER_FILES, INDEX_FILE, LABELS_FILE, TEXT
from adanat_cli.core.checkpoints.hub import check_account, upload
from adanat_cli.core.checkpoints.portable import portable
from adanat_cli.core.config.share_requests import PushRequest
from adanat_cli.core.data.token_card import token_set_card
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import SUMMARY, shard_files
from adanat_cli.core.errors import require
from adanat_cli.core.hub import HubId, RepoType
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.group import is_main_process
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.share.card_pictures import draw_pictures


def check_push(repo: str) -> HubId:
    """Check id, token and account of a push at the end of a long run before the run starts.

    Raises:
        AdaNATError: if the push would be refused.
    """
    hub_id = HubId.parse(repo, "--push-to-hub")
    # One process pushes, and the Hub limits how often it answers this question.
    if is_main_process():
        check_account(hub_id)
    return hub_id


def push(request: PushRequest, reporter: Reporter) -> dict[str, Any]:
    """Push a model or a token set as one commit.

    Returns:
        URL, repository, branch, commit, and the size of each file in bytes.

    Raises:
        AdaNATError: if there is nothing to push, or the Hub, the account or the network prevents it.
    """
    hub_id = HubId.parse(request.repo, "Target")
    # An empty name, as of an unset variable in a script, would publish the embedded model or the current folder.
    require(bool(request.source), "Nothing to push was named; give a model folder or name, or a token set's folder.")
    require(request.num_images >= 0, f"--samples is {request.num_images}; expected 0 or more.")
    check_account(hub_id)
    with tempfile.TemporaryDirectory(prefix="adanat-push-") as temporary:
        if request.kind == "tokens":
            files = _token_files(Path(request.source), hub_id, Path(temporary))
        else:
            files = _model_files(request, hub_id, Path(temporary), reporter)
        sizes = {name: file.stat().st_size for name, file in files.items()}
        reporter.log(f"Pushing {len(files)} files, {sum(sizes.values()) / 1e6:.1f} MB, to {hub_id}.")
        repo_type: RepoType = "dataset" if request.kind == "tokens" else "model"
        message = request.message or f"Upload with adanat push ({request.kind})"
        address, commit = upload(hub_id, files, repo_type, message, request.private)
    return {
        "url": address,
        "repo": hub_id.repo,
        "revision": hub_id.revision or "main",
        "commit": commit,
        "files": sizes,
    }


def _model_files(request: PushRequest, hub_id: HubId, temporary: Path, reporter: Reporter) -> dict[str, Path]:
    """Path in the repository -> file: all that the index lists, and a new card with pictures in ``temporary``."""
    folder = resolve_model(request.source)
    components = folder.index.components
    require(bool(components), f"Model {folder.name} has no components to push; give another model.")
    files = {INDEX_FILE: folder.path / INDEX_FILE}
    for component in components:
        folder.header(component)  # finds a truncated file before it is pushed
        files |= folder.files(component)
    if folder.labels():
        files[LABELS_FILE] = folder.path / LABELS_FILE
    files = {name: _portable(name, file, temporary) for name, file in files.items()}
    if is_handwritten(folder.card()):
        reporter.log(f"{folder.path / CARD_FILE} was written by hand and is pushed unchanged.")
        return {**files, CARD_FILE: folder.path / CARD_FILE}
    details = draw_pictures(folder, temporary, request.num_images, request.device, reporter)
    details = replace(details, repo=str(hub_id), license=request.license)
    card = temporary / CARD_FILE
    card.write_text(model_card(folder, details), encoding="utf-8", errors="backslashreplace")
    return {**files, CARD_FILE: card, **{name: temporary / name for name in details.pictures}}


def _portable(name: str, file: Path, temporary: Path) -> Path:
    """The file, or a copy of it without the local paths that JSON of an older edition may contain."""
    if file.suffix != ".json" or (values := read_json(file)) == (kept := portable(values)):
        return file
    write_json(temporary / "public" / name, kept)
    return temporary / "public" / name


def _token_files(source: Path, hub_id: HubId, temporary: Path) -> dict[str, Path]:
    """Path in the repository -> file: shards, states of encoded captions, summary and a new card in ``temporary``.

    Raises:
        AdaNATError: if the token set is incomplete.
    """
    tokens = TokenSet.open(source)
    card = temporary / CARD_FILE
    card.write_text(token_set_card(tokens.info, len(tokens), str(hub_id)), encoding="utf-8", errors="backslashreplace")
    files = [*shard_files(source), *sorted(source.glob("*.states.npy")), source / SUMMARY]
    if tokens.states is not None and (source / TEXT).is_dir():
        files += [source / TEXT / name for name in ("config.json", "model.safetensors", *FURTHER_FILES[TEXT])]
    return {**{str(file.relative_to(source)): file for file in files}, CARD_FILE: card}
