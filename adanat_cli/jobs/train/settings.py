"""Settle trainings from what was typed: the command line, Python and dry runs all come this way.

What was typed comes first; then the file of ``--config``, the settings of the run that is resumed, the preset's, and
what follows from the size of the data and the machine (``adanat_cli.core.config.own_data``).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import (
    BENCHMARKS,
    DATA_PRESETS,
    PROJECTED_REWARD,
    PROJECTED_TRAINING,
    RECIPES,
    TRAINING_PRESETS,
    Config,
    DataConfig,
    DiscriminatorConfig,
    NATConfig,
    NATTrainingConfig,
    PolicyConfig,
    PolicyTrainingConfig,
    PPOConfig,
    Recipe,
    TokenizerTrainingConfig,
    VQAEConfig,
    data_config,
    recipe,
    tokenizer_config,
)
from adanat_cli.core.config import own_data as usual
from adanat_cli.core.config.acting import refuse_idle
from adanat_cli.core.config.config_file import NAT_SHAPE
from adanat_cli.core.config.nat import nat_size
from adanat_cli.core.config.option import Asked
from adanat_cli.core.config.own_data import Fields, Scale
from adanat_cli.core.config.schema import conform_fields
from adanat_cli.core.config.settings import (
    NATSettings,
    PolicySettings,
    Settled,
    TokenizerSettings,
    given,
    settled_as,
    settled_config,
)
from adanat_cli.core.config.training_requests import (
    PretrainNATRequest,
    TrainPolicyRequest,
    TrainTokenizerRequest,
)
from adanat_cli.core.data.described import plural
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import TokenSetInfo, read_header, shard_files
from adanat_cli.core.errors import hide_secrets, require
from adanat_cli.jobs.resolve.images import look_at_own
from adanat_cli.jobs.resolve.models import num_trained_on, resolve_tokens
from adanat_cli.jobs.train.config_file import (
    chosen_start,
    kept_policy_shape,
    policy_output,
    policy_request,
    read_config,
    typed_of_policy,
    typed_of_tokenizer,
)
from adanat_cli.jobs.train.inputs import inputs_of, with_inputs
from adanat_cli.jobs.train.nat import training_rows
from adanat_cli.jobs.train.nat_start import start_shape as nat_start_shape
from adanat_cli.jobs.train.own_images import own_images, scale_of
from adanat_cli.jobs.train.policy_setup import named_model
from adanat_cli.jobs.train.policy_start import chosen_kind, policy_start_shape, trainable_kind
from adanat_cli.jobs.train.run_folder import recorded_settings
from adanat_cli.jobs.train.start import Start, find_start
from adanat_cli.jobs.train.tokenizer_shape import size_of, usual_tokenizer
from adanat_cli.jobs.train.tokenizer_start import start_shape
from adanat_cli.jobs.train.trackers import chosen_trackers

_TOKENS = 64
_HELD_OUT_FROM = 4949
_SIZE = ("width", "depth", "num_heads")
"""Fields of a NAT's shape that its preset gives."""
_POLICY_PARTS = {
    "policy": PolicyConfig,
    "training": PolicyTrainingConfig,
    "ppo": PPOConfig,
    "discriminator": DiscriminatorConfig,
}
_SMALL_WIDTH = 224
"""Widest NAT that is trained at the rate of the small presets."""
_FURTHER = 4
"""How many times smaller than usual the learning rate is with --from."""


@dataclasses.dataclass(frozen=True)
class _SavedData:
    """What a NAT's run has saved of its data that is read again."""

    num_images: int


