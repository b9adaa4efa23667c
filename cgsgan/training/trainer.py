"""The loop: steps become updates, updates become a run that can be watched, stopped and resumed."""

from __future__ import annotations

from signal import Signals

from torch import nn

from cgsgan.training.checkpoint import list_checkpoints, read_slow_weights, read_training_state
from cgsgan.training.ema import update_ema
from cgsgan.training.generator_file import GENERATOR_FILE, read_generator
from cgsgan.training.guards import CollapseGuard, TrainingBrokenError
from cgsgan.training.interruption import StopRequest
from cgsgan.training.judging import Stats
from cgsgan.training.log import trim_log
from cgsgan.training.milestones import Score
from cgsgan.training.optimization import average_over_processes
from cgsgan.training.resumable import Resumable
from cgsgan.training.schedules import ema_beta, learning_rate_factor, passed
from cgsgan.training.tracking import Clock, RunningMeans, Tracker


class Trainer(Resumable):
    """Trains a generator against a discriminator; arguments are those of :class:`Resumable`."""

    _means: RunningMeans
    _collapse_guard: CollapseGuard

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
        self._collapse_guard = CollapseGuard(config.guard)
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
