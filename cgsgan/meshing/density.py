"""The surface of tri-planes and implicit fields: where their density passes a level."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.export.mesh import Mesh
from cgsgan.meshing.surface import SurfaceError, VoxelGrid, check_meshing, extract_mesh
from cgsgan.rendering.marching import DENSITY_SHIFT, DensityActivation, activate_density
from cgsgan.rendering.volume import Traceable, VolumeRenderer
from cgsgan.types import scene_count

LEVEL = 10.0
"""Density per world unit: a tenth of a unit, a fifth of a head, of this lets a third of the light through."""
POINTS_AT_ONCE = 1 << 16


@torch.no_grad()
def mesh_density(
    renderer: VolumeRenderer,
    scenes: Traceable,
    *,
    resolution: int = 128,
    level: float = LEVEL,
    progress: Progress = ignore_progress,
) -> Mesh:
    """The surface of one scene at a density, coloured by the field itself. Watertight.

    Args:
        renderer: knows the box, and the axes of planes.
        scenes: a batch of one.
        resolution: grid points along each side of the box.
        level: density (not the raw one) per world unit at the surface, > 0.
        progress: told of the points looked at.

    Raises:
        ValueError: for another number of scenes, a level that nothing reaches, or without scikit-image.
    """
    if scene_count(scenes) != 1:
        raise ValueError(f"mesh_density: expected one scene, got {scene_count(scenes)}")
    if not 0 < level < math.inf:
        raise ValueError(f"level: expected a density > 0 per world unit, got {level}")
    check_meshing()
    activation = renderer.config.density_activation
    grid = VoxelGrid(resolution=resolution, half_side=renderer.config.box_warp / 2)
    values, device = torch.empty(grid.count), scenes.tensors()[0].device
    for start in range(0, grid.count, POINTS_AT_ONCE):
        stop = min(start + POINTS_AT_ONCE, grid.count)
        points = grid.points(start, stop, device)
        values[start:stop] = renderer.query(scenes, points[None])[0].flatten().cpu()
        progress("density", stop, grid.count)

    def colorize(vertices: Float[Tensor, "vertex 3"]) -> Float[Tensor, "vertex 3"]:
        return renderer.query(scenes, vertices[None].to(device))[1][0, :, :3]

    try:
        # Raw densities change evenly where activated ones have a knee, so the surface lies better between points.
        cube = values.view(resolution, resolution, resolution)
        return extract_mesh(cube, grid, level=_raw_density(level, activation), colorize=colorize)
    except SurfaceError:
        low, high = (float(activate_density(value, activation)) for value in values.aminmax())
        raise SurfaceError(
            f"level: expected one between {low:.3g} and {high:.3g}, the range of this scene's density, got {level:.3g}"
        ) from None


def _raw_density(density: float, activation: DensityActivation) -> float:
    """The inverse of :func:`~cgsgan.rendering.marching.activate_density`."""
    if activation == "relu":
        return density
    return density + math.log(-math.expm1(-density)) - DENSITY_SHIFT