def tokenizer_settings(request: TrainTokenizerRequest, dry_run: bool = False) -> TokenizerSettings:
    """Settle a training of a tokenizer.

    Args:
        request: what was typed.
        dry_run: whether data on other machines stay untouched; their images are not counted then.

    Raises:
        AdaNATError: if a setting is invalid, or data of one's own cannot be opened.
    """
    chosen_trackers(request.track)
    request = with_inputs(request)
    dataset, file = request.dataset, read_config(request.config, "train-tokenizer")
    output = request.output or Path("runs") / f"tokenizer-{Path(hide_secrets(dataset)).name}"
    request = dataclasses.replace(request, start=chosen_start(request.start, file, "tokenizer", output))
    typed, inside = given(request.training), file.part("training")
    training = {**inside.settings, **typed}
    saved, preset = saved_settings(output, training=TokenizerTrainingConfig), TRAINING_PRESETS.get(dataset, {})
    was = tokenizer_config(saved["tokenizer"], str(output / "config.json")) if "tokenizer" in saved else None
    before, start = saved.get("training", {}), find_start(request.start, "tokenizer", output)
    shape = {**(dataclasses.asdict(was) if was else {}), **file.part("tokenizer").settings}
    if start:
        was = start_shape(start, request, was, bool({**before, **training}.get("freeze_encoder")))
        shape = dataclasses.asdict(was)
    data = {**size_of(shape), **file.part("data").settings, **(size_of(shape) if start else {}), **given(request.data)}
    if not saved and dataset not in DATA_PRESETS:
        config, scale, line = own_images(dataset, data, request.device, dry_run)
    else:
        config, scale, line = data_config(dataset, **data), Scale(None), ""
    tokenizer = was if start and was else usual_tokenizer(request, config.image_size, scale, shape)
    row = preset.get("tokenizer", {})
    if line:
        row = usual.usual_tokenizer_training(scale, config.image_size, training)
    if start:
        row = {**row, "adversarial_start": 0, **_further_rate(TokenizerTrainingConfig, row)}
    if {**before, **training}.get("discriminator") == "efficientnet":
        row = {**row, **PROJECTED_TRAINING}
    settled = settled_config(TokenizerTrainingConfig, row, before, inside, typed)
    _refuse_idle(settled, typed, start)
    note = ""
    if line and isinstance(tokenizer, VQAEConfig):
        grid = " x ".join(map(str, tokenizer.grid))
        follows = _follows(scale, _pace(settled, training))
        note = f"{line} {grid} tokens of {tokenizer.codebook_size:,} codes. {follows}".rstrip()
    note = " ".join(filter(None, (note, _rate_note(start, settled, row))))
    return settled_as(
        TokenizerSettings,
        request,
        data=config,
        tokenizer=tokenizer,
        training=settled,
        output=output,
        note=note,
        record=file.record(typed_of_tokenizer(request)),
        inputs=inputs_of(request),
    )


def nat_settings(request: PretrainNATRequest, dry_run: bool = False) -> NATSettings:
    """Settle a training of a NAT.

    Args:
        request: what was typed.
        dry_run: whether a token set on the Hub stays there.

    Raises:
        AdaNATError: if a setting is invalid or a token set is damaged.
    """
    chosen_trackers(request.track)
    request = with_inputs(request)
    dataset, tokens, file = request.dataset, request.tokens or Path(), read_config(request.config, "pretrain-nat")
    output = request.output or Path("runs") / f"nat-{Path(hide_secrets(dataset)).name}"
    request = dataclasses.replace(request, start=chosen_start(request.start, file, "nat", output))
    typed, inside = given(request.training), file.part("training")
    training = {**inside.settings, **typed}
    saved = saved_settings(output, training=NATTrainingConfig, nat=NATConfig, data=_SavedData)
    preset, row = TRAINING_PRESETS.get(dataset, {}), {}
    if benchmark := BENCHMARKS.get(dataset):
        preset = {"size": benchmark.nat_size, "nat": {"steps": benchmark.nat_steps}}
    scale, start = None, find_start(request.start, "nat", output)
    shape = {**saved.get("nat", {}), **file.part("nat").settings}
    if start:
        shape = nat_start_shape(start).to_dict()
    if not saved and (not preset or training.get("held_out")):
        info, num_rows = _counted_tokens(tokens, request.classes, dry_run)
        share = training.get("held_out", 0)
        require(
            not share or num_rows is None or round(1 / share) <= num_rows,
            f"--held-out {share} of {num_rows} images is less than one; give more, or 0 for none.",
        )
    if not saved and not preset:
        scale, asked = scale_of(num_rows, request.device), {**training, "size": request.size or _usual_like(shape)}
        row = usual.usual_nat(scale, info.num_tokens if info else _TOKENS, asked)
    size = request.size or nat_size(shape)
    if not size and not start:
        size = preset.get("size") or row.get("size", "large")
    row = {key: value for key, value in row.items() if key != "size"} | preset.get("nat", {})
    if start:
        row = {**row, "code_init": 0.0, **_further_rate(NATTrainingConfig, row)}
    if saved and "held_out" not in saved["training"]:  # of a version that held out 1 % from 5,000 images on
        row = {**row, "held_out": 0.01 if saved["data"].get("num_images", 0) > _HELD_OUT_FROM else 0.0}
    settled = settled_config(NATTrainingConfig, row, saved.get("training", {}), inside, typed)
    note = ""
    if scale:
        held = f"{100 * settled.held_out:.3g} % of them held out" if settled.held_out else "none held out"
        words = [] if start or request.size or "width" in shape else [f"size {size}"]
        words += [*_pace(settled, training), *([] if "held_out" in training else [held])]
        note = _follows(scale, words)
    note = " ".join(filter(None, (note, _rate_note(start, settled, row))))
    cuts = request.accumulate or 0
    others = {"size": size, "accumulate": cuts, "note": note, "output": output, "training": settled}
    if not start:
        others["shape"] = {key: shape[key] for key in NAT_SHAPE if key in shape and not (request.size and key in _SIZE)}
    record = file.record([*(f"nat.{key}" for key in _SIZE if request.size), *(["from"] if request.start else [])])
    return settled_as(NATSettings, request, record=record, inputs=inputs_of(request), **others)


