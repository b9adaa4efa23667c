"""Volume rendering of tri-planes (EG3D, Chan et al. 2022) and of implicit fields (pi-GAN, Chan et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from cgsgan.cameras import Cameras
from cgsgan.rendering.fields import FRONT, Field, ModulatedField, PlaneField
from cgsgan.rendering.plane_sampling import PlaneSampler
from cgsgan.rendering.ray_bundles import bundle_rays, check_pictures
from cgsgan.rendering.ray_tracing import RayTracer
from cgsgan.rendering.rays import picture_rays
from cgsgan.rendering.volume_settings import VolumeConfig
from cgsgan.types import ImplicitScenes, RenderOutput, Scenes, TriPlanes

Traceable = TriPlanes | ImplicitScenes

CPU_POINTS_AT_ONCE = 1 << 16
"""Without gradients, on a CPU: what a chunk makes then stays in the cache."""


@dataclass(frozen=True, kw_only=True)
class TracedPictures:
    """What rays through every pixel found, before any background and super-resolution.

    Attributes:
        features: composited colour features, [0, 1] times coverage; the first three are RGB.
        alphas: coverage, 1 - transmittance.
        distances: mean distance **along the ray**, world units; where nothing is hit, clamped to the range of all
            sampled distances of the batch. Published EG3D code calls this depth.
        depths: mean z-depth, world units; 0 where nothing is hit.
    """

    features: Float[Tensor, "batch view feature size size"]
    alphas: Float[Tensor, "batch view size size 1"]
    distances: Float[Tensor, "batch view size size 1"]
    depths: Float[Tensor, "batch view size size 1"]


class VolumeRenderer:
    """A :class:`~cgsgan.rendering.renderer.Renderer` of tri-planes and of implicit fields.

    It looks at the planes only: V pictures of a scene need its planes to be generated once. As it is made, a renderer
    is deterministic and uses the sample counts of inference; :meth:`for_training` gives the random one.

    Scenes without a super-resolution are rendered at the size that is asked for and laid on the backgrounds. Scenes
    with one are rendered at ``neural_resolution`` and refined, to the size of the network, and resized where another
    is asked for; coverage and depth are interpolated from the neural resolution (bilinear), and backgrounds enter only
    as ``white_back`` and ``backgrounds_behind_refined`` say.

    Memory: B planes, laid out again; per ray its geometry and result; and one chunk of ``points_at_once`` samples,
    with its graph while gradients are computed. It does not grow with the samples per ray until one ray of one scene
    has more than that.

    Args:
        config: see :class:`VolumeConfig`.
        training_size: image size in pixels at which the generator was trained. A ray is the same at every size, so
            pictures do not depend on it.
    """

    def __init__(
        self,
        config: VolumeConfig,
        training_size: int,
        *,
        jitter_seeds: Int64[Tensor, "batch view"] | None = None,
        density_noise: float = 0.0,
    ) -> None:
        self.config = config
        self.training_size = training_size
        self.jitter_seeds = jitter_seeds
        self.density_noise = density_noise

    def for_training(
        self, neural_resolution: int, jitter_seeds: Int64[Tensor, "batch view"], *, density_noise: float = 0.0
    ) -> VolumeRenderer:
        """A renderer with the sample counts of training, at random places along the rays.

        Args:
            neural_resolution: instead of the config's.
            jitter_seeds: any integers, one for each picture that will be rendered. The places depend on the seed of
                the picture, the pixel and the sample alone: not on the batch, the chunks, or the number of processes.
            density_noise: standard deviation of the noise on raw densities, which depends on the same.
        """
        config = replace(self.config, neural_resolution=neural_resolution)
        return VolumeRenderer(config, self.training_size, jitter_seeds=jitter_seeds, density_noise=density_noise)

    def with_samples(self, samples: int, importance_samples: int) -> VolumeRenderer:
        """A deterministic renderer with other sample counts, such as 96 and 96 for a video."""
        counts = {"inference_samples": samples, "inference_importance_samples": importance_samples}
        return VolumeRenderer(replace(self.config, **counts), self.training_size)

    def __call__(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Float[Tensor, "batch view 3"],
        depth: bool = False,
    ) -> RenderOutput:
        """See :class:`~cgsgan.rendering.renderer.Renderer`."""
        if not isinstance(scenes, TriPlanes | ImplicitScenes):
            raise ValueError(
                f"VolumeRenderer: expected scenes of tri-planes or of implicit fields, got {type(scenes).__name__}"
            )
        refined = isinstance(scenes, TriPlanes) and scenes.refine is not None
        resolution = self.config.neural_resolution if refined else size
        traced = self.trace(scenes, cameras, resolution)
        colors = backgrounds.to(traced.features)[..., None, None]
        behind = (1 - traced.alphas.movedim(-1, -3)) * colors
        if not refined:
            depths = traced.depths if depth else None
            return RenderOutput(images=traced.features[:, :, :3] + behind, alphas=traced.alphas, depths=depths)
        features = traced.features
        if self.config.white_back:
            features = features + (1 - traced.alphas.movedim(-1, -3))
        images = _resized(_refined(scenes, features), size)
        raw_images = features[:, :, :3]
        alphas = _enlarged(traced.alphas, size)
        if self.config.backgrounds_behind_refined:
            cover = alphas.movedim(-1, -3)
            # What the super-resolution adds counts where something is: it cannot tint the background, which a
            # discriminator that sees the raw picture, too, would know at once.
            plain = _resized(raw_images, size)
            images = plain + cover * (images - plain) + (1 - cover) * colors
            raw_images = raw_images + behind
        return RenderOutput(
            images=images,
            alphas=alphas,
            depths=_enlarged_depths(traced.depths, size) if depth else None,
            raw_images=raw_images,
        )

    def trace(self, scenes: Traceable, cameras: Cameras, resolution: int) -> TracedPictures:
        """Follow the rays of ``resolution`` x ``resolution`` pictures of cameras ``[batch, view]``.

        Raises:
            ValueError: when scenes, cameras and jitter seeds do not belong together.
        """
        check_pictures("VolumeRenderer", scenes, cameras, self.jitter_seeds)
        scenes = _full_precision(scenes)
        like = scenes.tensors()[0]
        with torch.autocast(like.device.type, enabled=False):
            rays = picture_rays(cameras.map(lambda t: t.to(like)), resolution)
            config = self.config
            tracer = RayTracer(
                field=self._field(scenes),
                near=config.near,
                far=config.far,
                counts=config.sample_counts(training=self.jitter_seeds is not None),
                activation=config.density_activation,
                density_noise=self.density_noise,
                opaque_end=config.opaque_end,
            )
            bundle = bundle_rays(rays, self.jitter_seeds, noisy=self.density_noise > 0)
            grad = torch.is_grad_enabled()
            found = tracer.trace(bundle, points_at_once=self._points(scenes), recompute=grad)
        features, alphas, distances = (t.unflatten(1, (-1, resolution, resolution)) for t in found)
        z_per_distance = rays.z_per_distance.view_as(distances)
        return TracedPictures(
            features=features.movedim(-1, 2),
            alphas=alphas,
            distances=distances,
            depths=torch.where(alphas > 0, distances * z_per_distance, 0.0),
        )

    def query(
        self, scenes: Traceable, points: Float[Tensor, "batch point 3"]
    ) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point feature"]]:
        """Raw densities (see :func:`~cgsgan.rendering.marching.activate_density`) and colour features at points.

        In chunks of ``points_at_once``; with gradients, the graphs of all of them are kept.

        Args:
            scenes: ``[B, ...]``.
            points: world units.
        """
        scenes = _full_precision(scenes)
        like = scenes.tensors()[0]
        front = like.new_tensor(FRONT).expand(len(points), 1, 3)
        with torch.autocast(like.device.type, enabled=False):
            field = self._field(scenes)
            parts = [
                field(part.to(like).unsqueeze(1), front, 0)
                for part in points.split(max(1, self._points(scenes) // len(points)), dim=1)
            ]
        raw_densities = torch.cat([raw.squeeze(1).unsqueeze(-1) for raw, _ in parts], dim=1)
        return raw_densities, torch.cat([color.squeeze(1) for _, color in parts], dim=1)

    def _field(self, scenes: Traceable) -> Field:
        if isinstance(scenes, ImplicitScenes):
            return ModulatedField(scenes, frontal=self.jitter_seeds is None and self.config.frontal_colors)
        sampler = PlaneSampler(scenes.planes, axes=self.config.plane_axes, box_size=self.config.box_warp)
        return PlaneField(sampler, scenes.decode)

    def _points(self, scenes: Traceable) -> int:
        if torch.is_grad_enabled() or scenes.tensors()[0].device.type != "cpu":
            return self.config.points_at_once
        return min(self.config.points_at_once, CPU_POINTS_AT_ONCE)


def _full_precision(scenes: Traceable) -> Traceable:
    """Planes in float32 (or float64): less moves samples by pixels, and the decoder is small."""
    if scenes.tensors()[0].dtype == torch.float64:
        return scenes
    if isinstance(scenes, TriPlanes):
        return replace(scenes, planes=scenes.planes.float())
    return scenes.map(torch.Tensor.float)


def _refined(scenes: Scenes, features: Tensor) -> Float[Tensor, "batch view 3 height width"]:
    """Super-resolution of every picture, [0, 1] to [0, 1]; the network works in [-1, 1]."""
    assert isinstance(scenes, TriPlanes)
    assert scenes.refine is not None
    views = features.shape[1]
    signed = features.flatten(0, 1) * 2 - 1
    refined = scenes.refine(signed[:, :3], signed, scenes.ws.repeat_interleave(views, dim=0))
    return ((refined + 1) / 2).unflatten(0, (-1, views))


def _resized(images: Tensor, size: int) -> Float[Tensor, "batch view channel size size"]:
    if images.shape[-1] == size:
        return images
    flat = images.flatten(0, 1)
    return interpolate(flat, (size, size), mode="bilinear", antialias=True).unflatten(0, images.shape[:2])


def _enlarged(maps: Tensor, size: int) -> Float[Tensor, "batch view size size 1"]:
    return _resized(maps.movedim(-1, -3), size).movedim(-3, -1)


def _enlarged_depths(depths: Tensor, size: int) -> Float[Tensor, "batch view size size 1"]:
    """Where a neighbour hit nothing, its 0 is no depth and does not count."""
    hit = (depths > 0).to(depths.dtype)
    share = _enlarged(hit, size)
    return torch.where(share > 0, _enlarged(depths, size) / torch.where(share > 0, share, 1.0), 0.0)


__all__ = ["TracedPictures", "VolumeConfig", "VolumeRenderer"]
