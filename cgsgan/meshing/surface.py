"""From values on a grid to a coloured mesh: what all fields share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.export.mesh import Mesh

LEAST_SHARE = 0.02
"""Connected parts with a smaller share of the vertices than this are left out: floaters and crumbs."""


class SurfaceError(ValueError):
    """A field without a surface at the level asked for."""


@dataclass(frozen=True, kw_only=True)
class VoxelGrid:
    """A cube of points around the origin, the outermost of them on its faces.

    Attributes:
        resolution: points along a side.
        half_side: world units.
    """

    resolution: int
    half_side: float

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        if not 2 <= self.resolution <= 1024:
            raise ValueError(f"resolution: expected 2 to 1024 points along a side, got {self.resolution}")
        if not 0 < self.half_side < float("inf"):
            raise ValueError(f"half_side: expected a length > 0 in world units, got {self.half_side}")

    @property
    def spacing(self) -> float:
        """Between neighbouring points, world units."""
        return 2 * self.half_side / (self.resolution - 1)

    @property
    def count(self) -> int:
        """Of all points."""
        return self.resolution**3

    def points(self, start: int, stop: int, device: torch.device) -> Float[Tensor, "point 3"]:
        """Points number ``start`` to ``stop``; z runs fastest, x slowest."""
        index = torch.arange(start, min(stop, self.count), device=device)
        side = self.resolution
        cells = torch.stack([index // side**2, index // side % side, index % side], dim=-1)
        return cells * self.spacing - self.half_side


def extract_mesh(
    values: Float[Tensor, "side side side"],
    grid: VoxelGrid,
    *,
    level: float,
    colorize: Callable[[Float[Tensor, "vertex 3"]], Float[Tensor, "vertex 3"]],
) -> Mesh:
    """The surface where ``values`` pass ``level``, by marching cubes (Lewiner et al. 2003, scikit-image's).

    Outside the grid nothing is, so the mesh is closed: where the inside reaches the faces of the cube, it is cut flat.
    Connected parts below :data:`LEAST_SHARE` are dropped.

    Args:
        values: by x, y, z; greater inside.
        grid: where they are.
        level: the value at the surface.
        colorize: colours at points, display-referred sRGB.

    Raises:
        SurfaceError: when no value, or every value, is above ``level``.
        ValueError: when scikit-image is not installed.
    """
    low, high = float(values.amin()), float(values.amax())
    if not low < level < high:
        raise SurfaceError(f"level: expected one between {low:.4g} and {high:.4g}, the field's range, got {level:.4g}")
    marching_cubes = _marching_cubes()
    closed = np.pad(values.cpu().float().numpy(), 1, constant_values=min(low, 2 * level - high))
    places, faces, _, _ = marching_cubes(closed, level, gradient_direction="ascent")
    vertices = torch.from_numpy(places.astype(np.float32))
    vertices = ((vertices - 1) * grid.spacing - grid.half_side).clamp(-grid.half_side, grid.half_side)
    vertices, rows = _large_parts(vertices, torch.from_numpy(faces.astype(np.int64)))
    return Mesh(vertices=vertices, faces=rows, colors=colorize(vertices).cpu().float().clamp(0, 1))


def _large_parts(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> tuple[Float[Tensor, "kept 3"], Int64[Tensor, "left 3"]]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(vertices)
    edges = torch.cat([faces[:, :2], faces[:, 1:]]).numpy()
    links = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    parts = torch.from_numpy(connected_components(links, directed=False)[1]).long()
    kept = (parts.bincount() >= LEAST_SHARE * count)[parts]
    renumbered = kept.long().cumsum(0) - 1
    return vertices[kept], renumbered[faces[kept[faces[:, 0]]]]


def check_meshing() -> None:
    """Say what is missing, before anything slow is done.

    Raises:
        ValueError: when scikit-image is not installed.
    """
    _marching_cubes()


def _marching_cubes() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise ValueError("meshes need scikit-image; install it with: pip install 'cgsgan[mesh]'") from None
    return marching_cubes