def _usual_like(shape: dict[str, Any]) -> str:
    """Size whose settings suit a shape that is given; "" where its width is not."""
    if "width" not in shape:
        return ""
    return nat_size(shape) or ("tiny" if shape["width"] <= _SMALL_WIDTH else "large")


def policy_settings(request: TrainPolicyRequest) -> PolicySettings:
    """Settle a training of a policy.

    Raises:
        AdaNATError: if a setting is invalid, or there is no model.
    """
    chosen_trackers(request.track)
    typed_request = request = with_inputs(request)
    request, num_steps, file = policy_request(request)
    kind = chosen_kind(request, num_steps)
    output = request.output or policy_output(request, kind)
    start = find_start(request.start, policy_component(num_steps), output)
    model = request.model or request.start
    if start and not model and start.folder.exists():
        model = start.place  # of the run that is resumed
    if start and not request.kind:
        kind = trainable_kind(policy_start_shape(start, num_steps), start.model)
    training, ppo = given(request.training), given(request.ppo)
    if kind == "static" and "learning_rate" in ppo:
        ppo = {"static_learning_rate": ppo.pop("learning_rate"), **ppo}
    saved = saved_settings(output, **_POLICY_PARTS)
    # The model's tokenizer says which size the images have.
    size = DATA_PRESETS.get(request.dataset, {}).get("image_size", 1)
    data = data_config(request.dataset, **{"image_size": size, **file.part("data").settings, **given(request.data)})
    asked_training = {**file.part("training").settings, **training}
    asked_judge = {**file.part("discriminator").settings, **given(request.discriminator)}
    chosen, scale = recipe(request.recipe, request.dataset), None
    if request.recipe == "auto" and not saved and request.dataset not in (*RECIPES, *BENCHMARKS):
        chosen, scale = _usual_recipe(request, model, data, asked_training)

    def settle(name: str, part: type[Settled], asked: Asked) -> Settled:
        return settled_config(part, chosen.get(name, {}), saved.get(name, {}), file.part(name), asked)

    settled = settle("training", PolicyTrainingConfig, training)
    if not saved and request.recipe != "paper":  # what an earlier version did not save was off
        chosen = _with_usual_judge(chosen, asked_judge)
    discriminator = settle("discriminator", DiscriminatorConfig, request.discriminator)
    rewarder = settled.reward if kind not in ("search", "tuned") else kind
    refuse_idle(typed_request, f"--{'kind' if rewarder == kind else 'reward'} {rewarder}", rewarder)
    optimisation = settle("ppo", PPOConfig, ppo)
    if optimisation.baseline == "pair" and not settled.paired and "baseline" not in ppo:
        optimisation = optimisation.replace(baseline="class")
    shape = {} if start else {**chosen.get("policy", {}), **kept_policy_shape(saved, file, request)}
    judge = "" if rewarder != "adversarial" or "backbone" in asked_judge else discriminator.backbone
    return settled_as(
        PolicySettings,
        request,
        data=data,
        base=request.base or "cosine",
        kind=kind,
        model=model,
        training=settled,
        ppo=optimisation,
        discriminator=discriminator,
        policy={**shape, **given(request.policy)},
        output=output,
        note=_policy_note(kind, scale, settled, asked_training, judge),
        record=file.record(typed_of_policy(typed_request)),
        inputs=inputs_of(typed_request),
    )


def _usual_recipe(request: TrainPolicyRequest, model: str, data: DataConfig, asked: Fields) -> tuple[Recipe, Scale]:
    """The recipe for data without a preset, and what it follows from: the images, or those of the model's training."""
    folder, own = named_model(model, request.dataset), look_at_own(data)
    scale = scale_of(own.num_images if own else num_trained_on(folder), request.device)
    return usual.usual_policy(scale, folder.index.image_size, asked), scale


