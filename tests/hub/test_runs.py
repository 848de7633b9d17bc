"""Runs that take from the Hub and give to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATTrainingConfig
from adanat_cli.core.config.share_requests import PushRequest
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.resolve.models import resolve_tokens
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.push import push
from adanat_cli.jobs.train.nat import NATSettings, pretrain_nat
from adanat_cli.jobs.train.plans import plan_nat
from tests.hub.server import Fault, HubServer
from tests.nat_toy import make_tokens

PIXELS = ["train-tokenizer", "--dataset", "digits", "--downsampling", "1", "--codebook-size", "4"]


def test_a_nat_trains_on_tokens_and_a_tokenizer_from_the_hub(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make_tokens(tmp_path / "tokens", model.fingerprint("tokenizer"))
    push(PushRequest(str(here), "tester/tokens@v1", "tokens", private=True), SilentReporter())
    repo = hub.repos["datasets/tester/tokens"]
    files = repo.commits[repo.branches["v1"]]
    assert set(files) == {".gitattributes", "README.md", "token_set.json", "tokens-00000.parquet"}
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"] == "tokens-*.parquet"
    assert "--tokens tester/tokens@v1" in card
    repo.commit("v1", {"code.py": b"import os", "pickled.pt": b"a pickle"})

    training = NATTrainingConfig(steps=1, batch_size=8, warmup_steps=1, precision="fp32")
    request = NATSettings("toy", Path("tester/tokens@v1"), "nano", training, tmp_path / "run", pushed, device="cpu")
    assert pretrain_nat(request, SilentReporter())["steps"] == 1
    assert not hub.asked(r"GET .*(nat/model|policies|code\.py|pickled)")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    there = TokenSet.open(resolve_tokens(Path("tester/tokens@v1")))
    assert np.array_equal(there.tokens, TokenSet.open(here).tokens)


def test_a_nat_on_the_hub_is_trained_further_and_the_card_names_it(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path
) -> None:
    tokens = make_tokens(tmp_path / "tokens", model.fingerprint("tokenizer"))
    training = NATTrainingConfig(steps=1, batch_size=8, warmup_steps=1, precision="fp32")
    request = NATSettings("toy", tokens, "", training, tmp_path / "run", device="cpu", start=pushed)
    recorded = {"model": pushed, "weights": model.fingerprint("nat")}
    assert plan_nat(request)["from"].items() >= recorded.items()
    assert all("bytes=" in line for line in hub.asked(r"GET .*nat/model"))  # headers alone
    further = ModelFolder(pretrain_nat(request, SilentReporter())["model"])
    assert further.index.provenance["nat"]["from"] == recorded
    assert yaml.safe_load(further.card().split("---")[1])["base_model"] == [pushed]
    assert not hub.asked(r"GET .*(policies|features)")


def test_a_misspelt_folder_of_tokens_is_told_as_one(hub: HubServer) -> None:
    with pytest.raises(AdaNATError, match=r"none of this name.* no folder tester/nothing here either"):
        resolve_tokens(Path("tester/nothing"))


def test_half_a_token_set_is_not_pushed(hub: HubServer, tmp_path: Path) -> None:
    here = make_tokens(tmp_path / "tokens", "0" * 64)
    (here / "token_set.json").unlink()
    with pytest.raises(AdaNATError, match="is not complete"):
        push(PushRequest(str(here), "tester/half", "tokens"), SilentReporter())
    assert "datasets/tester/half" not in hub.repos


def test_a_run_pushes_what_it_made(hub: HubServer, tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    done = CliRunner().invoke(app, [*PIXELS, "--output", output, "--push-to-hub", "tester/pixels"])
    assert done.exit_code == 0, done.output
    repo = hub.repos["models/tester/pixels"]
    files = repo.commits[repo.branches["main"]]
    assert files["tokenizer/config.json"] == (tmp_path / "run/model/tokenizer/config.json").read_bytes()
    assert "adanat tokenize --dataset <images> --tokenizer tester/pixels" in files["README.md"].decode()


def test_a_push_that_cannot_work_is_refused_before_the_run(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for repo, words in (("tester", "--push-to-hub 'tester'"), ("somebody/pixels", "cannot push to somebody/pixels")):
        done = CliRunner().invoke(app, [*PIXELS, "--output", str(tmp_path / "run"), "--push-to-hub", repo])
        assert words in str(done.exception)
    monkeypatch.delenv("HF_TOKEN")
    done = CliRunner().invoke(app, [*PIXELS, "--output", str(tmp_path / "run"), "--push-to-hub", "tester/pixels"])
    assert "not logged in" in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_push_fails_says_where_its_result_is(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault("POST .*/commit/", 500))
    done = CliRunner().invoke(app, [*PIXELS, "--output", str(tmp_path / "run"), "--push-to-hub", "tester/late"])
    text = str(done.exception)
    assert f"its result is in {tmp_path}/run/model" in text
    assert text.endswith(f"Later: adanat push {tmp_path}/run/model tester/late")
    assert ModelFolder(tmp_path / "run/model").has("tokenizer")
