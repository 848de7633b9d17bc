"""A NAT that starts from another's weights: before the first update it is that one, but for new classes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATTrainingConfig, PolicyConfig
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.core.config.training_requests import PretrainNATRequest
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import TokenSetInfo
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.policy.static import build_policy
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.resolve.models import load_nat, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.nat_start import class_rows, first_weights
from adanat_cli.jobs.train.nat_update import NATTrainer
from adanat_cli.jobs.train.settings import nat_settings
from tests.jobs.train.test_nat import At, last_state, same, weights
from tests.nat_toy import make_request, make_tokens

ROWS = "context_embed.word_embeddings.weight"
MIXED = ("five", "Two", "six", "zero", "seven")
"""Classes of the token set of others; two are the model's, under other numbers."""


class Log(SilentReporter):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four classes with a policy, its tokens, and tokens of five classes."""
    folder = tmp_path_factory.mktemp("start")
    pretrain_nat(make_request(folder), SilentReporter())
    model = ModelFolder(folder / "run" / "model")
    policy = PolicyConfig(feature_width=112, grid=(4, 4), num_steps=3, nat_fingerprint=model.fingerprint("nat"))
    model.write("policies/steps-3", policy.to_dict(), build_policy(policy).state_dict())
    make_tokens(folder / "others", model.fingerprint("tokenizer"), names=MIXED)
    return folder


def further(toy: Path, output: str, tokens: str = "others", **changes: Any) -> NATSettings:
    request = make_request(toy, output, **changes)
    return replace(request, size="", model="", tokens=toy / tokens, start=str(toy / "run" / "model"))


def started(folder: ModelFolder, info: TokenSetInfo) -> dict[str, Tensor]:
    """The average before the first update."""
    nat = load_nat(folder)
    trainer = NATTrainer(
        nat.config.replace(num_classes=info.num_classes),
        NATTrainingConfig(seed=3),
        Accelerator(cpu=True),
        weights=first_weights(folder, class_rows(folder, info)),
    )
    assert same(trainer.nat.state_dict(), trainer.ema.state_dict())
    return dict(trainer.averaged.state_dict())


def test_before_the_first_update_it_is_the_model(toy: Path) -> None:
    folder = resolve_model(str(toy / "run" / "model"))
    assert same(started(folder, TokenSet.open(toy / "tokens").info), dict(load_nat(folder).state_dict()))


def test_classes_are_found_by_name_and_new_ones_start_from_the_null_row(toy: Path) -> None:
    folder = resolve_model(str(toy / "run" / "model"))
    before, after = dict(load_nat(folder).state_dict()), started(folder, TokenSet.open(toy / "others").info)
    old, new = before.pop(ROWS), after.pop(ROWS)
    assert torch.equal(new, old[[4, 2, 4, 0, 4, 4]])
    assert same(before, after)


def test_rows_that_the_embedded_model_never_saw_are_null_rows() -> None:
    folder = resolve_model("imagenet64")
    seen = folder.labels()
    info = TokenSetInfo(64, (8, 8), 1024, "", "class", 1000, True, {1: "Goldfish, Carassius auratus", 2: "shark"})
    rows = class_rows(folder, info)
    assert rows.is_kept
    assert {label for label in range(1000) if rows.sources[label] == label} == set(seen)
    assert set(rows.sources[[label for label in range(1001) if label not in seen]].tolist()) == {1000}
    assert rows.line([1, 2, 207]) == "2 class rows kept, 1 from the null row"


def test_it_says_what_it_starts_from_and_so_does_its_model(toy: Path) -> None:
    log = Log()
    pretrain_nat(further(toy, "told", steps=1), log)
    assert "Starting from run: 2 class rows taken by name, 3 from the null row." in log.lines
    start, model = resolve_model(str(toy / "run" / "model")), resolve_model(str(toy / "told" / "model"))
    recorded = {"model": "run", "weights": start.fingerprint("nat")}
    assert read_json(toy / "told" / "config.json")["from"] == recorded
    assert model.index.provenance["nat"]["from"] == recorded
    assert f"trained further from the nat of run, weights {recorded['weights'][:12]}" in model.card()
    assert model.index.components == ("tokenizer", "nat")
    assert model.labels() == dict(enumerate(MIXED))
    assert load_nat(model).config == load_nat(start).config.replace(num_classes=5)


def test_codes_of_a_tokenizer_that_was_trained_further_start_from_the_nearest_code(toy: Path, tmp_path: Path) -> None:
    base = resolve_model(str(toy / "run" / "model"))
    _, tensors = base.read("tokenizer")
    codes = torch.cat([tensors["codes"].flip(0), tensors["codes"][[3, 3, 9]]])
    tokenizer, values = ModelFolder(tmp_path / "more"), {**base.config("tokenizer"), "codebook_size": len(codes)}
    facts = {"from": {"model": "run", "weights": base.fingerprint("tokenizer")}}
    tokenizer.write("tokenizer", values, {**tensors, "codes": codes}, provenance=facts)
    made_by = tokenizer.fingerprint("tokenizer")
    tokens, log = make_tokens(tmp_path / "tokens", made_by, codebook_size=len(codes)), Log()
    request = replace(further(toy, "moved", steps=1, learning_rate=1e-9), tokens=tokens, model=str(tokenizer.path))
    model = resolve_model(pretrain_nat(request, log)["model"])
    assert any(line.endswith("; rows of 19 codes from the nearest of its 16.") for line in log.lines)
    before, after = load_nat(base), load_nat(model)
    assert (after.config.codebook_size, after.config.tokenizer_fingerprint) == (19, made_by)
    where = [*range(15, -1, -1), 3, 3, 9]
    ids = torch.randint(16, (2, 16), generator=torch.Generator().manual_seed(0))
    known, moved = (nat.eval()(x, torch.tensor([0, 4])).logits for nat, x in ((before, ids), (after, 15 - ids)))
    torch.testing.assert_close(moved, known[..., where])
    pretrain_nat(replace(request, model="", start=""), SilentReporter())  # the finished run is known as it is
    with pytest.raises(AdaNATError, match=r"codebook size 19, but the NAT of --from run has 16"):
        pretrain_nat(replace(request, model=str(toy / "model"), output=toy / "refused"), SilentReporter())


def test_training_further_at_the_usual_rate_makes_a_nat_better(toy: Path) -> None:
    fields = {"steps": 40, "batch_size": 16, "precision": "fp32", "held_out": 0.25, "ema_decay": 0.9}
    asked = PretrainNATRequest(
        "toy", toy / "tokens", size="nano", model=str(toy / "model"), output=toy / "good", training=fields, device="cpu"
    )
    good = pretrain_nat(nat_settings(asked), SilentReporter())
    asked = replace(asked, size=None, model="", start=good["model"], output=toy / "better")
    better = pretrain_nat(nat_settings(asked), SilentReporter())
    assert better["held_out_loss"] < good["held_out_loss"] - 0.02


def test_a_resumed_run_needs_no_from_and_ends_with_the_same_weights(toy: Path) -> None:
    pretrain_nat(further(toy, "unbroken"), SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        pretrain_nat(further(toy, "broken"), At(4, lambda: signal.raise_signal(signal.SIGINT)))
    assert last_state(toy / "broken")["step"] == 4
    asked = PretrainNATRequest("toy", toy / "others", output=toy / "broken", device="cpu")
    pretrain_nat(nat_settings(asked), SilentReporter())
    assert same(weights(toy / "broken"), weights(toy / "unbroken"))
    pretrain_nat(further(toy, "broken"), SilentReporter())  # it may be given again


def test_another_start_is_refused_when_a_run_is_resumed(toy: Path) -> None:
    pretrain_nat(further(toy, "kept", steps=1), SilentReporter())
    other = replace(further(toy, "kept", steps=1), start=str(toy / "kept" / "model"))
    with pytest.raises(AdaNATError, match=r"from\.model was 'run', now 'kept', from\.weights was '[0-9a-f]{12}', now"):
        pretrain_nat(other, SilentReporter())
    with pytest.raises(AdaNATError, match=r"from\.model was '', now 'run'"):
        pretrain_nat(further(toy, "run", "tokens"), SilentReporter())


def broken(toy: Path, tmp_path: Path) -> NATSettings:
    model = ModelFolder(tmp_path / "broken")
    model.write_all([ModelFolder(toy / "run" / "model").component(name) for name in ("tokenizer", "nat")])
    file = model.path / "nat" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + b"\xff" * 8)
    return replace(further(toy, "refused"), start=str(model.path))


def foreign(toy: Path, tmp_path: Path) -> NATSettings:
    return replace(further(toy, "refused"), tokens=make_tokens(tmp_path / "foreign", "ab" * 32))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda toy, _: replace(further(toy, "refused"), size="nano"), r"--size nano is another shape .*width 112"),
        (lambda toy, _: replace(further(toy, "refused"), start=str(toy / "model")), "has no nat to start from"),
        (lambda toy, _: replace(further(toy, "refused"), start="imagenet64"), "codebook size 16, but .* has 1024"),
        (lambda toy, _: further(toy, "refused", code_init=0.1), "--code-init 0.1 draws new word embeddings"),
        (foreign, "tokenizer abababababab, but the NAT of --from run has"),
        (broken, "damaged"),
    ],
)
def test_what_cannot_be_continued_is_refused_in_one_line(
    toy: Path, tmp_path: Path, wrong: Callable[[Path, Path], NATSettings], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        pretrain_nat(wrong(toy, tmp_path), SilentReporter())
    assert "\n" not in str(caught.value)
    assert not (toy / "refused").exists()


def test_a_dry_run_names_the_start_and_takes_its_shape(toy: Path) -> None:
    line = ["pretrain-nat", "-d", "toy", "-t", str(toy / "others"), "--from", str(toy / "run" / "model")]
    done = CliRunner().invoke(
        app, [*line, "--output", str(toy / "dry"), "--device", "cpu", "--dry-run", "--json"], catch_exceptions=False
    )
    values = json.loads(done.stdout)
    assert values["from"]["model"] == "run"
    assert values["from"]["classes"] == "2 class rows taken by name, 3 from the null row"
    assert (values["nat"]["width"], values["nat"]["num_classes"]) == (112, 5)
    assert values["training"]["code_init"] == 0
    assert not (toy / "dry").exists()
