"""Fields along rays: two passes of samples, decoded and composited, in chunks that bound the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cgsgan.rendering.fields import Field
from cgsgan.rendering.jitter import normal_samples, uniform_samples
from cgsgan.rendering.marching import (
    DensityActivation,
    close_end,
    expected_distance,
    interval_weights,
    sample_weights,
)
from cgsgan.rendering.ray_bundles import RayBundle
from cgsgan.rendering.ray_samples import importance_distances, stratified_distances


@dataclass(frozen=True, kw_only=True)
class RayTracer:
    """Follows rays through a field.

    Attributes:
        field: raw densities and colour features.
        near: see :func:`~cgsgan.rendering.ray_samples.stratified_distances`.
        far: likewise.
        counts: samples per ray of the first and of the second pass.
        activation: makes densities of raw ones.
        density_noise: standard deviation of the noise on raw densities, for rays with ``noise_keys``.
        opaque_end: see :func:`~cgsgan.rendering.marching.close_end`.
    """

    field: Field
    near: float
    far: float
    counts: tuple[int, int]
    activation: DensityActivation = "shifted_softplus"
    density_noise: float = 0.0
    opaque_end: bool = False

    def trace(
        self, rays: RayBundle, *, points_at_once: int, recompute: bool
    ) -> tuple[Float[Tensor, "batch ray feature"], Float[Tensor, "batch ray 1"], Float[Tensor, "batch ray 1"]]:
        """Composited features, coverage and mean distance of every ray.

        Distances are along the ray; where nothing is hit they are clamped to the range of all sampled distances.

        Args:
            rays: of all scenes of the field.
            points_at_once: samples in a chunk (or one ray of a scene, if that has more).
            recompute: keep no chunk for the backward pass but the rays it starts from, when there is more than one.
        """
        scenes, count = rays.origins.shape[:2]
        parts = list(chunks(scenes, count, points_at_once // sum(self.counts)))
        results = []
        for chosen in parts:
            part, first_scene = rays.part(*chosen), chosen[0].start
            if recompute and len(parts) > 1:
                # Nothing in here draws random numbers, so there is no state to be kept for the second time.
                result = checkpoint(self._follow, part, first_scene, use_reentrant=False, preserve_rng_state=False)
            else:
                result = self._follow(part, first_scene)
            results.append(result)
        features, alphas, distances = (assemble_chunks([r[i] for r in results], parts, scenes) for i in range(3))
        nearest = torch.stack([r[3] for r in results]).amin()
        farthest = torch.stack([r[4] for r in results]).amax()
        return features, alphas, torch.minimum(torch.maximum(distances, nearest), farthest)

    def _follow(self, rays: RayBundle, first_scene: int) -> tuple[Tensor, ...]:
        first, second = self.counts
        shape = rays.origins.shape[:2]
        if rays.keys is None:
            jitter = rays.origins.new_full((1, 1, first), 0.5)
        else:
            jitter = uniform_samples(rays.keys[0], first).to(rays.origins.dtype)
        coarse = stratified_distances(self.near, self.far, jitter).expand(*shape, first)
        raw_densities, features = self._look(rays, coarse, first_scene, 0)
        if second == 0:
            weights = self._weights(raw_densities, coarse)
            per_sample = (sample_weights(weights),)
            return self._composite(weights, coarse, per_sample, (features,))
        with torch.no_grad():
            # Where to look does not depend on the end being opaque.
            fine = self._choose(rays, coarse, interval_weights(raw_densities, coarse, self.activation))
        fine_densities, fine_features = self._look(rays, fine, first_scene, 1)
        distances, order = torch.cat([coarse, fine], dim=-1).sort(dim=-1)
        weights = self._weights(torch.cat([raw_densities, fine_densities], dim=-1).gather(-1, order), distances)
        # Weights go back to where the samples are, which is cheaper than to sort the samples' features.
        per_sample = torch.zeros_like(distances).scatter(-1, order, sample_weights(weights))
        return self._composite(weights, distances, per_sample.split((first, second), -1), (features, fine_features))

    def _choose(self, rays: RayBundle, coarse: Tensor, weights: Tensor) -> Tensor:
        count = self.counts[1]
        if rays.keys is None:
            places = torch.linspace(0, 1, count, device=coarse.device, dtype=coarse.dtype)[None]
        else:
            places = uniform_samples(rays.keys[1], count).to(coarse.dtype).flatten(0, 1)
        chosen = importance_distances(coarse.flatten(0, 1), weights.flatten(0, 1), places)
        return chosen.unflatten(0, coarse.shape[:2])

    def _look(self, rays: RayBundle, distances: Tensor, first_scene: int, turn: int) -> tuple[Tensor, Tensor]:
        points = rays.origins.unsqueeze(2) + distances.unsqueeze(3) * rays.directions.unsqueeze(2)
        raw_densities, features = self.field(points, rays.directions, first_scene)
        if self.density_noise > 0 and rays.noise_keys is not None:
            noise = normal_samples(rays.noise_keys[turn], distances.shape[-1]).to(raw_densities.dtype)
            raw_densities = raw_densities + self.density_noise * noise
        return raw_densities, features

    def _weights(self, raw_densities: Tensor, distances: Tensor) -> Tensor:
        weights = interval_weights(raw_densities, distances, self.activation)
        return close_end(weights) if self.opaque_end else weights

    @staticmethod
    def _composite(
        weights: Tensor, distances: Tensor, per_sample: tuple[Tensor, ...], features: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        sums = [(w.unsqueeze(-2) @ f).squeeze(-2) for w, f in zip(per_sample, features)]
        alphas = weights.sum(dim=-1, keepdim=True)
        bounds = distances.detach().aminmax()
        return sum(sums[1:], sums[0]), alphas, expected_distance(weights, distances), bounds.min, bounds.max


def chunks(scenes: int, rays: int, rays_at_once: int) -> Iterator[tuple[slice, slice]]:
    """Cut scenes x rays into blocks of at most ``rays_at_once`` rays (at least 1), of as many scenes as go."""
    scenes_at_once = min(scenes, max(1, rays_at_once))
    per_scene = max(1, rays_at_once // scenes_at_once)
    for scene in range(0, scenes, scenes_at_once):
        for ray in range(0, rays, per_scene):
            yield slice(scene, min(scene + scenes_at_once, scenes)), slice(ray, min(ray + per_scene, rays))


def assemble_chunks(results: list[Tensor], parts: list[tuple[slice, slice]], scenes: int) -> Tensor:
    """Chunks in the order of :func:`chunks` to ``[scene, ray, ...]``."""
    if parts[0][0].stop == scenes:
        return torch.cat(results, dim=1)
    starts = sorted({chosen[0].start for chosen in parts})
    rows = [torch.cat([r for r, p in zip(results, parts) if p[0].start == start], dim=1) for start in starts]
    return torch.cat(rows, dim=0)
