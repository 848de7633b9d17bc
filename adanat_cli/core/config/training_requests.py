"""What is typed of the three trainings; what is not follows from presets, data and machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adanat_cli.core.config import shared
from adanat_cli.core.config.acting import ADVERSARIAL, PREFERENCE, REWARDS
from adanat_cli.core.config.data import DataConfig
from adanat_cli.core.config.option import Asked, option, part
from adanat_cli.core.config.policy import PolicyConfig
from adanat_cli.core.config.policy_training import DiscriminatorConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.config.training import NATTrainingConfig, TokenizerTrainingConfig

Kind = Literal["adaptive", "static", "search", "tuned"]
PREFERENCE_MODEL = "yuvalkirstain/PickScore_v1"


@dataclass(frozen=True)
class TrainTokenizerRequest:
    """What is typed of ``adanat train-tokenizer``; the rest follows from presets, data and machine."""

    dataset: str = shared.trained_on()
    data: Asked = part(DataConfig, "split")
    output: Path | None = shared.output(None, help="Run folder.", show_default="runs/tokenizer-DATASET")
    codebook_size: int | None = option(
        None, help="Codebook size K, the number of codes; with --from, more than the model has add codes."
    )
    downsampling: int | None = option(
        None, help="Image pixels per token side: 2, 4, 8, 16 or 32; with 1, pixels are tokens."
    )
    colour: bool = option(
        False, help="Train nothing: a token is the mean colour of its pixels, one of 8, 27, 64, … colours."
    )
    start: str = shared.start(
        help="Model to train further, whose tokenizer gives shape and first weights: folder, name or Hub id "
        "user/repo\\[@revision]."
    )
    training: Asked = part(TokenizerTrainingConfig, "log_every", "sample_every")
    half: bool = shared.half()
    workers: int = shared.workers()
    config: Path | None = shared.config()
    track: tuple[str, ...] = shared.track()
    device: str = shared.device()


@dataclass(frozen=True)
class PretrainNATRequest:
    """What is typed of ``adanat pretrain-nat``; the rest follows from presets, data and machine."""

    dataset: str = shared.trained_on()
    tokens: Path | None = option(
        None,
        "--tokens",
        "-t",
        help="Folder that `adanat tokenize` wrote, or Hub id user/repo\\[@revision]; without --dataset, those of the "
        "run of --config.",
    )
    size: Literal["nano", "micro", "tiny", "mini", "small", "large", "muse"] | None = option(
        None, help="Size of the NAT; by default the preset's, or chosen by the number of images."
    )
    model: str = option(
        "",
        "--model",
        "--tokenizer",
        "-m",
        help="Model whose tokenizer made the tokens; by default that of --from, else the data set's own.",
    )
    start: str = shared.start(
        help="Model to train further, whose NAT gives shape and first weights: folder, name or Hub id "
        "user/repo\\[@revision]. Its classes are found by number or name; new ones start from the null class."
    )
    text_encoder: str = shared.text_encoder()
    output: Path | None = shared.output(None, help="Run folder.", show_default="runs/nat-DATASET")
    classes: tuple[str, ...] = shared.classes()
    training: Asked = part(NATTrainingConfig)
    accumulate: int | None = option(
        None,
        help="Gradient accumulation steps; by default as few as the memory of a process allows.",
        min=1,
        panel="Training",
    )
    gradient_checkpointing: bool = option(
        False,
        help="Compute the activations of transformer blocks again in the backward pass instead of keeping them: less "
        "memory, a third more operations.",
        panel="Training",
    )
    fsdp: bool = option(
        False,
        help="Share weights, gradients, optimizer state and average out over the processes (FSDP2) instead of keeping "
        "all in each, for NATs that do not fit; checkpoints stay the same.",
        panel="Training",
    )
    compiled: bool = option(
        False,
        "--compile",
        help="Compile the NAT with torch.compile first, which takes a minute or more and needs a C++ compiler (Triton "
        "on a GPU): worth it for long runs. Dropout draws other random numbers, and rounding differs.",
        panel="Training",
    )
    half: bool = shared.half()
    config: Path | None = shared.config()
    track: tuple[str, ...] = shared.track()
    device: str = shared.device()


@dataclass(frozen=True)
class TrainPolicyRequest:
    """What is typed of ``adanat train-policy``; the rest follows from recipes, data and machine."""

    dataset: str = shared.trained_on()
    model: str = option(
        "",
        "--model",
        "-m",
        help="Model folder, name or Hub id; by default that of --from, else the data set's embedded one, or "
        "models/DATASET.",
    )
    num_steps: int | None = option(None, "--steps", help="Generation steps that the policy is for.", show_default="8")
    start: str = shared.start(
        help="Model whose policy for --steps is trained further: folder, name or Hub id user/repo\\[@revision]. Kind, "
        "shape and base schedule are those of the policy; the critic starts anew."
    )
    kind: Kind | None = option(
        None,
        show_default="adaptive",
        help="adaptive: learned values for every sample; static: learned values, the same for all samples; search: one "
        "table, by black-box search; tuned: the best of a small grid of factors.",
    )
    recipe: str = option("auto", help="Settings by name: auto (the preset's, or by data and machine), default, paper.")
    text_encoder: str = shared.text_encoder()
    output: Path | None = shared.output(None, help="Run folder.", show_default="runs/policy-DATASET-KIND-STEPS")
    install: bool = option(False, help="Also install the policy in the model folder itself.")
    half: bool = shared.half()
    data: Asked = part(DataConfig, "split", "image_size")
    base: str | None = option(
        None,
        show_default="cosine",
        help="Fixed schedule that the policy starts from: cosine, autonat:FILE or table:FILE (YAML).",
        panel="Policy",
    )
    ref: Path | None = option(
        None,
        "--ref",
        help="Reference statistics that `adanat stats` wrote of real images: distances of the run (of a search, of "
        "--reward fid, of the best update) are measured to them, in the features of their protocol instead of a small "
        "network's.",
    )
    policy: Asked = part(PolicyConfig)
    discriminator: Asked = part(
        DiscriminatorConfig, acts_on=frozenset({ADVERSARIAL}), purpose="is for --reward adversarial"
    )
    preference_model: str | None = option(
        None,
        help="Image-text model of --reward preference: Hub id or folder.",
        panel="Reward",
        show_default=PREFERENCE_MODEL,
        acts_on=frozenset({PREFERENCE}),
        purpose="is for --reward preference",
    )
    training: Asked = part(PolicyTrainingConfig)
    ppo: Asked = part(PPOConfig)
    accumulate: int = option(
        1,
        help="Gradient accumulation steps of PPO.",
        min=1,
        panel="Training",
        acts_on=REWARDS,
        purpose="cuts PPO's minibatches",
    )
    workers: int = shared.workers()
    config: Path | None = shared.config()
    track: tuple[str, ...] = shared.track()
    device: str = shared.device()
