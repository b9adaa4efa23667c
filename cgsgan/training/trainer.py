"""The loop: steps become updates, updates become a run that can be watched, stopped and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from signal import Signals
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.agreement import Agreement
from cgsgan.training.augmentation import make_augmenter
from cgsgan.training.batches import Batches
from cgsgan.training.checkpoint import (
    SLOW_FILE,
    TrainingState,
    list_checkpoints,
    read_slow_weights,
    read_training_state,
    save_checkpoint,
)
from cgsgan.training.draws import LabelPool
from cgsgan.training.ema import make_ema, update_ema
from cgsgan.training.generator_file import GENERATOR_FILE, CheckpointError, GeneratorFile, read_generator
from cgsgan.training.guards import CollapseGuard, FiniteGuard, TrainingBrokenError, check_weights
from cgsgan.training.interruption import StopRequest
from cgsgan.training.judging import Stats
from cgsgan.training.log import trim_log
from cgsgan.training.milestones import Milestones, Score
from cgsgan.training.optimization import (
    average_over_processes,
    discriminator_updater,
    generator_updater,
)
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.schedules import ema_beta, learning_rate_factor, passed
from cgsgan.training.settings import TrainingConfig
from cgsgan.training.state_tensors import collect_tensors, load_tensors
from cgsgan.training.steps import AdversarialSteps
from cgsgan.training.streams import RealStream
from cgsgan.training.tracking import Clock, RunningMeans, Tracker


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
        processes, parts = accelerator.num_processes, config.accumulate
        if config.batch_size % (processes * parts):
            over = f"{processes} processes" + (f" in {parts} parts each (training.accumulate)" if parts > 1 else "")
            raise ValueError(f"training.batch_size: {config.batch_size} does not divide over {over}")
        self.steps, self.stream = steps, stream
        self.config, self.accelerator, self.run, self.milestones = config, accelerator, run, milestones
        self.ema = make_ema(steps.generator)
        self.slow_ema = None if config.ema_slow_halflife_kimg is None else make_ema(steps.generator)
        self.generator_updater = generator_updater(
            steps.generator,
            config.optimizer,
            accelerator,
            lazy_interval=config.planes.density_interval if config.planes.density_weight > 0 else None,
        )
        self.discriminator_updater = discriminator_updater(
            steps.discriminator, config.optimizer, accelerator, r1_interval=config.loss.r1_interval
        )
        self.augmenter = steps.augment = make_augmenter(
            config.augmentation, seed=config.seed, batch_size=config.batch_size, accelerator=accelerator
        )
        self._gradients = steps if parts == 1 else AccumulatedSteps(steps, parts, self.augmenter)
        z_dim: int = steps.generator.z_dim  # type: ignore[assignment]
        num_ws: int = steps.generator.num_ws  # type: ignore[assignment]
        self.batches = Batches(
            stream,
            labels,
            config,
            z_dim=z_dim,
            num_ws=num_ws,
            accelerator=accelerator,
            conditioned=steps.conditioned,
            jittered=steps.volumetric,
        )
        self.step_index = 0
        self.images_seen = 0
        self.rollbacks = 0
        self._saved_at = -1
        self._rollbacks_from_here = 0
        self._means = RunningMeans()
        self._networks = {"generator": steps.generator, "discriminator": steps.discriminator}
        updaters = {"generator_adam": self.generator_updater, "discriminator_adam": self.discriminator_updater}
        self._optimizers = {name: updater.adam for name, updater in updaters.items()}
        self.agreement = Agreement(accelerator, FiniteGuard(self._networks))
        self._collapse_guard = CollapseGuard(config.guard)

    def train(self) -> Signals | None:
        """Run to the end (or ``max_minutes``, or a signal) from wherever this trainer stands, and leave a checkpoint.

        Returns:
            The signal that ended the run before its time, the same in all processes.

        Raises:
            TrainingBrokenError: when a guard stops the run; the last checkpoint is left as it was.
        """
        main = self.accelerator.is_main_process
        config = self.config
        tracker = Tracker(self.run.log, total_kimg=config.kimg, max_minutes=config.max_minutes, active=main)
        self._means, clock = RunningMeans(), Clock(self.images_seen)
        received: Signals | None = None
        with StopRequest(announce=main) as request, tracker:
            while self.images_seen < self.config.kimg * 1000:
                before = self.images_seen
                stats = self.train_step()
                late = 0 < self.config.max_minutes <= clock.minutes()
                received, late, broken = self.agreement.after_step(stats, request.signal, late)
                if broken:
                    self._roll_back(tracker, broken)
                else:
                    self._means.add(stats)
                    tracker.advance(self.images_seen / 1000, clock.rate(self.images_seen))
                    self._keep_books(before, tracker, clock, hurried=received is not None, late=late)
                if received or late:
                    break
            if self.images_seen != self._saved_at:
                self.save()
        return received

    def _keep_books(self, before: int, tracker: Tracker, clock: Clock, *, hurried: bool, late: bool) -> None:
        """Log, sample and save what has come due; a run that is being stopped has no time for pictures."""
        if passed(before, self.images_seen, self.config.log_kimg):
            self._report(tracker, clock)
        if passed(before, self.images_seen, self.config.sample_kimg) and not hurried:
            self._sample(tracker)
        ends = late or self.images_seen >= self.config.kimg * 1000
        every = self.config.evaluate_kimg
        if every > 0 and not hurried and (ends or passed(before, self.images_seen, every)):
            self.save(score=self._score(tracker))
        elif passed(before, self.images_seen, self.config.checkpoint_kimg):
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
        draws, fresh = self.batches.fakes(self.step_index, self.rollbacks, seen)
        keep = self.step_index % config.views_per_scene if fresh is None else None
        reals = self.steps.present_reals(self.batches.reals(self.step_index, self.rollbacks), seen)
        stats, fakes = self._gradients.generator_gradients(draws, seen, keep_view=keep, reals=reals)
        stats["generator_gradient_norm"] = self.generator_updater.step(rate)
        if self.steps.density_due(self.step_index, seen):
            stats |= self._gradients.density_gradients(self.batches.density(self.step_index, self.rollbacks))
            stats["density_gradient_norm"] = self.generator_updater.step(rate)
        if fresh is not None:
            fakes = self._gradients.fresh_fakes(fresh, seen)
        assert fakes is not None

        stats |= self._gradients.discriminator_gradients(fakes, reals, seen)
        if self.augmenter is not None:
            stats["augmentation_p"] = stats["real_signs"].new_tensor(self.augmenter.p)
            self.augmenter.observe(stats["real_signs"])
        stats["discriminator_gradient_norm"] = self.discriminator_updater.step(rate)
        penalized = config.loss.r1_gamma > 0 or config.loss.resolve_r2_gamma() > 0
        if self.step_index % config.loss.r1_interval == 0 and penalized:
            stats |= self._gradients.penalty_gradients(reals, seen, fakes=fakes)
            stats["penalty_gradient_norm"] = self.discriminator_updater.step(rate)

        # The running mean of w is one over this process's latents; averaging it makes it one over all.
        average_over_processes(self.accelerator, [self.steps.generator.get_buffer("mapping.w_average")])
        self.step_index += 1
        self.images_seen += config.batch_size
        self._average(self.ema, config.ema_halflife_kimg)
        if self.slow_ema is not None and config.ema_slow_halflife_kimg is not None:
            self._average(self.slow_ema, config.ema_slow_halflife_kimg)
        return stats

    def _average(self, ema: nn.Module, halflife_kimg: float) -> None:
        config = self.config
        beta = ema_beta(
            self.images_seen,
            batch_size=config.batch_size,
            halflife_kimg=halflife_kimg,
            rampup=config.ema_rampup,
        )
        update_ema(ema, self.steps.generator, beta)

    def save(self, score: Score | None = None) -> None:
        """Write a checkpoint (main process).

        Args:
            score: of the averaged generator.

        Raises:
            TrainingBrokenError: when the averaged generator holds NaN or infinity.
            CheckpointError: when it cannot be written, in all processes; older ones are intact.
        """
        check_weights(self.ema, "averaged generator", self.images_seen)
        if self.slow_ema is not None:
            check_weights(self.slow_ema, "slower averaged generator", self.images_seen)
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            generator, slow = (self._file(ema) for ema in (self.ema, self.slow_ema))
            assert generator is not None
            keep, milestone = self.config.keep_checkpoints, self.config.milestone_kimg
            try:
                state = self._state(score)
                save_checkpoint(self.run.checkpoints, generator, state, slow=slow, keep=keep, milestone_kimg=milestone)
            except (CheckpointError, OSError) as error:
                failure = error
        # Nobody goes on before it is written, and nobody waits for a process that could not.
        (failed,) = self.agreement.total([float(failure is not None)])
        if failed:
            raise failure or CheckpointError(f"{self.run.path}: the main process could not write its checkpoint")
        self._saved_at, self._rollbacks_from_here = self.images_seen, 0

    def _file(self, ema: nn.Module | None) -> GeneratorFile | None:
        if ema is None:
            return None
        return GeneratorFile(config=self.milestones.config, images_seen=self.images_seen, weights=ema.state_dict())

    def restore(
        self,
        state: TrainingState,
        ema_weights: Mapping[str, Tensor],
        slow_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Continue from a checkpoint: weights, averages, optimisers, position in the data and in the draws.

        Raises:
            CheckpointError: when something is missing in it or does not fit this experiment.
        """
        try:
            self._restore(state, ema_weights)
            if self.slow_ema is not None:
                if slow_weights is None:
                    raise ValueError(f"there is no {SLOW_FILE} in it, but training.ema_slow_halflife_kimg is set")
                self.slow_ema.load_state_dict(slow_weights)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"{self.run.path}: its checkpoint cannot be resumed ({reason})") from None

    def _restore(self, state: TrainingState, ema_weights: Mapping[str, Tensor]) -> None:
        load_tensors(state.tensors, self._networks, self._optimizers)
        self.ema.load_state_dict(ema_weights)
        self.step_index = int(state.progress["step"])
        self.images_seen = int(state.progress["images_seen"])
        self.rollbacks = int(state.progress.get("rollbacks", 0))
        self.stream.load_state_dict(state.progress["data"])
        if self.augmenter is not None:
            self.augmenter.load_state_dict(state.progress["augmentation"])
        self._saved_at = self.images_seen

    def _state(self, score: Score | None = None) -> TrainingState:
        progress: dict[str, Any] = {
            "step": self.step_index,
            "images_seen": self.images_seen,
            "rollbacks": self.rollbacks,
        }
        progress["data"] = self.stream.state_dict()
        if self.augmenter is not None:
            progress["augmentation"] = self.augmenter.state_dict()
        if score is not None:
            progress["score"] = {"metric": score.metric, "value": score.value}
        return TrainingState(tensors=collect_tensors(self._networks, self._optimizers), progress=progress)

    def _roll_back(self, tracker: Tracker, broken: list[str]) -> None:
        """Go back to the last checkpoint, with other latents and the pictures that come next, or stop.

        Raises:
            TrainingBrokenError: when the config, or the lack of a checkpoint, or too many attempts say so.
        """
        guard, checkpoints = self.config.guard, list_checkpoints(self.run.checkpoints)
        where = f"step {self.step_index} ({self.images_seen / 1000:g} kimg)"
        what = f"training broke down at {where}: {', '.join(broken)} not finite"
        last = checkpoints[-1] if checkpoints else None
        good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        if guard.on_nan == "stop" or last is None or self._rollbacks_from_here >= guard.max_rollbacks:
            tried = f" after {self._rollbacks_from_here} rollback(s)" if self._rollbacks_from_here else ""
            raise TrainingBrokenError(
                f"{what}{tried}; {good}; lower training.optimizer.*_lr or raise training.loss.r1_gamma in a new run, "
                "or resume with --training.guard.on-nan rollback"
            )
        data, attempts, rollbacks = self.stream.state_dict(), self._rollbacks_from_here + 1, self.rollbacks
        weights = read_generator(last / GENERATOR_FILE).weights
        self.restore(read_training_state(last), weights, read_slow_weights(last))
        self.stream.load_state_dict(data)
        self.rollbacks, self._rollbacks_from_here = max(rollbacks, self.rollbacks) + 1, attempts
        self._means = RunningMeans()
        if self.accelerator.is_main_process:
            trim_log(self.run.log, self.images_seen / 1000)
        tracker.say(f"{what}; back to {last.name} with other latents and pictures ({attempts}/{guard.max_rollbacks})")
        tracker.record({"event": "rollback", "text": what, "kimg": self.images_seen / 1000})

    def _report(self, tracker: Tracker, clock: Clock) -> None:
        taken, kimg = self.agreement.average(self._means.take()), self.images_seen / 1000
        rate = clock.rate(self.images_seen)
        tracker.report(kimg, rate, taken)
        self.accelerator.log({"images_per_second": rate, **taken}, step=self.images_seen)
        warning = self._collapse_guard.look(taken, kimg)
        if warning:
            tracker.say(warning)
            tracker.record({"event": "collapse", "text": warning, "kimg": kimg})

    def _sample(self, tracker: Tracker) -> None:
        if not self.accelerator.is_main_process:
            return
        kimg = self.images_seen / 1000
        tracker.say(f"{kimg:8.1f} kimg  {self.milestones.sample(self.ema, self.images_seen)}")
        if self.milestones.measure is not None:
            figures = self.milestones.measure(self.ema)
            tracker.say(f"{kimg:8.1f} kimg  " + ", ".join(f"{name}: {value:.4g}" for name, value in figures.items()))
            tracker.record({"kimg": round(kimg, 3), **figures})

    def _score(self, tracker: Tracker) -> Score | None:
        if self.milestones.score is None:
            return None
        score, kimg = self.milestones.score(self.ema), self.images_seen / 1000
        tracker.say(f"{kimg:8.1f} kimg  {score.metric}: {score.value:.4g}")
        tracker.record({"kimg": round(kimg, 3), score.name: score.value})
        self.accelerator.log({score.name: score.value}, step=self.images_seen)
        return score
