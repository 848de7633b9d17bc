"""Models and token sets on the Hugging Face Hub: fetched file by file, and pushed as one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from adanat_cli.core.checkpoints.folder import CARD_FILE, INDEX_FILE, LABELS_FILE, REFERENCE_FILES, ModelFolder
from adanat_cli.core.checkpoints.header import Header
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import HubId, RepoType, hub_errors, is_final, is_unreachable

_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_OPTIONAL = (LABELS_FILE, CARD_FILE, *REFERENCE_FILES.values())
_NUM_THREADS = 4


class HubFolder(ModelFolder):
    """A model on the Hub: a component is fetched into the client's cache when it is read, and not before.

    The revision is resolved once, so all components are from one commit. Only ``model_index.json``, ``labels.json``,
    ``README.md``, the components' JSON and safetensors, and the ``REFERENCE_FILES`` are ever requested.
    """

    writable = False

    def __init__(self, hub_id: HubId) -> None:
        """Fetch the index.

        Raises:
            AdaNATError: if there is no such model, or neither the Hub nor the cache provides it.
        """
        try:
            index = fetch_file(hub_id, INDEX_FILE)
        except AdaNATError as error:
            if not _is_absent(error):
                raise
            raise AdaNATError(
                f"{hub_id} on the Hub is not a model of adanat: it has no {INDEX_FILE}; give another, or convert the "
                "authors' weights with `adanat pull NAME` or `adanat import`."
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
        """Shapes and metadata of a component's weights; only the header of the file is fetched."""
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        file = f"{component}/model.safetensors"
        repo, revision = self.hub_id.repo, self.hub_id.revision
        if not self.has(component) or isinstance(try_to_load_from_cache(repo, file, revision=revision), str):
            return super().header(component)
        with hub_errors("look into", self.name):
            metadata = HfApi().parse_safetensors_file_metadata(repo, file, revision=revision)
            size = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).size
        shapes = {name: tuple(tensor.shape) for name, tensor in metadata.tensors.items()}
        dtypes = tuple(sorted({tensor.dtype for tensor in metadata.tensors.values()}))
        return Header(shapes, dtypes, size or 0, metadata.metadata)

    def _provide(self, file: str) -> None:
        """Fetch a file of the resolved commit into the cache; optional ones may be missing."""
        if (self.path / file).exists():
            return
        from huggingface_hub import try_to_load_from_cache

        repo, revision = self.hub_id.repo, self.hub_id.revision
        known = try_to_load_from_cache(repo, file, revision=revision)
        if known is not None and not isinstance(known, str) and file in _OPTIONAL:
            return  # the cache records that there is none
        try:
            fetch_file(self.hub_id, file, shown=self.name)
        except AdaNATError as error:
            if file not in _OPTIONAL or not _is_absent(error):
                raise


def fetch_file(hub_id: HubId, file: str, shown: str = "") -> Path:
    """Fetch one file of a model into the client's cache, or find it there.

    The client resumes an interrupted transfer, and uses its cache if the Hub cannot be reached.

    Args:
        hub_id: repository and revision.
        file: path in the repository.
        shown: name of the repository in messages; the id by default.

    Raises:
        AdaNATError: if the file cannot be fetched.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    repo, revision = hub_id.repo, hub_id.revision or None
    with hub_errors("fetch", shown or hub_id):
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str) and _COMMIT.fullmatch(hub_id.revision):
            return Path(cached)
        try:
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
        except Exception as error:
            if isinstance(cached, str) and is_unreachable(error):
                return Path(cached)
            # The download below would retry for most of a minute; an absent file it records in the cache.
            if is_final(error) and not isinstance(error, RemoteEntryNotFoundError):
                raise
        return Path(hf_hub_download(repo, file, revision=revision))


def cached_file(hub_id: HubId, file: str) -> Path | None:
    """One file in the client's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id.repo, file, revision=hub_id.revision or None)
    return Path(found) if isinstance(found, str) else None


def file_facts(hub_id: HubId, file: str) -> tuple[int, str]:
    """Size of a file in bytes, and its sha256 in hexadecimal digits ("" for a small one), without fetching it.

    Raises:
        AdaNATError: if the Hub cannot be asked, or has no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with hub_errors("look into", hub_id):
        about = get_hf_file_metadata(hf_hub_url(hub_id.repo, file, revision=hub_id.revision or None))
    tag = str(about.etag or "")
    return about.size or 0, tag if _SHA256.fullmatch(tag) else ""


def commit_of(fetched: Path, file: str) -> str:
    """Commit of a file in the cache, as ``fetch_file`` returns it."""
    return fetched.parts[-1 - len(PurePosixPath(file).parts)]


def fetch_folder(hub_id: HubId, patterns: Sequence[str], repo_type: RepoType = "model") -> Path:
    """Fetch the files whose names match a pattern into the client's cache.

    Returns:
        Folder of the files.

    Raises:
        AdaNATError: if they cannot be fetched.
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


def upload(
    hub_id: HubId, files: Mapping[str, Path], repo_type: RepoType, message: str, private: bool = False
) -> tuple[str, str]:
    """Push files as one commit, all or none.

    Args:
        hub_id: repository and branch, which are made if missing.
        files: path in the repository -> local file.
        repo_type: "model" or "dataset".
        message: commit message.
        private: whether a new repository is private; an existing public one is refused.

    Returns:
        URL of the repository, and the commit.

    Raises:
        AdaNATError: if the Hub, the account or the network prevents it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repo, revision = hub_id.repo, hub_id.revision
    api = HfApi()
    with hub_errors("push to", hub_id, repo_type):
        address = str(api.create_repo(repo, repo_type=repo_type, private=private or None, exist_ok=True))
        if private:
            require(
                bool(api.repo_info(repo, repo_type=repo_type).private),
                f"{repo} is on the Hub already and public, so nothing was pushed; make it private there, or leave "
                "--private out.",
            )
        if revision:
            api.create_branch(repo, branch=revision, repo_type=repo_type, exist_ok=True)
        done = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(file)) for name, file in files.items()],
            commit_message=message,
            repo_type=repo_type,
            revision=revision or None,
            num_threads=_NUM_THREADS,
        )
    return address, str(done.oid)


def check_account(hub_id: HubId) -> str:
    """Check that there is a valid token whose account owns the repository; return the account's name.

    Raises:
        AdaNATError: if not.
    """
    from huggingface_hub import HfApi

    with hub_errors("push to", hub_id):
        account = HfApi().whoami()
    owner, name = hub_id.repo.partition("/")[0], str(account["name"])
    owners = [name, *(str(group["name"]) for group in account.get("orgs", []))]
    expected = " or ".join(f"{one}/…" for one in owners)
    require(owner in owners, f"You are {name} on the Hub and cannot push to {hub_id.repo}; expected {expected}.")
    return name


def _is_absent(error: AdaNATError) -> bool:
    """Whether the repository exists, but not the file."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error.__cause__, RemoteEntryNotFoundError)
