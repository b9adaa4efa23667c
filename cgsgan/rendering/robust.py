"""Every pixel of tri-planes of signed distance, with few samples (WYSIWYG; Trevithick et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from cgsgan.cameras import Cameras
from cgsgan.rendering.plane_sampling import PlaneSampler
from cgsgan.rendering.ray_bundles import RayBundle, bundle_rays, check_pictures
from cgsgan.rendering.rays import picture_rays
from cgsgan.rendering.robust_pictures import Probe, TracedRays, merge_groups, output_pictures, select_rays
from cgsgan.rendering.robust_places import ImportancePlacing, Proposal, ProposedPlacing, UniformPlacing
from cgsgan.rendering.robust_sampling import share_out
from cgsgan.rendering.robust_settings import RaySampler, RobustConfig
from cgsgan.rendering.sdf_tracing import Composited, Placing, SdfTracer
from cgsgan.types import RenderOutput, Scenes, SdfPlanes

CPU_POINTS_AT_ONCE = 1 << 16
"""Without gradients, on a CPU: what a chunk makes then stays in the cache."""
WITHOUT_PROPOSAL: tuple[RaySampler, ...] = ("uniform", "importance")


class RobustRenderer:
    """A :class:`~cgsgan.rendering.renderer.Renderer` of tri-planes of signed distance.

    Pictures are rendered pixel by pixel at the size that is asked for; there is no super-resolution. A small probe is
    rendered first, the scenes' own network guesses from it where the rays of the picture meet something, and only
    there are they looked at. Places never carry gradients; what is found there does.

    As it is made, a renderer is deterministic and has the samples of inference: more at the pixels with the widest
    sets. :meth:`for_training` gives the random one, with ``samples`` at every pixel. Its parts are there for
    training: :meth:`render_uniform`, :meth:`propose` and :meth:`render_robust`, :meth:`weights_of_patch`.

    Memory: B planes, laid out again; per ray of the picture its geometry, result and proposal (``bins`` numbers); the
    probe's weights; and one chunk of ``points_at_once`` samples, with its graph while gradients are computed.

    Args:
        config: see :class:`RobustConfig`.
        training_size: image size in pixels at which the generator was trained. A ray is the same at every size.
        jitter_seeds: of the random places, one for each picture; None: the regular ones.
    """

    def __init__(
        self, config: RobustConfig, training_size: int, *, jitter_seeds: Int64[Tensor, "batch view"] | None = None
    ) -> None:
        self.config = config
        self.training_size = training_size
        self.jitter_seeds = jitter_seeds

    def for_training(self, jitter_seeds: Int64[Tensor, "batch view"]) -> RobustRenderer:
        """A renderer with the sample counts of training, at random places along the rays.

        Args:
            jitter_seeds: any integers, one for each picture that will be rendered. The places depend on the seed of
                the picture, the pixel and the sample alone: not on the batch, the chunks, or the number of processes.
        """
        return RobustRenderer(self.config, self.training_size, jitter_seeds=jitter_seeds)

    def with_sampler(self, sampler: RaySampler, samples: int) -> RobustRenderer:
        """A deterministic renderer with another sampler and the same number of samples at every pixel.

        Such as ``uniform`` with 192: what the few samples of the others approach, and all that can be had before the
        proposal network has learnt anything.
        """
        counts = {"samples": samples, "inference_samples": samples, "inference_wide_samples": samples}
        strata = min(self.config.strata, samples)
        return RobustRenderer(replace(self.config, sampler=sampler, strata=strata, **counts), self.training_size)

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
        return self.render_robust(scenes, cameras, size=size, backgrounds=backgrounds, depth=depth)

    def render_robust(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Float[Tensor, "batch view 3"],
        depth: bool = False,
        logits: Float[Tensor, "batch view bin height width"] | None = None,
    ) -> RenderOutput:
        """Render pictures by the config's sampler.

        Args:
            scenes: ``[B, ...]``.
            cameras: ``[B, V]``.
            size: width and height in pixels.
            backgrounds: solid colours.
            depth: also give expected depth.
            logits: from :meth:`propose` for the same scenes and cameras, so that they need not be made again.
        """
        planes = self._checked(scenes, cameras)
        proposed = None
        if self.config.sampler not in WITHOUT_PROPOSAL:
            with torch.no_grad():
                proposed = self._proposal(self.propose(planes, cameras) if logits is None else logits, size)
        with _no_autocast(planes):
            pictures = self._pictures(planes, cameras, size)
            if proposed is None or self.jitter_seeds is not None:
                found = self._all_samples(pictures, proposed)
            else:
                found = self._adaptive(pictures, proposed)
        return output_pictures(pictures, found, backgrounds, depth=depth)

    def render_uniform(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Float[Tensor, "batch view 3"],
        depth: bool = False,
        samples: int | None = None,
    ) -> RenderOutput:
        """Render pictures from one place in each of ``samples`` equal parts of every ray (``bins`` by default).

        The first stage of training, at a low resolution; random places in a renderer for training.
        """
        planes = self._checked(scenes, cameras)
        with _no_autocast(planes):
            pictures = self._pictures(planes, cameras, size)
            found = self._composite(pictures, self._uniform(pictures.rays, samples or self.config.bins), samples)
        return output_pictures(pictures, found, backgrounds, depth=depth)

    def probe(self, scenes: Scenes, cameras: Cameras) -> Probe:
        """The pictures and weights that the proposal network is given. Without gradients, at regular places."""
        size = self.config.probe_resolution
        planes = self._checked(scenes, cameras)
        with _no_autocast(planes), torch.no_grad():
            pictures = self._pictures(planes, cameras, size)
            colors, weights = self._bin_weights(pictures)
        shape = (pictures.views, size, size)
        return Probe(
            images=colors.unflatten(1, shape).movedim(-1, 2), weights=weights.unflatten(1, shape).movedim(-1, 2)
        )

    def propose(self, scenes: Scenes, cameras: Cameras) -> Float[Tensor, "batch view bin height width"]:
        """Logits over the bins of every ray of the full-resolution pictures, at the resolution of the network.

        Gradients reach the proposal network alone.

        Raises:
            ValueError: when the network and the renderer do not have the same bins.
        """
        planes = self._checked(scenes, cameras)
        probe = self.probe(planes, cameras)
        logits = planes.propose(probe.images.flatten(0, 1), probe.weights.flatten(0, 1))
        return logits.unflatten(0, probe.images.shape[:2])

    def weights_of_patch(
        self, scenes: Scenes, cameras: Cameras, *, size: int, corner: tuple[int, int], patch: int
    ) -> Float[Tensor, "batch view bin patch patch"]:
        """Weights of the bins of the rays in a square part of large pictures. Without gradients, at regular places.

        Args:
            scenes: ``[B, ...]``.
            cameras: ``[B, V]``.
            size: of the whole pictures, pixels.
            corner: first row and first column.
            patch: rows and columns.

        Raises:
            ValueError: for a patch that does not lie within the picture.
        """
        row, column = corner
        if not (patch >= 1 and 0 <= row <= size - patch and 0 <= column <= size - patch):
            raise ValueError(f"weights_of_patch: expected {patch} rows and columns within {size}, got corner {corner}")
        planes = self._checked(scenes, cameras)
        rows, columns = (torch.arange(patch, device=planes.planes.device) + start for start in corner)
        pixels = (rows[:, None] * size + columns).flatten()
        with _no_autocast(planes), torch.no_grad():
            weights = self._bin_weights(self._pictures(planes, cameras, size, pixels))[1]
        return weights.unflatten(1, (-1, patch, patch)).movedim(-1, 2)

    def query(
        self, scenes: Scenes, points: Float[Tensor, "batch point 3"]
    ) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point 1"], Float[Tensor, "batch point feature"]]:
        """Signed distances and betas (world units) and colour features at points (world units).

        In chunks of ``points_at_once``; with gradients, the graphs of all of them are kept.
        """
        planes = self._checked(scenes)
        with _no_autocast(planes):
            tracer = self._tracer(planes)
            split = max(1, tracer.points_at_once // len(points))
            parts = [tracer.query(part.to(planes.planes)) for part in points.split(split, dim=1)]
        signed, betas, features = (torch.cat([part[i] for part in parts], dim=1) for i in range(3))
        return signed, betas, features

    def _all_samples(self, pictures: TracedRays, proposed: Proposal | None) -> Composited:
        """The same number of samples at every pixel."""
        config, rays = self.config, pictures.rays
        count = config.inference_samples if self.jitter_seeds is None else config.samples
        if proposed is not None:
            placing = ProposedPlacing(config=config, proposal=proposed, count=count, keys=rays.keys)
        elif config.sampler == "uniform":
            placing = self._uniform(rays, count)
        else:
            uniform = self._uniform(rays, count - count // 2)
            placing = ImportancePlacing(tracer=pictures.tracer, rays=rays, uniform=uniform, count=count)
        return self._composite(pictures, placing, count)

    def _adaptive(self, pictures: TracedRays, proposed: Proposal) -> Composited:
        """More samples at the pixels of each picture with the widest sets."""
        config, views = self.config, pictures.views
        widths = proposed.widths.unflatten(1, (views, -1))
        first_ray = torch.arange(views, device=widths.device)[:, None] * widths.shape[-1]
        groups = [(first_ray + group).flatten(1) for group in share_out(widths, config.wide_share)]
        found = []
        for chosen, count in zip(groups, (config.inference_samples, config.inference_wide_samples)):
            if chosen.shape[1] == 0:
                continue
            placing = ProposedPlacing(config=config, proposal=proposed.select(chosen), count=count, keys=None)
            found.append(self._composite(replace(pictures, rays=select_rays(pictures.rays, chosen)), placing, count))
        return merge_groups(found, groups)

    def _composite(self, pictures: TracedRays, placing: Placing, samples: int | None) -> Composited:
        count = self.config.bins if samples is None else samples
        return pictures.tracer.composite(pictures.rays, placing, samples=count, recompute=torch.is_grad_enabled())

    def _bin_weights(self, pictures: TracedRays) -> tuple[Tensor, Tensor]:
        rays = replace(pictures.rays, keys=None)
        return pictures.tracer.weights(rays, self._uniform(rays, self.config.bins), samples=self.config.bins)

    def _uniform(self, rays: RayBundle, count: int) -> UniformPlacing:
        return UniformPlacing(config=self.config, like=rays.origins, count=count, keys=rays.keys)

    def _proposal(self, logits: Tensor, size: int) -> Proposal:
        """Distributions of all rays; at another size than that of the network, mixed from the neighbours'."""
        bins = self.config.bins
        if logits.ndim != 5 or logits.shape[2] != bins:
            raise ValueError(
                f"bins: the renderer cuts rays into {bins}; expected logits [batch, view, {bins}, height, width], but "
                f"the proposal network gives {list(logits.shape)}"
            )
        probabilities = logits.float().softmax(dim=2).flatten(0, 1)
        if probabilities.shape[-2:] != (size, size):
            probabilities = interpolate(probabilities, (size, size), mode="bilinear", antialias=True)
        per_ray = probabilities.unflatten(0, logits.shape[:2]).movedim(2, -1).flatten(1, 3)
        return Proposal.make(per_ray, self.config)

    def _pictures(
        self, scenes: SdfPlanes, cameras: Cameras, size: int, pixels: Int64[Tensor, " pixel"] | None = None
    ) -> TracedRays:
        """Rays of all pixels or of some."""
        rays = picture_rays(cameras.map(lambda t: t.to(scenes.planes)), size)
        z_per_distance = rays.z_per_distance if pixels is None else rays.z_per_distance[:, :, pixels]
        return TracedRays(
            rays=bundle_rays(rays, self.jitter_seeds, pixels=pixels),
            z_per_distance=z_per_distance.flatten(1).unsqueeze(-1),
            tracer=self._tracer(scenes),
            views=cameras.viewmats.shape[1],
            size=size,
        )

    def _tracer(self, scenes: SdfPlanes) -> SdfTracer:
        sampler = PlaneSampler(scenes.planes, axes=self.config.plane_axes, box_size=self.config.box_warp)
        points = self.config.points_at_once
        if not torch.is_grad_enabled() and scenes.planes.device.type == "cpu":
            points = min(points, CPU_POINTS_AT_ONCE)
        return SdfTracer(sampler=sampler, decode=scenes.decode, points_at_once=points)

    def _checked(self, scenes: Scenes, cameras: Cameras | None = None) -> SdfPlanes:
        """The scenes, in float32 or float64: less moves samples by pixels."""
        if not isinstance(scenes, SdfPlanes):
            raise ValueError(
                f"RobustRenderer: expected scenes of tri-planes of signed distance, got {type(scenes).__name__}"
            )
        if cameras is not None:
            check_pictures("RobustRenderer", scenes, cameras, self.jitter_seeds)
        planes = scenes.planes
        return scenes if planes.dtype == torch.float64 else replace(scenes, planes=planes.float())


def _no_autocast(scenes: SdfPlanes) -> torch.autocast:
    return torch.autocast(scenes.planes.device.type, enabled=False)
