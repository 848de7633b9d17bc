"""Settings from a file: a run's own configuration repeats the run, and what is printed can be passed back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.config.settings import NATSettings, PolicySettings, TokenizerSettings
from adanat_cli.core.config.training_requests import PretrainNATRequest, TrainPolicyRequest, TrainTokenizerRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.inputs import inputs_of
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.settings import nat_settings, policy_settings, tokenizer_settings
from adanat_cli.jobs.train.tokenizer import train_tokenizer
from tests.nat_toy import make_model, make_tokens
from tests.policy_toy import make_policy_toy

SHAPE = {"width": 48, "depth": 2, "num_heads": 4, "dropout": 0.0}
FEW = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "precision": "fp32", "sample_every": 9, "label_smoothing": 0.0}


class Words(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        if "images says little" not in text:  # of the toy's data, not of its settings
            self.said.append(text)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, its tokens, those of other classes, and a NAT of a shape without a name, from a file."""
    folder = tmp_path_factory.mktemp("config")
    fingerprint = make_model(folder / "model").fingerprint("tokenizer")
    make_tokens(folder / "tokens", fingerprint)
    make_tokens(folder / "others", fingerprint, names=("a", "b", "c"))
    write(folder / "own.yaml", {"nat": SHAPE, "training": {**FEW, "learning_rate": 1e-3}})
    pretrain_nat(nat(folder, "run", folder / "own.yaml"), SilentReporter())
    return folder


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def nat(folder: Path, output: str, config: Path | None, tokens: str = "tokens", **changes: Any) -> NATSettings:
    asked = PretrainNATRequest(
        "toy", folder / tokens, model=str(folder / "model"), output=folder / output, device="cpu", config=config
    )
    return nat_settings(replace(asked, **changes))


def files(run: Path) -> dict[str, bytes]:
    names = ("config.json", "model/nat/model.safetensors", "model/tokenizer/model.safetensors")
    names += ("model/policies/steps-3/model.safetensors",)
    return {name: (run / name).read_bytes() for name in names if (run / name).exists()}


def test_a_runs_own_configuration_repeats_it(toy: Path) -> None:
    assert read_json(toy / "run" / "config.json")["nat"].items() >= SHAPE.items()
    words = Words()
    pretrain_nat(nat(toy, "again", toy / "run" / "config.json"), words)
    assert files(toy / "again") == files(toy / "run")
    assert words.said == []
    assert nat(toy, "run", None) == nat(toy, "run", toy / "own.yaml")


def test_what_is_typed_goes_before_the_file(toy: Path) -> None:
    typed = nat(toy, "typed", toy / "run" / "config.json", size="micro", training={"batch_size": 8})
    assert (typed.size, typed.shape) == ("micro", {"mlp_ratio": 4, "dropout": 0.0})
    assert (typed.training.batch_size, typed.training.steps, typed.training.label_smoothing) == (8, 2, 0.0)


def test_other_data_take_the_settings_and_are_named(toy: Path) -> None:
    words = Words()
    pretrain_nat(nat(toy, "elsewhere", toy / "run" / "config.json", "others"), words)
    assert len(words.said) == 1
    assert "nat.num_classes is 4 there, 3 here" in words.said[0]
    assert "data.crc32" in words.said[0]


def test_weights_to_start_from_are_found_again_or_named(toy: Path, tmp_path: Path) -> None:
    first = nat(toy, "further", None, start=str(toy / "run" / "model"), training=FEW)
    pretrain_nat(first, SilentReporter())
    config = toy / "further" / "config.json"
    found = nat(toy, "found again", config)
    assert found.start == str(toy / "run" / "model")
    config = Path(shutil.copy(config, tmp_path))
    with pytest.raises(AdaNATError, match=r"from: the run started from 'run', which is not found here; .* --from"):
        nat(toy, "lost", config)
    again = nat(toy, "further again", config, start=str(toy / "run" / "model"))
    pretrain_nat(again, SilentReporter())
    assert files(toy / "further again") == files(toy / "further")
    values = read_json(config)
    values["from"] = {"model": str(toy / "run" / "model"), "weights": "0" * 64}
    with pytest.raises(AdaNATError, match=r"was 000000000000, and is \w{12} now; give another model with --from"):
        nat(toy, "lost", write(tmp_path / "other.yaml", values))


