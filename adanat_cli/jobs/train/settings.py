"""Settle trainings from what was typed: the command line, Python and dry runs all come this way.

What was typed comes first; then the settings of the run that is resumed, the preset's, and what follows from the size
of the data and the machine (``adanat_cli.core.config.own_data``).
"""

from __future__ import annotations

import dataclasses
import statistics
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from adanat_cli.core.config import (
    BENCHMARKS,
    DATA_PRESETS,
    NAT_PRESETS,
    PROJECTED_TRAINING,
    RECIPES,
    TRAINING_PRESETS,
    DataConfig,
    DiscriminatorConfig,
    NATConfig,
    NATTrainingConfig,
    PixelConfig,
    PolicyConfig,
    PolicyTrainingConfig,
    PPOConfig,
    TokenizerConfig,
    TokenizerTrainingConfig,
    VQAEConfig,
    data_config,
    recipe,
    tokenizer_config,
)
from adanat_cli.core.config import own_data as usual
from adanat_cli.core.config.option import options_of
from adanat_cli.core.config.own_data import Fields, Scale
from adanat_cli.core.config.schema import conform_fields
from adanat_cli.core.config.settings import (
    NATSettings,
    PolicySettings,
    TokenizerSettings,
    given,
    settled_as,
    settled_config,
)
from adanat_cli.core.config.training_requests import PretrainNATRequest, TrainPolicyRequest, TrainTokenizerRequest
from adanat_cli.core.data.described import plural
from adanat_cli.core.data.sources import ImageSource, TableSource, open_source
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import TokenSetInfo, read_header, shard_files
from adanat_cli.core.errors import hide_secrets, require
from adanat_cli.core.hub import looks_like_hub_id
from adanat_cli.jobs.resolve.models import num_trained_on, resolve_tokens
from adanat_cli.jobs.runtime.devices import device_memory, pick_device
from adanat_cli.jobs.train.nat import training_rows
from adanat_cli.jobs.train.nat_start import start_shape as nat_start_shape
from adanat_cli.jobs.train.policy_setup import named_model
from adanat_cli.jobs.train.policy_start import chosen_kind, find_policy_start, policy_start_shape, trainable_kind
from adanat_cli.jobs.train.run_folder import recorded_settings
from adanat_cli.jobs.train.start import Start, find_start
from adanat_cli.jobs.train.tokenizer_start import start_shape

_CHANNELS = (32, 64, 128, 256, 256)
"""Widths per resolution; a tokenizer with downsampling 2^n takes the first n."""
_TOKENS, _LOOKED_AT = 64, 16
_HELD_OUT_FROM = 4949
_SMALL_WIDTH = 224
"""Widest NAT that is trained at the rate of the small presets."""
_POLICY_SHAPE = ("hidden_width", "residual", "smoothing", "base_floor")


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
    dataset = request.dataset
    output = request.output or Path("runs") / f"tokenizer-{Path(hide_secrets(dataset)).name}"
    data, training = given(request.data), given(request.training)
    saved, preset = saved_settings(output, training=TokenizerTrainingConfig), TRAINING_PRESETS.get(dataset, {})
    was = tokenizer_config(saved["tokenizer"], str(output / "config.json")) if "tokenizer" in saved else None
    before, start = saved.get("training", {}), find_start(request.start, "tokenizer", output)
    if start:
        was = start_shape(start, request, was, bool({**before, **training}.get("freeze_encoder")))
    size = {"image_size": was.image_size} if was else {}
    if not saved and dataset not in DATA_PRESETS:
        config, scale, line = _own_images(dataset, {**size, **data}, request.device, dry_run)
    else:
        config, scale, line = data_config(dataset, **{**size, **data}), Scale(None), ""
    tokenizer = was if start and was else _usual_tokenizer(request, config.image_size, scale, was)
    row = preset.get("tokenizer", {})
    if line:
        row = usual.usual_tokenizer_training(scale, config.image_size, training)
    if start:
        row = {**row, "adversarial_start": 0}
    if {**before, **training}.get("discriminator") == "efficientnet":
        row = {**row, **PROJECTED_TRAINING}
    settled = settled_config(TokenizerTrainingConfig, row, before, training)
    _refuse_idle(settled, training, start)
    note = ""
    if line and isinstance(tokenizer, VQAEConfig):
        grid = " x ".join(map(str, tokenizer.grid))
        note = (
            f"{line} {grid} tokens of {tokenizer.codebook_size:,} codes. {_follows(scale)}: {_pace(settled)}; options "
            "set others."
        )
    return settled_as(
        TokenizerSettings, request, data=config, tokenizer=tokenizer, training=settled, output=output, note=note
    )


