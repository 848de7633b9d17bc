"""Train a generation policy for a frozen NAT, from the first trajectory to a model folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.data.batches import Batch, training_batches
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.schedules import TableSchedule
from adanat_cli.core.policy import build_policy
from adanat_cli.core.policy.schedule import PolicySchedule, base_schedule
from adanat_cli.jobs.resolve.models import load_policy
from adanat_cli.jobs.runtime.devices import make_accelerator, require_multiple
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter, Task
from adanat_cli.jobs.runtime.resume import Length
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed
from adanat_cli.jobs.sample.conditions import PromptConditions
from adanat_cli.jobs.sample.policy_pictures import draw_policy
from adanat_cli.jobs.train.inputs import note_inputs
from adanat_cli.jobs.train.loop import Resumable, Run, TrainingLoop
from adanat_cli.jobs.train.policy_distance import Evaluator
from adanat_cli.jobs.train.policy_rewards import check_groups, choose_reward
from adanat_cli.jobs.train.policy_search import search
from adanat_cli.jobs.train.policy_setup import (
    Setup,
    check_request,
    export_policy,
    fit_to_condition,
    little_to_measure,
    open_images,
    policy_shape,
    prepare,
    run_settings,
)
from adanat_cli.jobs.train.policy_update import PolicyTrainer
from adanat_cli.jobs.train.start import Start, find_start


@holds_output
def train_policy(request: PolicySettings, reporter: Reporter) -> dict[str, Any]:
    """Train, resume or finish a policy; or search a table.

    Returns:
        Where it is and what was measured; empty on processes other than the main one.

    Raises:
        AdaNATError: if model and data are not compatible, the run folder holds another run, or training diverges.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        SystemExit: after SIGTERM or SIGHUP, once the state is saved.
    """
    batch_size = request.discriminator.batch_size if request.training.reward == "adversarial" else 0
    accelerator = make_accelerator(request.device, batch_size, "--discriminator-batch")
    check_processes(request, accelerator.num_processes)
    folder, nat = check_request(request)
    request = fit_to_condition(request, nat)
    start = find_start(request.start, policy_component(request.num_steps), request.output)
    shape = policy_shape(request, nat, folder.fingerprint("nat"), start)
    images = open_images(request, folder, nat)
    length, decisive = Length("training.updates"), run_settings(request, shape, start)
    run = Run(request.output, decisive, accelerator, reporter, length, request.note, request.record, request.track)
    if accelerator.is_main_process:
        note_inputs(run.folder.path, request.inputs)
        if start:
            start.remember(run.folder)
    for part in images:
        run.reporter.log(part.describe())
    if line := little_to_measure(request, images[1]):
        run.reporter.warn(line)
    setup = prepare(request, accelerator, run.reporter, images)
    if request.kind in ("search", "tuned"):
        return search(request, run, setup, shape)
    return PolicyLoop(run, request, setup, shape, start).train()


def check_processes(request: PolicySettings, num_processes: int) -> None:
    """Refuse what cannot be shared out over the processes, before anything is loaded."""
    training = request.training
    if request.kind in ("search", "tuned"):
        alone = f"--kind {request.kind} runs on one process; start it without --nproc or a launcher."
        require(num_processes == 1, alone)
        return
    pairs, what = (2, "pairs on ") if training.paired else (1, "")
    require_multiple(training.trajectories, pairs * num_processes, "--trajectories", f"{what}{num_processes} processes")
    check_groups(training, num_processes)
    require(
        request.ppo.baseline != "pair" or training.paired,
        "The baseline of PPO is a pair's mean, but trajectories do not come in pairs; pair them (--paired), or use "
        "another baseline.",
    )


@dataclass
class Best(Resumable):
    """The best policy so far by its held-out distance.

    Attributes:
        step: update after which it was measured.
        distance: Fréchet distance.
        policy: weights of the policy; empty before the first measurement.
    """

    saved = ("step", "distance", "policy")
    step: int = 0
    distance: float = math.inf
    policy: dict[str, torch.Tensor] = field(default_factory=dict)


class PolicyLoop(TrainingLoop):
    """Training of a policy, which keeps the best one."""

    saved = ("fixed_distance", "best")
    trainer: PolicyTrainer

    def __init__(
        self, run: Run, request: PolicySettings, setup: Setup, shape: PolicyConfig, start: Start | None = None
    ) -> None:
        """Build the reward, the policy with its first weights, and what measures it."""
        training, accelerator = request.training, run.accelerator
        self.request, self.setup, self.shape, self.begun = request, setup, shape, start
        # First: of all that may be missing it is the likeliest, and a feature network takes minutes to train.
        reward = choose_reward(request, setup, accelerator)
        trainer = PolicyTrainer(
            setup.model,
            setup.conditions,
            shape,
            training,
            request.ppo,
            request.discriminator,
            reward,
            self._real,
            accelerator,
            request.accumulate,
        )
        if start and not start.is_resumed and (first := load_policy(start.folder, shape.num_steps)):
            trainer.agent.policy.load_state_dict(first.state_dict())
        super().__init__(run, trainer, training.updates, training.save_every)
        self.evaluator = Evaluator(
            setup.model,
            setup.held_out_conditions,
            setup.features,
            setup.held_out_reference,
            training.batch_size,
            accelerator,
        )
        self.fixed_distance, self.best = math.nan, Best()
        self._stats: dict[str, float] = {}

    def start(self) -> None:
        """Resume; in a new run, measure the fixed schedule, and the first policy, which is the first best."""
        super().start()
        if self.best.policy:
            return
        self.fixed_distance = self._first_distance("Measuring the fixed schedule", base_schedule(self.shape))
        # A base that is raised to a floor is no longer quite the fixed schedule.
        is_fixed = self.shape.residual and not self.shape.base_floor and not self.begun
        distance = self.fixed_distance
        if not is_fixed:
            first = PolicySchedule(self.trainer.agent.policy)
            distance = self._first_distance("Measuring the first policy", first)
        if self.begun:
            self.reporter.log(
                f"Starting from {self.begun.model}: its {self.shape.kind} policy for {self.shape.num_steps} steps, "
                f"distance {distance:.4g}; the critic starts anew."
            )
        elif not is_fixed and self.shape.residual:
            self.reporter.log(
                f"Temperatures and guidance scales of the base schedule below {self.shape.base_floor:g} are raised to "
                "it, so that they can be learned."
            )
        self.best = Best(0, distance, self._policy_state())
        self.run.log(0, distance=distance, fixed_distance=self.fixed_distance)
        self.reporter.log(
            f"Fixed schedule: distance {self.fixed_distance:.4g} over {self.request.training.eval_images} images."
        )

    def update(self) -> None:
        """Improve the policy once."""
        self._stats = self.trainer.update(lambda phase: self.task.advance(0, phase=phase))
        self.check()

    def log(self, task: Task) -> None:
        """Log all statistics, and advance the progress bar."""
        if self.trainer.step == 1:
            self.reporter.log(f"Rollout: {self.trainer.rollout_bytes / 2**20:.1f} MB on each process.")
        self.run.log(self.trainer.step, **self._stats)
        task.advance(1, reward=self._stats["reward"], kl=self._stats["kl"])

    def observe(self, task: Task) -> None:
        """Measure the policy on held-out images, and draw with it."""
        config = self.request.training
        if self.due(config.eval_every):
            self._evaluate(task)
        if self.due(config.show_every) and self.accelerator.is_main_process:
            self._show()

    def result(self) -> dict[str, Any]:
        """What was reached."""
        return {
            "model": str(self.folder.model),
            "policy": policy_component(self.request.num_steps),
            "updates": self.trainer.step,
            "best_update": self.best.step,
            "distance": self.best.distance,
            "fixed_distance": self.fixed_distance,
            "num_images": self.request.training.eval_images,
            "measured_on": self.setup.measured_on,
        }

    def _distance(self, schedule: PolicySchedule | TableSchedule, task: Task | None = None) -> float:
        config = self.request.training
        seed = stream_seed(Stream.POLICY_EVALUATION, config.seed)
        return self.evaluator.distance(schedule, seed, config.eval_images, task)

    def _first_distance(self, what: str, schedule: PolicySchedule | TableSchedule) -> float:
        """Measure a schedule before the first update, under a progress bar of its own."""
        with self.reporter.task(what, self.request.training.eval_images, "img") as task:
            return self._distance(schedule, task)

    def check(self) -> None:
        """Stop before anything that is not a number reaches the disk."""
        stats = self._stats
        if not (all(map(math.isfinite, stats.values())) and self.trainer.is_finite()):
            wrong = ", ".join(name for name, value in stats.items() if not math.isfinite(value)) or "a weight"
            raise AdaNATError(
                f"Training diverged at update {self.trainer.step}: {wrong} is not a number. The last saved state in "
                f"{self.folder.path} is kept; try a lower --learning-rate with another --output."
            )

    def _evaluate(self, task: Task) -> None:
        task.advance(0, phase="measuring")
        distance = self._distance(PolicySchedule(self.trainer.agent.policy))
        self.run.log(self.trainer.step, distance=distance)
        if distance < self.best.distance:
            self.best = Best(self.trainer.step, distance, self._policy_state())
        task.advance(0, distance=distance, best=self.best.distance)

    def _show(self) -> None:
        step, seed = self.trainer.step, stream_seed(Stream.POLICY_PICTURES, self.request.training.seed)
        draw_policy(
            self.setup.model,
            self.setup.conditions,
            PolicySchedule(self.trainer.agent.policy),
            base_schedule(self.shape),
            seed,
            self.folder.samples / f"step-{step:06d}.png",
            self.folder.plots / f"step-{step:06d}.png",
            f"{self.request.kind} policy, {self.shape.num_steps} steps, update {step}",
        )

    def export(self) -> None:
        """Write the best policy."""
        best, policy = self.best, build_policy(self.shape)
        policy.load_state_dict(best.policy)
        facts = {
            "command": "train-policy",
            "reward": self.request.training.reward,
            "kind": self.request.kind,
            "update": best.step,
            "distance": best.distance,
            "fixed_distance": self.fixed_distance,
            "measured_on": self.setup.measured_on,
            "settings": self.run.settings,
            **(self.begun.recorded() if self.begun else {}),
        }
        export_policy(self.request, self.setup, policy, facts)

    def _policy_state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trainer.agent.policy.state_dict().items()}

    def _real(self, first_batch: int) -> Iterator[Batch]:
        """Real images with their labels, or with the embeddings of their captions."""
        accelerator, conditions = self.accelerator, self.setup.conditions
        batches = training_batches(
            self.setup.source,
            batch_size=self.request.discriminator.batch_size // accelerator.num_processes,
            seed=self.request.training.seed,
            first_step=first_batch,
            num_workers=self.request.workers,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            flips=self.request.training.flip,
        )
        if isinstance(conditions, PromptConditions):
            return ((batch.images, conditions.encoder.encode(batch.captions).pooled) for batch in batches)
        return ((batch.images, batch.labels) for batch in batches)
