"""What a training would do: settings, sizes and memory; of data, images of one's own here are looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.checkpoints.strict import without_values
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import BENCHMARKS, DATA_PRESETS, NATConfig, PixelConfig, nat_preset, tokenizer_config
from adanat_cli.core.config.settings import NATSettings, PolicySettings, TokenizerSettings
from adanat_cli.core.config.tokenizer import TokenizerConfig
from adanat_cli.core.data.token_shards import read_header, shard_files
from adanat_cli.core.errors import AdaNATError, hide_secrets
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.ppo.agent import Agent
from adanat_cli.core.pretrained import require_reachable
from adanat_cli.core.reading import json_text
from adanat_cli.core.rewards.backbones import seen_by_efficientnet
from adanat_cli.core.rewards.recognition import require_recognition
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.core.tokenizer.losses import EFFICIENTNET, require_backbones
from adanat_cli.jobs.resolve.images import describe_own, is_own, look_at_own
from adanat_cli.jobs.resolve.models import absent, is_absent, missing_parts
from adanat_cli.jobs.runtime.devices import device_memory, pick_device, require_multiple
from adanat_cli.jobs.runtime.gpu_hours import gpu_hours
from adanat_cli.jobs.runtime.group import num_processes
from adanat_cli.jobs.runtime.operations import without_memory
from adanat_cli.jobs.train.nat import nat_shape, pieces_of, tokenizer_model
from adanat_cli.jobs.train.nat_cost import count_parameters, forward_operations, state_bytes, update_memory
from adanat_cli.jobs.train.nat_start import class_rows, start_shape
from adanat_cli.jobs.train.policy import check_processes
from adanat_cli.jobs.train.policy_cost import PolicyCost, row_bytes
from adanat_cli.jobs.train.policy_rewards import make_discriminator, require_discriminator
from adanat_cli.jobs.train.policy_setup import (
    check_request,
    fit_to_condition,
    little_to_measure,
    open_images,
    policy_shape,
    run_settings,
)
from adanat_cli.jobs.train.policy_update import KEPT
from adanat_cli.jobs.train.start import Start, find_start

_JUDGED = 600
"""Measured bytes of an update of heads on EfficientNet, for each pixel that it sees of each real image."""


def plan_policy(request: PolicySettings) -> dict[str, Any]:
    """What ``train_policy`` would do; without a model, for the one that a benchmark was published with.

    Raises:
        AdaNATError: if the model, a setting, or images of one's own cannot be used.
    """
    pick_device(request.device)
    check_processes(request, num_processes())
    model, nat, fingerprint, image_size = _model(request)
    missing = _missing(request, is_here=bool(fingerprint))
    request = fit_to_condition(request, nat)
    start = find_start(request.start, policy_component(request.num_steps), request.output)
    shape = policy_shape(request, nat, fingerprint, start)
    agent, network = without_memory(lambda: Agent(shape)), without_memory(lambda: UViT(nat))
    discriminator = None
    if _has_discriminator(request):
        classes = nat.num_classes if nat.condition == "class" else 0
        # CLIP's projection is as wide as the states in both encoders that NATs were published with.
        width = nat.text_width if nat.condition == "text" else 0
        discriminator = make_discriminator(request.discriminator, image_size, classes, width, pretrained=False)
    config = request.training
    kept = KEPT[config.rollout]
    row = nat.num_tokens * (4 + (kept.itemsize * nat.width if kept else 0)) + 40
    rows = config.trajectories * request.num_steps // num_processes()
    rollout, passed = row * rows, request.ppo.minibatch // num_processes() or rows
    learning = -(-passed // request.accumulate) * row_bytes(agent, nat) if request.kind in ("adaptive", "static") else 0
    sizes = {
        "num_nat_parameters": _count(network),
        "num_policy_parameters": _count(agent.policy),
        "num_critic_parameters": _count(agent.critic),
    }
    if discriminator is not None:
        sizes |= {
            "num_discriminator_parameters": _count(discriminator),
            "num_trained_discriminator_parameters": sum(
                weight.numel() for weight in discriminator.parameters() if weight.requires_grad
            ),
        }
    states = 4 * config.batch_size * nat.text_length * nat.text_width  # of a batch, kept while it is generated
    return {
        **run_settings(request, shape, start),
        **_difference(request, run_settings(request, shape, start)),
        **_own_images(request, nat, is_here=bool(fingerprint)),
        "model": model,
        "output": str(request.output),
        **({"text_encoder": request.text_encoder or nat.text_encoder} if nat.condition == "text" else {}),
        **sizes,
        "tokens_per_image": nat.num_tokens,
        "rows_per_update": config.trajectories * request.num_steps,
        "num_processes": num_processes(),
        "rollout_megabytes": round(rollout / 2**20, 1),
        **_policy_hours(request, nat, agent),
        **({"text_state_megabytes": round(states / 2**20, 1)} if states else {}),
        "ppo_megabytes": learning // 2**20,
        **_memory(_policy_memory(request, nat, image_size, sizes, rollout + 3 * states, learning), request.device),
        **({"note": request.note} if request.note else {}),
        **({"missing": missing} if missing else {}),
    }


def _policy_hours(request: PolicySettings, nat: NATConfig, agent: Agent) -> dict[str, Any]:
    """Hours on GPUs of what learns by PPO, and of generating as many images as are usually measured."""
    benchmark = BENCHMARKS.get(request.dataset)
    if benchmark and is_absent(request.dataset, request.model):
        tokenizer: TokenizerConfig = benchmark.tokenizer()
    else:
        folder, _ = check_request(request)
        tokenizer = tokenizer_config(folder.config("tokenizer"), str(folder.path))
    cost = PolicyCost.of(request, nat, agent, tokenizer, _has_discriminator(request))
    hours = {} if request.kind in ("search", "tuned") else {"gpu_hours": cost.hours(request)}
    return {**hours, "gpu_hours_of_50000_images": cost.hours_of_a_measurement(request)}


def _own_images(request: PolicySettings, nat: NATConfig, is_here: bool) -> dict[str, str]:
    """What is understood of images of one's own, to train on and to measure with; empty for other data."""
    if not is_here or not is_own(request.data):
        return {}
    training, measured = open_images(request, check_request(request)[0], nat)
    line = f"{describe_own(training)} To measure with: {measured.describe()} {little_to_measure(request, measured)}"
    return {"images": line.rstrip()}


