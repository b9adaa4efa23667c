"""The few objects that travel between layers: a scene, what was rendered of it, what a generator gives.

Axis words: batch B = scenes, view V, gaussian N, channel C, height H, width W. All of them are frozen; the
shapes stand in the annotations and are checked in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

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


@dataclass(frozen=True, kw_only=True)
class RenderOutput:
    """What a renderer gives for B scenes seen from V cameras each.

    Attributes:
        images: float RGB, [0, 1] for colours in [0, 1]; not clamped.
        alphas: coverage, 1 - transmittance, [0, 1].
        depths: expected z-depth in world units (0 where nothing is hit), or None when it was not asked for.
    """

    images: Float[Tensor, "batch view 3 height width"]
    alphas: Float[Tensor, "batch view height width 1"]
    depths: Float[Tensor, "batch view height width 1"] | None = None


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
