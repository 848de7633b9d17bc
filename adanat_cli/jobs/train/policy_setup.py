"""What policies and searches start from: the model, real images, and a feature network to measure with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.files import check_writable
from adanat_cli.core.checkpoints.folder import TEXT, Component, ModelFolder, policy_component
from adanat_cli.core.config import DATA_PRESETS, NATConfig, PolicyConfig, tokenizer_config
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.data.captions import caption_pool
from adanat_cli.core.data.described import listed
from adanat_cli.core.data.held_out import measured_on, open_disjoint
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import AdaNATError, hide_secrets, require
from adanat_cli.core.generation.tables import read_autonat, read_table
from adanat_cli.core.metrics.extraction import Pooled, PooledExtractor
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import FrechetReference
from adanat_cli.core.metrics.references import Reference, read_reference
from adanat_cli.core.policy.static import Policy
from adanat_cli.core.reading import sha256_of
from adanat_cli.jobs.resolve.classes import numbered_as_imagenet, same_names, short_name
from adanat_cli.jobs.resolve.extractors import extractor_of
from adanat_cli.jobs.resolve.models import absent, is_absent, model_names, nat_config, read_config, resolve_model
from adanat_cli.jobs.resolve.registry import PULLED
from adanat_cli.jobs.resolve.text_encoders import encoder_of, recorded_name
from adanat_cli.jobs.runtime.devices import Processes, of_main_process, pick_device
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.conditions import Asked, ClassConditions, PromptConditions
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.train.features import SmallNetworks, feature_moments, require_trainable
from adanat_cli.jobs.train.policy_start import fit_to_model, policy_start_shape
from adanat_cli.jobs.train.start import Start

_FEW = 50
"""Images, below which a distance to them is no use: the moments of a few are those of chance."""


@dataclass(frozen=True)
class Setup:
    """The parts of a run that do not change during it; what takes long is computed on first use.

    Attributes:
        folder: the model.
        model: the same with its networks, frozen.
        conditions, held_out_conditions: the model's classes, or captions of the images to train on and to measure with.
        source, held_out: real images of the model's classes, to train on and to measure with (``open_disjoint``).
        networks: loads or trains the small networks.
        accelerator: devices and processes, which must compute these parts at the same time.
        given: reference statistics to measure with instead, as their file has them; None for none.
    """

    folder: ModelFolder
    model: Sampler
    conditions: Asked
    held_out_conditions: Asked
    source: ImageSource
    held_out: ImageSource
    networks: SmallNetworks
    accelerator: Accelerator
    given: Reference | None = None

    @cached_property
    def features(self) -> Pooled:
        """The network to measure with: of the given statistics; else, as no discriminator sees, a small one."""
        if self.given:
            processes = Processes(self.accelerator.device, PartialState())
            return PooledExtractor(extractor_of(self.given, processes, self.networks.reporter, self.folder))
        return self._small

    @cached_property
    def _small(self) -> FeatureNetwork:
        """The model's own feature network, the run's, or a new one."""
        with self.accelerator.main_process_first():
            return self.networks.measuring(self.folder)

    @property
    def measured_on(self) -> str:
        """What distances of the mean policy are measured to, for results and cards."""
        return f"the images of {self.given.source}" if self.given else measured_on(self.held_out)

    @cached_property
    def reference(self) -> FrechetReference:
        """Gaussian of the features of all training images."""
        return self._moments(self.source)

    @cached_property
    def held_out_reference(self) -> FrechetReference:
        """Gaussian of the features of all held-out images."""
        return self._moments(self.held_out)

    def _moments(self, images: ImageSource) -> FrechetReference:
        if self.given:
            return FrechetReference(self.given.gaussian)
        network, accelerator = self._small, self.accelerator  # which may have to be trained first
        share = accelerator.num_processes
        with self.networks.reporter.task("Measuring real images", images.num_images, "img") as task:
            moments = feature_moments(
                network, images, accelerator=accelerator, advance=lambda num: task.advance(num * share)
            )
        return FrechetReference(moments.gaussian())


def check_request(request: PolicySettings) -> tuple[ModelFolder, NATConfig]:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        AdaNATError: naming it.
    """
    require(
        request.num_steps >= 2,
        f"--steps is {request.num_steps}; expected at least 2: a single step masks nothing again, so it leaves no "
        "schedule to learn.",
    )
    folder = named_model(request.model, request.dataset)
    require(
        folder.writable or not request.install,
        f"--install writes into the model, and {folder.name} is on the Hub; leave it out, or pull a copy with "
        "`adanat pull --output FOLDER` first.",
    )
    if request.install:
        check_writable(folder.path, "leave --install out, or use a copy of the model that you can write to")
    exported = ModelFolder(request.output / "model")
    if request.ref:
        given = read_reference(request.ref)
        own = folder.fingerprint("features") if folder.has("features") else ""
        require(
            given.protocol != "small" or given.weights_hash in ("", own),
            f"--ref {request.ref} was made with features/ {given.weights_hash[:12]} of another model, and those of "
            f"{folder.name} are {own[:12] or 'missing'}; make one with `adanat stats --model {folder.name} --install`.",
        )
    elif not (folder.has("features") or (exported.exists() and exported.has("features"))):
        require_trainable(folder.index.image_size, pick_device(request.device))
    nat = nat_config(folder)
    require(
        request.num_steps <= nat.num_tokens,
        f"--steps is {request.num_steps}, but images of {folder.name} have {nat.num_tokens} tokens; expected 2 to "
        f"{nat.num_tokens}.",
    )
    require(
        request.training.reward != "recognition"
        or (nat.condition == "class" and numbered_as_imagenet(folder.labels(), nat.num_classes)),
        f"--reward recognition needs a model whose classes have ImageNet's numbers, and those of {folder.name} have "
        "not; use another --reward.",
    )
    return folder, nat


