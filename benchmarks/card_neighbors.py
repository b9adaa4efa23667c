"""The nearest training pictures of samples, and whether samples are nearer to them than other persons are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from card_pictures import enlarge, save_sheet

from cgsgan.cameras import Cameras
from cgsgan.data.dataset import HeadDataset
from cgsgan.export.charts import Curve, Panel, save_panels
from cgsgan.export.images import make_grid
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.metrics.neighbors import head_distances, share_below

SIZE = 64
"""Pixels at which pictures are compared."""
SHOWN, NEIGHBORS = 8, 3
FIRST_SEED = 1000
CHUNK = 500
SHARE = 0.05


@dataclass(frozen=True)
class Nearest:
    """The nearest training pictures of some pictures.

    Attributes:
        distances: ``[picture, neighbour]``, rising.
        index: of the training pictures; mirror images count on.
    """

    distances: torch.Tensor
    index: torch.Tensor


@dataclass(frozen=True)
class Comparison:
    """Nearest training pictures of samples and of held-out persons, by pixels and by features."""

    samples: dict[str, Nearest]
    held_out: dict[str, Nearest]

    def figures(self) -> dict[str, float]:
        """Medians of the distance to the nearest, and the share of samples below the held-out ones' 5 % quantile."""
        found = {}
        for kind in self.samples:
            made, real = self.samples[kind].distances[:, 0], self.held_out[kind].distances[:, 0]
            found |= {
                f"{kind}_samples": float(made.median()),
                f"{kind}_held_out": float(real.median()),
                f"{kind}_nearest_sample": float(made.min()),
                f"{kind}_nearest_held_out": float(real.min()),
                f"{kind}_share_below": share_below(made, real, SHARE),
            }
        return found


@torch.no_grad()
def draw_samples(generator: TrainedGenerator, labels: torch.Tensor) -> torch.Tensor:
    """One head per camera, premultiplied RGBA ``[n, 4, SIZE, SIZE]``, reduced to SIZE."""
    z = latents_from_seeds(range(FIRST_SEED, FIRST_SEED + len(labels)), generator.z_dim)
    factor = max(1, generator.resolution // SIZE)
    parts = []
    for part, chunk in zip(z.split(64), labels.split(64)):
        scenes, black = generate_scenes(generator, part), torch.zeros(len(part), 1, 3)
        views = generator.renderer(scenes, Cameras.from_labels(chunk[:, None]), size=SIZE * factor, backgrounds=black)
        rgba = torch.cat([views.images[:, 0], views.alphas[:, 0].movedim(-1, 1)], dim=1).clamp(0, 1)
        parts.append(F.avg_pool2d(rgba, factor))
    return torch.cat(parts)


def on_white(premultiplied: torch.Tensor) -> torch.Tensor:
    """RGB over white."""
    return premultiplied[:, :3] + 1 - premultiplied[:, 3:]


def find_nearest(
    pictures: torch.Tensor,
    training: HeadDataset,
    describe: Callable[[torch.Tensor], torch.Tensor],
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Nearest:
    """The nearest among all training pictures and their mirror images, in chunks."""
    wanted = describe(pictures)
    best = torch.full((len(pictures), NEIGHBORS), torch.inf)
    index = torch.zeros(len(pictures), NEIGHBORS, dtype=torch.long)
    for chunk in torch.arange(len(training)).split(CHUNK):
        found = distance(wanted, describe(training.read(chunk).premultiplied))
        every = torch.cat([best, found], dim=1)
        best, place = every.topk(NEIGHBORS, largest=False)
        index = torch.cat([index, chunk.expand(len(pictures), -1)], dim=1).gather(1, place)
    return Nearest(best, index)


def compare_with_training(
    samples: torch.Tensor, held_out: torch.Tensor, training: HeadDataset, extractor: FeatureExtractor
) -> Comparison:
    """Both kinds of distance for samples and for held-out pictures; all at SIZE, ``training`` with its flips."""
    queries = torch.cat([samples, held_out])
    pixels = find_nearest(queries, training, lambda rgba: rgba, head_distances)
    features = find_nearest(queries, training, lambda rgba: extractor(on_white(rgba)), torch.cdist)
    sides = [
        {"pixels": Nearest(pixels.distances[part], pixels.index[part]),
         "features": Nearest(features.distances[part], features.index[part])}
        for part in (slice(None, len(samples)), slice(len(samples), None))
    ]  # fmt: skip
    return Comparison(*sides)


def save_neighbors(path: Path, samples: torch.Tensor, found: Comparison, training: HeadDataset) -> None:
    """Samples, each with its nearest training pictures by pixels and by features."""
    rows = []
    for row in range(SHOWN):
        index = torch.cat([found.samples[kind].index[row] for kind in ("pixels", "features")])
        rows.append(torch.cat([samples[row : row + 1], training.read(index).premultiplied]))
    tiles = enlarge(on_white(torch.cat(rows)))
    words = ["sample", "pixels: 1", "2", "3", "features: 1", "2", "3"]
    save_sheet(path, make_grid(tiles, columns=len(words)), words, step=tiles.shape[-1] + 2)


def save_distributions(path: Path, found: Comparison) -> None:
    """Cumulative distributions of the distance to the nearest training picture."""
    panels = []
    for kind in ("pixels", "features"):
        curves = []
        for name, side in (("samples", found.samples), ("other real persons", found.held_out)):
            values = side[kind].distances[:, 0].sort().values.tolist()
            shares = [(rank + 1) / len(values) for rank in range(len(values))]
            curves.append(Curve(name=name, points=list(zip(values, shares))))
        panels.append(Panel(title=f"share of pictures whose nearest is within, by {kind}", curves=curves))
    save_panels(path, panels, x_label="distance to the nearest training picture")
