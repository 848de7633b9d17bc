"""The networks, the optimizers and the one update of policy training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.config import DiscriminatorConfig, PolicyConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.data.batches import Batch
from adanat_cli.core.generation.actions import ACTION_NAMES
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.ppo.agent import Agent, make_optimizer
from adanat_cli.core.ppo.rollout import Rollout, collect, join
from adanat_cli.core.ppo.update import terminal_returns, update
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.sampler import Sampler, predictor
from adanat_cli.jobs.train.policy_rewards import LabelledImages, PolicyReward

KEPT = {"bf16": torch.bfloat16, "fp32": torch.float32, "recompute": None}


class PolicyTrainer:
    """Holds what changes during training."""

    def __init__(
        self,
        model: Sampler,
        conditions: Asked,
        shape: PolicyConfig,
        training: PolicyTrainingConfig,
        ppo: PPOConfig,
        discriminator: DiscriminatorConfig,
        reward: PolicyReward,
        real: Callable[[int], Iterator[Batch]],
        accelerator: Accelerator,
    ) -> None:
        """Draw fresh weights from the seed, the same in every process.

        Args:
            model: NAT and tokenizer, both frozen.
            conditions: classes or prompts of the trajectories.
            shape: of the policy.
            training: settings of the run.
            ppo: settings of the policy's update.
            discriminator: settings of the reward's update.
            reward: scores images.
            real: opens batches of real images (B, 3, H, W) uint8 and labels (pooled embeddings of captions), from a
                batch on, for the reward to learn from.
            accelerator: devices and processes.
        """
        self.model, self.conditions, self.training = model, conditions, training
        self.ppo, self.discriminator = ppo, discriminator
        self.reward, self._open_real, self._accelerator, self.step = reward, real, accelerator, 0
        self._real: Iterator[Batch] | None = None
        self.rollout_bytes = 0
        torch.manual_seed(training.seed)
        self.agent = Agent(shape).to(accelerator.device)
        self._judge = accelerator.prepare_model(self.agent)
        self._optimizer = make_optimizer(self.agent, ppo)

    def update(self) -> dict[str, float]:
        """Collect trajectories, score them, improve the policy, then let the reward learn.

        Source: AdaNAT (arXiv 2409.00342), the training algorithm.
        """
        std = self.ppo.std_at(self.step)
        labels = self._labels(Stream.POLICY_LABELS, self.training.trajectories)
        rollout = self.collect(labels, std, Stream.POLICY_NOISE)
        if self.step == 0 and self.discriminator.warmup_updates:
            self._learn(rollout, labels, self.discriminator.warmup_updates, Stream.REWARD_WARM_UP)
        self.rollout_bytes = rollout.num_bytes
        generator = self._generator(Stream.REWARD_SCORE, self._accelerator.process_index)
        rewards = self.reward.score(self._decoded(rollout.sampled_ids, labels), generator)
        returns = self._returns(rewards, labels)
        stats = update(
            self._judge,
            self._optimizer,
            rollout,
            returns,
            self._features_of(rollout, labels),
            std,
            self.ppo,
            self._generator(Stream.POLICY_MINIBATCHES),
            self._accelerator.num_processes,
            self._accelerator.backward,
            self._accelerator.gather,
        )
        stats |= self._learn(rollout, labels, self.discriminator.updates)
        self.step += 1
        every = self._accelerator.gather(rewards)
        stats |= {"reward": float(every.mean()), "reward_std": float(every.std()), "std": std}
        return self._mean_over_processes(stats) | self._mean_actions(rollout)

    def collect(self, labels: Tensor, std: float, purpose: int) -> Rollout:
        """Generate trajectories for this process's labels, a batch at a time."""
        config, nat, device = self.training, self.model.nat.config, self._accelerator.device
        total = len(labels) * self._accelerator.num_processes
        first = self.step * total + self._accelerator.process_index * len(labels)
        num_steps = self.agent.policy.config.num_steps
        parts = []
        for start in range(0, len(labels), config.batch_size):
            batch = labels[start : start + config.batch_size]
            indices = torch.arange(len(batch), device=device) + first + start
            sign = 1 - 2 * (indices % 2) if config.paired else torch.ones_like(indices)
            indices = indices // 2 if config.paired else indices
            noise = SeededNoise(stream_seed(purpose, config.seed), indices, nat.num_tokens)
            explored = SeededNoise(
                stream_seed(purpose, config.seed, Stream.POLICY_EXPLORATION), indices, len(ACTION_NAMES)
            )
            uniform = torch.stack([explored.uniform(step, 0) for step in range(num_steps)])  # (T, B, 4)
            condition, null = self.conditions.encode(batch), self.conditions.null
            predict = predictor(self.model.nat, condition, self.model.precision, null)
            state = DecodingState.start(len(batch), nat.num_tokens, nat.mask_id, num_steps, device)
            normal = torch.special.ndtri(uniform) * sign[:, None]
            parts.append(collect(self.agent, predict, state, noise, normal, std, KEPT[config.rollout]))
        return join(parts)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on exactly; randomness follows from seed and update."""
        return {
            "agent": self.agent.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "reward": self.reward.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]
        self.agent.load_state_dict(state["agent"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.reward.load_state_dict(state["reward"])

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(weight.isfinite().all()) for weight in self.agent.parameters())

    def _labels(self, purpose: int, total: int) -> Tensor:
        """This process's share of an update's labels: all classes (prompts) equally often, in random order."""
        accelerator, numbers = self._accelerator, self.conditions.turns
        repeats = 2 if self.training.paired else 1
        total //= repeats
        generator = self._generator(purpose)
        shuffled = numbers[torch.randperm(len(numbers), generator=generator)].repeat(-(-total // len(numbers)))[:total]
        labels = shuffled[torch.randperm(total, generator=generator)].repeat_interleave(repeats)
        share = len(labels) // accelerator.num_processes
        return labels[accelerator.process_index * share :][:share].to(accelerator.device)

    def _returns(self, rewards: Tensor, labels: Tensor) -> Tensor:
        """This process's rewards (B,) to returns that are normalised over all processes."""
        every = self._accelerator.gather(rewards)
        groups = None
        if self.ppo.baseline == "pair":
            groups = torch.arange(len(every), device=every.device) // 2
        elif self.ppo.baseline == "class":
            groups = self._accelerator.gather(labels)
        returns = terminal_returns(every, self.agent.policy.config.num_steps, groups)
        return returns[self._accelerator.process_index * len(rewards) :][: len(rewards)]

    def _features_of(self, rollout: Rollout, labels: Tensor) -> Any:
        """Look rows' features up, or run the NAT on their tokens again."""
        if rollout.features is not None:
            stored = rollout.features.flatten(0, 1)
            return stored.__getitem__
        token_ids = rollout.token_ids.flatten(0, 1)

        @torch.no_grad()
        def compute(rows: Tensor) -> Tensor:
            device, precision = rows.device.type, self.model.precision
            with torch.amp.autocast(device, dtype=precision, enabled=precision != torch.float32):
                condition = self.conditions.encode(labels[rows % len(labels)])
                return self.model.nat.features(token_ids[rows].long(), condition)

        return compute

    def _decoded(self, sampled_ids: Tensor, labels: Tensor) -> Iterator[LabelledImages]:
        """Yield the images of a rollout with their labels, a batch at a time."""
        size = min(self.training.batch_size, images_at_once(self.model.tokenizer.config.image_size, labels.device))
        for ids, condition in zip(sampled_ids.split(size), labels.split(size), strict=True):
            with torch.no_grad():
                yield self.model.tokenizer.decode(ids), condition

    def _learn(self, rollout: Rollout, labels: Tensor, num_updates: int, streams: int = 0) -> dict[str, float]:
        """Let the reward learn from real images and from trajectories of this update, or from new ones."""
        pick, view = (
            self._generator(streams + purpose, self._accelerator.process_index, num_updates)
            for purpose in (Stream.REWARD_IMAGES, Stream.REWARD_UPDATE)
        )
        first = streams + Stream.REWARD_TRAJECTORIES
        pairs = (
            (self._real_images(), self._fake_images(rollout, labels, pick, purpose))
            for purpose in range(first, first + num_updates)
        )
        return self.reward.learn(pairs, view)

    def _fake_images(self, rollout: Rollout, labels: Tensor, pick: torch.Generator, purpose: int) -> LabelledImages:
        config = self.discriminator
        if config.reuse_rollouts:
            share = config.batch_size // self._accelerator.num_processes
            rows = torch.randperm(len(labels), generator=pick)[:share].to(labels.device)
            return self._decode(rollout.sampled_ids[rows]), labels[rows]
        fresh = self._labels(purpose, config.batch_size)
        ids = self.collect(fresh, self.ppo.std_at(self.step), purpose).sampled_ids
        return self._decode(ids), fresh

    def _real_images(self) -> LabelledImages:
        if self._real is None:
            config = self.discriminator
            used = self.step * config.updates + (config.warmup_updates if self.step else 0)
            self._real = self._open_real(used)
        pixels, labels = next(self._real)
        images = pixels.to(self._accelerator.device).float().div(255)
        if self.discriminator.real == "reconstructed":
            with torch.no_grad():
                images = self._decode(self.model.tokenizer.encode(images))
        return images, labels.to(self._accelerator.device)

    def _generator(self, purpose: int, *parts: int) -> torch.Generator:
        """A random stream on the CPU for this update."""
        return torch.Generator().manual_seed(stream_seed(purpose, self.training.seed, self.step, *parts))

    def _decode(self, token_ids: Tensor) -> Tensor:
        at_once = images_at_once(self.model.tokenizer.config.image_size, token_ids.device)
        with torch.no_grad():
            return torch.cat([self.model.tokenizer.decode(part) for part in token_ids.split(at_once)])

    def _mean_over_processes(self, stats: dict[str, float]) -> dict[str, float]:
        values = torch.tensor(list(stats.values()), device=self._accelerator.device)
        return dict(zip(stats, self._accelerator.reduce(values, reduction="mean").tolist(), strict=True))

    def _mean_actions(self, rollout: Rollout) -> dict[str, float]:
        """Name the mean of every value at every step."""
        means = self._accelerator.reduce(rollout.actions.mean(1), reduction="mean")  # (T, 4)
        return {
            f"{name}/{step}": float(value)
            for step, row in enumerate(means)
            for name, value in zip(ACTION_NAMES, row, strict=True)
        }
