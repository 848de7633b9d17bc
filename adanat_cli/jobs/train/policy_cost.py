"""What training a policy costs in operations: generating, decoding, and PPO's epochs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adanat_cli.core.config import NATConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.config.tokenizer import TokenizerConfig
from adanat_cli.core.ppo.agent import Agent
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.runtime.gpu_hours import gpu_hours
from adanat_cli.jobs.runtime.operations import planned_operations, without_memory
from adanat_cli.jobs.train.nat_cost import forward_operations

_OF_A_MEASUREMENT = 50_000


@dataclass(frozen=True)
class PolicyCost:
    """Operations of a training, whose networks are counted without memory.

    Attributes:
        forward: of the NAT over one image.
        decode: of the tokenizer's decoder over one image.
        row: of policy and critic over one row, forward.
        has_fresh_fakes: whether the discriminator learns from images that are generated for it.
    """

    forward: int
    decode: int
    row: int
    has_fresh_fakes: bool

    @classmethod
    def of(
        cls, request: PolicySettings, nat: NATConfig, agent: Agent, tokenizer: TokenizerConfig, is_adversarial: bool
    ) -> PolicyCost:
        """Count the operations of each network."""
        features = torch.zeros(1, nat.num_tokens, nat.width)
        ids = torch.zeros(1, tokenizer.num_tokens, dtype=torch.int64)
        decoder = without_memory(lambda: build_tokenizer(tokenizer))
        row = planned_operations(lambda: agent(features, torch.zeros(1, dtype=torch.int64)))
        decode = planned_operations(lambda: decoder.decode(ids))
        fresh = is_adversarial and not request.discriminator.reuse_rollouts
        return cls(forward_operations(nat), decode, row, fresh)

    def hours(self, request: PolicySettings) -> dict[str, float]:
        """GPU-hours of the whole training, without the reward's own networks and its warm-up.

        An image takes two forwards of the NAT a step and one decoding. Each update generates its trajectories, one
        image more for each that the discriminator is shown, if they are not those of PPO, and every few updates those
        of an evaluation. Each of PPO's epochs takes three passes of policy and critic over all rows.
        """
        training = request.training
        images = training.trajectories + training.eval_images / training.eval_every
        if self.has_fresh_fakes:
            images += request.discriminator.updates * request.discriminator.batch_size
        rows = 3 * request.ppo.epochs * training.trajectories * request.num_steps
        return self._hours(request, training.updates * images, training.updates * rows * self.row)

    def hours_of_a_measurement(self, request: PolicySettings) -> dict[str, float]:
        """GPU-hours of generating and decoding 50,000 images, which ``adanat evaluate`` measures by default."""
        return self._hours(request, _OF_A_MEASUREMENT)

    def _hours(self, request: PolicySettings, images: float, single: float = 0.0) -> dict[str, float]:
        forwards = 2 * request.num_steps * images * self.forward
        half, single = (0.0, single + forwards) if request.training.precision == "fp32" else (forwards, single)
        return gpu_hours(bf16=half, tf32=images * self.decode, fp32=single)


def row_bytes(agent: Agent, nat: NATConfig) -> int:
    """Bytes that PPO's backward pass keeps of a row: of two rows less one."""
    one, two = (_kept_bytes(agent, nat, rows) for rows in (1, 2))
    return two - one


def _kept_bytes(agent: Agent, nat: NATConfig, rows: int) -> int:
    """Bytes of all tensors that backward keeps, the weights' among them."""
    kept: dict[int, Tensor] = {}  # an id is of one tensor as long as that is held

    def keep(tensor: Tensor) -> Tensor:
        kept[id(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        agent(torch.zeros(rows, nat.num_tokens, nat.width), torch.zeros(rows, dtype=torch.int64))
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
