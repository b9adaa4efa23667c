"""First stages of the reference: 3D splats to 2D ones as one camera sees them, and culling.

EWA splatting (Zwicker et al. 2001), in the form of 3D Gaussian Splatting (Kerbl et al. 2023, section 4); the
antialiased mode is that of Mip-Splatting (Yu et al. 2024, equation 9).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rasterizer.constants import (
    ALPHA_THRESHOLD,
    ANTIALIAS_FLOOR,
    DEFAULT_EPS2D,
    DEFAULT_FAR_PLANE,
    DEFAULT_NEAR_PLANE,
    JACOBIAN_MARGIN,
    SQUARE_FLOOR,
    SQUARE_SIGMAS,
    TILE_SIZE,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for every view of a call; ``rasterizer.rasterize`` explains the names."""

    width: int
    height: int
    near_plane: float = DEFAULT_NEAR_PLANE
    far_plane: float = DEFAULT_FAR_PLANE
    eps2d: float = DEFAULT_EPS2D
    antialiased: bool = False
    smooth_threshold: float = 0.0
    inria: bool = False

    @property
    def lowest_alpha(self) -> float:
        """The alpha below which a splat adds nothing to a pixel."""
        return ALPHA_THRESHOLD * (1.0 - self.smooth_threshold)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along x and y."""
        return -(-self.width // TILE_SIZE), -(-self.height // TILE_SIZE)


@dataclass(frozen=True)
class Splats:
    """One scene, without batch axes; ``colors`` are plain ([n, channel]) or SH coefficients ([n, k, 3])."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, " n *channels"]

    def select(self, ids: Int64[Tensor, " m"]) -> Splats:
        """The splats with the given ids; the others receive zero gradient, whatever their values."""
        tensors = (self.means, self.quats, self.scales, self.opacities, self.colors)
        return Splats(*(tensor.index_select(0, ids) for tensor in tensors))


@dataclass(frozen=True)
class Projection:
    """Splats as one camera sees them.

    Attributes:
        means2d: centres in pixels.
        depths: along the optical axis, world units.
        covs: (xx, xy, yy) of the dilated 2D covariances, square pixels.
        dets: determinants of ``covs``.
        conics: (xx, xy, yy) of the inverses of ``covs``.
        opacities: including the factor of the antialiased mode.
    """

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    covs: Float[Tensor, "n 3"]
    dets: Float[Tensor, " n"]
    conics: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]