def nat_settings(request: PretrainNATRequest, dry_run: bool = False) -> NATSettings:
    """Settle a training of a NAT.

    Args:
        request: what was typed.
        dry_run: whether a token set on the Hub stays there.

    Raises:
        AdaNATError: if a setting is invalid or a token set is damaged.
    """
    dataset, tokens, training = request.dataset, request.tokens, given(request.training)
    output = request.output or Path("runs") / f"nat-{Path(hide_secrets(dataset)).name}"
    saved = saved_settings(output, training=NATTrainingConfig, nat=NATConfig, data=_SavedData)
    preset, row = TRAINING_PRESETS.get(dataset, {}), {}
    if benchmark := BENCHMARKS.get(dataset):
        preset = {"size": benchmark.nat_size, "nat": {"steps": benchmark.nat_steps}}
    scale, start = None, find_start(request.start, "nat", output)
    shape = nat_start_shape(start, output).to_dict() if start else saved.get("nat", {})
    if not saved and (not preset or training.get("held_out")):
        info, num_rows = _counted_tokens(tokens, request.classes, dry_run)
        share = training.get("held_out", 0)
        require(
            not share or num_rows is None or round(1 / share) <= num_rows,
            f"--held-out {share} of {num_rows} images is less than one; give more, or 0 for none.",
        )
    if not saved and not preset:
        like = _size_of(shape) or ("tiny" if shape["width"] <= _SMALL_WIDTH else "large") if start else None
        scale = scale_of(num_rows, request.device)
        row = usual.usual_nat(scale, info.num_tokens if info else _TOKENS, {**training, "size": request.size or like})
    size = request.size or _size_of(shape)
    if not size and not start:
        size = preset.get("size") or row.get("size", "large")
    row = {key: value for key, value in row.items() if key != "size"} | preset.get("nat", {})
    if start:
        row = {**row, "code_init": 0.0}
    if saved and "held_out" not in saved["training"]:  # of a version that held out 1 % from 5,000 images on
        row = {**row, "held_out": 0.01 if saved["data"].get("num_images", 0) > _HELD_OUT_FROM else 0.0}
    settled = settled_config(NATTrainingConfig, row, saved.get("training", {}), training)
    note = ""
    if scale:
        held = f"{100 * settled.held_out:.3g} % of them held out" if settled.held_out else "none held out"
        named = "the size of --from" if start else f"size {size}"
        note = f"{_follows(scale)}: {named}, {_pace(settled)}, {held}; options set others."
    cuts = request.accumulate or 0
    return settled_as(NATSettings, request, size=size, training=settled, output=output, accumulate=cuts, note=note)


def policy_settings(request: TrainPolicyRequest) -> PolicySettings:
    """Settle a training of a policy.

    Raises:
        AdaNATError: if a setting is invalid, or there is no model.
    """
    dataset, kind, num_steps = request.dataset, chosen_kind(request), request.num_steps
    output = request.output or Path("runs") / f"policy-{Path(hide_secrets(dataset)).name}-{kind}-{num_steps}"
    start, model = find_policy_start(request.start, num_steps, output), request.model or request.start
    if start and not model and start.folder.exists():
        model = str(start.folder.path)  # of the run that is resumed
    if start and not request.kind:
        kind = trainable_kind(policy_start_shape(start, num_steps, output), start.model)
    training, ppo = given(request.training), given(request.ppo)
    if kind == "static" and "learning_rate" in ppo:
        ppo = {"static_learning_rate": ppo.pop("learning_rate"), **ppo}
    parts = {"training": PolicyTrainingConfig, "ppo": PPOConfig, "discriminator": DiscriminatorConfig}
    saved, scale = saved_settings(output, policy=PolicyConfig, **parts), None
    chosen = recipe(request.recipe, dataset)
    if request.recipe == "auto" and not saved and dataset not in (*RECIPES, *BENCHMARKS):
        folder = named_model(model, dataset)
        scale = scale_of(num_trained_on(folder), request.device)
        chosen = usual.usual_policy(scale, folder.index.image_size, training)
    settled = settled_config(PolicyTrainingConfig, chosen.get("training", {}), saved.get("training", {}), training)
    discriminator = settled_config(
        DiscriminatorConfig, chosen.get("discriminator", {}), saved.get("discriminator", {}), request.discriminator
    )
    is_adversarial = settled.reward == "adversarial" and kind not in ("search", "tuned")
    if not is_adversarial:
        instead = f"--kind {kind}" if kind in ("search", "tuned") else f"--reward {settled.reward}"
        _refuse_discriminator(given(request.discriminator), instead)
    rewarded = f", discriminator {discriminator.backbone}" if is_adversarial else ""
    length = f"{settled.updates} {plural('update', settled.updates)}"
    images = f"{length} of {settled.trajectories} images, {settled.eval_images} to measure with"
    optimisation = settled_config(PPOConfig, chosen.get("ppo", {}), saved.get("ppo", {}), ppo)
    if optimisation.baseline == "pair" and not settled.paired and "baseline" not in ppo:
        optimisation = optimisation.replace(baseline="class")
    kept = {key: value for key, value in saved.get("policy", {}).items() if key in _POLICY_SHAPE}
    usual_shape = {} if start else {**chosen.get("policy", {}), **kept}
    # The model's tokenizer says which size the images have.
    size = DATA_PRESETS.get(dataset, {}).get("image_size", 1)
    return settled_as(
        PolicySettings,
        request,
        data=data_config(dataset, **{"image_size": size, **given(request.data)}),
        kind=kind,
        model=model,
        training=settled,
        ppo=optimisation,
        discriminator=discriminator,
        policy={**usual_shape, **given(request.policy)},
        output=output,
        note=f"{_follows(scale)}: {images}{rewarded}; options set others." if scale else "",
    )


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


