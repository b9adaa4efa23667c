"""Multi-view consistency: carry the surface that one view shows into another, and compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.types import RenderOutput

OPAQUE = 0.95
"""Coverage from which on a pixel shows a surface, whose expected depth means something."""
SAME_SURFACE = 0.05
"""World units: a surface of the other view nearer or farther by more than this is another one (an occlusion)."""


@dataclass(frozen=True, kw_only=True)
class ReprojectionErrors:
    """Per scene; NaN where nothing of the first view is seen by the second.

    Attributes:
        depth: mean absolute difference between a carried point's depth and the depth rendered there, world units.
        color: mean absolute difference of RGB, in [0, 1].
        visible: share of the opaque pixels of the first view that are opaque, in the picture and on the same surface in
            the second; the errors are means over them.
    """

    depth: Float[Tensor, " batch"]
    color: Float[Tensor, " batch"]
    visible: Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class CarriedView:
    """The second of two views where the surface of the first one is, pixel by pixel of the first.

    Attributes:
        images: colours of the second view there.
        depth_error: absolute difference between the depth of the carried point and the one rendered there.
        opaque: where the first view shows a surface.
        seen: where the second one shows the same.
    """

    images: Float[Tensor, "batch 3 height width"]
    depth_error: Float[Tensor, "batch height width"]
    opaque: Bool[Tensor, "batch height width"]
    seen: Bool[Tensor, "batch height width"]


def reprojection_errors(views: RenderOutput, cameras: Cameras) -> ReprojectionErrors:
    """Mean errors of :func:`carry_view`.

    A scene of one surface gives errors of the sampling only; floaters, and surfaces painted on differently for every
    view, do not.

    Raises:
        ValueError: as :func:`carry_view`.
    """
    found = carry_view(views, cameras)
    color_error = (found.images - views.images[:, 0]).abs().mean(dim=1)
    count = found.seen.sum(dim=(1, 2))
    return ReprojectionErrors(
        depth=torch.where(found.seen, found.depth_error, 0.0).sum(dim=(1, 2)) / count,
        color=torch.where(found.seen, color_error, 0.0).sum(dim=(1, 2)) / count,
        visible=count / found.opaque.sum(dim=(1, 2)),
    )


def carry_view(views: RenderOutput, cameras: Cameras) -> CarriedView:
    """Warp the first of two views of each scene into the second by its depth.

    A point of view A at pixel centre p with depth d is ``d K_A^-1 [p, 1]`` in A's camera; it is moved to B's camera,
    projected, and compared with B's depth and colour, sampled bilinearly there.

    Args:
        views: ``[batch, 2, ...]`` square, with depths.
        cameras: ``[batch, 2]``, those of the views.

    Raises:
        ValueError: without depths, or for another number of views.
    """
    if views.depths is None or views.images.shape[1] != 2:
        raise ValueError(f"carry_view: expected 2 views with depths, got {views.images.shape[1]}")
    images, depths, alphas = views.images, views.depths[..., 0], views.alphas[..., 0]
    size = images.shape[-1]
    points = lift(depths[:, 0], cameras.map(lambda t: t[:, 0]))
    pixels, carried = project(points, cameras.map(lambda t: t[:, 1]), size)
    grid = pixels / size * 2 - 1  # with align_corners=False this grid has pixel centres at +0.5, as cameras do
    second = torch.cat([images[:, 1], depths[:, 1, None], alphas[:, 1, None]], dim=1)
    sampled = F.grid_sample(second, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    depth_error = (sampled[:, 3] - carried).abs()
    opaque = alphas[:, 0] > OPAQUE
    seen = opaque & (sampled[:, 4] > OPAQUE) & (depth_error < SAME_SURFACE) & (grid.abs().amax(dim=-1) < 1)
    return CarriedView(images=sampled[:, :3], depth_error=depth_error, opaque=opaque, seen=seen)


def lift(depths: Float[Tensor, "batch height width"], cameras: Cameras) -> Float[Tensor, "batch height width 3"]:
    """World points at the pixel centres, by their z-depth."""
    height, width = depths.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=depths.device) + 0.5, torch.arange(width, device=depths.device) + 0.5, indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).to(depths.dtype)
    rays = torch.einsum("bij,hwj->bhwi", torch.linalg.inv(cameras.Ks(width, height)), pixels)
    transform = cameras.cam_to_world
    return (
        torch.einsum("bij,bhwj->bhwi", transform[:, :3, :3], rays * depths[..., None]) + transform[:, None, None, :3, 3]
    )


def project(
    points: Float[Tensor, "batch height width 3"], cameras: Cameras, size: int
) -> tuple[Float[Tensor, "batch height width 2"], Float[Tensor, "batch height width"]]:
    """Pixel coordinates and z-depths of world points."""
    view = cameras.viewmats
    local = torch.einsum("bij,bhwj->bhwi", view[:, :3, :3], points) + view[:, None, None, :3, 3]
    homogeneous = torch.einsum("bij,bhwj->bhwi", cameras.Ks(size, size), local)
    return homogeneous[..., :2] / homogeneous[..., 2:].clamp_min(1e-6), local[..., 2]
