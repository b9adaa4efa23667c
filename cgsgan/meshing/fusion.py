"""The surface that rendered views agree on: depth maps fused into a truncated signed distance (Curless, Levoy 1996)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv3d, grid_sample, pad

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS, Cameras, orbit, yaw_pitch
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.export.mesh import Mesh
from cgsgan.meshing.surface import SurfaceError, VoxelGrid, check_meshing, extract_mesh
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import RenderOutput, Scenes

DISTRUST = 0.02
"""Weight of views from behind: enough to decide where no other view sees anything."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
POINTS_AT_ONCE = 1 << 18
VISIBLE_HALF_SIDE = 0.5 * ORBIT_RADIUS / FOCAL_NORMALIZED
"""Half the width that a frontal picture shows at the origin, world units: beyond it no view was ever judged."""


@dataclass(frozen=True, kw_only=True)
class FusionSettings:
    """How views become a surface.

    Attributes:
        resolution: grid points along a side.
        half_side: of the cube that is meshed, world units.
        size: pixels along a side of the views.
        truncation: distance beyond which a surface says nothing of what lies behind it, grid spacings.
        smoothing: standard deviation of a Gaussian over the fused distances, grid spacings; 0 leaves them. Centres of
            splats scatter about a surface by more than a spacing, and so do their depths.
        opaque: a pixel with a smaller coverage shows nothing.
        trusted_degrees: views further than this from the front count :data:`DISTRUST` as much. Heads are trained on
            views of their faces; from behind they show what no critic ever saw.
        views_at_once: rendered together; the memory bound, with a cube of 5 numbers per grid point.
    """

    resolution: int = 128
    half_side: float = VISIBLE_HALF_SIDE
    size: int = 256
    truncation: float = 6.0
    smoothing: float = 1.0
    opaque: float = 0.5
    trusted_degrees: float = 60.0
    views_at_once: int = 4


def surrounding_views(count: int = 64, *, highest: float = 60.0) -> Cameras:
    """``count`` cameras evenly around the origin, on a spiral, at pitches up to ``highest`` degrees above and below."""
    if count < 1:
        raise ValueError(f"surrounding_views: expected at least 1 view, got {count}")
    number = torch.arange(count, dtype=torch.float64)
    heights = (2 * (number + 0.5) / count - 1) * math.sin(math.radians(highest))
    return orbit((number * GOLDEN_ANGLE).float(), heights.asin().float())


@torch.no_grad()
def fuse_views(
    renderer: Renderer,
    scenes: Scenes,
    cameras: Cameras,
    settings: FusionSettings | None = None,
    *,
    progress: Progress = ignore_progress,
) -> Mesh:
    """The surface of one scene as its views show it, coloured by their average. Watertight.

    A grid point in front of a view's surface, or where a view sees through, is outside; one that no view sees because
    there is always something before it is inside. Of a part that no picture covers there is nothing.

    Args:
        renderer: draws the scene, with depth.
        scenes: a batch of one.
        cameras: ``[view]``.
        settings: see :class:`FusionSettings`.
        progress: told of the views rendered.

    Raises:
        ValueError: when the views show no surface, or without scikit-image.
    """
    check_meshing()
    settings = settings or FusionSettings()
    grid = VoxelGrid(resolution=settings.resolution, half_side=settings.half_side)
    volume = _Volume(grid, settings, scenes.tensors()[0].device)
    count = len(cameras.viewmats)
    for start in range(0, count, settings.views_at_once):
        part = cameras.map(lambda t, s=start: t[s : s + settings.views_at_once].to(volume.device))
        backgrounds = torch.zeros(1, len(part.viewmats), 3, device=volume.device)
        views = renderer(scenes, part.map(lambda t: t[None]), size=settings.size, backgrounds=backgrounds, depth=True)
        for view in range(len(part.viewmats)):
            volume.add(views, part.map(lambda t, v=view: t[v]), view)
        progress("views", min(start + settings.views_at_once, count), count)
    try:
        return extract_mesh(volume.insideness(), grid, level=0.0, colorize=volume.colors_at)
    except SurfaceError:
        side = 2 * grid.half_side
        raise SurfaceError(f"fuse_views: {count} views show no surface inside the cube of side {side:.3g}") from None