def fit_to_condition(request: PolicySettings, nat: NATConfig) -> PolicySettings:
    """Change what only makes sense for classes: a prompt hardly comes twice, so its mean would be its own reward.

    Raises:
        AdaNATError: if a text encoder was named and there is nothing to encode.
    """
    require(
        nat.condition == "text" or not request.text_encoder,
        "--text-encoder encodes prompts: it has no meaning with a NAT that is conditioned on classes; leave it out.",
    )
    if nat.condition == "class" or request.ppo.baseline != "class":
        return request
    return replace(request, ppo=request.ppo.replace(baseline="none"))


def named_model(model: str, dataset: str) -> ModelFolder:
    """The model that a policy is for; "" is the data set's: the embedded one, or the one that `adanat pull` wrote.

    Raises:
        AdaNATError: if there is none.
    """
    if model or dataset in model_names():
        return resolve_model(model or dataset)
    require(
        dataset in DATA_PRESETS,
        f"No --model was given for --dataset {hide_secrets(dataset)}; give the model whose NAT was trained on it, such "
        "as the folder model/ of a run of `adanat pretrain-nat`.",
    )
    require(not is_absent(dataset, ""), f"{absent(dataset)}.")
    return resolve_model(str(PULLED / dataset))


def policy_shape(request: PolicySettings, nat: NATConfig, fingerprint: str, start: Start | None = None) -> PolicyConfig:
    """The configuration of the policy to train; a searched table is a static policy around it."""
    if start:
        base = policy_start_shape(start, request.num_steps)
        return fit_to_model(base, request, nat, fingerprint, start.model)
    fields = dict(request.policy)
    kind, _, file = request.base.partition(":")
    if kind in ("autonat", "table") and file:
        table = read_autonat(Path(file)) if kind == "autonat" else read_table(Path(file))
        require(
            table.num_steps == request.num_steps,
            f"--base {request.base} is a schedule of {table.num_steps} steps, but --steps is {request.num_steps}; give "
            f"--steps {table.num_steps}, or a schedule of {request.num_steps} steps.",
        )
        fields |= {"schedule": kind, "schedule_table": tuple(map(tuple, table.table.tolist()))}
    else:
        require(request.base == "cosine", f"--base {request.base!r}: expected cosine, autonat:FILE or table:FILE.")
    return PolicyConfig(
        feature_width=nat.width,
        grid=nat.grid,
        num_steps=request.num_steps,
        kind="adaptive" if request.kind == "adaptive" else "static",
        nat_fingerprint=fingerprint,
        **fields,
    )


def run_settings(request: PolicySettings, shape: PolicyConfig, start: Start | None = None) -> dict[str, Any]:
    """What decides the result; where the data lies and how many threads decode it change nothing."""
    values: dict[str, Any] = {
        "kind": request.kind,
        "policy": shape.to_dict(),
        "training": request.training.to_dict(),
        "data": {"source": request.data.source.rsplit("/", 1)[-1], "max_bad": request.data.max_bad},
    }
    if request.ref:
        values["reference"] = sha256_of(request.ref)
    if request.kind in ("search", "tuned"):
        return values
    values |= start.recorded() if start else {}
    values["ppo"] = request.ppo.to_dict()
    if request.training.reward == "adversarial":
        values["discriminator"] = request.discriminator.to_dict()
    if request.training.reward == "preference":
        values["preference_model"] = recorded_name(request.preference_model)
    return values


def open_images(request: PolicySettings, folder: ModelFolder, nat: NATConfig) -> tuple[ImageSource, ImageSource]:
    """Open the real images of the model's classes to train on, and others to measure with.

    Raises:
        AdaNATError: if there are none, or only one.
    """
    tokenizer = read_config(folder, "tokenizer", tokenizer_config)
    data = request.data.replace(image_size=tokenizer.image_size)
    source, held_out = open_disjoint(data, lambda part: _fitting(part, folder, nat))
    for images, part in ((source, "training"), (held_out, "held-out")):
        require(
            images.num_images is None or images.num_images >= 2,
            f"{data.source} holds {images.num_images} {part} image of the model's classes; expected at least 2, and "
            "some hundreds for a meaningful distance.",
        )
    return source, held_out


