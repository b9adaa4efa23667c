"""Pictures of the model card: seeds and views, a turntable, how views agree, and the shape against real heads."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw

from cgsgan.cameras import orbit, yaw_pitch
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.evaluation import GeneratorScenes
from cgsgan.evaluation.studio import Studio
from cgsgan.evaluation.views import surface_depths
from cgsgan.export.atomic import atomic_path
from cgsgan.export.images import make_grid, to_uint8
from cgsgan.film import save_turntable
from cgsgan.gallery import contact_sheet, generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator
from cgsgan.metrics.consistency import carry_view
from cgsgan.metrics.depth import mean_map_differences, reduce_depths

SEEDS = range(6)
VIEWS = ((-45.0, 0.0), (-30.0, 0.0), (-15.0, 0.0), (0.0, 0.0), (15.0, 0.0), (30.0, 0.0), (45.0, 0.0))
TILE = 128
"""Pixels of a tile; smaller pictures are enlarged by whole factors."""
COLOR_GAIN, DEPTH_GAIN = 4.0, 20.0
SHAPE_SEEDS = 128


def save_sheet(path: Path, sheet: torch.Tensor, labels: list[str], step: int) -> None:
    """Write a sheet ``[3, H, W]`` as WebP with words above its columns, ``step`` pixels apart."""
    picture = Image.fromarray(to_uint8(sheet))
    strip = 18
    labeled = Image.new("RGB", (picture.width, picture.height + strip), "white")
    labeled.paste(picture, (0, strip))
    for column, label in enumerate(labels):
        ImageDraw.Draw(labeled).text((4 + column * step, 2), label, fill="black", font_size=12)
    with atomic_path(path) as temporary:
        labeled.save(temporary, format="WEBP", quality=90, method=6)


def enlarge(images: torch.Tensor, tile: int = TILE) -> torch.Tensor:
    """Repeat pixels so that pictures are about ``tile`` pixels wide."""
    factor = max(1, tile // images.shape[-1])
    return images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


def save_grid_of_seeds(path: Path, generator: TrainedGenerator) -> None:
    """Six identities, the first six seeds, from seven sides."""
    z = latents_from_seeds(SEEDS, generator.z_dim)
    size = max(TILE, generator.resolution)
    sheet = contact_sheet(generator, generator.renderer, z, size=size, columns=1, views=VIEWS)
    save_sheet(path, sheet, [f"yaw {yaw:g}" for yaw, _ in VIEWS], step=size + 2)


def save_turning_heads(path: Path, generator: TrainedGenerator) -> None:
    """Eight seeds side by side, looking around."""
    scenes = generate_scenes(generator, latents_from_seeds(range(8), generator.z_dim))
    save_turntable(path, generator.renderer, scenes, size=TILE, frames=48, fps=16)


def save_agreement(path: Path, generator: TrainedGenerator, seeds: range = range(4)) -> None:
    """What 30 degrees between two views do: the second view carried into the first by its depth, and the errors."""
    studio = Studio(GeneratorScenes(generator), Accelerator(cpu=True))
    yaw = torch.tensor([-15.0, 15.0]).deg2rad()
    cameras = orbit(yaw, torch.zeros(2)).map(lambda t: t.expand(len(seeds), *t.shape))
    views = studio.render(latents_from_seeds(seeds, generator.z_dim), cameras, depth=True)
    assert views.depths is not None
    found, first = carry_view(views, cameras), views.images[:, 0].clamp(0, 1)
    seen = found.seen[:, None].expand(-1, 3, -1, -1)
    color = (COLOR_GAIN * (found.images - first).abs()).clamp(0, 1)
    depth = (DEPTH_GAIN * found.depth_error[:, None]).clamp(0, 1).expand(-1, 3, -1, -1)
    surface = shade_depths(torch.where(found.opaque, views.depths[:, 0, ..., 0], torch.nan))
    columns = [
        first, surface, views.images[:, 1].clamp(0, 1), torch.where(seen, found.images, 1.0).clamp(0, 1),
        torch.where(seen, color, 1.0), torch.where(seen, depth, 1.0),
    ]  # fmt: skip
    tiles = enlarge(torch.stack(columns, dim=1).flatten(0, 1))
    labels = ["yaw -15", "its depth", "yaw +15", "carried to -15", f"colour error x {COLOR_GAIN:g}",
              f"depth error x {DEPTH_GAIN:g}"]  # fmt: skip
    save_sheet(path, make_grid(tiles, columns=len(columns)), labels, step=tiles.shape[-1] + 2)


def save_shapes(path: Path, generator: TrainedGenerator, truth: DepthTruth) -> None:
    """Mean depth maps of real heads and of generated ones, and their difference: lighter is nearer."""
    size = min(generator.resolution, truth.depths.shape[-1])
    studio = Studio(GeneratorScenes(generator), Accelerator(cpu=True))
    parts = latents_from_seeds(range(SHAPE_SEEDS), generator.z_dim).split(32)
    made = torch.cat([surface_depths(studio, part, truth.cameras, size) for part in parts])
    real = reduce_depths(truth.depths, size)
    means = [torch.where((~maps.isnan()).double().mean(dim=0) >= 0.5, maps.nanmean(dim=0), torch.nan)
             for maps in (real, made)]  # fmt: skip
    nearer = means[0] - means[1]
    assert torch.allclose(-nearer[~nearer.isnan()], mean_map_differences(real, made), atol=1e-6)
    difference = (0.5 + 5 * nearer).clamp(0, 1).nan_to_num(0.5)[:, None].expand(-1, 3, -1, -1)
    tiles = enlarge(torch.cat([shade_depths(means[0]), shade_depths(means[1]), difference]))
    degrees = torch.stack(yaw_pitch(truth.cameras), dim=1).rad2deg().round().int().tolist()
    angles = [f"yaw {yaw}, pitch {pitch}" for yaw, pitch in degrees]
    save_sheet(path, make_grid(tiles, columns=len(real[0])), angles, step=tiles.shape[-1] + 2)


def shade_depths(depths: torch.Tensor) -> torch.Tensor:
    """Depth maps ``[n, H, W]`` as grey pictures: 2.3 is light, 2.9 black, nothing is white paper."""
    grey = (0.95 * (2.9 - depths) / 0.6).clamp(0, 0.95)
    return torch.where(depths.isnan(), 1.0, grey)[:, None].expand(-1, 3, -1, -1)