class _Volume:
    """Sums over views at every grid point: weights, distances times weights, colours and their weights."""

    def __init__(self, grid: VoxelGrid, settings: FusionSettings, device: torch.device) -> None:
        self.grid, self.settings, self.device = grid, settings, device
        self.seen = torch.zeros(grid.count, dtype=torch.bool, device=device)
        self.weights, self.distances = (torch.zeros(grid.count, device=device) for _ in range(2))
        self.colors = torch.zeros(grid.count, 4, device=device)

    def add(self, views: RenderOutput, camera: Cameras, view: int) -> None:
        """Carry one view into the grid."""
        for start in range(0, self.grid.count, POINTS_AT_ONCE):
            points = self.grid.points(start, start + POINTS_AT_ONCE, self.device)
            self._add_points(views, camera, view, points, slice(start, start + len(points)))

    def _add_points(self, views: RenderOutput, camera: Cameras, view: int, points: Tensor, part: slice) -> None:
        assert views.depths is not None
        size, settings = self.settings.size, self.settings
        in_camera = points @ camera.viewmats[:3, :3].mT + camera.viewmats[:3, 3]
        x, y, z = (in_camera @ camera.Ks(size, size).mT).unbind(-1)
        column, row = (x / z).floor().long(), (y / z).floor().long()
        visible = (z > 0) & (column >= 0) & (column < size) & (row >= 0) & (row < size)
        pixel = torch.where(visible, row * size + column, 0)
        alphas = views.alphas[0, view, ..., 0].flatten()[pixel]
        # Premultiplied by their coverage, on black; shares of a sum of coverages.
        colors = views.images[0, view].flatten(1).mT[pixel]
        opaque = alphas >= settings.opaque
        truncation = settings.truncation * self.grid.spacing
        before = views.depths[0, view, ..., 0].flatten()[pixel] - z
        before = torch.where(opaque, before / truncation, 1.0)
        weight = (visible & (before > -1)).float() * self._trust(camera)
        self.seen[part] |= visible
        self.weights[part] += weight
        self.distances[part] += weight * before.clamp(-1, 1)
        near = weight * opaque * (1 - before.abs()).clamp_min(0) ** 4  # those that see the surface right there
        self.colors[part] += near[:, None] * torch.cat([colors, alphas[:, None]], dim=1)

    def _trust(self, camera: Cameras) -> float:
        yaw, pitch = (float(angle) for angle in yaw_pitch(camera))
        from_front = math.degrees(math.acos(max(-1.0, min(1.0, math.cos(yaw) * math.cos(pitch)))))
        return 1.0 if from_front <= self.settings.trusted_degrees else DISTRUST

    def insideness(self) -> Float[Tensor, "side side side"]:
        """The mean distance to the surface in truncations, positive inside."""
        mean = self.distances / self.weights.clamp_min(torch.finfo(torch.float32).tiny)
        hidden = self.seen & (self.weights == 0)
        mean = torch.where(hidden, -1.0, torch.where(self.seen, mean, 1.0))
        return -_blurred(mean.view(3 * (self.grid.resolution,)), self.settings.smoothing)

    def colors_at(self, vertices: Float[Tensor, "vertex 3"]) -> Float[Tensor, "vertex 3"]:
        """Colours of the views that saw the surface there, averaged; interpolated between grid points."""
        side = self.grid.resolution
        cube = self.colors.mT.view(1, 4, side, side, side)
        places = vertices.to(self.device).flip(-1) / self.grid.half_side  # of a cube by x, y, z, the last axis is first
        sums = grid_sample(cube, places.view(1, 1, 1, -1, 3), align_corners=True)[0, :, 0, 0].mT
        return sums[:, :3] / sums[:, 3:].clamp_min(1e-6)


def _blurred(cube: Float[Tensor, "side side side"], deviation: float) -> Float[Tensor, "side side side"]:
    """A Gaussian along each axis; at its faces the cube goes on as it ends."""
    if deviation == 0:
        return cube
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, device=cube.device, dtype=cube.dtype)
    kernel = (places / deviation).square().mul(-0.5).exp()
    kernel /= kernel.sum()
    for _ in range(3):
        padded = pad(cube[None, None], (reach, reach, 0, 0, 0, 0), mode="replicate")
        cube = conv3d(padded, kernel.view(1, 1, 1, 1, -1))[0, 0].movedim(2, 0)
    return cube
