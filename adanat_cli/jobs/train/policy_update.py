"""The networks, the optimizers and the one update of policy training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
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
from adanat_cli.core.ppo.gaussian import normal_draws
from adanat_cli.core.ppo.rollout import Rollout, collect, join
from adanat_cli.core.ppo.update import baseline_groups, terminal_returns, update
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.train.loop import Trainer
from adanat_cli.jobs.train.policy_rewards import LabelledImages, PolicyReward

_MAX_KEPT_BYTES = 2**28
"""Size of a rollout's images up to which they are kept for the whole update, and not decoded again where needed."""
KEPT = {"bf16": torch.bfloat16, "fp32": torch.float32, "recompute": None}


class PolicyTrainer(Trainer):
    """Policy, critic, their optimizer and the reward, and one iteration of the training algorithm."""

    saved = ("agent", "optimizer", "reward")

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
        pieces: int = 1,
    ) -> None:
        """Draw fresh weights from the seed, the same in every process.

        Args:
            model: NAT and tokenizer, both frozen.
            conditions: classes or prompts of the trajectories.
            shape: configuration of the policy.
            training: settings of the training.
            ppo: settings of PPO.
            discriminator: settings of the adversarial reward.
            reward: scores images.
            real: opens batches of real images (B, 3, H, W) uint8 and labels (pooled embeddings of captions), from a
                batch on, for the reward to learn from.
            accelerator: devices and processes.
            pieces: parts to cut a process's share of a minibatch into.
        """
        self.model, self.conditions, self.training = model, conditions, training
        self.ppo, self.discriminator = ppo, discriminator
        self.reward, self._open_real, self._accelerator = reward, real, accelerator
        self._real: Iterator[Batch] | None = None
        self.rollout_bytes, self._pieces = 0, pieces
        torch.manual_seed(training.seed)
        self.agent = Agent(shape).to(accelerator.device)
        self._agent_pass = accelerator.prepare_model(self.agent)
        self.optimizer = make_optimizer(self.agent, ppo)

    @cached_property
    def _nat(self) -> ConditionedNAT:
        """The NAT of all rollouts, which share what is the same in all."""
        return ConditionedNAT(self.model.nat, self.conditions, self.model.precision)

    def update(self, begin: Callable[[str], None] = lambda _: None) -> dict[str, float]:
        """Take one iteration: collect trajectories, score them, improve the policy, then let the reward learn.

        Args:
            begin: is told the name of each phase when it begins.

        Source: AdaNAT (arXiv 2409.00342), the training algorithm.
        """
        std, discriminator = self.ppo.std_at(self.step), self.discriminator
        labels = self._labels(Stream.POLICY_LABELS, self.training.trajectories)
        begin("rollout")
        rollout = self.collect(labels, std, Stream.POLICY_NOISE)
        draw = self._images_of(rollout.sampled_ids)
        if self.step == 0 and discriminator.warmup_updates:
            warm_up = discriminator.warmup_updates
            self._learn(draw, labels, warm_up, begin, "warming up the discriminator", Stream.REWARD_WARM_UP)
        begin("reward")
        score_noise = self._generator(Stream.REWARD_SCORE, self._accelerator.process_index)
        rewards = self.reward.score(self._batches(draw, labels), score_noise)
        begin("PPO")
        policy_stats = update(
            self._agent_pass,
            self.optimizer,
            rollout,
            self._returns(rewards, labels),
            self._features_of(rollout, labels),
            std,
            self.ppo,
            self._generator(Stream.POLICY_MINIBATCHES),
            self._accelerator,
            self._pieces,
        )
        reward_stats = self._learn(draw, labels, discriminator.updates, begin, "reward learns")
        self.step += 1
        return self._measured(rollout, rewards, std, policy_stats | reward_stats)

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
            signs = 1 - 2 * (indices % 2) if config.paired else torch.ones_like(indices)
            indices = indices // 2 if config.paired else indices
            noise = SeededNoise(stream_seed(purpose, config.seed), indices, nat.num_tokens)
            explored = SeededNoise(
                stream_seed(purpose, config.seed, Stream.POLICY_EXPLORATION), indices, len(ACTION_NAMES)
            )
            uniform = torch.stack([explored.uniform(step, 0) for step in range(num_steps)])  # (T, B, 4)
            predict = self._nat.predictor(batch)
            state = DecodingState.start(len(batch), nat.num_tokens, nat.mask_id, num_steps, device)
            exploration = normal_draws(uniform, signs)
            parts.append(collect(self.agent, predict, state, noise, exploration, std, KEPT[config.rollout]))
        return join(parts)

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
        """Normalise this process's rewards (B,) over all processes to returns (B,)."""
        all_rewards, all_labels = self._accelerator.gather((rewards, labels))
        groups = baseline_groups(self.ppo.baseline, all_labels)
        returns = terminal_returns(all_rewards, self.agent.policy.config.num_steps, groups)
        return returns[self._accelerator.process_index * len(rewards) :][: len(rewards)]

    def _features_of(self, rollout: Rollout, labels: Tensor) -> Any:
        """Look rows' features up, or run the NAT on their tokens again."""
        if rollout.features is not None:
            stored = rollout.features.flatten(0, 1)
            return stored.__getitem__
        token_ids = rollout.token_ids.flatten(0, 1)

        @torch.no_grad()
        def compute(rows: Tensor) -> Tensor:
            return self._nat.features(token_ids[rows].long(), labels[rows % len(labels)])

        return compute

    def _images_of(self, token_ids: Tensor) -> Callable[[Tensor], Tensor]:
        """Look images up by rows of (B, N) ids: decoded once for all uses where that takes little memory."""
        if 4 * 3 * self.model.tokenizer.config.image_size**2 * len(token_ids) <= _MAX_KEPT_BYTES:
            return self._decode(token_ids).__getitem__
        return lambda rows: self._decode(token_ids[rows])

    def _batches(self, draw: Callable[[Tensor], Tensor], labels: Tensor) -> Iterator[LabelledImages]:
        """Yield all images of a rollout with their labels, a batch at a time."""
        size = min(self.training.batch_size, images_at_once(self.model.tokenizer.config.image_size, labels.device))
        for rows in torch.arange(len(labels), device=labels.device).split(size):
            yield draw(rows), labels[rows]

    def _learn(
        self,
        draw: Callable[[Tensor], Tensor],
        labels: Tensor,
        num_updates: int,
        begin: Callable[[str], None],
        phase: str,
        streams: int = 0,
    ) -> dict[str, float]:
        """Let the reward learn from real images and from trajectories of this update, or from new ones.

        ``begin`` is told the phase and how far it is, unless the reward is fixed.
        """
        pick, view = (
            self._generator(streams + purpose, self._accelerator.process_index, num_updates)
            for purpose in (Stream.REWARD_IMAGES, Stream.REWARD_UPDATE)
        )

        def pairs() -> Iterator[tuple[LabelledImages, LabelledImages]]:
            for number in range(num_updates):
                begin(f"{phase} {number + 1}/{num_updates}")
                purpose = streams + Stream.REWARD_TRAJECTORIES + number
                yield self._real_images(), self._fake_images(draw, labels, pick, purpose)

        return self.reward.learn(pairs(), view)

    def _fake_images(
        self, draw: Callable[[Tensor], Tensor], labels: Tensor, pick: torch.Generator, purpose: int
    ) -> LabelledImages:
        config = self.discriminator
        if config.reuse_rollouts:
            share = config.batch_size // self._accelerator.num_processes
            rows = torch.randperm(len(labels), generator=pick)[:share].to(labels.device)
            return draw(rows), labels[rows]
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

    def _measured(self, rollout: Rollout, rewards: Tensor, std: float, stats: dict[str, float]) -> dict[str, float]:
        """Add the rewards, average over processes, and add the mean of each of the four values at each step."""
        self.rollout_bytes = rollout.num_bytes
        all_rewards = self._accelerator.gather(rewards)
        stats |= {"reward": float(all_rewards.mean()), "reward_std": float(all_rewards.std()), "std": std}
        values = torch.tensor(list(stats.values()), device=self._accelerator.device)
        means = dict(zip(stats, self._accelerator.reduce(values, reduction="mean").tolist(), strict=True))
        actions = self._accelerator.reduce(rollout.actions.mean(1), reduction="mean")  # (T, 4)
        return means | {
            f"{name}/{step}": float(value)
            for step, row in enumerate(actions)
            for name, value in zip(ACTION_NAMES, row, strict=True)
        }
