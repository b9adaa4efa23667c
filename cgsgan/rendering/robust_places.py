"""Where rays through scenes of signed distance are looked at, for every sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cgsgan.rendering.jitter import uniform_samples
from cgsgan.rendering.marching import density_weights
from cgsgan.rendering.ray_bundles import Keys, RayBundle
from cgsgan.rendering.ray_samples import importance_distances
from cgsgan.rendering.robust_sampling import (
    cell_lengths,
    flatten_distribution,
    invert_distribution,
    middle_places,
    nucleus,
    probability_lengths,
    spacing_lengths,
    stratified_places,
    unstratified_places,
)
from cgsgan.rendering.robust_settings import RobustConfig
from cgsgan.rendering.sdf_tracing import Places, SdfTracer


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Where something is along each ray, as far as one knows.

    Attributes:
        probabilities: of the bins.
        kept: the bins of the nucleus.
    """

    probabilities: Float[Tensor, "scene ray bin"]
    kept: Bool[Tensor, "scene ray bin"]

    @staticmethod
    def make(probabilities: Float[Tensor, "scene ray bin"], config: RobustConfig) -> Proposal:
        """With the nucleus found, in parts that bound the memory: sorting takes several times that of the bins."""
        rays_at_once = max(1, config.points_at_once // (len(probabilities) * config.bins))
        parts = [nucleus(part, config.nucleus) for part in probabilities.split(rays_at_once, dim=1)]
        return Proposal(probabilities=probabilities, kept=torch.cat(parts, dim=1))

    @property
    def widths(self) -> Int64[Tensor, "scene ray"]:
        """Bins in the nucleus."""
        return self.kept.sum(dim=-1)

    def select(self, chosen: Int64[Tensor, "scene chosen"]) -> Proposal:
        """Of some rays of each scene, by number."""
        index = chosen.unsqueeze(-1).expand(-1, -1, self.kept.shape[-1])
        return Proposal(probabilities=self.probabilities.gather(1, index), kept=self.kept.gather(1, index))


@dataclass(frozen=True, kw_only=True)
class ProposedPlacing:
    """Places drawn from proposals.

    Attributes:
        config: names the sampler.
        proposal: of all rays.
        count: samples per ray.
        keys: of random places; None: the middles of ``count`` equal parts of the distribution.
    """

    config: RobustConfig
    proposal: Proposal
    count: int
    keys: Keys | None

    def __call__(self, scenes: slice, rays: slice) -> Places:
        """See :data:`~cgsgan.rendering.sdf_tracing.Placing`."""
        config = self.config
        probabilities, kept = (t[scenes, rays] for t in (self.proposal.probabilities, self.proposal.kept))
        places = self._places(scenes, rays).to(probabilities)
        if config.sampler == "robust":
            positions = invert_distribution(flatten_distribution(kept).to(probabilities), places)
            lengths = cell_lengths(kept, positions)
        else:
            positions = invert_distribution(probabilities, places)
            lengths = probability_lengths(probabilities, places, positions)
        return Places(distances=config.near + config.bin_length * positions, lengths=config.bin_length * lengths)

    def _places(self, scenes: slice, rays: slice) -> Float[Tensor, "... sample"]:
        if self.keys is None:
            return middle_places(self.count, self.proposal.probabilities)[None, None]
        first, second = (keys[scenes, rays] for keys in self.keys)
        if self.config.sampler == "unstratified":
            return unstratified_places(first, self.count)
        return stratified_places(first, second, count=self.count, strata=self.config.strata)


@dataclass(frozen=True, kw_only=True)
class UniformPlacing:
    """One place in each of equal parts of the ray.

    Attributes:
        config: where rays begin and end.
        like: origins of all rays: their number, type and device.
        count: parts.
        keys: of random places; None: the middles.
    """

    config: RobustConfig
    like: Float[Tensor, "scene ray 3"]
    count: int
    keys: Keys | None

    def __call__(self, scenes: slice, rays: slice) -> Places:
        """See :data:`~cgsgan.rendering.sdf_tracing.Placing`."""
        like = self.like[scenes, rays]
        length = (self.config.far - self.config.near) / self.count
        if self.keys is None:
            jitter = like.new_full((1,), 0.5)
        else:
            jitter = uniform_samples(self.keys[0][scenes, rays], self.count).to(like)
        starts = torch.arange(self.count, device=like.device, dtype=like.dtype)
        distances = (self.config.near + length * (starts + jitter)).expand(*like.shape[:2], -1)
        return Places(distances=distances, lengths=torch.full_like(distances, length))


@dataclass(frozen=True, kw_only=True)
class ImportancePlacing:
    """Two passes: one half of the samples evenly, the other where the first half found something.

    Attributes:
        tracer: finds it.
        rays: all of them.
        uniform: the first pass.
        count: samples of both passes.
    """

    tracer: SdfTracer
    rays: RayBundle
    uniform: UniformPlacing
    count: int

    def __call__(self, scenes: slice, rays: slice) -> Places:
        """See :data:`~cgsgan.rendering.sdf_tracing.Placing`."""
        first, part = self.uniform(scenes, rays), self.rays.part(scenes, rays)
        coarse, fine = first.distances, self.count - self.uniform.count
        densities = self.tracer.densities(part, first, scenes.start)
        weights = density_weights((densities[..., 1:] + densities[..., :-1]) / 2, coarse.diff(dim=-1))
        if part.keys is None:
            places = torch.linspace(0, 1, fine, device=coarse.device, dtype=coarse.dtype)[None]
        else:
            places = uniform_samples(part.keys[1], fine).to(coarse).flatten(0, 1)
        found = importance_distances(coarse.flatten(0, 1), weights.flatten(0, 1), places).unflatten(0, coarse.shape[:2])
        distances = torch.cat([coarse, found], dim=-1).sort(dim=-1).values
        config = self.uniform.config
        return Places(distances=distances, lengths=spacing_lengths(distances - config.near, config.far - config.near))
