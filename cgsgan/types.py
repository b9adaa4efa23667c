"""The few objects that travel between layers: a scene, what was rendered of it, what a generator gives.

Axis words: batch B = scenes, view V, gaussian N, channel C, height H, width W. All of them are frozen; the
shapes stand in the annotations and are checked in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cgsgan.field_scenes import ImplicitScenes, SdfPlanes, TriPlanes

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
Vector = Sequence[float | int]
"""x, y, z."""


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """A scene (or a batch of scenes) of anisotropic 3D Gaussians, activated: ready to be rasterized.

    Its methods give new scenes and leave it as it is; gradients pass through them.

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

    def select(self, chosen: Bool[Tensor, " gaussian"] | Int[Tensor, " chosen"]) -> Gaussians:
        """Some of the Gaussians, the same of every scene of a batch: those of a mask, or rows by number.

        >>> head = cgsgan.load_generator().sample(3).scene(0)
        >>> opaque = head.select(head.opacities > 0.5)
        """
        rows = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        if chosen.dtype == torch.bool and len(chosen) != self.count:
            raise ValueError(f"Gaussians.select: expected a mask of {self.count}, one for each, got {len(chosen)}")
        return self.map(lambda tensor: tensor.index_select(self.opacities.ndim - 1, rows.to(tensor.device)))

    def crop(self, low: Vector, high: Vector) -> Gaussians:
        """Those whose centres lie in a box, of one scene.

        >>> head = cgsgan.load_generator().sample(3).scene(0)
        >>> without_shoulders = head.crop((-0.5, -0.2, -0.5), (0.5, 0.5, 0.5))

        Args:
            low: smallest x, y, z, world units; what reaches beyond with its size alone stays as it is.
            high: largest.

        Raises:
            ValueError: for a batch, whose scenes would keep different numbers.
        """
        if self.means.ndim != 2:
            raise ValueError(f"Gaussians.crop: expected one scene, got a batch {[*self.means.shape]}; use .scene(i)")
        inside = (self.means >= self._vector(low, "crop")) & (self.means <= self._vector(high, "crop"))
        return self.select(inside.all(dim=-1))

    def move(self, offset: Vector) -> Gaussians:
        """Shifted by x, y, z in world units (+y up, the face looks along +z, the subject's left is +x)."""
        return replace(self, means=self.means + self._vector(offset, "move"))

    def resize(self, factor: float | int) -> Gaussians:
        """Larger or smaller by a factor > 0, about the origin."""
        if not 0 < factor < math.inf:
            raise ValueError(f"Gaussians.resize: expected a factor > 0, got {factor}")
        return replace(self, means=self.means * factor, scales=self.scales * factor)

    def rotate(self, axis: Vector, degrees: float | int) -> Gaussians:
        """Turned about an axis through the origin, counter-clockwise for who looks against it.

        >>> aside = cgsgan.load_generator().sample(3).rotate((0, 1, 0), 30)  # the face looks to its left
        """
        direction = self._vector(axis, "rotate").double()
        if not (float(direction.norm()) > 0 and math.isfinite(degrees)):
            raise ValueError(f"Gaussians.rotate: expected an axis with a length, and an angle, got {axis}, {degrees}")
        half = math.radians(degrees) / 2
        x, y, z = (math.sin(half) * direction / direction.norm()).tolist()
        w = math.cos(half)
        left = self.quats.new_tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
        turn = self.means.new_tensor(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        # Sums of products, not matrix products: those may be rounded to 11 bits on a GPU.
        means = (self.means.unsqueeze(-2) * turn).sum(dim=-1)
        return replace(self, means=means, quats=(self.quats.unsqueeze(-2) * left).sum(dim=-1))

    def recolor(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """With ``function`` applied to the colours ``[..., gaussian, channel]``.

        >>> grey = cgsgan.load_generator().sample(3).recolor(lambda rgb: rgb.mean(-1, keepdim=True).expand_as(rgb))
        """
        colors = function(self.colors)
        if colors.shape[:-1] != self.opacities.shape:
            raise ValueError(
                f"Gaussians.recolor: expected a colour for each Gaussian, {[*self.colors.shape]}, got {[*colors.shape]}"
            )
        return replace(self, colors=colors)

    def _vector(self, numbers: Vector, method: str) -> Float[Tensor, "3"]:
        if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"Gaussians.{method}: expected three finite numbers x, y, z, got {numbers}")
        return self.means.new_tensor(numbers)

    @staticmethod
    def join(parts: Sequence[Gaussians]) -> Gaussians:
        """All Gaussians of several scenes in one, or, of batches, scene by scene.

        >>> one, other = (cgsgan.load_generator().sample(seed).scene(0) for seed in (3, 5))
        >>> pair = cgsgan.Gaussians.join([one.move((-0.3, 0, 0)), other.move((0.3, 0, 0))])
        """
        return Gaussians.cat(list(parts), dim=parts[0].opacities.ndim - 1)

    @staticmethod
    def cat(parts: list[Gaussians], dim: int = 0) -> Gaussians:
        """Concatenate along the batch axis (``dim`` = 0, the default) or another leading axis."""
        names = [f.name for f in fields(Gaussians)]
        return Gaussians(**{name: torch.cat([getattr(p, name) for p in parts], dim) for name in names})


FieldScenes = TriPlanes | ImplicitScenes | SdfPlanes
"""What rays are followed through."""
Scenes = Gaussians | FieldScenes
"""What generators make and renderers draw."""


def cat_scenes(parts: list[Scenes]) -> Scenes:
    """One batch of scenes from several of one kind."""
    return type(parts[0]).cat(parts)  # type: ignore[arg-type]


def as_batch(scenes: Scenes) -> Scenes:
    """One scene of Gaussians as a batch of one; batches as they are."""
    return scenes.map(lambda tensor: tensor[None]) if scenes.tensors()[0].ndim == 2 else scenes


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
        betas: scale of the surfaces of signed distance, world units, times coverage; None of other scenes.
    """

    images: Float[Tensor, "batch view 3 height width"]
    alphas: Float[Tensor, "batch view height width 1"]
    depths: Float[Tensor, "batch view height width 1"] | None = None
    raw_images: Float[Tensor, "batch view 3 raw_height raw_width"] | None = None
    betas: Float[Tensor, "batch view height width 1"] | None = None


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


@dataclass(frozen=True, kw_only=True)
class SdfOutput:
    """A generated batch of scenes of signed distance.

    Attributes:
        scenes: what is rendered.
        ws: the latents after the mapping network and truncation, one row per style input.
    """

    scenes: SdfPlanes
    ws: Float[Tensor, "batch num_ws w_dim"]


@dataclass(frozen=True, kw_only=True)
class ImplicitOutput:
    """A generated batch of implicit scenes.

    Attributes:
        scenes: what is rendered.
        ws: the latents after the mapping network and truncation, one row per sine layer.
    """

    scenes: ImplicitScenes
    ws: Float[Tensor, "batch num_ws w_dim"]


SceneOutput = GeneratorOutput | TriPlaneOutput | ImplicitOutput | SdfOutput
"""What generators give."""
