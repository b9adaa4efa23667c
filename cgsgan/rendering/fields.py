"""What rays meet: raw density and colour at points, of any kind of scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.field_scenes import ImplicitScenes, PlaneDecoder
from cgsgan.rendering.plane_sampling import PlaneSampler

FRONT = (0.0, 0.0, -1.0)
"""Direction of a ray from a camera in front of the face."""


@runtime_checkable
class Field(Protocol):
    """The scenes of a batch at points along rays."""

    def __call__(
        self,
        points: Float[Tensor, "scene ray sample 3"],
        directions: Float[Tensor, "scene ray 3"],
        first_scene: int,
    ) -> tuple[Float[Tensor, "scene ray sample"], Float[Tensor, "scene ray sample feature"]]:
        """Raw densities and colour features.

        Args:
            points: world units, of the scenes from ``first_scene`` on.
            directions: of the rays they lie on, unit length.
            first_scene: index in the batch.
        """
        ...


@dataclass(frozen=True)
class PlaneField:
    """Tri-planes: the same from all sides."""

    sampler: PlaneSampler
    decode: PlaneDecoder

    def __call__(
        self,
        points: Float[Tensor, "scene ray sample 3"],
        directions: Float[Tensor, "scene ray 3"],
        first_scene: int,
    ) -> tuple[Float[Tensor, "scene ray sample"], Float[Tensor, "scene ray sample feature"]]:
        """See :class:`Field`."""
        raw_densities, features = self.decode(self.sampler(points.flatten(1, 2), first_scene))
        return raw_densities.view(points.shape[:3]), features.unflatten(1, points.shape[1:3])


@dataclass(frozen=True)
class ModulatedField:
    """One network for all scenes, modulated for each.

    Attributes:
        scenes: their modulations.
        frontal: colours as they are seen from the front, whatever the ray: a turntable then shows one thing.
    """

    scenes: ImplicitScenes
    frontal: bool = False

    def __call__(
        self,
        points: Float[Tensor, "scene ray sample 3"],
        directions: Float[Tensor, "scene ray 3"],
        first_scene: int,
    ) -> tuple[Float[Tensor, "scene ray sample"], Float[Tensor, "scene ray sample feature"]]:
        """See :class:`Field`."""
        chosen = slice(first_scene, first_scene + len(points))
        seen_along = torch.tensor(FRONT).to(points) if self.frontal else directions.unsqueeze(2)
        frequencies, phases = (tensor[chosen] for tensor in self.scenes.tensors())
        raw_densities, features = self.scenes.read(
            points.flatten(1, 2), seen_along.expand_as(points).flatten(1, 2), frequencies, phases
        )
        return raw_densities.view(points.shape[:3]), features.unflatten(1, points.shape[1:3])
