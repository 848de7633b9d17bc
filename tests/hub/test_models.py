"""Models on the Hub: what is pushed is what is fetched, piece by piece, once, and from one commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.requests import EvaluateRequest, SampleRequest, StatsRequest
from adanat_cli.core.config.share_requests import PullRequest, PushRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.share.info import describe
from adanat_cli.jobs.share.pull import pull
from adanat_cli.jobs.share.push import push
from tests.hub.server import TOKEN, Fault, HubServer

WEIGHTS = "model.safetensors"


def drawn(model: str, output: Path) -> np.ndarray:
    request = SampleRequest(output=output, model=model, num_images=4, num_steps=3, image_format="npz", device="cpu")
    sample(request, SilentReporter())
    with np.load(output / "samples.npz") as arrays:
        return arrays["arr_0"]


def fetched(hub: HubServer) -> set[str]:
    """Names of the files whose bytes went over the wire."""
    return {line.split("/", 5)[5].split(" ")[0] for line in hub.asked("^GET /[^/]+/[^/]+/resolve/")}


def pulled(name: str, output: Path | None = None, **fields: Any) -> dict[str, Any]:
    return pull(PullRequest(name, output, **fields), SilentReporter())


def test_a_pushed_model_draws_the_same_images_with_nothing_but_what_sampling_needs(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path
) -> None:
    hub.repos[f"models/{pushed}"].commit("main", {"nat/pytorch_model.bin": b"a pickle", "evil.py": b"import os"})
    assert np.array_equal(drawn(str(model.path), tmp_path / "here"), drawn(pushed, tmp_path / "there"))
    parts = ("nat", "policies/steps-3", "tokenizer")
    files = {f"{part}/{name}" for part in parts for name in ("config.json", WEIGHTS)}
    assert fetched(hub) == files | {"model_index.json", "labels.json"}


def test_a_model_that_was_fetched_draws_offline_and_when_the_hub_is_gone(
    hub: HubServer, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = drawn(pushed, tmp_path / "a")
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert np.array_equal(first, drawn(pushed, tmp_path / "b"))
    assert hub.log == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert np.array_equal(first, drawn(pushed, tmp_path / "c"))
    with pytest.raises(AdaNATError, match="cannot be reached; check network"):
        sample(SampleRequest(output=tmp_path / "d", model=pushed, num_steps=2, device="cpu"), SilentReporter())


def test_a_revision_is_pinned_and_all_parts_are_of_one_commit(hub: HubServer, pushed: str) -> None:
    repo = hub.repos[f"models/{pushed}"]
    before = repo.branches["main"]
    opened = resolve_model(pushed)
    names = opened.labels()
    changed = {"labels.json": json.dumps({"0": "changed"}).encode()}
    after = repo.commit("next", {**repo.commits[before], **changed})
    assert resolve_model(f"{pushed}@next").labels() == {0: "changed"}
    assert resolve_model(f"{pushed}@{after}").labels() == {0: "changed"}
    repo.branches["main"] = after
    assert opened.config("tokenizer")  # of the old commit, as its index
    assert hub.asked(f"GET .*/resolve/{before}/tokenizer/config.json")
    assert resolve_model(f"{pushed}@{before}").labels() == names
    repo.branches["main"] = before


def test_a_transfer_that_breaks_off_goes_on_where_it_broke(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = 4096
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", piece)  # 10 MB otherwise: more than the toy has
    hub.faults.append(Fault(f"GET .*nat/{WEIGHTS}", 0, times=1))
    pulled(pushed, tmp_path / "copy", components=("nat",))
    size = (model.path / "nat" / WEIGHTS).stat().st_size
    first, second = hub.asked(f"GET .*nat/{WEIGHTS}")
    assert "bytes" not in first
    assert second.endswith(f"bytes={size // 2 // piece * piece}-")
    assert ModelFolder(tmp_path / "copy").fingerprint("nat") == model.fingerprint("nat")


def test_what_had_arrived_before_a_failure_is_not_fetched_again(hub: HubServer, pushed: str, tmp_path: Path) -> None:
    hub.faults.append(Fault(f"GET .*nat/{WEIGHTS}", 403))
    with pytest.raises(AdaNATError, match="does not have the permission"):
        pulled(pushed, tmp_path / "copy", components=("tokenizer", "nat"))
    assert ModelFolder(tmp_path / "copy").index.components == ("tokenizer",)
    with pytest.raises(AdaNATError, match="--component is empty; give a part such as nat"):
        pulled(pushed, tmp_path / "copy", components=("",))
    hub.faults.clear()
    hub.log.clear()
    pulled(pushed, tmp_path / "copy", components=("tokenizer", "nat"))
    assert ModelFolder(tmp_path / "copy").index.components == ("tokenizer", "nat")
    assert not hub.asked(f"GET .*tokenizer/{WEIGHTS}")


def test_pull_brings_the_parts_that_are_named_and_adds_to_what_is_there(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path
) -> None:
    copy = ModelFolder(tmp_path / "copy")
    values = pulled(pushed, copy.path, num_steps=2)
    assert list(values["components"]) == ["tokenizer", "nat", "policies/steps-2"]
    assert copy.index.components == ("tokenizer", "nat", "policies/steps-2")
    assert "policies/steps-3/config.json" not in fetched(hub)
    assert (copy.labels(), copy.index.results) == (model.labels(), model.index.results)
    commit = hub.repos[f"models/{pushed}"].branches["main"]
    assert copy.index.provenance["nat"]["hub"] == f"{pushed}@{commit}"
    pulled(pushed, copy.path, components=("policies/steps-3",))
    assert copy.policy_steps() == [2, 3]
    config, tensors = copy.read("nat")
    copy.write("nat", config, {name: tensor + 1 for name, tensor in tensors.items()})
    with pytest.raises(AdaNATError, match="has another nat"):
        pulled(pushed, copy.path)
    with pytest.raises(AdaNATError, match=r"no policies/steps-5; choose among tokenizer, nat"):
        pulled(pushed, num_steps=5)


def test_info_reads_the_first_bytes_of_weights_and_leaves_them_there(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path
) -> None:
    there, here = describe(pushed), describe(str(model.path))
    assert there["components"] == here["components"]
    assert there["model"] == pushed
    assert all("bytes=0-" in line for line in hub.asked(f"GET .*{WEIGHTS}"))
    assert not list((tmp_path / "home").rglob(WEIGHTS))


def test_an_evaluation_is_named_by_the_repository(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = StatsRequest(
        str(model.path.parent / "images"), tmp_path / "stats.npz", model=str(model.path), device="cpu"
    )
    make_stats(request, SilentReporter())
    monkeypatch.chdir(tmp_path)
    request = EvaluateRequest(request.output, model=pushed, num_samples=4, steps=(2,), device="cpu")
    values = evaluate(request, SilentReporter())
    assert values["evaluation"] == "evaluations/toy/evaluation.json"
    assert values["results"][0]["origin"] == "toy"


def test_what_is_on_the_hub_is_not_changed_from_here(hub: HubServer, pushed: str) -> None:
    folder = resolve_model(pushed)
    for change in (
        lambda: folder.write_labels({0: "a"}),
        lambda: folder.put_results([{"metric": "fid"}]),
        lambda: folder.write("nat", {}, {}),
    ):
        with pytest.raises(AdaNATError, match="adanat pull tester/toy --output"):
            change()


def test_a_push_is_one_commit_of_what_the_index_lists(hub: HubServer, model: ModelFolder, tmp_path: Path) -> None:
    copy = ModelFolder(tmp_path / "copy")
    for part in ("tokenizer", "nat"):
        copy.write(part, *model.read(part))
    (copy.path / "notes.txt").write_text("mine")
    (copy.path / "nat" / "old.pt").write_bytes(b"a pickle")
    request = PushRequest(str(copy.path), "group/one@drafts", private=True, message="First", num_images=0, device="cpu")
    values = push(request, SilentReporter())
    repo = hub.repos["models/group/one"]
    assert repo.private
    assert repo.messages == ["", "First"]
    assert (values["commit"], values["revision"]) == (repo.branches["drafts"], "drafts")
    files = {f"{part}/{name}" for part in ("tokenizer", "nat") for name in ("config.json", WEIGHTS)}
    assert set(repo.commits[values["commit"]]) == files | {".gitattributes", "README.md", "model_index.json"}
    assert set(repo.commits[repo.branches["main"]]) == {".gitattributes"}
    hub.add("group/public", {"a": b""})
    with pytest.raises(AdaNATError, match="public, so nothing was pushed"):
        push(PushRequest(str(copy.path), "group/public", private=True, num_images=0), SilentReporter())
    assert len(hub.repos["models/group/public"].commits) == 1


def test_a_push_that_failed_sends_only_what_is_missing(hub: HubServer, model: ModelFolder, tmp_path: Path) -> None:
    copy = ModelFolder(tmp_path / "copy")
    config, tensors = model.read("tokenizer")
    copy.write("tokenizer", config, {name: tensor + 1 for name, tensor in tensors.items()})
    hub.faults.append(Fault("POST .*/commit/", 502))
    request = PushRequest(str(copy.path), "tester/again")
    with pytest.raises(AdaNATError, match=r"internal error \(502\)"):
        push(request, SilentReporter())
    assert len(hub.asked("PUT /objects")) == 1
    hub.faults.clear()
    commit = push(request, SilentReporter())["commit"]
    assert len(hub.asked("PUT /objects")) == 1
    weights = f"tokenizer/{WEIGHTS}"
    assert hub.repos["models/tester/again"].commits[commit][weights] == (copy.path / weights).read_bytes()


def test_the_card_tells_results_use_and_training_and_its_lines_run(
    hub: HubServer, model: ModelFolder, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.repos[f"models/{pushed}"]
    files = repo.commits[repo.branches["main"]]
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["license"]) == ("adanat", "unknown")
    assert front["pipeline_tag"] == "unconditional-image-generation"
    (entry,) = front["model-index"][0]["results"]
    assert entry["metrics"] == [
        {
            "type": "fid",
            "value": 12.5,
            "name": "fid (protocol clean, num_images 64)",
            "args": {"protocol": "clean", "num_images": 64},
        }
    ]
    for picture in ("samples.png", "curves-steps-2.png", "samples-steps-3.png"):
        assert f"]({picture})" in card
        assert files[picture].startswith(b"\x89PNG")
    assert "It has seen 3 classes and draws no others." in card
    assert not (model.path / "samples.png").exists()
    monkeypatch.chdir(tmp_path)
    shell, code = card.split("```bash\n")[1].split("```")[0], card.split("```python\n")[1].split("```")[0]
    exec(code, {})
    done = CliRunner().invoke(app, shell.split()[1:])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "image.png").is_file()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 17


def test_your_own_card_is_pushed_as_it_is(hub: HubServer, model: ModelFolder, tmp_path: Path) -> None:
    copy = ModelFolder(tmp_path / "copy")
    copy.write("tokenizer", *model.read("tokenizer"))
    (copy.path / "README.md").write_text("# Mine\n")
    values = push(PushRequest(str(copy.path), "tester/own"), SilentReporter())
    assert hub.repos["models/tester/own"].commits[values["commit"]]["README.md"] == b"# Mine\n"


def test_the_environment_alone_points_the_command_line_at_a_hub(hub: HubServer, pushed: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN}
    arguments = ["pull", pushed, "--component", "nat", "--output", str(tmp_path / "copy"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "adanat_cli", *arguments],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["components"]) == ["nat"]
    assert TOKEN not in done.stdout + done.stderr
    assert ModelFolder(tmp_path / "copy").has("nat")
    assert list((tmp_path / "cache").rglob(WEIGHTS))