def little_to_measure(request: PolicySettings, held_out: ImageSource) -> str:
    """A line where distances would be measured to few images; "" otherwise."""
    num = held_out.num_images
    if request.ref or num is None or num >= _FEW:
        return ""
    return (
        f"A distance to {num} images says little; --ref measures to statistics of more, which `adanat stats` makes, if "
        "only of the training images."
    )


def _fitting(source: ImageSource, folder: ModelFolder, nat: NATConfig) -> ImageSource:
    """The images of the model's classes; data of another kind than the NAT was trained on are refused."""
    data, seen = source.config, folder.labels()
    require(
        source.has_captions == (nat.condition == "text"),
        f"{data.source} has {'captions' if source.has_captions else 'class labels'}, but the NAT of {folder.name} is "
        f"conditioned on {'text' if nat.condition == 'text' else 'classes'}; give the data set that it was trained on.",
    )
    require(
        nat.condition == "text" or not source.class_names or not seen or source.num_classes <= nat.num_classes,
        f"{data.source} ({data.split}) has {source.num_classes} classes, but the NAT of {folder.name} knows "
        f"{nat.num_classes}; give the data set that it was trained on.",
    )
    theirs, ours = (listed([short_name(name) for name in names.values()]) for names in (source.class_names, seen))
    require(
        nat.condition == "text" or same_names(source.class_names, seen),
        f"{data.source} ({data.split}) names its classes {theirs}, but the NAT of {folder.name} knows {ours}; give the "
        "data set that it was trained on.",
    )
    try:
        return source.keep(tuple(seen))
    except AdaNATError as error:
        raise AdaNATError(
            f"{data.source} holds no image of the {len(seen)} classes that {folder.name} has seen, such as "
            f"{', '.join(map(str, list(seen)[:3]))}; give the data set that the NAT was trained on."
        ) from error


def prepare(
    request: PolicySettings,
    accelerator: Accelerator,
    reporter: Reporter,
    images: tuple[ImageSource, ImageSource] | None = None,
) -> Setup:
    """Load the model.

    Args:
        request: what was asked for.
        accelerator: devices and processes.
        reporter: receives a line on every new feature network.
        images: as ``open_images`` gives them; None opens them.

    Raises:
        AdaNATError: if something is missing, or model and data are not compatible.
    """
    folder, nat = check_request(request)
    source, held_out = images or open_images(request, folder, nat)
    model = Sampler(folder, accelerator.device, request.training.precision)
    model.precision = of_main_process(model.precision)
    model.nat.requires_grad_(False)
    model.tokenizer.requires_grad_(False)
    conditions: Asked
    held_out_conditions: Asked
    if nat.condition == "text":
        encoder = encoder_of(folder, nat, request.text_encoder, model.device, model.precision)
        conditions, held_out_conditions = (
            PromptConditions.of(caption_pool(part, request.training.seed), encoder) for part in (source, held_out)
        )
    else:
        names = folder.labels()
        labels = torch.tensor(sorted(names) or list(range(nat.num_classes)))
        conditions = held_out_conditions = ClassConditions(labels, names)
    networks = SmallNetworks(request.dataset, request.output, source, held_out, model.device, reporter)
    given = read_reference(request.ref) if request.ref else None
    return Setup(folder, model, conditions, held_out_conditions, source, held_out, networks, accelerator, given)


def export_policy(request: PolicySettings, setup: Setup, policy: Policy, facts: dict[str, Any]) -> None:
    """Write the policy into the run's model folder beside copies of the networks that it belongs to.

    Args:
        request: what was asked for; ``install`` writes into the model's own folder as well, ``half`` in 16 bits.
        setup: the run's parts.
        policy: to write.
        facts: how it was trained and what it reached.
    """
    exported = ModelFolder(request.output / "model")
    for name in ("tokenizer", "nat", TEXT, "features"):
        _copy_component(setup.folder, exported, name)
    if labels := setup.folder.labels():
        exported.write_labels(labels)
    if request.install:
        # What the policy was measured with goes along, so that others can measure it.
        _copy_component(exported, setup.folder, "features")
    component = Component(policy_component(request.num_steps), policy.config.to_dict(), policy.state_dict(), facts)
    for folder in (exported, setup.folder) if request.install else (exported,):
        folder.write_all([component], torch.float16 if request.half else None)
        write_card(folder)


def _copy_component(source: ModelFolder, target: ModelFolder, name: str) -> None:
    """Copy a component that the source has and the target has not."""
    if not source.has(name) or (target.exists() and target.has(name)):
        return
    target.write_all([source.component(name)], image_size=source.index.image_size)
    target.take_references(source, name)
