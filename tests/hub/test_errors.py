"""Whatever network, Hub, account or disk do is told in one line that says what to do, without the token."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from adanat_cli.core import hub as hub_room
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.hub import check_account
from adanat_cli.core.config import data_config
from adanat_cli.core.config.share_requests import PullRequest, PushRequest
from adanat_cli.core.data.sources import open_source
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.hub import HubId, explain, scrub
from adanat_cli.jobs.resolve.models import resolve_model, resolve_tokens
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.pull import pull
from adanat_cli.jobs.share.push import push
from tests.hub.server import TOKEN, Fault, HubServer

INDEX = "model_index.json"


def said(error: pytest.ExceptionInfo[AdaNATError], *words: str) -> None:
    """One line with these words; neither it nor what led to it shows the token once it is printed."""
    text = str(error.value)
    assert "\n" not in text
    assert TOKEN not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("tester/nothing", None, ("none of this name", "hf auth login", "no folder tester/nothing")),
        ("tester/toy@never", None, ("no such revision", "leave @revision out")),
        ("tester/other", None, ("is not a model of adanat", INDEX)),
        ("tester/gated", None, ("gated", "ask for access")),
        (
            "tester/toy",
            Fault(INDEX, 401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            ("token", "HF_TOKEN"),
        ),
        ("tester/toy", Fault(INDEX, 403), ("does not have the permission", "settings/tokens")),
        ("tester/toy", Fault(INDEX, 429, {"Retry-After": "7"}), ("limits the rate", "in 7 seconds")),
        ("tester/toy", Fault(INDEX, 500), ("internal error (500)", "try again later")),
        ("tester/toy", Fault(f"GET .*{INDEX}", 0), ("connection was lost", "same command again")),
        ("bad--name/toy", None, ("is not an id", "user/repo@revision")),
    ],
)
def test_what_keeps_a_model_from_being_fetched(
    hub: HubServer,
    pushed: str,
    name: str,
    fault: Fault | None,
    words: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.add("tester/other", {"config.json": b"{}"})
    hub.add("tester/gated", {INDEX: b"{}"}, gated=True)
    hub.faults += [fault] if fault else []
    with pytest.raises(AdaNATError) as error:
        resolve_model(name)
    said(error, *words)
    assert capfd.readouterr() == ("", "")  # the client's own lines and bars are left out


def test_a_passing_failure_of_the_hub_is_waited_for(hub: HubServer, pushed: str) -> None:
    hub.faults.append(Fault(INDEX, 503, times=2))
    assert resolve_model(pushed).has("nat")


def test_a_hub_that_is_not_there_is_told_at_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, end in (("ENDPOINT", ""), ("HUGGINGFACE_CO_URL_TEMPLATE", "/{repo_id}/resolve/{revision}/{filename}")):
        monkeypatch.setattr(constants, name, f"http://127.0.0.1:9{end}")
    tries: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", tries.append)
    for ask in (
        lambda: resolve_model("tester/toy"),
        lambda: resolve_tokens(Path("tester/tokens")),
        lambda: check_account(HubId("tester/toy")),
    ):
        with pytest.raises(AdaNATError) as error:
            ask()
        said(error, "http://127.0.0.1:9 cannot be reached", "HF_ENDPOINT")
    assert tries == []


def test_a_hub_that_does_not_answer_is_given_up(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_room, "_ANSWER_SECONDS", 0.2)
    hub.faults.append(Fault("whoami", -1))
    with pytest.raises(AdaNATError) as error:
        check_account(HubId("tester/toy"))
    said(error, "does not answer in time")


def test_offline_what_the_cache_lacks_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for ask in (lambda: resolve_model("tester/toy"), lambda: resolve_tokens(Path("tester/tokens"))):
        with pytest.raises(AdaNATError) as error:
            ask()
        said(error, "HF_HUB_OFFLINE is set", "with a network")


def test_a_full_disk_is_told(hub: HubServer, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(AdaNATError) as error:
        resolve_model(pushed)
    said(error, "disk is full", "HF_HOME")


def test_what_keeps_a_model_from_being_pushed(
    hub: HubServer, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(repo: str, *words: str) -> None:
        with pytest.raises(AdaNATError) as error:
            push(PushRequest(str(model.path), repo, num_images=0), SilentReporter())
        said(error, *words)

    refused("somebody/toy", "You are tester", "tester/… or group/…")
    refused("toy", "Target 'toy'", "user/repo")
    hub.faults.append(Fault("POST .*/(commit|repos)/", 403))
    refused("tester/closed", "does not have the permission", "does not have the permission")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused("tester/toy", "does not accept your token")
    monkeypatch.delenv("HF_TOKEN")
    refused("tester/toy", "not logged in", "hf auth login")


@pytest.mark.parametrize("kind", ["model", "tokens"])
def test_an_empty_name_pushes_nothing(hub: HubServer, kind: Literal["model", "tokens"]) -> None:
    with pytest.raises(AdaNATError, match="Nothing to push was named; give a model folder or name"):
        push(PushRequest("", "tester/unnamed", kind), SilentReporter())
    assert not hub.log


def test_a_data_set_that_cannot_be_had_is_told_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **named: object) -> None:
        raise ConnectionError("Couldn't reach it") from OfflineModeIsEnabled(f"offline, {TOKEN}")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(AdaNATError) as error:
        open_source(data_config("tester/images", image_size=8))
    said(error, "Cannot open data set tester/images: HF_HUB_OFFLINE is set", "No file or folder here", "--data-dir")


def test_a_word_that_is_no_name_is_told_the_names() -> None:
    with pytest.raises(AdaNATError, match=r"'imagenet'.* known name \(imagenet64, imagenet256, cc3m\).*user/repo"):
        pull(PullRequest("imagenet"), SilentReporter())


def test_secrets_are_taken_out_of_what_others_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "an-odd-token")
    text = scrub("an-odd-token, hf_abc123, Bearer xyz, https://me:pass@host/a?X-Amz-Signature=1 failed")
    assert text == "…, hf_…, Bearer … https://…@host/a failed"


def test_a_bug_is_not_told_as_the_hubs() -> None:
    assert explain(KeyError("a")) == ""
    with pytest.raises(KeyError), hub_room.hub_errors("fetch", "a/b"):
        raise KeyError("a")