def test_a_nats_configuration_alone_repeats_it_from_any_folder(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy)
    typed = PretrainNATRequest("toy", Path("tokens"), model="model", classes=("one",), training=FEW, device="cpu")
    pretrain_nat(nat_settings(replace(typed, output=toy / "first")), SilentReporter())
    monkeypatch.chdir(tmp_path)
    words, alone = Words(), PretrainNATRequest(config=toy / "first" / "config.json", device="cpu")
    pretrain_nat(nat_settings(replace(alone, output=toy / "alone")), words)
    assert (files(toy / "alone"), words.said) == (files(toy / "first"), [])
    others = nat_settings(replace(alone, tokens=toy / "others", classes=("a",), training={"seed": 1}))
    assert (others.dataset, others.tokens, others.classes) == ("toy", toy / "others", ("a",))
    assert (others.model, others.training.seed, others.training.steps) == (str(toy / "model"), 1, 2)
    elsewhere = nat_settings(replace(alone, dataset="other", tokens=toy / "others"))
    assert (elsewhere.dataset, elsewhere.model, elsewhere.classes) == ("other", "", ())


def test_a_configuration_without_its_run_says_that_data_are_missing(toy: Path, tmp_path: Path) -> None:
    config = Path(shutil.copy(toy / "run" / "config.json", tmp_path))
    with pytest.raises(AdaNATError, match=r"No --dataset was given, and no .*inputs.json says what data --config"):
        nat_settings(PretrainNATRequest(config=config, device="cpu"))
    (tmp_path / "inputs.json").write_text('{"dataset": 3}')
    with pytest.raises(AdaNATError, match=r"inputs\.json: dataset is of the wrong type: 3"):
        nat_settings(PretrainNATRequest(config=config, device="cpu"))