def _difference(request: TokenizerSettings | NATSettings | PolicySettings, settings: dict[str, Any]) -> dict[str, str]:
    """Where the run would be no repetition of the one that ``--config`` is of, as far as this is known without data."""
    difference = request.record.difference(json.loads(json_text(settings)))
    return {"config": difference} if difference else {}


def _model(request: PolicySettings) -> tuple[str, NATConfig, str, int]:
    """Where the model is, its NAT, the NAT's fingerprint, and the size of its images."""
    benchmark = BENCHMARKS.get(request.dataset)
    if benchmark and is_absent(request.dataset, request.model):
        return "(the benchmark's)", nat_preset(benchmark.nat_size, **benchmark.nat()), "", benchmark.image_size
    folder, nat = check_request(request)
    return folder.name, nat, folder.fingerprint("nat"), folder.index.image_size


def _has_discriminator(request: PolicySettings) -> bool:
    return request.training.reward == "adversarial" and request.kind not in ("search", "tuned")


def _missing(request: PolicySettings, is_here: bool) -> list[str]:
    """What the run will need and has not.

    Raises:
        AdaNATError: if a discriminator's file is missing or of another network.
    """
    missing = [] if is_here else [absent(request.dataset)]
    if _has_discriminator(request):
        try:
            require_discriminator(request.discriminator)
        except AdaNATError as error:
            if "=" in request.discriminator.backbone:
                raise
            missing.append(str(error))
    if request.training.reward == "recognition":
        try:
            require_recognition()
        except AdaNATError as error:
            missing.append(str(error))
    if request.training.reward == "preference" and not Path(request.preference_model).is_dir():
        repo, _, revision = request.preference_model.partition("@")
        try:
            require_reachable(repo, "config.json", revision or None)
        except OSError as error:
            missing.append(f"--preference-model {request.preference_model} cannot be had: {error}")
    return missing


