"""How good a generator is: its pictures against real ones, and its views against each other.

Pictures are drawn at the data's cameras on white, real ones lie on white. Every process makes its share; latents and
cameras are drawn by position in the whole, so that the figures do not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.data.cache import cache_folder, replacing, warn_unwritable
from cgsgan.data.dataset import HeadDataset
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.metrics.consistency import reprojection_errors
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.metrics.figures import Figures, MetricName, compare_sets, compare_yaw_bins
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import Gaussians, GeneratorOutput

ALL_METRICS: tuple[MetricName, ...] = get_args(MetricName)
PATCH_PICTURES, PATCH_SIZE = 2048, 128
"""The sliced Wasserstein distance takes at most so many pictures, reduced to at most this side: it holds them all."""
FIRST_SEED = 0x5EED_0E7A_1000_0000
"""Added to seeds: initial weights come from small ones, and latents equal to rows of them are no random latents.
Measured: at 256 pictures FRD 26 with the latents of the seed that the weights came from, 10 to 13 with others."""
CONSISTENCY_SCENES = 128
CONSISTENCY_PAIRS = {"10": ((-5.0, 0.0), (5.0, 0.0)), "30": ((-15.0, 0.0), (15.0, 0.0))}
"""Degrees between two views: yaw and pitch of both."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What to measure.

    Attributes:
        metrics: names of figures, see :data:`ALL_METRICS`.
        count: real pictures (at most as many as there are), and generated ones per repeat.
        repeats: how often it is measured, each with latents and cameras of its own.
        seed: of the first repeat; the next has the next one.
        batch_size: pictures made at once per process; changes memory and speed.
        truncation_psi: 1 is what papers report.
    """

    metrics: tuple[str, ...] = ALL_METRICS
    count: int = 50_000
    repeats: int = 3
    seed: int = 0
    batch_size: int = 64
    truncation_psi: float = 1.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in ALL_METRICS]
        if unknown or not self.metrics:
            raise ValueError(
                f"--metrics: expected some of {', '.join(ALL_METRICS)}; got {', '.join(unknown) or 'none'}"
            )
        for name, smallest in (("count", 8), ("repeats", 1), ("batch_size", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"--{name}: expected at least {smallest}, got {getattr(self, name)}")
        if not math.isfinite(self.truncation_psi):
            raise ValueError(f"--psi: expected a finite number, got {self.truncation_psi}")


@runtime_checkable
class SceneSource(Protocol):
    """A generator that may have been told from where it will be looked at.

    Attributes:
        z_dim: length of a latent.
        resolution: size of its pictures, pixels.
    """

    z_dim: int
    resolution: int

    @property
    def renderer(self) -> Renderer:
        """Draws its scenes."""
        ...

    def __call__(self, z: Float[Tensor, "batch z_dim"], conditioning: Cameras) -> Gaussians:
        """Scenes; ``conditioning`` (``[batch]``) is what the mapping network sees of cameras, if it sees any."""
        ...


@runtime_checkable
class RenderableGenerator(Protocol):
    """What is asked of a generator: ``experiment.TrainedGenerator``."""

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        ...

    @property
    def resolution(self) -> int:
        """Size of its pictures, pixels."""
        ...

    @property
    def renderer(self) -> Renderer:
        """Draws its scenes."""
        ...

    def __call__(self, z: Float[Tensor, "batch z_dim"], *, truncation_psi: float) -> GeneratorOutput:
        """Scenes."""
        ...


class GeneratorScenes:
    """A trained generator as a :class:`SceneSource`; no generator here looks at cameras."""

    def __init__(self, generator: RenderableGenerator, truncation_psi: float = 1.0) -> None:
        self.generator = generator
        self.truncation_psi = truncation_psi
        self.z_dim, self.resolution = generator.z_dim, generator.resolution

    @property
    def renderer(self) -> Renderer:
        """See :class:`SceneSource`."""
        return self.generator.renderer

    def __call__(self, z: Float[Tensor, "batch z_dim"], conditioning: Cameras) -> Gaussians:
        """See :class:`SceneSource`."""
        del conditioning
        return self.generator(z, truncation_psi=self.truncation_psi).gaussians


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
    """

    source: SceneSource
    dataset: HeadDataset
    extractor: FeatureExtractor
    config: EvaluationConfig
    accelerator: Accelerator
    progress: Progress = ignore_progress
    real_index: Int64[Tensor, " real"] = field(init=False)

    def __post_init__(self) -> None:
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(0))
        self.real_index = order[: self.config.count]

    def measure(self) -> dict[str, Any]:
        """All figures, and what they were measured on; the same on every process.

        Returns:
            ``figures``: name -> mean and standard deviation over the repeats (None for one repeat), and the values.
        """
        real = self.real_features() if self.needs_features else None
        repeats = [self.measure_repeat(index, real) for index in range(self.config.repeats)]
        names = {name: None for figures in repeats for name in figures}
        return {
            "figures": {name: summarize([figures.get(name) for figures in repeats]) for name in names},
            "features": self.extractor.identity if self.needs_features else None,
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
        return bool({"fid", "kid", "pr", "fid3d", "yaw"} & set(self.config.metrics))

    def measure_repeat(self, index: int, real: Tensor | None) -> Figures:
        """The figures of one draw of latents and cameras."""
        draws, metrics = self.draw(self.config.seed + index), set(self.config.metrics)
        run = f"repeat {index + 1}/{self.config.repeats}"
        figures: Figures = {}
        if real is not None and metrics & {"fid", "kid", "pr", "yaw"}:
            make = partial(self.fake_features, draws, Cameras.from_labels(draws.labels))
            fake = self.share(make, self.config.count, f"{run}: pictures")
            figures |= compare_sets(real, fake, metrics, random=self.extractor.identity.startswith("random-"))
            if "yaw" in metrics:
                yaws = [
                    yaw_pitch(Cameras.from_labels(t))[0] for t in (self.dataset.labels[self.real_index], draws.labels)
                ]
                figures |= compare_yaw_bins((real, yaws[0]), (fake, yaws[1]))
        if real is not None and "fid3d" in metrics:
            # The latent is mapped as if seen from the front, whatever it is then seen from (spec of FID_3D).
            front = orbit(torch.zeros(self.config.count), torch.zeros(self.config.count))
            fake = self.share(partial(self.fake_features, draws, front), self.config.count, f"{run}: FID_3D")
            figures |= {"fid3d": compare_sets(real, fake, {"fid"}, random=False)["fid"]}
        if "swd" in metrics:
            figures |= self.patch_distances(draws, run)
        if "consistency" in metrics:
            figures |= self.view_consistency(draws, run)
        return figures

    def draw(self, seed: int) -> Draws:
        """Latents, and cameras of real pictures, by position."""
        random, count = torch.Generator().manual_seed(FIRST_SEED + seed), self.config.count
        z = torch.randn(count, self.source.z_dim, generator=random)
        labels = self.dataset.labels[self.real_index]
        return Draws(z=z, labels=labels[torch.randint(len(labels), (count,), generator=random)])

    def share(self, make: Callable[[Tensor], Tensor], count: int, task: str) -> Tensor:
        """``make`` for positions 0 to ``count``, each process its share; all of it, in order, on every process."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Everybody makes equally many: the last ones wrap around and are cut off again.
        each = -(-count // world)
        mine = (torch.arange(each) * world + rank) % count
        parts: list[Tensor] = []
        for part in torch.split(mine, self.config.batch_size):
            parts.append(make(part).to(self.accelerator.device))
            if self.accelerator.is_main_process:
                self.progress(task, min(count, world * sum(len(p) for p in parts)), count)
        gathered = self.accelerator.gather(torch.cat(parts))
        assert isinstance(gathered, Tensor)
        return gathered.unflatten(0, (world, each)).transpose(0, 1).flatten(0, 1)[:count].cpu()

    @torch.no_grad()
    def fake_pictures(self, draws: Draws, conditioning: Cameras, index: Tensor) -> Float[Tensor, "index 3 size size"]:
        """Pictures at the drawn cameras, on white, in [0, 1]."""
        device = self.accelerator.device
        scenes = self.source(draws.z[index].to(device), conditioning.map(lambda t: t[index].to(device)))
        cameras = Cameras.from_labels(draws.labels[index, None].to(device))
        white = torch.ones(len(index), 1, 3, device=device)
        return (
            self.source.renderer(scenes, cameras, size=self.source.resolution, backgrounds=white)
            .images[:, 0]
            .clamp(0, 1)
        )

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
            found[0] = _read_features(key, len(self.real_index))
        broadcast_object_list(found)  # the other processes need not share a disk
        kept = found[0]
        if kept is not None:
            return kept
        features = self.share(lambda i: self.extractor(self.real_pictures(i)), len(self.real_index), "real pictures")
        if self.accelerator.is_main_process:
            _write_features(key, features)
        return features

    def patch_distances(self, draws: Draws, run: str) -> Figures:
        """Sliced Wasserstein distances, one per level of the pyramid."""
        count = min(PATCH_PICTURES, len(self.real_index), self.config.count)
        factor = max(1, self.source.resolution // PATCH_SIZE)
        conditioning = Cameras.from_labels(draws.labels)

        def reduce(make: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(make(index), factor)

        fake = self.share(partial(reduce, partial(self.fake_pictures, draws, conditioning)), count, f"{run}: SWD")
        real = self.share(partial(reduce, self.real_pictures), count, f"{run}: SWD, real pictures")
        return {f"swd_{side}": value for side, value in sliced_wasserstein_distance(real, fake).items()}

    def view_consistency(self, draws: Draws, run: str) -> Figures:
        """Errors of surfaces carried from one view into another, for each angle between them."""
        figures: Figures = {}
        for name, angles in CONSISTENCY_PAIRS.items():
            radians = torch.tensor(angles).deg2rad()
            cameras = orbit(radians[:, 0], radians[:, 1])
            errors = self.share(
                partial(self._errors, draws, cameras),
                min(CONSISTENCY_SCENES, self.config.count),
                f"{run}: {name} degrees",
            )
            for column, kind in enumerate(("depth", "color", "visible")):
                value = float(errors[:, column].nanmean())
                figures[f"consistency_{kind}_{name}deg"] = value if math.isfinite(value) else None
        return figures

    @torch.no_grad()
    def _errors(self, draws: Draws, cameras: Cameras, index: Tensor) -> Float[Tensor, "index 3"]:
        device = self.accelerator.device
        pair = cameras.map(lambda t: t.to(device).expand(len(index), *t.shape))
        # A camera-conditioned generator is asked once, for the first view: both are views of one scene.
        scenes = self.source(draws.z[index].to(device), pair.map(lambda t: t[:, 0]))
        white = torch.ones(len(index), 2, 3, device=device)
        views = self.source.renderer(scenes, pair, size=self.source.resolution, backgrounds=white, depth=True)
        found = reprojection_errors(views, pair)
        return torch.stack([found.depth, found.color, found.visible], dim=1)


def summarize(values: list[float | None]) -> dict[str, Any]:
    """Mean and sample standard deviation of what was measured, and the values."""
    found = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    return {
        "mean": float(found.mean()) if len(found) else None,
        "std": float(found.std()) if len(found) > 1 else None,
        "values": values,
    }


def _read_features(key: str, count: int) -> Tensor | None:
    try:
        features = load_file(cache_folder() / "features" / f"{key}.safetensors")["features"]
    except (OSError, KeyError, SafetensorError):
        return None
    return features if len(features) == count else None


def _write_features(key: str, features: Tensor) -> None:
    path = cache_folder() / "features" / f"{key}.safetensors"
    try:
        with replacing(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)
    except OSError as error:
        warn_unwritable(path.parent, error)
