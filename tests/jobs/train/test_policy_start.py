"""A policy that starts from another's weights: before the first update it acts as that one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig, PolicyConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.config.training_requests import TrainPolicyRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy.static import build_policy
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.resolve.models import load_policy, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.runtime.resume import Length
from adanat_cli.jobs.train.loop import Run
from adanat_cli.jobs.train.plans import plan_policy
from adanat_cli.jobs.train.policy import PolicyLoop, train_policy
from adanat_cli.jobs.train.policy_setup import check_request, policy_shape, prepare
from adanat_cli.jobs.train.settings import policy_settings
from adanat_cli.jobs.train.start import find_start
from tests.evaluation_toy import Said
from tests.jobs.train.test_nat import At
from tests.policy_toy import make_policy_toy, policy_request, same, state


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of one NAT with an adaptive and with a static policy for 3 steps, and a NAT of another width."""
    folder = make_policy_toy(tmp_path_factory.mktemp("start"))
    model = ModelFolder(folder / "model")
    parts = [model.component(name) for name in ("tokenizer", "nat", "features")]
    torch.manual_seed(5)
    for kind in ("adaptive", "static", "table"):
        shape = PolicyConfig(
            feature_width=16,
            grid=(4, 4),
            num_steps=3,
            hidden_width=8,
            smoothing=0.2,
            kind=kind,
            nat_fingerprint=model.fingerprint("nat"),
        )
        policy = build_policy(shape)
        if kind != "table":
            for weight in policy.parameters():
                torch.nn.init.normal_(weight, std=0.3)
        other = ModelFolder(folder / kind)
        other.write_all(parts)
        other.write_labels(model.labels())
        other.write("policies/steps-3", shape.to_dict(), policy.state_dict())
    wide = NATConfig.from_dict(model.config("nat"), "wide").replace(width=24)
    ModelFolder(folder / "wide").write_all([model.component(name) for name in ("tokenizer", "features")])
    ModelFolder(folder / "wide").write("nat", wide.to_dict(), UViT(wide).state_dict())
    return folder


def further(toy: Path, output: str, kind: str = "adaptive", **changes: Any) -> PolicySettings:
    fields = {"reward": "fid", "kind": kind, "start": str(toy / kind), "policy": {}, "updates": 2, **changes}
    return policy_request(toy, output, **fields)


def begun(request: PolicySettings) -> PolicyLoop:
    """The training before its first update."""
    accelerator, (folder, nat) = Accelerator(cpu=True), check_request(request)
    start = find_start(request.start, f"policies/steps-{request.num_steps}", request.output)
    shape = policy_shape(request, nat, folder.fingerprint("nat"), start)
    run = Run(request.output, {}, accelerator, SilentReporter(), Length("training.updates"), "")
    return PolicyLoop(run, request, prepare(request, accelerator, SilentReporter()), shape, start)


@pytest.mark.parametrize("kind", ["adaptive", "static"])
def test_before_the_first_update_it_acts_as_the_policy_that_it_starts_from(toy: Path, kind: str) -> None:
    loop, policy = begun(further(toy, f"begun-{kind}", kind)), load_policy(resolve_model(str(toy / kind)), 3)
    assert policy is not None
    assert loop.trainer.agent.policy.config == policy.config
    features, steps = torch.randn(3, 16, 16), torch.arange(3)
    assert torch.equal(loop.trainer.agent.policy(features, steps), policy(features, steps))
    fresh = begun(replace(further(toy, f"fresh-{kind}", kind), start="", policy={"hidden_width": 8}))
    assert torch.equal(loop.trainer.agent.critic(features, steps), fresh.trainer.agent.critic(features, steps))


def test_it_says_what_it_starts_from_and_so_does_its_model(toy: Path) -> None:
    said = Said()
    train_policy(further(toy, "told", updates=1), said)
    assert any(
        line.startswith("Starting from adaptive: its adaptive policy for 3 steps, distance ") for line in said.logged
    )
    recorded = {"model": "adaptive", "weights": ModelFolder(toy / "adaptive").fingerprint("policies/steps-3")}
    model = ModelFolder(toy / "told" / "model")
    assert read_json(toy / "told" / "config.json")["from"] == recorded
    assert model.index.provenance["policies/steps-3"]["from"] == recorded
    assert "was trained further from the policies/steps-3 of adaptive, weights" in model.card()


