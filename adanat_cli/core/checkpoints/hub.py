"""Models and token sets on the Hugging Face Hub: fetched piece by piece, and pushed as one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.folder import (
    CARD_FILE,
    INDEX_FILE,
    LABELS_FILE,
    REFERENCE_FILE,
    ModelFolder,
)
from adanat_cli.core.checkpoints.header import Header
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import HubId, RepoType, hub_errors, is_final, is_unreachable

if TYPE_CHECKING:
    pass

_COMMIT = re.compile(r"[0-9a-f]{40}")
_OPTIONAL = (LABELS_FILE, CARD_FILE, REFERENCE_FILE)
_NUM_THREADS = 4


class HubFolder(ModelFolder):
    """A model on the Hub: a component comes into the client's cache when it is read, and no sooner.

    The revision is settled once, so all components are of one commit. Only ``model_index.json``, ``labels.json``,
    ``README.md``, the components' JSON and safetensors, and ``features/reference.npz`` are ever asked for.
    """

    writable = False

    def __init__(self, hub_id: HubId) -> None:
        """Fetch the index.

        Raises:
            AdaNATError: if there is no such model, or it can be had neither from the Hub nor from the cache.
        """
        try:
            index = fetch_file(hub_id, INDEX_FILE)
        except AdaNATError as error:
            if not _is_absent(error):
                raise
            raise AdaNATError(
                f"{hub_id} on the Hub is no model of this toolkit: it holds no {INDEX_FILE}; give another, or convert "
                "the authors' weights with `adanat pull NAME` or `adanat import`."
            ) from error
        super().__init__(index.parent)
        self.hub_id = HubId(hub_id.repo, index.parent.name)
        self._shown = str(hub_id)

    @property
    def name(self) -> str:
        """The id that was given."""
        return self._shown

    @property
    def title(self) -> str:
        """The repository's name."""
        return self.hub_id.repo.rsplit("/", 1)[-1]

    def header(self, component: str) -> Header:
        """Shapes and metadata of a component's weights, of which only the first bytes are fetched."""
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        file = f"{component}/model.safetensors"
        repo, revision = self.hub_id.repo, self.hub_id.revision
        if not self.has(component) or isinstance(try_to_load_from_cache(repo, file, revision=revision), str):
            return super().header(component)
        with hub_errors("look into", self.name):
            told = HfApi().parse_safetensors_file_metadata(repo, file, revision=revision)
            size = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).size
        shapes = {name: tuple(tensor.shape) for name, tensor in told.tensors.items()}
        dtypes = tuple(sorted({tensor.dtype for tensor in told.tensors.values()}))
        return Header(shapes, dtypes, size or 0, told.metadata)

    def _provide(self, file: str) -> None:
        """Bring a file of the settled commit into the cache; optional ones may be missing."""
        if (self.path / file).exists():
            return
        from huggingface_hub import try_to_load_from_cache

        repo, revision = self.hub_id.repo, self.hub_id.revision
        known = try_to_load_from_cache(repo, file, revision=revision)
        if known is not None and not isinstance(known, str) and file in _OPTIONAL:
            return  # the cache remembers that there is none
        try:
            fetch_file(self.hub_id, file, shown=self.name)
        except AdaNATError as error:
            if file not in _OPTIONAL or not _is_absent(error):
                raise


def fetch_file(hub_id: HubId, file: str, repo_type: RepoType = "model", shown: str = "") -> Path:
    """Bring one file into the client's cache, or find it there.

    The client resumes a transfer that breaks off, and falls back on its cache where the Hub cannot be reached.

    Args:
        hub_id: where it is.
        file: its path in the repository.
        repo_type: of the repository.
        shown: what to call the repository; the id by default.

    Raises:
        AdaNATError: if it cannot be had.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    repo, revision = hub_id.repo, hub_id.revision or None
    with hub_errors("fetch", shown or hub_id, repo_type):
        cached = try_to_load_from_cache(repo, file, revision=revision, repo_type=repo_type)
        if isinstance(cached, str) and _COMMIT.fullmatch(hub_id.revision):
            return Path(cached)
        try:
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision, repo_type=repo_type))
        except Exception as error:
            if isinstance(cached, str) and is_unreachable(error):
                return Path(cached)
            # What follows would ask again for most of a minute; of an absent file it makes a note in the cache.
            if is_final(error) and not isinstance(error, RemoteEntryNotFoundError):
                raise
        return Path(hf_hub_download(repo, file, revision=revision, repo_type=repo_type))


def commit_of(fetched: Path, file: str) -> str:
    """The commit of a file that ``fetch_file`` has brought."""
    return fetched.parts[-1 - len(PurePosixPath(file).parts)]


def fetch_folder(hub_id: HubId, patterns: Sequence[str], repo_type: RepoType = "model") -> Path:
    """Bring the files whose names match into the client's cache.

    Returns:
        The folder that holds them.

    Raises:
        AdaNATError: if they cannot be had.
    """
    from huggingface_hub import snapshot_download

    with hub_errors("fetch", hub_id, repo_type):
        return Path(
            snapshot_download(
                hub_id.repo,
                repo_type=repo_type,
                revision=hub_id.revision or None,
                allow_patterns=list(patterns),
                max_workers=_NUM_THREADS,
            )
        )


@dataclass(frozen=True)
class Upload:
    """What to push.

    Attributes:
        hub_id: where to; its revision is a branch, made if missing.
        files: name in the repository -> file here.
        repo_type: "model" or "dataset".
        message: of the commit.
        private: whether a new repository is private; an existing public one is refused.
    """

    hub_id: HubId
    files: Mapping[str, Path]
    repo_type: RepoType
    message: str
    private: bool = False


def upload(request: Upload) -> tuple[str, str]:
    """Push files as one commit: they are all there afterwards, or none.

    Returns:
        Address of the repository, and the commit.

    Raises:
        AdaNATError: if that fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repo, revision, repo_type = request.hub_id.repo, request.hub_id.revision, request.repo_type
    api = HfApi()
    with hub_errors("push to", request.hub_id, repo_type):
        address = str(api.create_repo(repo, repo_type=repo_type, private=request.private or None, exist_ok=True))
        if request.private:
            require(
                bool(api.repo_info(repo, repo_type=repo_type).private),
                f"{repo} is on the Hub already and is public; nothing was pushed. Make it private on its page, or "
                "leave --private out.",
            )
        if revision:
            api.create_branch(repo, branch=revision, repo_type=repo_type, exist_ok=True)
        done = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(file)) for name, file in request.files.items()],
            commit_message=request.message,
            repo_type=repo_type,
            revision=revision or None,
            num_threads=_NUM_THREADS,
        )
    return address, str(done.oid)


def check_account(hub_id: HubId) -> str:
    """Make sure that there is a token, that it is valid and that its account may be the owner; returns the account.

    Raises:
        AdaNATError: if not.
    """
    from huggingface_hub import HfApi

    with hub_errors("push to", hub_id):
        told = HfApi().whoami()
    owner, name = hub_id.repo.partition("/")[0], str(told["name"])
    owners = [name, *(str(group["name"]) for group in told.get("orgs", []))]
    expected = " or ".join(f"{one}/…" for one in owners)
    require(owner in owners, f"You are {name} on the Hub and cannot push to {hub_id.repo}; expected {expected}.")
    return name


def _is_absent(error: AdaNATError) -> bool:
    """Whether the repository is there, but not the file."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error.__cause__, RemoteEntryNotFoundError)
