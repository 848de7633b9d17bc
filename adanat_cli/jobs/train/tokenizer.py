"""Train the small VQ autoencoder on images, from the first update to a model folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from PIL.Image import Image
from torch import Tensor

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.config import PixelConfig, TokenizerTrainingConfig, VQAEConfig
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.data.batches import training_batches
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import require
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.core.tokenizer.codebook import Codebook
from adanat_cli.core.tokenizer.losses import require_backbones
from adanat_cli.core.tokenizer.objective import Objective, Views, judge
from adanat_cli.core.tokenizer.vqae import VQAE
from adanat_cli.jobs.resolve.models import load_tokenizer
from adanat_cli.jobs.runtime.devices import make_accelerator, settle_precision
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.runtime.seeding import stream_seed
from adanat_cli.jobs.sample.pictures import image_grid, to_uint8
from adanat_cli.jobs.tokenize.preview import psnr, reconstruct, spread_records
from adanat_cli.jobs.tokenize.shards import as_images
from adanat_cli.jobs.train.averages import Ema
from adanat_cli.jobs.train.inputs import note_inputs
from adanat_cli.jobs.train.loop import MeteredLoop, Run, Trainer, training_length
from adanat_cli.jobs.train.run_folder import RunFolder
from adanat_cli.jobs.train.start import Start, find_start
from adanat_cli.jobs.train.tokenizer_start import stored, write_around

_NUM_SHOWN, _NUM_MEASURED = 16, 256


@holds_output
def train_tokenizer(request: TokenizerSettings, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a tokenizer.

    Returns:
        Where it is and what was measured last; empty on processes other than the main one.

    Raises:
        AdaNATError: if the data cannot be read, the run folder holds another run, or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        SystemExit: after SIGTERM or SIGHUP, once the state is saved.
    """
    if isinstance(request.tokenizer, PixelConfig):
        return _write_pixels(request, request.tokenizer)
    require_backbones(*request.training.backbones)
    accelerator = make_accelerator(request.device, request.training.batch_size)
    source, start = open_source(request.data), find_start(request.start, "tokenizer", request.output)
    if start and request.training.freeze_encoder:
        require(
            start.folder.exists(),
            f"{start.folder.path} is missing, whose NAT and policies this run takes; give --from {start.model} again.",
        )
    shape = request.tokenizer
    training = settle_precision(
        request.training, request.output, accelerator, lambda: _trial(shape, request.training, accelerator.device)
    )
    # Where the data lies and how many threads decode it change nothing.
    settings = {"data": source.identity(), "tokenizer": shape.to_dict(), "training": training.to_dict()}
    settings |= start.recorded() if start else {}
    length, told = training_length(training), (request.note, request.record, request.track)
    run = Run(request.output, settings, accelerator, reporter, length, *told)
    if accelerator.is_main_process:
        note_inputs(run.folder.path, request.inputs)
        if start:
            start.remember(run.folder)
    run.reporter.log(source.describe())
    weights = None
    if start and not start.is_resumed:
        weights = load_tokenizer(start.folder).state_dict()
        what = "; only the decoder learns" if training.freeze_encoder else ""
        run.reporter.log(f"Starting from {start.model}{what}.")
    trainer = TokenizerTrainer(shape, training, accelerator, weights)
    return TokenizerLoop(run, trainer, request, source, start).train()


def _write_pixels(request: TokenizerSettings, config: PixelConfig) -> dict[str, Any]:
    """Write a tokenizer that has nothing to learn."""
    RunFolder(request.output, {"tokenizer": config.to_dict()})
    note_inputs(request.output, request.inputs)
    model = ModelFolder(request.output / "model")
    provenance = {"command": "train-tokenizer", "tokenizer": config.to_dict()}
    model.write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict(), provenance=provenance)
    write_card(model)
    return {"model": str(model.path), "steps": 0}