def _policy_memory(
    request: PolicySettings, nat: NATConfig, image_size: int, sizes: dict[str, int], kept: int, learning: int
) -> int:
    """Rough bytes: weights, those of Adam where they train, what is kept, and the largest of three passes.

    One is a guided pass of the NAT, one PPO's over its share of a minibatch (``learning``), and one an update of heads
    on EfficientNet.
    """
    trained = sizes["num_policy_parameters"] + sizes["num_critic_parameters"]
    trained += sizes.get("num_trained_discriminator_parameters", 0)
    frozen = sizes["num_nat_parameters"] + sizes.get("num_discriminator_parameters", 0)
    rows = 2 * request.training.batch_size * (nat.num_tokens + max(nat.text_length, 1))
    block = (9 + 2 * nat.mlp_ratio + nat.depth // 2) * nat.width  # of one block, and the long skips
    logits = 8 * request.training.batch_size * nat.num_tokens * nat.codebook_size
    passes, judge = max(4 * rows * block + 4 * logits, learning), request.discriminator
    if _has_discriminator(request) and judge.backbone == "efficientnet":
        seen = seen_by_efficientnet(image_size, judge.resolution)
        passes = max(passes, _JUDGED * judge.batch_size * seen**2)
    return 16 * trained + 4 * frozen + passes + kept


def _memory(num_bytes: int, device_name: str) -> dict[str, Any]:
    """What a process takes, and how much less there is here; a plan may be for another machine."""
    device = pick_device(device_name)
    here, where = device_memory(device), "this machine" if device.type == "cpu" else str(device)
    less = {"memory": f"more than the {here // 2**20:,} MB of {where}"} if 0 < here < num_bytes else {}
    return {"megabytes_on_one_process": num_bytes // 2**20, **less}


def _count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def plan_tokenizer(request: TokenizerSettings) -> dict[str, Any]:
    """What ``train_tokenizer`` would do.

    Raises:
        AdaNATError: if the device is absent, the weights of a frozen network are not available, or there are no images.
    """
    pick_device(request.device)
    require_backbones(*request.training.backbones)
    start = find_start(request.start, "tokenizer", request.output)
    with without_values():
        num_parameters = _count(build_tokenizer(request.tokenizer))
    settings = {"tokenizer": request.tokenizer.to_dict(), **(start.recorded() if start else {})}
    source = look_at_own(request.data)
    return {
        "data": request.data.to_dict(),
        **({"images": describe_own(source)} if source else {}),
        **settings,
        **_difference(request, settings),
        "training": request.training.to_dict(),
        "output": str(request.output),
        "num_parameters": num_parameters,
        "tokens_per_image": request.tokenizer.num_tokens,
        "tokens_per_update": request.tokenizer.num_tokens * request.training.batch_size,
        **_memory(_tokenizer_memory(request, num_parameters), request.device),
        **({"note": request.note} if request.note else {}),
    }


def _tokenizer_memory(request: TokenizerSettings, num_parameters: int) -> int:
    """Rough bytes of an update: weights, gradients, two moments and the average, and what backward keeps."""
    shape = request.tokenizer
    if isinstance(shape, PixelConfig):
        return 0
    # Per pixel of a level, in encoder and decoder: a resampling, and of each residual block two norms, activations and
    # convolutions.
    floats = sum(
        2 * (4 + 6 * shape.num_res_blocks) * width / 4**level for level, width in enumerate(shape.channels, start=1)
    )
    numbers = shape.image_size**2 * (12 + floats)
    if EFFICIENTNET in request.training.backbones:
        # Numbers per pixel that it sees.
        numbers += max(request.training.feature_size, shape.image_size) ** 2 * 300
    size = 2 if request.training.precision == "bf16" else 4
    return 20 * num_parameters + int(size * request.training.batch_size * numbers)


def plan_nat(request: NATSettings) -> dict[str, Any]:
    """What ``pretrain_nat`` would do; of data, the header of a token set alone is read.

    The grid is that of the token set, if it is there; else a benchmark's own, or the named tokenizer's.

    Raises:
        AdaNATError: if the device is absent, or there is no tokenizer.
    """
    pick_device(request.device)
    start = find_start(request.start, "nat", request.output)
    model, shape = _nat_shape(request, start)
    num_parameters, config, processes = count_parameters(shape), request.training, num_processes()
    require_multiple(config.batch_size, processes, "--batch-size", f"{processes} processes")
    other = [read_header(file).info.instead_of(request.dataset) for file in shard_files(request.tokens)[:1]]
    note = " ".join(filter(None, [*other, request.note]))
    pieces = pieces_of(request, shape, config.batch_size // processes, config.precision)
    return {
        "dataset": hide_secrets(request.dataset),
        "tokens": str(request.tokens),
        "model": model,
        "output": str(request.output),
        "nat": shape.to_dict(),
        **(_start(start, request) if start else {}),
        **_difference(request, {"nat": shape.to_dict(), **(start.recorded() if start else {})}),
        "training": config.to_dict(),
        "num_parameters": num_parameters,
        "tokens_per_image": shape.num_tokens,
        "tokens_per_update": shape.num_tokens * config.batch_size,
        "num_processes": processes,
        "accumulate": pieces,
        **_nat_cost(request, shape, -(-config.batch_size // processes // pieces)),
        "megabytes_of_states_on_disk": state_bytes(num_parameters) // 2**20,
        **({"note": note} if note else {}),
        **missing_parts(request.dataset, request.model or request.start, request.tokens),
    }


def _nat_cost(request: NATSettings, shape: NATConfig, rows: int) -> dict[str, Any]:
    """Memory of a process as asked for, and in all four ways; operations of an update, and hours on GPUs.

    Backward takes twice the operations of forward, and gradient checkpointing a second forward. ``auto`` is bf16, as on
    GPUs.
    """
    config, processes = request.training, num_processes()

    def memory(fsdp: bool, again: bool) -> int:
        format_ = "fp32" if config.precision == "fp32" else "bf16"
        return update_memory(shape, rows, format_, processes if fsdp else 1, again)

    ways = {"all in each": (False, False), "--gradient-checkpointing": (False, True)}
    if processes > 1:
        ways |= {"--fsdp": (True, False), "--fsdp --gradient-checkpointing": (True, True)}
    passes = 4 if request.gradient_checkpointing else 3
    update = passes * forward_operations(shape) * config.batch_size
    return {
        "images_per_pass": rows,
        **_memory(memory(request.fsdp, request.gradient_checkpointing), request.device),
        "megabytes_by_way": {name: memory(*way) // 2**20 for name, way in ways.items()},
        "tera_flops_per_update": round(update / 1e12, 3),
        "gpu_hours": gpu_hours(**{"fp32" if config.precision == "fp32" else "bf16": update * config.steps}),
    }


def _start(start: Start, request: NATSettings) -> dict[str, Any]:
    """What the NAT starts from, and where the rows of its classes come from, if that is to be decided still."""
    values, shards = start.recorded(), shard_files(request.tokens)
    if shards and not start.is_resumed and (info := read_header(shards[0]).info).condition == "class":
        values["from"]["classes"] = class_rows(start.folder, info).line(range(info.num_classes))
    return values


def _nat_shape(request: NATSettings, start: Start | None) -> tuple[str, NATConfig]:
    """Whose tokens the NAT would be for, and its configuration."""
    benchmark = BENCHMARKS.get(request.dataset)
    shards = shard_files(request.tokens)
    if benchmark and not shards and not start and is_absent(request.dataset, request.model):
        return "(the benchmark's tokenizer)", nat_preset(request.size, **{**benchmark.nat(), **request.shape})
    model = tokenizer_model(request, start)
    if shards:
        info = read_header(shards[0]).info
        if info.condition == "text" and not info.text_width and not start:
            # Only the encoder, which is not loaded here, records it; a benchmark knows its own.
            known = benchmark or BENCHMARKS["mscoco"]
            info = replace(info, text_width=known.text_width, text_length=known.text_length)
        return model.name, nat_shape(request, info, model, start=start)
    if start:
        base, classes = start_shape(start), DATA_PRESETS.get(request.dataset, {}).get("num_classes")
        return model.name, base.replace(num_classes=classes if base.condition == "class" else None)
    tokenizer = tokenizer_config(model.config("tokenizer"), str(model.path))
    fields: dict[str, Any] = {"num_classes": DATA_PRESETS.get(request.dataset, {}).get("num_classes", 1000)}
    fields = benchmark.nat() if benchmark else fields
    fields |= {"codebook_size": tokenizer.codebook_size, "grid": tokenizer.grid}
    fields |= {"tokenizer_fingerprint": tokens_fingerprint(model), **request.shape}
    return model.name, nat_preset(request.size, **fields)
