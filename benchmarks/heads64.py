"""Quality of a run over time, free of pretrained weights: one row per checkpoint.

    python train.py configs/heads64.yaml --data.path heads128.zip --out runs/heads64
    python benchmarks/heads64.py runs/heads64 [--at 11 24 38 88]

FRD (random-feature Frechet distance, in units of 1 % of the real variance) and SWD (sliced Wasserstein distance of
7x7 patches, x 1000) compare 2,048 pictures of the averaged generator, rendered at the training size from the data's
cameras on white, with 2,048 real ones; the first row compares 2,048 other real pictures with the same ones: the floor.
FRD sees pictures box-reduced to 32 px. A second FRD renders at 32 px directly, with the dilation that belongs to 64 px
(a mistake that older tables contain), for comparison with those.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cgsgan.cameras import Cameras
from cgsgan.data.dataset import HeadDataset, open_dataset
from cgsgan.export.images import save_grid
from cgsgan.gallery import generate_scenes
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.metrics.frechet import random_feature_frechet_distance
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.training.checkpoint import list_checkpoints

COUNT = 2048
RESULTS = Path(__file__).parent / "results"


def real_pictures(dataset: HeadDataset, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures on white and labels of COUNT random members of the set without flips."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    batch = dataset.read(order[seed * COUNT : (seed + 1) * COUNT])
    return batch.composite(torch.ones(COUNT, 3)), batch.camera_labels


@torch.no_grad()
def fake_pictures(generator: TrainedGenerator, labels: torch.Tensor, size: int, eps2d: float) -> torch.Tensor:
    """COUNT pictures at the given cameras; ``eps2d`` is the dilation at the training size."""
    renderer = replace_eps(generator, eps2d)
    z = torch.randn(COUNT, generator.z_dim, generator=torch.Generator().manual_seed(1))
    images = []
    for part, chunk in zip(z.split(64), labels.split(64)):
        scenes = generate_scenes(generator, part, chunk=64)
        cameras = Cameras.from_labels(chunk[:, None])
        rendered = renderer(scenes, cameras, size=size, backgrounds=torch.ones(len(part), 1, 3))
        images.append(rendered.images[:, 0])
    return torch.cat(images).clamp(0, 1)


def replace_eps(generator: TrainedGenerator, eps2d: float):
    """The generator's renderer with another dilation."""
    return SplattingRenderer(replace(splatting(generator), eps2d=eps2d), generator.resolution)


def splatting(generator: TrainedGenerator) -> SplattingConfig:
    """How its scenes were splatted in training."""
    rendering = generator.config.rendering
    assert isinstance(rendering, SplattingConfig), "this benchmark is one of Gaussians"
    return rendering


def measure(run: Path, at: list[int]) -> list[dict[str, float]]:
    """One row per checkpoint, or per one whose kimg are ``at``, after the floor."""
    config = load_generator(run).config
    dataset = open_dataset(replace(config.data, x_flip=False))
    real, labels = real_pictures(dataset, 0)
    other, _ = real_pictures(dataset, 1)
    rows = [{"kimg": float("nan"), **compare(real, other)}]
    for checkpoint in list_checkpoints(run / "checkpoints"):
        generator = load_generator(checkpoint)
        if at and round(generator.images_seen / 1000) not in at:
            continue
        eps2d = splatting(generator).eps2d
        fake = fake_pictures(generator, labels, config.resolution, eps2d)
        small = fake_pictures(generator, labels, 32, eps2d * (config.resolution / 32) ** 2)
        row = {"kimg": generator.images_seen / 1000, **compare(real, fake)}
        row["frd_at_32"] = random_feature_frechet_distance(real, small)
        rows.append(row)
    return rows


def compare(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """Both distances between two sets of pictures."""
    swd = sliced_wasserstein_distance(real, fake)
    return {"frd": random_feature_frechet_distance(real, fake), **{f"swd_{k}": v for k, v in swd.items()}}


def save_comparison(run: Path, path: Path) -> None:
    """Two rows of real heads above four of generated ones, all seen by the same cameras."""
    generator = load_generator(run)
    dataset = open_dataset(replace(generator.config.data, x_flip=False))
    real, labels = real_pictures(dataset, 0)
    fake = fake_pictures(generator, labels, generator.resolution, splatting(generator).eps2d)
    save_grid(path, torch.cat([real[:32], fake[:64]]), columns=16)


def main() -> int:
    """Print the table and write results/heads64.json and heads64.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/heads64"))
    parser.add_argument("--at", type=int, nargs="*", default=[], help="kimg of the checkpoints to measure; all if none")
    arguments = parser.parse_args()
    run = arguments.run
    rows = measure(run, arguments.at)
    table = Table(*rows[-1].keys(), title=str(run))
    for row in rows:
        table.add_row(*(f"{row[key]:.2f}" if key in row else "" for key in rows[-1]))
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "heads64.json").write_text(json.dumps(rows, indent=1) + "\n")
    save_comparison(run, RESULTS / "heads64.png")
    print(f"wrote {RESULTS / 'heads64.json'} and {RESULTS / 'heads64.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
