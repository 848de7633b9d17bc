"""Known models: the registry is right in form, and a pull fetches, converts and says what it could not get."""

from __future__ import annotations

import hashlib
import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.describe import model_lines
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.share_requests import PullRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.resolve import models, registry
from adanat_cli.jobs.resolve.registry import known_models
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.share.info import describe
from adanat_cli.jobs.share.pull import pull
from tests.hub.known_toy import PAGE, offer
from tests.hub.server import Fault, HubServer
from tests.jobs.share.foreign_files import saved, vqgan_state
from tests.mutations import as_json, mutations


@pytest.fixture
def authors(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """A Hub with the toy's files, and a registry with the toy."""
    offer(hub, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return hub


def pulled(**fields: Any) -> dict[str, Any]:
    return pull(PullRequest("toy", **fields), SilentReporter())


def test_the_registry_names_files_that_can_be_asked_for() -> None:
    assert set(known_models()) == {"imagenet256", "cc3m"}
    assert not set(known_models()) & set(models.model_names())
    for known in known_models().values():
        components = [source.component for source in known.sources]
        assert components[:2] == ["tokenizer", "nat"]
        for source in known.sources:
            assert bool(source.repo) != bool(source.page)
            assert not source.repo or str(HubId.parse(source.repo)) == source.repo
            assert (source.component == f"policies/steps-{source.num_steps}") == (source.kind == "policy")
            assert Path(source.file).suffix in (".pth", ".bin", ".ckpt", ".safetensors")


def test_a_known_model_is_fetched_converted_and_its_sources_noted(authors: HubServer, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="fetch it with: adanat pull toy"):
        models.resolve_model("toy")
    values = pulled()
    assert values["missing"] == [{"component": "tokenizer", "file": "vqgan.ckpt", "page": PAGE}]
    given = saved(tmp_path / "vqgan.ckpt", {"state_dict": vqgan_state()})
    authors.log.clear()
    assert pulled(tokenizer_file=given)["missing"] == []
    assert authors.log == []  # what is there is not asked for again
    folder = models.resolve_model("toy")
    assert folder.path == Path("models/toy")
    assert folder.index.components == ("tokenizer", "nat", "policies/steps-4")
    assert folder.index.image_size == 256
    repo = authors.repos["models/authors/nat"]
    provenance = folder.index.provenance["nat"]
    assert provenance["hub"] == f"authors/nat@{repo.branches['main']}"
    assert (provenance["path"], provenance["license"]) == ("assets/nat.pth", "mit")
    data = repo.commits[repo.branches["main"]]["assets/nat.pth"]
    assert provenance["sha256"] == hashlib.sha256(data).hexdigest()
    assert folder.index.provenance["tokenizer"]["page"] == PAGE
    assert "base_model:\n- authors/nat\n- authors/policies" in folder.card()
    assert (
        sample(SampleRequest(output=tmp_path / "s", model="toy", num_images=1, num_steps=4), SilentReporter())[
            "num_steps"
        ]
        == 4
    )


def test_the_command_says_what_it_got_and_what_it_could_not(authors: HubServer) -> None:
    done = CliRunner().invoke(app, ["pull", "toy", "--component", "nat", "--component", "tokenizer"])
    assert done.exit_code == 0, done.output
    first, nat, missing = done.stdout.splitlines()
    assert (first, nat.split(",")[0]) == ("Model: models/toy", "  nat")
    assert missing == (
        f"Not on the Hub: tokenizer; get vqgan.ckpt from {PAGE} and run `adanat pull toy --tokenizer-file vqgan.ckpt`."
    )
    assert not authors.asked("policies")


def test_a_part_that_fails_keeps_the_others_and_is_told(authors: HubServer) -> None:
    authors.faults.append(Fault("authors/policies", 404, {"X-Error-Code": "RepoNotFound"}))
    with pytest.raises(AdaNATError, match=r"has nat; could not fetch policies/steps-4: .*none of this name"):
        pulled()
    authors.faults.clear()
    pulled()
    assert ModelFolder("models/toy").policy_steps() == [4]


def test_the_embedded_model_can_be_copied_without_a_hub(authors: HubServer, tmp_path: Path) -> None:
    values = pull(PullRequest("imagenet64", tmp_path / "copy"), SilentReporter())
    assert authors.log == []
    original = models.resolve_model("imagenet64")
    assert list(values["components"]) == list(original.index.components)
    copy = ModelFolder(tmp_path / "copy")
    for protocol in ("small", "efficientnet"):
        assert copy.reference(protocol) is not None
    assert (copy.index.provenance, copy.card()) == (original.index.provenance, original.card())
    assert copy.fingerprint("nat") == original.fingerprint("nat")


class Hostile:
    """A pickle that would run a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_pickle_that_wants_to_run_code_is_refused(authors: HubServer) -> None:
    authors.add("authors/nat", {"assets/nat.pth": pickle.dumps(Hostile())})
    with pytest.raises(AdaNATError, match="refused"):
        pulled(components=("nat",))
    assert not Path("ran").exists()


def test_info_lists_the_names(authors: HubServer) -> None:
    text = "\n".join(model_lines(describe("")))
    assert "Name        imagenet64: comes with adanat" in text
    assert "Name        toy: A toy; adanat pull toy" in text
    assert "known" not in describe("imagenet64")


def test_one_wrong_value_in_the_registry_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads((registry.MODELS / "registry.json").read_text())
    monkeypatch.setattr(registry, "MODELS", tmp_path)
    for _, changed in mutations(values, sparse=11):
        (tmp_path / "registry.json").write_text(as_json(changed))
        with suppress(AdaNATError):
            registry.known_models.__wrapped__()
