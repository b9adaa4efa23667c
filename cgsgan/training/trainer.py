"""The loop: steps become updates, updates become a run that can be watched, stopped and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.training.augmentation import make_augmenter
from cgsgan.training.checkpoint import (
    CheckpointError,
    GeneratorFile,
    TrainingState,
    flatten_optimizer,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    unprefixed,
)
from cgsgan.training.draws import FakeDraws, LabelPool, deal, draw_backgrounds, draw_fakes, step_generator
from cgsgan.training.ema import make_ema, update_ema
from cgsgan.training.optimization import (
    average_over_processes,
    discriminator_updater,
    generator_updater,
)
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.schedules import ema_beta, learning_rate_factor
from cgsgan.training.settings import TrainingConfig
from cgsgan.training.steps import AdversarialSteps, JudgedImages, Stats
from cgsgan.training.tracking import RunningMeans, Tracker, check_finite


@runtime_checkable
class RealBatch(Protocol):
    """A batch of real images."""

    @property
    def premultiplied(self) -> Float[Tensor, "batch 4 height width"]:
        """RGB times alpha, and alpha, in [0, 1]."""
        ...

    @property
    def camera_labels(self) -> Float[Tensor, "batch 25"]:
        """Their cameras."""
        ...


@runtime_checkable
class RealStream(Protocol):
    """An endless, resumable stream of this process's share of the real batches."""

    def next(self) -> RealBatch:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position, JSON-able."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        ...


@dataclass(kw_only=True)
class Milestones:
    """What happens beside training; the experiment supplies it.

    Attributes:
        sample: writes a contact sheet of the averaged generator for this many images seen; says where.
        config: the resolved config as plain data, for checkpoints.
    """

    sample: Callable[[nn.Module, int], str]
    config: dict[str, Any]


