"""The few objects that travel between layers: a scene, what was rendered of it, what a generator gives.

Axis words: batch B = scenes, view V, gaussian N, channel C, height H, width W. All of them are frozen; the
shapes stand in the annotations and are checked in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """A scene (or a batch of scenes) of anisotropic 3D Gaussians, activated: ready to be rasterized.

    Attributes:
        means: centres in world units; the subject lies in [-0.5, 0.5]^3.
        quats: orientations, (w, x, y, z); need not be unit length, the rasterizer normalises.
        scales: standard deviations along the local axes, world units, > 0.
        opacities: in [0, 1].
        colors: display-referred sRGB in [0, 1] (values above 1 are allowed), the degree-0 form.
    """

    means: Float[Tensor, "*batch gaussian 3"]
    quats: Float[Tensor, "*batch gaussian 4"]
    scales: Float[Tensor, "*batch gaussian 3"]
    opacities: Float[Tensor, "*batch gaussian"]
    colors: Float[Tensor, "*batch gaussian channel"]

    @property
    def count(self) -> int:
        """Gaussians per scene, N."""
        return self.means.shape[-2]

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """The same scene with ``function`` applied to every tensor (indexing, ``detach``, ``to``...)."""
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self)})

    def scene(self, index: int) -> Gaussians:
        """One scene of a batch, without the batch axis."""
        return self.map(lambda tensor: tensor[index])

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return tuple(getattr(self, f.name) for f in fields(self))

    @staticmethod
    def cat(parts: list[Gaussians], dim: int = 0) -> Gaussians:
        """Concatenate along the batch axis (``dim`` = 0, the default) or another leading axis."""
        names = [f.name for f in fields(Gaussians)]
        return Gaussians(**{name: torch.cat([getattr(p, name) for p in parts], dim) for name in names})


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


Scenes = Gaussians | TriPlanes
"""What generators make and renderers draw."""


def cat_scenes(parts: list[Scenes]) -> Scenes:
    """One batch of scenes from several of one kind."""
    return type(parts[0]).cat(parts)  # type: ignore[arg-type]


def scene_count(scenes: Scenes) -> int:
    """Scenes in a batch, B."""
    return scenes.tensors()[0].shape[0]


@dataclass(frozen=True, kw_only=True)
class RenderOutput:
    """What a renderer gives for B scenes seen from V cameras each.

    Attributes:
        images: float RGB, [0, 1] for colours in [0, 1]; not clamped.
        alphas: coverage, 1 - transmittance, [0, 1].
        depths: expected z-depth in world units (0 where nothing is hit), or None when it was not asked for.
        raw_images: what a volume renderer gives before super-resolution, same range; None without one.
    """

    images: Float[Tensor, "batch view 3 height width"]
    alphas: Float[Tensor, "batch view height width 1"]
    depths: Float[Tensor, "batch view height width 1"] | None = None
    raw_images: Float[Tensor, "batch view 3 raw_height raw_width"] | None = None


@dataclass(frozen=True, kw_only=True)
class GeneratorOutput:
    """A generated batch of scenes.

    Attributes:
        gaussians: the scenes, all levels concatenated along the Gaussian axis, coarse to fine.
        anchors: the anchors of each level but the last, coarse to fine; never rendered, they carry the next level.
        level_sizes: Gaussians per level, in the order in which ``gaussians`` holds them.
        ws: the latents after the mapping network and truncation, one row per style input.
    """

    gaussians: Gaussians
    anchors: tuple[Gaussians, ...]
    level_sizes: tuple[int, ...]
    ws: Float[Tensor, "batch num_ws w_dim"]

    @property
    def scenes(self) -> Gaussians:
        """What is rendered."""
        return self.gaussians


@dataclass(frozen=True, kw_only=True)
class TriPlaneOutput:
    """A generated batch of tri-plane scenes.

    Attributes:
        scenes: what is rendered.
        ws: the latents after the mapping network and truncation, one row per style input of backbone and
            super-resolution.
    """

    scenes: TriPlanes
    ws: Float[Tensor, "batch num_ws w_dim"]