def _policy_note(kind: str, scale: Scale | None, settled: PolicyTrainingConfig, asked: Fields, judge: str) -> str:
    """Say what follows from the data; "" where nothing does. ``judge`` names a discriminator that was not given."""
    if scale is None:
        return ""
    searches = kind in ("search", "tuned")
    words = _search_length(kind, settled, asked) if searches else _length(settled, asked, "updates", "trajectories")
    last = " the best one" if searches else ""
    words += [] if "eval_images" in asked else [f"{settled.eval_images:,} images to measure{last} with"]
    return _follows(scale, [*words, *([f"discriminator {judge}"] if judge else [])])


def _search_length(kind: str, settled: PolicyTrainingConfig, asked: Fields) -> list[str]:
    """In words, what was not given of the length of a search, which takes no updates."""
    length = f"{settled.updates:,} {plural('generation', settled.updates)}"
    words = [length] if kind == "search" and "updates" not in asked else []
    return words + (
        [] if "trajectories" in asked else [f"{settled.trajectories:,} images to measure each schedule with"]
    )


def _with_usual_judge(chosen: Recipe, asked: Fields) -> Recipe:
    """A recipe whose discriminator has the settings that suit it, where it is, or was asked to be, efficientnet."""
    row = chosen.get("discriminator", {})
    is_projected = {**row, **asked}.get("backbone") == "efficientnet"
    return {**chosen, "discriminator": {**row, **PROJECTED_REWARD}} if is_projected else chosen


def saved_settings(output: Path, **parts: type[Any]) -> dict[str, Any]:
    """The settings of a run that can be resumed; empty where there is nothing to resume.

    Args:
        output: run folder.
        parts: name of a part of the settings -> dataclass whose fields it holds, of any edition.

    Raises:
        AdaNATError: if the file is damaged.
    """
    values, file = recorded_settings(output), output / "config.json"
    return values and values | {
        name: conform_fields(kind, values.get(name, {}), f"{file}: {name}") for name, kind in parts.items()
    }


def _refuse_idle(settled: TokenizerTrainingConfig, asked: Fields, start: Start | None) -> None:
    """Refuse options of a tokenizer's training that would do nothing."""
    require(
        "feature_size" not in asked or "efficientnet" in settled.backbones,
        "--feature-size has no meaning where no loss reads efficientnet; leave it out, or use --discriminator "
        "efficientnet.",
    )
    require(
        start is not None or not settled.freeze_encoder,
        "--freeze-encoder keeps the encoder of a trained tokenizer; name its model with --from, or leave it out.",
    )


def _counted_tokens(tokens: Path, classes: tuple[str, ...], dry_run: bool) -> tuple[TokenSetInfo | None, int | None]:
    """What a token set says of itself, and how many images there are to train on; None where it is not here."""
    if not dry_run:
        tokens = resolve_tokens(tokens)
    headers = [read_header(file) for file in shard_files(tokens)]
    if not headers:
        return None, None
    if classes:
        return headers[0].info, len(training_rows(TokenSet.open(tokens), classes))
    return headers[0].info, sum(header.num_rows for header in headers)


def _further_rate(kind: type[TokenizerTrainingConfig | NATTrainingConfig], row: Fields) -> Fields:
    """The learning rate of a training from trained weights, which the usual one would make worse first."""
    return {"learning_rate": row.get("learning_rate", kind.learning_rate) / _FURTHER}


def _rate_note(start: Start | None, settled: TokenizerTrainingConfig | NATTrainingConfig, row: Fields) -> str:
    """Say that the rate is not the usual one, where that is so."""
    if not start or start.is_resumed or settled.learning_rate != row["learning_rate"]:
        return ""
    return f"Peak learning rate {settled.learning_rate:g}, for training starts from trained weights."


def _follows(scale: Scale, words: list[str]) -> str:
    """A sentence on settings that follow from the data; "" where all were given."""
    return f"Settings that were not given follow from {scale}: {', '.join(words)}; options set others." if words else ""


def _pace(config: TokenizerTrainingConfig | NATTrainingConfig, asked: Fields) -> list[str]:
    """In words, what was not given of the settings that say how long and how fast a training learns."""
    words = _length(config, asked, "steps", "batch_size")
    words += [] if "warmup_steps" in asked else [f"warm-up {config.warmup_steps:,}"]
    return words + ([] if "ema_decay" in asked else [f"EMA decay {config.ema_decay:g}"])


def _length(config: Config, asked: Fields, updates: str, images: str) -> list[str]:
    """In words, the number of updates and that of images of each, but for what was given."""
    number, each = getattr(config, updates), getattr(config, images)
    counted, seen = f"{number:,} {plural('update', number)}", f"{each:,} {plural('image', each)}"
    if updates in asked:
        return [] if images in asked else [f"{seen} an update"]
    return [counted if images in asked else f"{counted} of {seen}"]
