"""What the figures of `cgsgan evaluate` mean on a data set: real against real, against damaged and against grey.

    python benchmarks/metric_scale.py heads128.zip [--count 2048] [--features random | inception | dinov2]

A row compares COUNT real pictures on white with COUNT others: other real ones (the floor of every figure), the same
others after damage, and one grey (the ceiling).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.metrics import sliced_wasserstein_distance
from cgsgan.metrics.extractors import DINOV2_MODEL, FeatureExtractor, open_extractor
from cgsgan.metrics.figures import Figures, compare_sets

RESULTS = Path(__file__).parent / "results"


def read_halves(path: str, size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """COUNT random pictures on white and COUNT others."""
    dataset = open_dataset(DataConfig(path=path, resolution=size, x_flip=False))
    if len(dataset) < 2 * count:
        raise SystemExit(f"--count: {path} holds {len(dataset)} pictures, two halves of {count} are needed")
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    white = torch.ones(count, 3)
    return dataset.read(order[:count]).composite(white), dataset.read(order[count : 2 * count]).composite(white)


def damaged(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same pictures, worse and worse."""
    mean = images.mean(dim=0, keepdim=True)
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    return {
        "other real pictures": images,
        "half of them twice": torch.cat([images[: len(images) // 2]] * 2)[: len(images)],
        "8 of them, repeated": images[torch.arange(len(images)) % 8],
        "blurred 2x": blurred,
        "half contrast": mean + 0.5 * (images - mean),
        "grey": torch.full_like(images, 0.5),
    }


def measure_scale(
    extractor: FeatureExtractor, real: torch.Tensor, others: dict[str, torch.Tensor]
) -> dict[str, Figures]:
    """FID and the rest of every set of pictures against the real ones."""
    real_features, rows = extractor(real), {}
    random = extractor.identity.startswith("random-")
    for name, images in others.items():
        figures = compare_sets(real_features, extractor(images), {"fid", "kid", "pr"}, random=random)
        rows[name] = figures | {f"swd_{k}": v for k, v in sliced_wasserstein_distance(real, images).items()}
    return rows


def main() -> int:
    """Print the table and write results/metric_scale.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--features", default="random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default=DINOV2_MODEL, help="the timm model of dinov2")
    arguments = parser.parse_args()
    extractor = open_extractor(arguments.features, weights=arguments.weights, model=arguments.model)
    real, other = read_halves(arguments.data, arguments.resolution, arguments.count)
    rows = measure_scale(extractor, real, damaged(other))
    table = Table("against", *rows["grey"], title=f"{arguments.count} pictures, features {extractor.identity}")
    for name, figures in rows.items():
        table.add_row(name, *("-" if value is None else f"{value:.4g}" for value in figures.values()))
    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "metric_scale.json").write_text(
        json.dumps({"features": extractor.identity, "pictures": arguments.count, "against": rows}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