def rotation_matrices(quats: Float[Tensor, "n 4"], *, raw: bool = False) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of (w, x, y, z) quaternions of any length but zero.

    ``raw`` puts them into the formula as they are: of another length than 1, no rotation results.
    """
    units = quats if raw else quats / torch.linalg.vector_norm(quats, dim=-1, keepdim=True)
    w, x, y, z = units.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def camera_points(means: Float[Tensor, "n 3"], viewmat: Float[Tensor, "4 4"]) -> Float[Tensor, "n 3"]:
    """World points in camera axes. Written out, so that equal points give bit-equal depths in every row."""
    x, y, z = viewmat[:3, :3].unbind(1)
    return means[:, 0:1] * x + means[:, 1:2] * y + means[:, 2:3] * z + viewmat[:3, 3]


def projection_jacobians(
    points: Float[Tensor, "n 3"], K: Float[Tensor, "3 3"], settings: Settings
) -> Float[Tensor, "n 2 3"]:
    """Derivatives of the pixel positions by the camera-space points (EWA splatting, equation 29).

    They are taken where x/z and y/z are limited to the image and a margin around it, since the linearisation
    explodes far outside. Where a limit binds, the gradient goes to the intrinsics in it and none to x or y.
    """
    x, y, z = points.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x = JACOBIAN_MARGIN * 0.5 * settings.width / fx
    margin_y = JACOBIAN_MARGIN * 0.5 * settings.height / fy
    u = torch.clamp(x / z, -cx / fx - margin_x, (settings.width - cx) / fx + margin_x)
    v = torch.clamp(y / z, -cy / fy - margin_y, (settings.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    return torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1).unflatten(-1, (2, 3))


def project(splats: Splats, viewmat: Float[Tensor, "4 4"], K: Float[Tensor, "3 3"], settings: Settings) -> Projection:
    """Project splats to 2D Gaussians: centres, depths, dilated covariances and their inverses, opacities.

    Splats that cannot be drawn give values without meaning, possibly not finite; ``find_visible`` tells them.
    """
    points = camera_points(splats.means, viewmat)
    focals, centers = torch.stack([K[0, 0], K[1, 1]]), torch.stack([K[0, 2], K[1, 2]])
    means2d = focals * points[:, :2] / points[:, 2:] + centers
    axes = rotation_matrices(splats.quats, raw=settings.inria) * splats.scales.unsqueeze(-2)
    row_x, row_y = (projection_jacobians(points, K, settings) @ (viewmat[:3, :3] @ axes)).unbind(1)
    xx, xy, yy = row_x.square().sum(-1), (row_x * row_y).sum(-1), row_y.square().sum(-1)
    # xx yy - xy^2 by Lagrange's identity: no cancellation for needles, hence never negative.
    sharp_dets = torch.linalg.cross(row_x, row_y).square().sum(-1)
    dets = sharp_dets + settings.eps2d * (xx + yy) + settings.eps2d**2
    xx, yy = xx + settings.eps2d, yy + settings.eps2d
    opacities = splats.opacities
    if settings.antialiased:
        opacities = opacities * (sharp_dets / dets).clamp(min=ANTIALIAS_FLOOR**2).sqrt()
    return Projection(
        means2d=means2d,
        depths=points[:, 2],
        covs=torch.stack([xx, xy, yy], -1),
        dets=dets,
        conics=torch.stack([yy, -xy, xx], -1) / dets.unsqueeze(-1),
        opacities=opacities,
    )


@torch.no_grad()
def find_finite(splats: Splats) -> Bool[Tensor, " n"]:
    """Which splats hold finite numbers only and a quaternion that is not zero."""
    finite = splats.means.isfinite().all(-1) & splats.scales.isfinite().all(-1) & splats.opacities.isfinite()
    finite &= splats.colors.isfinite().flatten(1).all(-1)
    norms = splats.quats.square().sum(-1)
    return finite & norms.isfinite() & (norms > 0)


def square_boxes(projection: Projection, settings: Settings) -> tuple[Int64[Tensor, "n 2"], Int64[Tensor, "n 2"]]:
    """First tile, and one past the last, in x and y, that a square around each splat touches.

    Half its side is three standard deviations along the ellipse's longest axis, rounded up to whole pixels. The
    rule is that of the first 3DGS implementation, in whose coordinates pixel centres are integers.
    """
    xx, xy, yy = projection.covs.unbind(-1)
    spread = (0.25 * (xx - yy).square() + xy.square()).clamp(min=SQUARE_FLOOR).sqrt()
    radius = (SQUARE_SIGMAS * (0.5 * (xx + yy) + spread).sqrt()).ceil().unsqueeze(-1)
    centers = projection.means2d - 0.5
    tiles = torch.tensor(settings.tiles, device=centers.device, dtype=centers.dtype)
    zero = torch.zeros_like(tiles)
    low = ((centers - radius) / TILE_SIZE).floor().nan_to_num(0).clamp(zero, tiles)
    high = ((centers + radius + (TILE_SIZE - 1)) / TILE_SIZE).floor().nan_to_num(0).clamp(zero, tiles)
    return low.long(), high.long()


@torch.no_grad()
def tile_boxes(projection: Projection, settings: Settings) -> tuple[Int64[Tensor, "n 2"], Int64[Tensor, "n 2"]]:
    """First tile, and one past the last, in x and y, of the box around each splat's visible ellipse.

    The ellipse is where opacity exp(-sigma) reaches the threshold; there sigma = ln(opacity / threshold), and
    its half width is sqrt(2 sigma cov_xx). Boxes are a little too large, never too small: blending tests
    every pixel, so tiling cannot change the image. With ``settings.inria`` the tiles do bound the splat: they
    are those of a square, see ``square_boxes``.
    """
    if settings.inria:
        return square_boxes(projection, settings)
    reach = 2 * (projection.opacities / settings.lowest_alpha).log().clamp(min=0)
    half = (reach.unsqueeze(-1) * projection.covs[:, [0, 2]]).sqrt() * 1.01 + 0.01
    size = torch.tensor([settings.width, settings.height], device=half.device, dtype=half.dtype)
    zero = torch.zeros_like(size)
    first = (projection.means2d - half - 0.5).ceil().nan_to_num(0).clamp(zero, size).long()
    past = ((projection.means2d + half - 0.5).floor() + 1).nan_to_num(0).clamp(zero, size).long()
    low, high = first // TILE_SIZE, (past + TILE_SIZE - 1) // TILE_SIZE
    return low, torch.where(past > first, high, low)


@torch.no_grad()
def find_visible(
    splats: Splats, viewmat: Float[Tensor, "4 4"], K: Float[Tensor, "3 3"], settings: Settings
) -> tuple[Int64[Tensor, " visible"], int]:
    """Ids of the splats that may reach the image, ascending, and how many were dropped for not being finite.

    A splat is culled outside [near, far], without area, with an opacity below the threshold, or when the box
    around its visible ellipse holds no pixel centre. With ``settings.inria`` opacity culls nothing and the box is
    that of ``square_boxes``. A splat counts as not finite when an input is NaN, infinite or a zero quaternion,
    or when it lies within [near, far] and its projection overflows.
    """
    finite = find_finite(splats)
    projection = project(splats, viewmat, K, settings)
    z = projection.depths.unsqueeze(-1)
    between = ~((z < settings.near_plane) | (z > settings.far_plane)).squeeze(-1)
    numbers = torch.cat([z, projection.means2d, projection.covs, projection.dets.unsqueeze(-1)], -1)
    finite &= numbers.isfinite().all(-1) | ~between
    low, high = tile_boxes(projection, settings)
    visible = finite & between & (projection.dets > 0) & projection.conics.isfinite().all(-1)
    visible &= (high > low).all(-1)
    if not settings.inria:
        visible &= projection.opacities >= settings.lowest_alpha
    return visible.nonzero().squeeze(-1), int((~finite).sum())