class Trainer:
    """Trains a generator against a discriminator.

    Args:
        steps: both networks on their device, and the objective.
        stream: this process's real images.
        labels: where the cameras of fakes come from.
        config: see TrainingConfig.
        accelerator: device, precision, processes.
        run: where to write.
        milestones: what to write beside checkpoints.

    Raises:
        ValueError: when the batch does not divide over the processes.
    """

    def __init__(
        self,
        *,
        steps: AdversarialSteps,
        stream: RealStream,
        labels: LabelPool,
        config: TrainingConfig,
        accelerator: Accelerator,
        run: RunFolder,
        milestones: Milestones,
    ) -> None:
        if config.batch_size % accelerator.num_processes:
            raise ValueError(
                f"training.batch_size: {config.batch_size} does not divide over {accelerator.num_processes} processes"
            )
        self.steps, self.stream, self.labels = steps, stream, labels
        self.config, self.accelerator, self.run, self.milestones = config, accelerator, run, milestones
        self.ema = make_ema(steps.generator)
        self.generator_updater = generator_updater(steps.generator, config.optimizer, accelerator)
        self.discriminator_updater = discriminator_updater(
            steps.discriminator, config.optimizer, accelerator, r1_interval=config.loss.r1_interval
        )
        self.augmenter = steps.augment = make_augmenter(
            config.augmentation, seed=config.seed, batch_size=config.batch_size, accelerator=accelerator
        )
        self.step_index = 0
        self.images_seen = 0
        self._saved_at = -1

    def train(self) -> None:
        """Run to the end (or ``max_minutes``) from wherever this trainer stands, and leave a checkpoint."""
        config = self.config
        tracker = Tracker(self.run.log, total_kimg=config.kimg, active=self.accelerator.is_main_process)
        means, clock = RunningMeans(), _Clock(self.images_seen)
        with tracker:
            while self.images_seen < config.kimg * 1000 and not self._out_of_time(clock):
                before = self.images_seen
                means.add(self.train_step())
                tracker.advance(self.images_seen / 1000, clock.rate(self.images_seen))
                if self._passed(before, config.log_kimg):
                    self._report(tracker, means, clock)
                if self._passed(before, config.sample_kimg):
                    self._sample(tracker)
                if self._passed(before, config.checkpoint_kimg):
                    self.save()
            if self.images_seen != self._saved_at:
                self.save()

    def train_step(self) -> Stats:
        """One update of each network on one batch, and of the average; returns named scalars."""
        config, seen = self.config, self.images_seen
        rate = learning_rate_factor(
            seen,
            total_kimg=config.kimg,
            decay_kimg=config.optimizer.decay_kimg,
            final=config.optimizer.decay_final,
        )
        if self.augmenter is not None:
            self.augmenter.begin_step(self.step_index)
        draws, fresh = self._draw_fakes()
        keep = self.step_index % config.views_per_scene if fresh is None else None
        stats, fakes = self.steps.generator_gradients(draws, seen, keep_view=keep)
        stats["generator_gradient_norm"] = self.generator_updater.step(rate)
        if fresh is not None:
            fakes = self.steps.fresh_fakes(fresh)
        assert fakes is not None

        reals = self._next_reals()
        stats |= self.steps.discriminator_gradients(fakes, reals, seen)
        if self.augmenter is not None:
            stats["augmentation_p"] = stats["real_signs"].new_tensor(self.augmenter.p)
            self.augmenter.observe(stats["real_signs"])
        stats["discriminator_gradient_norm"] = self.discriminator_updater.step(rate)
        if self.step_index % config.loss.r1_interval == 0 and config.loss.r1_gamma > 0:
            stats |= self.steps.penalty_gradients(reals, seen)
            self.discriminator_updater.step(rate)

        # The running mean of w is one over this process's latents; averaging it makes it one over all.
        average_over_processes(self.accelerator, [self.steps.generator.get_buffer("mapping.w_average")])
        self.step_index += 1
        self.images_seen += config.batch_size
        beta = ema_beta(
            self.images_seen,
            batch_size=config.batch_size,
            halflife_kimg=config.ema_halflife_kimg,
            rampup=config.ema_rampup,
        )
        update_ema(self.ema, self.steps.generator, beta)
        return stats

    def save(self) -> None:
        """Write a checkpoint (main process).

        Raises:
            FloatingPointError: when the averaged generator holds NaN or infinity; a good checkpoint is not rotated
                out by a broken one.
        """
        broken = float(sum(not bool(p.isfinite().all()) for p in self.ema.parameters()))
        check_finite({"averaged generator": math.nan if broken else 0.0}, self.images_seen / 1000)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            generator = GeneratorFile(
                config=self.milestones.config, images_seen=self.images_seen, weights=self.ema.state_dict()
            )
            save_checkpoint(self.run.checkpoints, generator, self._state(), keep=self.config.keep_checkpoints)
        self._saved_at = self.images_seen
        self.accelerator.wait_for_everyone()

    def restore(self, state: TrainingState, ema_weights: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint: weights, average, optimisers, position in the data and in the draws.

        Raises:
            CheckpointError: when something is missing in it or does not fit this experiment.
        """
        try:
            self._restore(state, ema_weights)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"{self.run.path}: its checkpoint cannot be resumed ({reason})") from None

    def _restore(self, state: TrainingState, ema_weights: Mapping[str, Tensor]) -> None:
        tensors = state.tensors
        self.steps.generator.load_state_dict(unprefixed("generator", tensors))
        self.steps.discriminator.load_state_dict(unprefixed("discriminator", tensors))
        self.ema.load_state_dict(ema_weights)
        restore_optimizer("generator_adam", self.generator_updater.adam, tensors)
        restore_optimizer("discriminator_adam", self.discriminator_updater.adam, tensors)
        self.step_index = int(state.progress["step"])
        self.images_seen = int(state.progress["images_seen"])
        self.stream.load_state_dict(state.progress["data"])
        if self.augmenter is not None:
            self.augmenter.load_state_dict(state.progress["augmentation"])
        self._saved_at = self.images_seen

    def _state(self) -> TrainingState:
        tensors = {
            **prefixed("generator", self.steps.generator.state_dict()),
            **prefixed("discriminator", self.steps.discriminator.state_dict()),
            **flatten_optimizer("generator_adam", self.generator_updater.adam),
            **flatten_optimizer("discriminator_adam", self.discriminator_updater.adam),
        }
        progress = {"step": self.step_index, "images_seen": self.images_seen, "data": self.stream.state_dict()}
        if self.augmenter is not None:
            progress["augmentation"] = self.augmenter.state_dict()
        return TrainingState(tensors=tensors, progress=progress)

    def _draw_fakes(self) -> tuple[FakeDraws, FakeDraws | None]:
        config = self.config
        z_dim: int = self.steps.generator.z_dim  # type: ignore[assignment]

        def draw(stream: int, views: int) -> FakeDraws:
            random = step_generator(config.seed, self.step_index, stream)
            whole = draw_fakes(random, self.labels, batch_size=config.batch_size, views=views, z_dim=z_dim)
            return FakeDraws(
                z=self._deal(whole.z),
                camera_labels=self._deal(whole.camera_labels),
                backgrounds=self._deal(whole.backgrounds),
            )

        return draw(0, config.views_per_scene), None if config.reuse_fakes else draw(1, 1)

    def _next_reals(self) -> JudgedImages:
        batch = self.stream.next()
        random = step_generator(self.config.seed, self.step_index, stream=2)
        backgrounds = self._deal(draw_backgrounds(random, batch_size=self.config.batch_size))
        pixels = batch.premultiplied.to(self.accelerator.device)
        images = pixels[:, :3] + (1 - pixels[:, 3:]) * backgrounds[:, :, None, None]
        return JudgedImages(images=images, camera_labels=batch.camera_labels.to(self.accelerator.device))

    def _deal(self, whole: Tensor) -> Tensor:
        accelerator = self.accelerator
        return deal(
            whole,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            device=accelerator.device,
        )

    def _report(self, tracker: Tracker, means: RunningMeans, clock: _Clock) -> None:
        taken = self._average(means.take())
        check_finite(taken, self.images_seen / 1000)
        tracker.report(self.images_seen / 1000, clock.rate(self.images_seen), taken)

    def _average(self, means: dict[str, float]) -> dict[str, float]:
        """Means over all processes: all of them log, and stop, on the same numbers."""
        if self.accelerator.num_processes == 1 or not means:
            return means
        stacked = torch.tensor(list(means.values()), device=self.accelerator.device)
        reduced = self.accelerator.reduce(stacked, reduction="mean")
        assert isinstance(reduced, Tensor)
        return dict(zip(means, reduced.tolist(), strict=True))

    def _sample(self, tracker: Tracker) -> None:
        if self.accelerator.is_main_process:
            tracker.say(f"{self.images_seen / 1000:8.1f} kimg  {self.milestones.sample(self.ema, self.images_seen)}")

    def _passed(self, before: int, kimg: float) -> bool:
        return math.floor(before / (kimg * 1000)) != math.floor(self.images_seen / (kimg * 1000))

    def _out_of_time(self, clock: _Clock) -> bool:
        if self.config.max_minutes <= 0:
            return False
        out = torch.tensor(float(clock.minutes() >= self.config.max_minutes), device=self.accelerator.device)
        # All processes must leave the loop at the same step.
        total = self.accelerator.reduce(out, reduction="sum")
        assert isinstance(total, torch.Tensor)
        return bool(total > 0)


class _Clock:
    """Images per second over the last seconds, and the minutes since training began here."""

    def __init__(self, images_seen: int) -> None:
        self._start = time.perf_counter()
        self._marks = [(self._start, images_seen)]

    def minutes(self) -> float:
        return (time.perf_counter() - self._start) / 60

    def rate(self, images_seen: int) -> float:
        now = time.perf_counter()
        self._marks.append((now, images_seen))
        # The last 20 seconds say what is going on now; a whole-run mean would hide a slowdown.
        while len(self._marks) > 2 and now - self._marks[1][0] > 20:
            self._marks.pop(0)
        elapsed = now - self._marks[0][0]
        return (images_seen - self._marks[0][1]) / max(elapsed, 1e-9)
