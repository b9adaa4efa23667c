"""What a run consists of between two steps: made, saved, restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.agreement import Agreement
from cgsgan.training.augmentation import make_augmenter
from cgsgan.training.batches import Batches
from cgsgan.training.checkpoint import SLOW_FILE, TrainingState, save_checkpoint
from cgsgan.training.draws import LabelPool
from cgsgan.training.ema import make_ema
from cgsgan.training.generator_file import CheckpointError, GeneratorFile
from cgsgan.training.guards import FiniteGuard, check_weights
from cgsgan.training.milestones import Milestones, Score
from cgsgan.training.optimization import discriminator_updater, generator_updater
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.settings import TrainingConfig
from cgsgan.training.state_tensors import collect_tensors, load_tensors
from cgsgan.training.steps import AdversarialSteps
from cgsgan.training.streams import RealStream


class Resumable:
    """Networks, their averages and optimisers, and where a run stands in its data and draws.

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
        self._networks = {"generator": steps.generator, "discriminator": steps.discriminator}
        updaters = {"generator_adam": self.generator_updater, "discriminator_adam": self.discriminator_updater}
        self._optimizers = {name: updater.adam for name, updater in updaters.items()}
        self.agreement = Agreement(accelerator, FiniteGuard(self._networks))

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
