"""One figure of a run's averaged generator, measured again and again while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from cgsgan.data.dataset import HeadDataset
from cgsgan.evaluation import EvaluationConfig, Evaluator, SceneSource
from cgsgan.metrics.extractors import open_extractor
from cgsgan.training.milestones import Score
from cgsgan.training.poses import PosePrior
from cgsgan.training.settings import TrainingConfig

LARGEST_BATCH = 64


class Scorer:
    """Frechet distance to the run's own pictures, always with the same latents and cameras; lower is better.

    The figure is that of ``cgsgan evaluate --metrics fid`` with the same features and count, first repeat: ``frd`` of
    random features needs no weights. Its random numbers are its own, so that scoring changes no bit of a training.

    Args:
        config: features and how many pictures.
        dataset: the run's pictures, without flips.
        accelerator: every process makes its share.
        make_source: the averaged generator with its renderer.

    Attributes:
        name: of the figure.

    Raises:
        ExtractorError: when the features cannot be had; says how to get them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: HeadDataset,
        accelerator: Accelerator,
        make_source: Callable[[nn.Module], SceneSource],
    ) -> None:
        features = config.evaluate_features
        self.name = "frd" if features == "random" else f"fid_{features}"
        self.count = config.evaluate_count
        self._dataset, self._accelerator, self._make_source = dataset, accelerator, make_source
        weights = Path(config.evaluate_weights) if config.evaluate_weights else None
        with accelerator.main_process_first():
            self._extractor = open_extractor(features, weights=weights, device=accelerator.device)
        self._batch_size = min(max(config.batch_size // accelerator.num_processes, 1), LARGEST_BATCH)
        self._prior = PosePrior.of(config.poses)
        self._real: Tensor | None = None

    def __call__(self, generator: nn.Module) -> Score:
        """Measure; the same on every process."""
        evaluator = Evaluator(
            source=self._make_source(generator),
            dataset=self._dataset,
            extractor=self._extractor,
            config=EvaluationConfig(metrics=("fid",), count=self.count, repeats=1, batch_size=self._batch_size),
            accelerator=self._accelerator,
            prior=self._prior,
        )
        if self._real is None:
            self._real = evaluator.real_features()
        figures = evaluator.measure_repeat(0, self._real, None)
        value = figures["frd" if self.name == "frd" else "fid"]
        assert value is not None
        return Score(name=self.name, metric=f"{self.name} of {self.count} pictures", value=value)