@pytest.mark.parametrize("command", ["train-tokenizer", "pretrain-nat", "train-policy"])
def test_a_training_without_data_is_a_usage_error(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--steps", "4"] if command == "train-policy" else [command])
    assert done.exit_code == 2
    assert "No --dataset was given" in done.output


def test_where_secrets_are_nothing_is_noted() -> None:
    assert inputs_of(TrainTokenizerRequest("https://user:word@host/train.tar")) == {}
    assert inputs_of(TrainTokenizerRequest("https://host/train.tar")) == {"dataset": "https://host/train.tar"}


@pytest.mark.parametrize("name", ["own.txt", "none.yaml", "folder.json"])
def test_only_files_of_yaml_or_json_are_read(toy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "own.txt").write_text("training: {}")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(AdaNATError, match=name):
        nat(toy, "wrong", tmp_path / name)


def tokenizer(output: Path, config: Path | None = None, **changes: Any) -> TokenizerSettings:
    asked = TrainTokenizerRequest("digits", output=output, device="cpu", workers=0, config=config)
    return tokenizer_settings(replace(asked, **changes))


def test_a_tokenizers_own_configuration_repeats_it(tmp_path: Path) -> None:
    shape = {"codebook_size": 16, "channels": [8, 8], "code_width": 4, "num_res_blocks": 0}
    few = {"steps": 2, "batch_size": 4, "precision": "fp32", "beta1": 0.5, "warmup_steps": 1, "perceptual_weight": 0}
    own = write(tmp_path / "own.yaml", {"tokenizer": shape, "training": few})
    train_tokenizer(tokenizer(tmp_path / "a" / "run", own), SilentReporter())
    config, words = tmp_path / "a" / "run" / "config.json", Words()
    train_tokenizer(tokenizer(tmp_path / "b" / "run", config), words)
    assert read_json(config)["tokenizer"].items() >= shape.items()
    assert (files(tmp_path / "a" / "run"), words.said) == (files(tmp_path / "b" / "run"), [])
    resumed = tokenizer(tmp_path / "a" / "run")
    assert (resumed.tokenizer, resumed.training.beta1) == (tokenizer(tmp_path / "c", own).tokenizer, 0.5)
    alone = TrainTokenizerRequest(config=config, output=tmp_path / "d" / "run", device="cpu", workers=0)
    train_tokenizer(tokenizer_settings(alone), words)
    assert (files(tmp_path / "a" / "run"), words.said) == (files(tmp_path / "d" / "run"), [])
    typed = tokenizer(tmp_path / "c", config, downsampling=2, codebook_size=8, data={"image_size": 8}).tokenizer
    assert (typed.image_size, typed.codebook_size, typed.grid, typed.code_width) == (8, 8, (4, 4), 4)


def policy(folder: Path, output: str, config: Path | None, **changes: Any) -> PolicySettings:
    asked = TrainPolicyRequest(
        str(folder / "images"), str(folder / "model"), output=folder / output, workers=0, device="cpu", config=config
    )
    return policy_settings(replace(asked, **changes))


def test_a_policys_own_configuration_repeats_it(tmp_path: Path) -> None:
    toy = make_policy_toy(tmp_path)
    table = [[0.5, 1, 1, 0], [0.3, 1, 1, 1], [0.1, 1, 1, 2]]
    own = {
        "kind": "static",
        "policy": {"num_steps": 3, "schedule": "table", "schedule_table": table},
        "training": {
            "updates": 1,
            "trajectories": 6,
            "eval_images": 4,
            "paired": False,
            "reward": "fid",
            "fid_group": 3,
        },
        "ppo": {"epochs": 1, "minibatch": 6, "clip": 0.1},
    }
    train_policy(policy(toy, "run", write(tmp_path / "own.yaml", own)), SilentReporter())
    config, words = tmp_path / "run" / "config.json", Words()
    assert read_json(config)["ppo"]["clip"] == 0.1
    train_policy(policy(toy, "again", config), words)
    assert (files(tmp_path / "again"), words.said) == (files(tmp_path / "run"), [])
    alone = TrainPolicyRequest(config=config, output=tmp_path / "alone", workers=0, device="cpu")
    train_policy(policy_settings(alone), words)
    assert (files(tmp_path / "alone"), words.said) == (files(tmp_path / "run"), [])
    assert "model/policies/steps-3/model.safetensors" in files(tmp_path / "again")
    assert policy(toy, "run", None, kind="static", num_steps=3).policy["schedule_table"] == tuple(map(tuple, table))
    typed = policy(toy, "typed", config, kind="adaptive", num_steps=4, base="cosine", ppo={"learning_rate": 0.5})
    assert (typed.kind, typed.num_steps, typed.ppo.learning_rate, typed.ppo.clip) == ("adaptive", 4, 0.5, 0.1)
    assert "schedule_table" not in typed.policy


@pytest.mark.parametrize(
    "line",
    [
        ["train-tokenizer", "-d", "digits", "--image-size", "8", "--codebook-size", "32", "--seed", "3"],
        ["train-policy", "-d", "imagenet64", "--steps", "4", "--kind", "static", "--reward", "fid", "--updates", "7"],
    ],
)
def test_what_is_printed_can_be_passed_back(tmp_path: Path, line: list[str]) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--device", "cpu"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    printed = said(*line, "--output", str(tmp_path / "run"), "--print-config")
    assert not (tmp_path / "run").exists()
    (tmp_path / "own.yaml").write_text(printed)
    back = [*line[:3], "--config", str(tmp_path / "own.yaml"), "--output", str(tmp_path / "run")]
    assert said(*back, "--print-config") == printed
    assert json.loads(said(*back, "--print-config", "--json")) == yaml.safe_load(printed)
    assert json.loads(said(*back, "--dry-run", "--json")).keys() >= yaml.safe_load(printed).keys()