def test_a_resumed_run_needs_neither_from_nor_kind_and_ends_with_the_same_state(toy: Path) -> None:
    train_policy(further(toy, "whole", "static"), SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        train_policy(further(toy, "broken", "static"), At(1, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert state(toy / "broken")["step"] == 1
    asked = TrainPolicyRequest(
        str(toy / "images"), str(toy / "model"), num_steps=3, output=toy / "broken", workers=0, device="cpu"
    )
    resumed = policy_settings(asked)
    assert (resumed.kind, resumed.policy) == ("static", {})
    train_policy(resumed, SilentReporter())
    assert same(toy / "whole", toy / "broken")
    with pytest.raises(AdaNATError, match=r"from\.model was 'static', now 'adaptive'"):
        policy_settings(replace(asked, start=str(toy / "adaptive")))


class Killed(SilentReporter):
    """A run that ends as soon as it says something, before any network is trained."""

    def log(self, line: str) -> None:
        raise KeyboardInterrupt


def test_a_run_that_was_killed_before_its_first_update_remembers_what_it_starts_from(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_policy(further(toy, "early", "static"), Killed())
    asked = TrainPolicyRequest(str(toy / "images"), num_steps=3, output=toy / "early", workers=0, device="cpu")
    settled = policy_settings(asked)
    assert (settled.kind, settled.model, settled.policy) == ("static", str(toy / "static"), {})
    start = find_start("", "policies/steps-3", toy / "early")
    assert start is not None
    assert (start.folder.path, start.is_resumed) == (toy / "static", False)
    other = policy_settings(replace(asked, start=str(toy / "adaptive")))  # nothing is lost that was trained
    assert (other.kind, other.model) == ("adaptive", str(toy / "adaptive"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_steps": 4}, r"has no learned policy for 4 steps \(it has them for 3\); choose another --steps"),
        ({"start": "wide"}, r"has no learned policy for 3 steps \(it has none at all\)"),
        ({"kind": "search"}, "--kind search starts from a schedule"),
        ({"kind": "static"}, "--kind is static, but the policy of --from adaptive is adaptive"),
        ({"start": "table"}, "is a fixed table without weights; .* --base table:FILE"),
        ({"base": "table:any.yaml"}, "keeps its own base schedule; leave --base out"),
        ({"policy": {"hidden_width": 64}}, "--hidden-width asks for 64, but .* has 8"),
        ({"model": "wide"}, "NAT of --model has 4 x 4 tokens with features of width 24, but .* of width 16"),
    ],
)
def test_what_cannot_be_continued_is_refused_in_one_line(toy: Path, changes: dict[str, Any], words: str) -> None:
    paths = {key: str(toy / changes[key]) for key in ("start", "model") if key in changes}
    fields = {"num_steps": 3, "start": str(toy / "adaptive"), "workers": 0, "device": "cpu", **changes, **paths}
    with pytest.raises(AdaNATError, match=words) as caught:
        plan_policy(policy_settings(TrainPolicyRequest(str(toy / "images"), output=toy / "refused", **fields)))
    assert "\n" not in str(caught.value)
    assert not (toy / "refused").exists()


def test_a_dry_run_names_the_start_and_takes_its_model_kind_and_shape(toy: Path) -> None:
    line = ["train-policy", "-d", str(toy / "images"), "--steps", "3", "--from", str(toy / "static")]
    done = CliRunner().invoke(
        app, [*line, "--output", str(toy / "dry"), "--device", "cpu", "--dry-run", "--json"], catch_exceptions=False
    )
    values = json.loads(done.stdout)
    assert values["from"]["model"] == "static"
    assert (values["kind"], values["model"]) == ("static", str(toy / "static"))
    assert (values["policy"]["hidden_width"], values["policy"]["smoothing"]) == (8, 0.2)
    assert not (toy / "dry").exists()
