"""The rays of pictures of signed-distance scenes, and pictures from what they found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.rendering.ray_bundles import RayBundle
from cgsgan.rendering.sdf_tracing import Composited, SdfTracer
from cgsgan.types import RenderOutput


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Small pictures from which the proposal network guesses where the rays of large ones meet something.

    Attributes:
        images: RGB in [0, 1] times coverage, on black: what is behind a scene does not decide where to look.
        weights: of every bin of every ray; they sum to its coverage.
    """

    images: Float[Tensor, "batch view 3 probe probe"]
    weights: Float[Tensor, "batch view bin probe probe"]


@dataclass(frozen=True, kw_only=True)
class TracedRays:
    """The rays of B x V pictures, or of some of their pixels, and what reads the scenes that they go through.

    Attributes:
        rays: picture by picture, row by row.
        z_per_distance: z-depth in the camera per distance along the ray.
        tracer: of the scenes.
        views: pictures of each scene.
        size: of a whole picture, pixels.
    """

    rays: RayBundle
    z_per_distance: Float[Tensor, "scene ray 1"]
    tracer: SdfTracer
    views: int
    size: int


def select_rays(rays: RayBundle, chosen: Int64[Tensor, "scene chosen"]) -> RayBundle:
    """Some rays of each scene, by number, at regular places."""
    index = chosen.unsqueeze(-1).expand(-1, -1, 3)
    return RayBundle(origins=rays.origins.gather(1, index), directions=rays.directions.gather(1, index))


def merge_groups(parts: list[Composited], groups: list[Int64[Tensor, "scene _"]]) -> Composited:
    """What groups of rays found, in the order of the rays.

    Args:
        parts: of the groups.
        groups: numbers of the rays; every ray is in one group.
    """
    order = torch.cat(groups, dim=1).argsort(dim=1).unsqueeze(-1)

    def merged(name: str) -> Tensor:
        values = torch.cat([getattr(part, name) for part in parts], dim=1)
        return values.gather(1, order.expand(-1, -1, values.shape[-1]))

    return Composited(**{name: merged(name) for name in ("features", "alphas", "distances", "betas")})


def output_pictures(
    traced: TracedRays, found: Composited, backgrounds: Float[Tensor, "batch view 3"], *, depth: bool
) -> RenderOutput:
    """Whole pictures before their backgrounds."""
    shape = (traced.views, traced.size, traced.size)
    alphas = found.alphas.unflatten(1, shape)
    colors = found.features[..., :3].unflatten(1, shape).movedim(-1, 2)
    behind = (1 - alphas.movedim(-1, -3)) * backgrounds.to(colors)[..., None, None]
    return RenderOutput(
        images=colors + behind,
        alphas=alphas,
        depths=(found.distances * traced.z_per_distance).unflatten(1, shape) if depth else None,
        betas=found.betas.unflatten(1, shape),
    )
