"""The networks, the optimizer and the one update of NAT pre-training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.checkpoints.strict import without_values
from adanat_cli.core.config import NATConfig, NATTrainingConfig
from adanat_cli.core.errors import require
from adanat_cli.core.nat.objective import MaskedTokenLoss, MaskedTokens
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.runtime.compilation import explained_compilation
from adanat_cli.jobs.train.averages import Ema
from adanat_cli.jobs.train.loop import Trainer
from adanat_cli.jobs.train.nat_batches import TokenBatch, Update, dropout_seed
from adanat_cli.jobs.train.sharding import gathered, plain, shard, spread, spread_optimizer

STATS = ("loss", "accuracy", "gradient_norm")
"""What an update measures, in this order."""


class NATTrainer(Trainer):
    """The NAT, its average and its optimizer, and their update.

    Source: AutoNAT (arXiv 2406.05478), whose NAT AdaNAT uses: AdamW with decay on every parameter, no clipping.
    """

    saved = ("nat", "ema", "optimizer")

    def __init__(
        self,
        shape: NATConfig,
        config: NATTrainingConfig,
        accelerator: Accelerator,
        codes: Tensor | None = None,
        condition: Callable[[Tensor], Tensor] = lambda labels: labels,
        weights: Mapping[str, Tensor] | None = None,
        fsdp: bool = False,
    ) -> None:
        """Draw fresh weights from the seed, the same in every process, or take given ones.

        Args:
            shape: configuration of the NAT.
            config: settings of the training.
            accelerator: devices and processes.
            codes: (K, C), the tokenizer's code vectors, for ``config.code_init``.
            condition: maps labels (B,) to what the NAT reads: themselves, or text states (B, L, D) of captions.
            weights: state dict to start from, as is the average; None for fresh weights.
            fsdp: whether several processes share weights, gradients, moments and average instead of each having all.
        """
        self.config, self._accelerator, self._condition = config, accelerator, condition
        torch.manual_seed(config.seed)
        nat = UViT(shape)
        if codes is not None and config.code_init > 0:
            nat.start_from_codes(codes, config.code_init)
        if weights is not None:
            nat.load_state_dict(weights)
        self.nat, self.is_sharded = nat, fsdp and accelerator.num_processes > 1
        objective = MaskedTokenLoss(nat, config.label_smoothing)
        if self.is_sharded:
            self._loss = shard(objective, nat.blocks, accelerator.device)
        else:
            nat.to(accelerator.device)
            self._loss = accelerator.prepare_model(objective)
        self.ema = Ema(self.nat, config.ema_decay)
        with without_values():
            self.averaged = UViT(shape).eval()
        if not self.is_sharded:
            # Shares the average's memory, so it is always up to date; else see ``gather``.
            self.averaged.load_state_dict(self.ema.state_dict(), assign=True)
        self.optimizer = torch.optim.AdamW(
            self.nat.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )

    def compile(self) -> None:
        """Compile the NAT's body, for the one shape that batches have; the first update takes a minute or more.

        Raises:
            AdaNATError: if this machine cannot, or the NAT is sharded.
        """
        require(not self.is_sharded, "--compile and --fsdp do not go together; leave one of the two out.")
        with explained_compilation():
            self.nat.features = torch.compile(self.nat.features, dynamic=False)  # type: ignore[method-assign]

    def update(self, update: Update, learning_rate: float) -> Tensor:
        """Take one optimizer step on one update's tokens.

        Returns:
            (3,) float: this process's share of ``STATS``, to be averaged over processes. It stays on the
            device, so that nothing waits for it.
        """
        accelerator, last = self._accelerator, len(update.batches) - 1
        torch.manual_seed(dropout_seed(self.config.seed, self.step, accelerator.process_index))
        # Gradients are averaged over processes, but the loss is a mean over the hidden tokens of all.
        scale = accelerator.num_processes / update.num_hidden
        sums = torch.zeros(2, device=accelerator.device)
        for index, batch in enumerate(update.batches):
            # Gradients that are not shared out at once would be kept whole, which sharding is to avoid.
            more = index < last and not self.is_sharded
            synced = accelerator.no_sync(self._loss) if more else contextlib.nullcontext()
            with synced, explained_compilation():  # compilation begins with the first update
                with self._autocast():
                    result = MaskedTokens(*self._loss(*self._inputs(batch)))
                accelerator.backward(result.loss * scale)
            sums += torch.stack([result.loss.detach(), result.num_correct]) * scale
        norm = plain(torch.nn.utils.get_total_norm([p.grad for p in self.nat.parameters() if p.grad is not None]))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.nat, self.step)
        self.step += 1
        return torch.cat([sums, norm[None]])

    def gather(self) -> None:
        """Bring a sharded average together on the main process, in ``averaged``."""
        if self.is_sharded:
            main = self._accelerator.is_main_process
            whole = gathered(self.ema.state_dict(), keep=main)
            if main:
                device = self._accelerator.device
                self.averaged.load_state_dict({name: part.to(device) for name, part in whole.items()}, assign=True)

    def whole_state(self) -> dict[str, Any]:
        """The state that is saved, which is the same sharded or not."""
        state = self.state_dict()
        return gathered(state, keep=self._accelerator.is_main_process) if self.is_sharded else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, of which a sharded training takes this process's part."""
        if self.is_sharded:
            own = self.state_dict()
            parts = {
                part: {name: spread(tensor, own[part][name]) for name, tensor in state[part].items()}
                for part in ("nat", "ema")
            }
            state = {**state, **parts, "optimizer": spread_optimizer(state["optimizer"], self.nat.parameters())}
        super().load_state_dict(state)

    @torch.no_grad()
    def measure(self, batch: TokenBatch, size: int = 128) -> dict[str, float]:
        """Loss and accuracy of the averaged weights on hidden tokens, ``size`` rows at a time."""
        evaluate = MaskedTokenLoss(self.averaged, self.config.label_smoothing)
        num_tokens, device = batch.token_ids.shape[1], self._accelerator.device
        sums = torch.zeros(2, device=device)
        for start in range(0, len(batch.labels), size):
            rows = slice(start, start + size)
            first = start * num_tokens
            inside = (batch.positions >= first) & (batch.positions < first + size * num_tokens)
            piece = TokenBatch(batch.token_ids[rows], batch.labels[rows], batch.positions[inside] - first)
            with self._autocast():
                result = evaluate(*self._inputs(piece))
            sums += torch.stack([result.loss, result.num_correct])
        loss, accuracy = (sums / len(batch.positions)).tolist()
        return {"loss": loss, "accuracy": accuracy}

    def _inputs(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, condition and hidden positions, on the device."""
        token_ids, labels, positions = batch.to(self._accelerator.device)
        return token_ids, self._condition(labels), positions

    def _autocast(self) -> torch.autocast:
        device = self._accelerator.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.precision == "bf16")