class TokenizerLoop(MeteredLoop):
    """Training of a tokenizer."""

    trainer: TokenizerTrainer
    exports_with_states = False
    shown = ("reconstruction", "perplexity")
    advice = "a lower --learning-rate"

    def __init__(
        self,
        run: Run,
        trainer: TokenizerTrainer,
        request: TokenizerSettings,
        source: ImageSource,
        start: Start | None = None,
    ) -> None:
        """Connect the parts."""
        super().__init__(run, trainer, trainer.config, STATS)
        self.request, self.source, self.from_model = request, source, start

    def start(self) -> None:
        """Resume, and open the images to train on and those to show."""
        super().start()
        self._batches = self._open_batches()
        if self.accelerator.is_main_process:
            records = spread_records(self.source, _NUM_MEASURED)  # they are trained on as well
            require(bool(records), f"None of the first images of {self.source.config.source} can be read.")
            self._images = as_images(records, self.trainer.vqae)  # (n, 3, H, W) floats in [0, 1]

    def learn(self) -> Tensor:
        """Learn from one batch."""
        return self.trainer.update(next(self._batches))

    def means(self) -> dict[str, float]:
        """What was measured since the last log, and the perplexity of the codebook now."""
        return {**super().means(), "perplexity": self.trainer.codebook.perplexity()}

    def show(self) -> tuple[dict[str, float], Image]:
        """Measure the averaged weights, and draw originals above their reconstructions."""
        images = self._images
        decoded = reconstruct(self.trainer.averaged(), images)
        self.measured = {"psnr": psnr(decoded, images), "perplexity": self.trainer.codebook.perplexity()}
        pairs = torch.cat([images[:_NUM_SHOWN], decoded[:_NUM_SHOWN]])
        return {"psnr": self.measured["psnr"]}, image_grid(to_uint8(pairs), min(_NUM_SHOWN, len(images)))

    def _open_batches(self) -> Iterator[Tensor]:
        """Yield this process's share of each update's images, (B, 3, H, W) bytes."""
        config, accelerator = self.trainer.config, self.accelerator
        batches = training_batches(
            self.source,
            batch_size=config.batch_size // accelerator.num_processes,
            seed=config.seed,
            first_step=self.trainer.step,
            num_workers=self.request.workers,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        return (batch.images for batch in batches)

    def export(self) -> None:
        """Write the averaged weights as a model folder; with a frozen encoder, all of the model that they fit."""
        model, freezes = ModelFolder(self.folder.model), self.trainer.config.freeze_encoder
        weights = stored(self.trainer.averaged().state_dict(), self.request.half, freezes)
        facts = {"command": "train-tokenizer", **self.run.settings, "measured": self.measured}
        tokenizer = Component("tokenizer", self.request.tokenizer.to_dict(), weights, facts)
        if freezes and self.from_model and self.from_model.folder.path != model.path:
            write_around(tokenizer, self.from_model.folder, model)
        else:
            model.write_all([tokenizer])
        write_card(model)


def _trial(shape: VQAEConfig, training: TokenizerTrainingConfig, device: torch.device) -> Any:
    """The autoencoder's forward and backward pass in a given number format, to be timed."""
    torch.manual_seed(training.seed)
    vqae = VQAE(shape).to(device).to(memory_format=torch.channels_last)
    objective = Objective(training, shape.image_size, device)
    images = torch.rand(8, 3, shape.image_size, shape.image_size, device=device)
    adversarial = training.adversarial_weight > 0

    def job(dtype: torch.dtype) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            with torch.no_grad():
                targets = objective.views(images, adversarial)
            result = vqae(images)
            loss, _ = objective.loss(result, images, objective.views(result.images, adversarial), targets)
        loss.backward()

    return job


STATS = ("reconstruction", "commitment", "discriminator", "discriminator_accuracy")
"""What an update measures, in this order; the last two are 0 until the discriminator enters."""


class TokenizerTrainer(Trainer):
    """Autoencoder, codebook, discriminator and their optimizers, and the update of all."""

    saved = ("vqae", "ema", "codebook", "discriminator", "optimizer", "discriminator_optimizer")

    def __init__(
        self,
        shape: VQAEConfig,
        config: TokenizerTrainingConfig,
        accelerator: Accelerator,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Draw fresh weights from the seed, the same in every process, or take those of a state dict.

        A frozen encoder, and its codes, stay as they are. Codes that the state dict lacks are drawn from a batch.
        """
        torch.manual_seed(config.seed)
        device, rate = accelerator.device, config.learning_rate
        self.config, self._accelerator = config, accelerator
        self.vqae = VQAE(shape).to(device).to(memory_format=torch.channels_last)
        self.objective = Objective(config, shape.image_size, device)
        self.discriminator = self.objective.discriminator
        usage = torch.zeros(shape.codebook_size, device=device)
        if weights is not None:
            known = len(weights["codes"])
            codes = torch.cat([weights["codes"].to(device), self.vqae.codes[known:]])
            self.vqae.load_state_dict({**weights, "codes": codes})
            usage[:known] = config.batch_size * shape.num_tokens / shape.codebook_size
        if config.freeze_encoder:
            self.vqae.freeze_encoder()
        self.codebook = Codebook(self.vqae.codes, config.codebook_decay, usage=usage)
        learning = [weight for weight in self.vqae.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(learning, rate, betas=(config.beta1, 0.99))
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), rate, betas=(config.discriminator_beta1, 0.99)
        )
        self.ema = Ema(self.vqae, config.ema_decay)
        self._vqae_pass = accelerator.prepare_model(self.vqae)
        self._discriminator_pass = accelerator.prepare_model(self.discriminator)

    def update(self, images: Tensor) -> Tensor:
        """One update of autoencoder, codebook and discriminator.

        Args:
            images: (B, 3, H, W) bytes, this process's share.

        Returns:
            (4,) float: ``STATS`` of this process, on the device, so that nothing waits for them.
        """
        config, rank, world_size = self.config, self._accelerator.process_index, self._accelerator.num_processes
        torch.manual_seed(stream_seed(config.seed, self.step, rank))
        self._set_rates()
        real = images.to(self._accelerator.device, non_blocking=True).float().div(255)
        real = real.contiguous(memory_format=torch.channels_last)
        adversarial = config.adversarial_weight > 0 and self.step >= config.adversarial_start
        # The autoencoder's gradient passes through the discriminator without collecting there.
        self.discriminator.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                targets = self.objective.views(real, adversarial)
            result = self._vqae_pass(real)
            outputs = self.objective.views(result.images, adversarial)
            loss, reconstruction = self.objective.loss(result, real, outputs, targets)
        self._descend(self.optimizer, loss)
        if config.freeze_encoder:
            self.codebook.count(result.token_ids, self._sum)
        else:
            self.codebook.update(result.latents.detach(), result.token_ids, self._sum, rank, world_size)
        self.ema.update(self.vqae, self.step)
        stats = self._update_discriminator(outputs.detached(), targets) if adversarial else real.new_zeros(2)
        self.step += 1
        return torch.cat([torch.stack([reconstruction, result.commitment]).detach(), stats])

    def averaged(self) -> VQAE:
        """A copy of the autoencoder with the averaged weights, in evaluation mode."""
        copy = VQAE(self.vqae.config)
        copy.load_state_dict(self.ema.state_dict())
        return copy.to(self._accelerator.device).eval()

    def _update_discriminator(self, outputs: Views, targets: Views) -> Tensor:
        """One update of the discriminator; returns its loss and accuracy."""
        self.discriminator.requires_grad_(True)
        with self._autocast():
            stats = judge(self._discriminator_pass, outputs, targets)
        self._descend(self.discriminator_optimizer, stats[0])
        return stats.detach()

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        optimizer.step()

    def _set_rates(self) -> None:
        rate = self.config.learning_rate_at(self.step)
        shares = {self.optimizer: 1.0, self.discriminator_optimizer: self.config.discriminator_rate}
        for optimizer, share in shares.items():
            for group in optimizer.param_groups:
                group["lr"] = share * rate

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self._accelerator.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values, reduction="sum")
