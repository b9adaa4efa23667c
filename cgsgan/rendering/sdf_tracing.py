"""Tri-planes of signed distance along rays: looked at in given places and composited, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cgsgan.field_scenes import SdfDecoder
from cgsgan.rendering.marching import density_weights
from cgsgan.rendering.plane_sampling import PlaneSampler
from cgsgan.rendering.ray_bundles import RayBundle
from cgsgan.rendering.ray_tracing import assemble_chunks, chunks
from cgsgan.rendering.sdf_density import laplace_density


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where rays are looked at.

    Attributes:
        distances: along the ray, world units, ascending.
        lengths: how much of the ray each sample stands for, world units.
    """

    distances: Float[Tensor, "scene ray sample"]
    lengths: Float[Tensor, "scene ray sample"]

    def part(self, scenes: slice, rays: slice) -> Places:
        """Of some rays of some scenes."""
        return Places(distances=self.distances[scenes, rays], lengths=self.lengths[scenes, rays])


Placing = Callable[[slice, slice], Places]
"""Places on some rays of some scenes; without gradients."""


@dataclass(frozen=True, kw_only=True)
class Composited:
    """What rays found.

    Attributes:
        features: composited colour features, times coverage; the first three are RGB.
        alphas: coverage, 1 - transmittance.
        distances: mean along the ray, world units; 0 where nothing is hit.
        betas: mean scale of the surfaces, world units, times coverage.
    """

    features: Float[Tensor, "scene ray feature"]
    alphas: Float[Tensor, "scene ray 1"]
    distances: Float[Tensor, "scene ray 1"]
    betas: Float[Tensor, "scene ray 1"]


@dataclass(frozen=True, kw_only=True)
class SdfTracer:
    """Follows rays through scenes of signed distance.

    Attributes:
        sampler: of the planes.
        decode: what was sampled.
        points_at_once: samples in a chunk (or one ray of a scene, if that has more).
    """

    sampler: PlaneSampler
    decode: SdfDecoder
    points_at_once: int

    def composite(self, rays: RayBundle, placing: Placing, *, samples: int, recompute: bool) -> Composited:
        """Colour, coverage, distance and beta of every ray.

        Args:
            rays: of all scenes.
            placing: where to look, asked for once or, to compute a chunk again, twice.
            samples: per ray, that ``placing`` gives.
            recompute: keep no chunk for the backward pass but the rays it starts from, when there is more than one.
        """
        scenes, count = rays.origins.shape[:2]
        parts = list(chunks(scenes, count, self.points_at_once // samples))
        results = []
        for chosen in parts:
            follow = (self._follow, rays.part(*chosen), placing, chosen)
            if recompute and len(parts) > 1:
                # Random places are functions of the rays' keys, so there is no state to be kept for the second time.
                results.append(checkpoint(*follow, use_reentrant=False, preserve_rng_state=False))
            else:
                results.append(self._follow(*follow[1:]))
        found = (assemble_chunks([r[i] for r in results], parts, scenes) for i in range(4))
        return Composited(**dict(zip(("features", "alphas", "distances", "betas"), found)))

    @torch.no_grad()
    def weights(self, rays: RayBundle, placing: Placing, *, samples: int) -> tuple[Tensor, Tensor]:
        """Colours ``[scene, ray, 3]`` times coverage, and the weight of every sample ``[scene, ray, sample]``."""
        scenes, count = rays.origins.shape[:2]
        parts = list(chunks(scenes, count, self.points_at_once // samples))
        colors, weights = [], []
        for chosen in parts:
            part = rays.part(*chosen)
            places = placing(*chosen)
            densities, _, features = self._look(part, places, chosen[0].start)
            weights.append(density_weights(densities, places.lengths))
            colors.append(_mix(weights[-1], features[..., :3]))
        return assemble_chunks(colors, parts, scenes), assemble_chunks(weights, parts, scenes)

    def densities(self, rays: RayBundle, places: Places, first_scene: int) -> Float[Tensor, "scene ray sample"]:
        """Per world unit, at places on rays of the scenes from ``first_scene`` on."""
        return self._look(rays, places, first_scene)[0]

    def query(
        self, points: Float[Tensor, "scene point 3"], first_scene: int = 0
    ) -> tuple[Float[Tensor, "scene point 1"], Float[Tensor, "scene point 1"], Float[Tensor, "scene point feature"]]:
        """Signed distances and betas (world units), and colour features, at points in world units."""
        return self.decode(self.sampler(points, first_scene))

    def _follow(self, rays: RayBundle, placing: Placing, chosen: tuple[slice, slice]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            places = placing(*chosen)
        densities, betas, features = self._look(rays, places, chosen[0].start)
        weights = density_weights(densities, places.lengths)
        alphas = weights.sum(dim=-1, keepdim=True)
        hit = alphas > 0
        distances = (weights * places.distances).sum(dim=-1, keepdim=True) / torch.where(hit, alphas, 1.0)
        return _mix(weights, features), alphas, distances, (weights * betas).sum(dim=-1, keepdim=True)

    def _look(self, rays: RayBundle, places: Places, first_scene: int) -> tuple[Tensor, Tensor, Tensor]:
        points = rays.origins.unsqueeze(2) + places.distances.unsqueeze(3) * rays.directions.unsqueeze(2)
        signed, betas, features = self.query(points.flatten(1, 2), first_scene)
        signed, betas = (t.view(points.shape[:3]) for t in (signed, betas))
        return laplace_density(signed, betas), betas, features.unflatten(1, points.shape[1:3])


def _mix(weights: Tensor, features: Tensor) -> Float[Tensor, "scene ray feature"]:
    return (weights.unsqueeze(-2) @ features).squeeze(-2)
