"""The surface of signed distance: where it is zero."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.export.mesh import Mesh
from cgsgan.meshing.surface import SurfaceError, VoxelGrid, check_meshing, extract_mesh
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.types import SdfPlanes

POINTS_AT_ONCE = 1 << 16


@torch.no_grad()
def mesh_zero_level(
    renderer: RobustRenderer,
    scenes: SdfPlanes,
    *,
    resolution: int = 128,
    progress: Progress = ignore_progress,
) -> Mesh:
    """The surface of one scene, coloured by the field itself. Watertight.

    Args:
        renderer: knows the axes and the box of the planes.
        scenes: a batch of one.
        resolution: grid points along each side of the box.
        progress: told of the points looked at.

    Raises:
        ValueError: for another number of scenes, a scene without a surface, or without scikit-image.
    """
    if len(scenes.planes) != 1:
        raise ValueError(f"mesh_zero_level: expected one scene, got {len(scenes.planes)}")
    check_meshing()
    grid = VoxelGrid(resolution=resolution, half_side=renderer.config.box_warp / 2)
    values = torch.empty(grid.count)
    for start in range(0, grid.count, POINTS_AT_ONCE):
        stop = min(start + POINTS_AT_ONCE, grid.count)
        points = grid.points(start, stop, scenes.planes.device)
        values[start:stop] = -renderer.query(scenes, points[None])[0].flatten().cpu()  # greater inside
        progress("distance", stop, grid.count)

    def colorize(vertices: Float[Tensor, "vertex 3"]) -> Float[Tensor, "vertex 3"]:
        return renderer.query(scenes, vertices[None].to(scenes.planes.device))[2][0, :, :3]

    try:
        return extract_mesh(values.view(resolution, resolution, resolution), grid, level=0.0, colorize=colorize)
    except SurfaceError:
        low, high = (-float(value) for value in reversed(values.aminmax()))
        raise SurfaceError(
            f"mesh_zero_level: this scene has no surface; its signed distances are {low:.3g} to {high:.3g}, all on one "
            "side of 0"
        ) from None
