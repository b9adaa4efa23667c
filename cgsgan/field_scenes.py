"""Scenes that rays are followed through: tri-planes, tri-planes of signed distance, and implicit fields.

Each carries the networks that read it. Axis words as in :mod:`cgsgan.types`, which gives these names, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class PlaneDecoder(Protocol):
    """Reads what was sampled from tri-planes."""

    def __call__(
        self, features: Float[Tensor, "*batch channel"]
    ) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch feature"]]:
        """Mean features of the three planes to raw densities (before any activation) and colour features in [0, 1];
        the first three are RGB.
        """
        ...


@runtime_checkable
class Refiner(Protocol):
    """Super-resolution: what was rendered at the neural resolution, to the final picture."""

    def __call__(
        self,
        raw_images: Float[Tensor, "batch 3 raw_height raw_width"],
        features: Float[Tensor, "batch feature raw_height raw_width"],
        ws: Float[Tensor, "batch num_ws w_dim"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """All in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class TriPlanes:
    """A batch of scenes as three axis-aligned feature planes (EG3D), with the networks that read them.

    Attributes:
        planes: features; which axes a plane has is the renderer's to know (``plane_axes``).
        ws: the styles that the super-resolution takes.
        decode: sampled features to density and colour.
        refine: super-resolution; None: the rendered picture is the final one.
    """

    planes: Float[Tensor, "batch 3 channel height width"]
    ws: Float[Tensor, "batch num_ws w_dim"]
    decode: PlaneDecoder
    refine: Refiner | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> TriPlanes:
        """The same scenes with ``function`` applied to both tensors (indexing, ``detach``, ``to``...)."""
        return replace(self, planes=function(self.planes), ws=function(self.ws))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return self.planes, self.ws

    @staticmethod
    def cat(parts: list[TriPlanes], dim: int = 0) -> TriPlanes:
        """Concatenate scenes of one generator along the batch axis."""
        planes, ws = (torch.cat([part.tensors()[i] for part in parts], dim) for i in range(2))
        return replace(parts[0], planes=planes, ws=ws)


@runtime_checkable
class SdfDecoder(Protocol):
    """Reads what was sampled from tri-planes as a surface."""

    def __call__(
        self, features: Float[Tensor, "*batch channel"]
    ) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"], Float[Tensor, "*batch feature"]]:
        """Mean features of the three planes to signed distances (world units, < 0 inside), scales beta > 0 of the
        surface (world units), and colour features in [0, 1]; the first three are RGB.
        """
        ...


@runtime_checkable
class Proposer(Protocol):
    """Guesses where along the rays of a large picture a scene is, from a small one."""

    def __call__(
        self, images: Float[Tensor, "batch 3 probe probe"], weights: Float[Tensor, "batch bin probe probe"]
    ) -> Float[Tensor, "batch bin height width"]:
        """Logits over the bins of every ray of the large picture."""
        ...


@dataclass(frozen=True, kw_only=True)
class SdfPlanes:
    """A batch of scenes as tri-planes of signed distance (WYSIWYG; Trevithick et al. 2024), with what reads them.

    Attributes:
        planes: features; which axes a plane has is the renderer's to know (``plane_axes``).
        ws: the styles that they were made from.
        decode: sampled features to signed distance, beta and colour.
        propose: where to look along the rays of a large picture.
    """

    planes: Float[Tensor, "batch 3 channel height width"]
    ws: Float[Tensor, "batch num_ws w_dim"]
    decode: SdfDecoder
    propose: Proposer

    def map(self, function: Callable[[Tensor], Tensor]) -> SdfPlanes:
        """The same scenes with ``function`` applied to both tensors (indexing, ``detach``, ``to``...)."""
        return replace(self, planes=function(self.planes), ws=function(self.ws))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return self.planes, self.ws

    @staticmethod
    def cat(parts: list[SdfPlanes], dim: int = 0) -> SdfPlanes:
        """Concatenate scenes of one generator along the batch axis."""
        planes, ws = (torch.cat([part.tensors()[i] for part in parts], dim) for i in range(2))
        return replace(parts[0], planes=planes, ws=ws)


@runtime_checkable
class ConditionedField(Protocol):
    """A field that a scene's frequencies and phases modulate."""

    def __call__(
        self,
        points: Float[Tensor, "batch point 3"],
        directions: Float[Tensor, "batch point 3"],
        frequencies: Float[Tensor, "batch layer width"],
        phases: Float[Tensor, "batch layer width"],
    ) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point feature"]]:
        """Points (world units) seen along unit directions, to raw densities (before any activation) and colours in
        [0, 1].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ImplicitScenes:
    """A batch of scenes as modulations of one network (pi-GAN; Chan et al. 2021).

    Attributes:
        frequencies: of every sine layer.
        phases: likewise.
        read: the network.
    """

    frequencies: Float[Tensor, "batch layer width"]
    phases: Float[Tensor, "batch layer width"]
    read: ConditionedField

    def map(self, function: Callable[[Tensor], Tensor]) -> ImplicitScenes:
        """The same scenes with ``function`` applied to both tensors (indexing, ``detach``, ``to``...)."""
        return replace(self, frequencies=function(self.frequencies), phases=function(self.phases))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return self.frequencies, self.phases

    @staticmethod
    def cat(parts: list[ImplicitScenes], dim: int = 0) -> ImplicitScenes:
        """Concatenate scenes of one generator along the batch axis."""
        frequencies, phases = (torch.cat([part.tensors()[i] for part in parts], dim) for i in range(2))
        return replace(parts[0], frequencies=frequencies, phases=phases)
