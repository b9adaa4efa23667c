"""Measures one source of scenes against one data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.data.dataset import HeadDataset
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.evaluation.kept import read_kept, write_kept
from cgsgan.evaluation.normals import normal_figures
from cgsgan.evaluation.pose import TaughtEstimator, learn_poses, pose_figures
from cgsgan.evaluation.scenes import SceneSource
from cgsgan.evaluation.settings import EvaluationConfig, check_needs, check_unlabelled
from cgsgan.evaluation.studio import Studio
from cgsgan.evaluation.views import depth_figures, view_consistency, view_likeness
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.metrics.figures import Figures, compare_sets, compare_yaw_bins
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from cgsgan.training.draws import LabelPool

PATCH_PICTURES, PATCH_SIZE = 2048, 128
"""The sliced Wasserstein distance takes at most so many pictures, reduced to at most this side: it holds them all."""
FIRST_SEED = 0x5EED_0E7A_1000_0000
"""Added to seeds: initial weights come from small ones, and latents equal to rows of them are no random latents.
Measured: at 256 pictures FRD 26 with the latents of the seed that the weights came from, 10 to 13 with others."""


@dataclass(frozen=True)
class Draws:
    """Latents and cameras of one repeat, the same on every process."""

    z: Float[Tensor, "count z_dim"]
    labels: Float[Tensor, "count 25"]


@dataclass
class Evaluator:
    """Measures one source of scenes against one data set.

    Attributes:
        source: what is measured.
        dataset: without flips, at the source's resolution.
        extractor: of the features.
        config: what to measure.
        accelerator: processes and device.
        progress: told of what is done by the main process.
        identity: features that know faces, for the metric of that name.
        truth: heads of known depth, for the metrics ``depth`` and ``normals``.
        prior: cameras to look from when the data set has none; otherwise those of its pictures are taken.
    """

    source: SceneSource
    dataset: HeadDataset
    extractor: FeatureExtractor
    config: EvaluationConfig
    accelerator: Accelerator
    progress: Progress = ignore_progress
    identity: FeatureExtractor | None = None
    truth: DepthTruth | None = None
    prior: LabelPool | None = None
    real_index: Int64[Tensor, " real"] = field(init=False)

    def __post_init__(self) -> None:
        check_needs(self.config.metrics, identity=self.identity is not None, truth=self.truth is not None)
        if not self.dataset.labelled:
            check_unlabelled(self.config.metrics, prior=self.prior is not None)
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(0))
        self.real_index = order[: self.config.count]

    @property
    def studio(self) -> Studio:
        """Makes the pictures."""
        return Studio(self.source, self.accelerator, self.config.batch_size, self.progress)

    def measure(self) -> dict[str, Any]:
        """All figures, and what they were measured on; the same on every process.

        Returns:
            ``figures``: name -> mean and standard deviation over the repeats (None for one repeat), and the values.
        """
        real = self.real_features() if self.needs_features else None
        taught = learn_poses(self.studio, self.dataset) if "pose" in self.config.metrics else None
        repeats = [self.measure_repeat(index, real, taught) for index in range(self.config.repeats)]
        names = {name: None for figures in repeats for name in figures}
        return {
            "figures": {name: summarize([figures.get(name) for figures in repeats]) for name in names},
            "features": self.extractor.identity if self.needs_features or "normals" in self.config.metrics else None,
            "identity_features": self.identity.identity if self.identity else None,
            "real_pictures": len(self.real_index),
            "fake_pictures_per_repeat": self.config.count,
            "repeats": self.config.repeats,
            "seed": self.config.seed,
            "processes": self.accelerator.num_processes,
            "truncation_psi": self.config.truncation_psi,
            "resolution": self.source.resolution,
            "data": str(self.dataset.location),
        }

    @property
    def needs_features(self) -> bool:
        """Whether any figure compares features."""
        return bool({"fid", "kid", "pr", "fid3d", "yaw", "similarity"} & set(self.config.metrics))

    def measure_repeat(self, index: int, real: Tensor | None, taught: TaughtEstimator | None) -> Figures:
        """The figures of one draw of latents and cameras."""
        draws, metrics = self.draw(self.config.seed + index), set(self.config.metrics)
        run = f"repeat {index + 1}/{self.config.repeats}"
        figures = self.set_distances(draws, real, run)
        if "swd" in metrics:
            figures |= self.patch_distances(draws, run)
        if "consistency" in metrics:
            figures |= view_consistency(self.studio, draws.z, run)
        if "pose" in metrics:
            make = partial(self.fake_pictures, draws, Cameras.from_labels(draws.labels))
            figures |= pose_figures(self.studio, taught, make, draws.labels, run)
        for metric, extractor in (("similarity", self.extractor), ("identity", self.identity)):
            if metric in metrics and extractor is not None:
                found = view_likeness(self.studio, extractor, draws.z, draws.labels, f"{run}: {metric}")
                figures |= {f"{metric}_{name}": value for name, value in found.items()}
        if "depth" in metrics and self.truth is not None:
            figures |= depth_figures(self.studio, self.truth, draws.z, run)
        if "normals" in metrics and self.truth is not None:
            figures |= normal_figures(self.studio, self.extractor, self.truth, draws.z, run)
        return figures

    def set_distances(self, draws: Draws, real: Tensor | None, run: str) -> Figures:
        """What compares features of the pictures with those of the real ones."""
        metrics = set(self.config.metrics)
        figures: Figures = {}
        if real is not None and metrics & {"fid", "kid", "pr", "yaw"}:
            make = partial(self.fake_features, draws, Cameras.from_labels(draws.labels))
            fake = self.studio.share(make, self.config.count, f"{run}: pictures")
            figures |= compare_sets(real, fake, metrics, random=self.extractor.identity.startswith("random-"))
            if "yaw" in metrics:
                yaws = [
                    yaw_pitch(Cameras.from_labels(t))[0] for t in (self.dataset.labels[self.real_index], draws.labels)
                ]
                figures |= compare_yaw_bins((real, yaws[0]), (fake, yaws[1]))
        if real is not None and "fid3d" in metrics:
            # The latent is mapped as if seen from the front, whatever it is then seen from (spec of FID_3D).
            front = orbit(torch.zeros(self.config.count), torch.zeros(self.config.count))
            fake = self.studio.share(partial(self.fake_features, draws, front), self.config.count, f"{run}: FID_3D")
            figures |= {"fid3d": compare_sets(real, fake, {"fid"}, random=False)["fid"]}
        return figures

    def draw(self, seed: int) -> Draws:
        """Latents, and cameras of real pictures, or of the prior where those have none, by position."""
        random, count = torch.Generator().manual_seed(FIRST_SEED + seed), self.config.count
        z = torch.randn(count, self.source.z_dim, generator=random)
        if self.prior is not None and not self.dataset.labelled:
            return Draws(z=z, labels=self.prior.sample_labels(count, random))
        labels = self.dataset.labels[self.real_index]
        return Draws(z=z, labels=labels[torch.randint(len(labels), (count,), generator=random)])

    def fake_pictures(self, draws: Draws, conditioning: Cameras, index: Tensor) -> Float[Tensor, "index 3 size size"]:
        """Pictures at the drawn cameras, on white, in [0, 1]."""
        cameras = Cameras.from_labels(draws.labels[index, None])
        told = conditioning.map(lambda t: t[index])
        return self.studio.render(draws.z[index], cameras, conditioning=told).images[:, 0].clamp(0, 1)

    def fake_features(self, draws: Draws, conditioning: Cameras, index: Tensor) -> Float[Tensor, "index feature"]:
        """Features of :meth:`fake_pictures`."""
        return self.extractor(self.fake_pictures(draws, conditioning, index))

    def real_pictures(self, index: Tensor) -> Float[Tensor, "index 3 size size"]:
        """Real pictures on white, by position among the chosen ones."""
        return self.dataset.read(self.real_index[index]).composite(torch.ones(len(index), 3))

    def real_features(self) -> Float[Tensor, "real feature"]:
        """Features of the real pictures; kept in the cache under the bytes of the files, the size and the network."""
        found: list[Tensor | None] = [None]
        key = ""
        if self.accelerator.is_main_process:
            content = f"{self.dataset.content_key(self.real_index)} {self.extractor.identity} white"
            key = hashlib.sha256(content.encode()).hexdigest()[:32]
            features = (read_kept("features", key) or {}).get("features")
            found[0] = features if features is not None and len(features) == len(self.real_index) else None
        broadcast_object_list(found)  # the other processes need not share a disk
        kept = found[0]
        if kept is not None:
            return kept

        def describe(index: Tensor) -> Tensor:
            return self.extractor(self.real_pictures(index))

        features = self.studio.share(describe, len(self.real_index), "real pictures")
        if self.accelerator.is_main_process:
            write_kept("features", key, {"features": features})
        return features

    def patch_distances(self, draws: Draws, run: str) -> Figures:
        """Sliced Wasserstein distances, one per level of the pyramid."""
        count = min(PATCH_PICTURES, len(self.real_index), self.config.count)
        factor = max(1, self.source.resolution // PATCH_SIZE)
        conditioning = Cameras.from_labels(draws.labels)

        def reduce(make: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(make(index), factor)

        make = partial(reduce, partial(self.fake_pictures, draws, conditioning))
        fake = self.studio.share(make, count, f"{run}: SWD")
        real = self.studio.share(partial(reduce, self.real_pictures), count, f"{run}: SWD, real pictures")
        return {f"swd_{side}": value for side, value in sliced_wasserstein_distance(real, fake).items()}


def summarize(values: list[float | None]) -> dict[str, Any]:
    """Mean and sample standard deviation of what was measured, and the values."""
    found = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    return {
        "mean": float(found.mean()) if len(found) else None,
        "std": float(found.std()) if len(found) > 1 else None,
        "values": values,
    }