def scale_of(num_images: int | None, device_name: str) -> Scale:
    """The size of the data, and of the device."""
    device = pick_device(device_name)
    return Scale(num_images, device.type, device_memory(device))


def _own_images(dataset: str, data: Fields, device: str, dry_run: bool) -> tuple[DataConfig, Scale, str]:
    """Count data without a preset and look at a few images; says what it takes them for."""
    config = data_config(dataset, **{"image_size": usual.LARGEST_IMAGE, **data})
    origin = config.data_dir or config.source
    is_remote = not config.is_here and (looks_like_hub_id(origin) or "://" in origin)
    source = None if dry_run and is_remote else open_source(config)
    scale = scale_of(source.num_images if source else None, device)
    size = config.image_size
    if "image_size" in data:
        return config, scale, f"Images of {size} x {size} pixels,"
    side = _shorter_side(source) if source else 0
    if side:
        size = usual.usual_image_size(side)
    known = f"of some {side} pixels " if side else ""
    line = f"Images {known}are cut to squares of {size} x {size} pixels (--image-size sets another size),"
    return config.replace(image_size=size), scale, line


def _shorter_side(source: ImageSource) -> int:
    """Pixels of the shorter side of a typical image, in the middle of a few; 0 where a stream or damage hides it."""
    if not isinstance(source, TableSource):
        return 0
    sides = []
    for row in source.rows[:: -(-len(source.rows) // _LOOKED_AT)]:
        file = source.fetch(int(row))[0]
        try:
            with Image.open(BytesIO(file) if isinstance(file, bytes) else file or "") as image:
                sides.append(min(image.size))
        except Exception:  # Pillow raises nearly anything on damaged files; reading will say so
            continue
    return int(statistics.median_low(sides)) if sides else 0


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


def _refuse_discriminator(asked: Fields, instead: str) -> None:
    """Refuse options of a discriminator where there is none."""
    flags = ", ".join(options_of(DiscriminatorConfig)[name].name for name in asked)
    require(
        not asked,
        f"{flags} has no meaning with {instead}, which has no discriminator; leave it out, or use --reward "
        "adversarial.",
    )


def _usual_tokenizer(
    request: TrainTokenizerRequest, image_size: int, scale: Scale, was: TokenizerConfig | None
) -> VQAEConfig | PixelConfig:
    """The shape that was asked for; what of it was not, as that of the run which is resumed, or as usual."""
    shape = given({"codebook_size": request.codebook_size, "downsampling": request.downsampling})
    if isinstance(was, VQAEConfig):
        shape = {"codebook_size": was.codebook_size, "downsampling": was.downsampling} | shape
    usual_shape = usual.usual_shape(scale, image_size, request.colour)
    if benchmark := BENCHMARKS.get(request.dataset):
        usual_shape = {"codebook_size": benchmark.codebook_size, "downsampling": benchmark.tokenizer().downsampling}
    preset = TRAINING_PRESETS.get(request.dataset, {}).get("shape", {})
    return _tokenizer(image_size, colour=request.colour, **{**usual_shape, **preset, **shape})


def _tokenizer(image_size: int, codebook_size: int, downsampling: int, colour: bool) -> VQAEConfig | PixelConfig:
    """The tokenizer with ``downsampling`` image pixels per token side."""
    require(
        downsampling in (1, 2, 4, 8, 16, 32),
        f"--downsampling is {downsampling}; expected 1, 2, 4, 8, 16 or 32 pixels per token side.",
    )
    if downsampling == 1 or colour:
        return PixelConfig(image_size=image_size, codebook_size=codebook_size, colour=colour, patch=downsampling)
    channels = _CHANNELS[: downsampling.bit_length() - 1]
    return VQAEConfig(image_size=image_size, codebook_size=codebook_size, channels=channels)


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


def _size_of(shape: dict[str, Any]) -> str:
    """The preset of a NAT's shape; "" if it has none."""
    sizes = (name for name, row in NAT_PRESETS.items() if all(shape.get(key) == row[key] for key in ("width", "depth")))
    return next(sizes, "")


def _follows(scale: Scale) -> str:
    return f"Settings that were not given follow from {scale}"


def _pace(config: TokenizerTrainingConfig | NATTrainingConfig) -> str:
    length = f"{config.steps:,} {plural('update', config.steps)}"
    return f"{length} of {config.batch_size:,} images, warm-up {config.warmup_steps:,}, average {config.ema_decay:g}"
