"""The objective of tri-planes of signed distance: stages of rendering, tight surfaces, a sampler taught beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.losses.density import density_smoothness
from cgsgan.losses.proposal import proposal_cross_entropy
from cgsgan.losses.surface import eikonal, mean_beta, tightness
from cgsgan.models.triplane.resampling import resize
from cgsgan.rendering.proposal import proposal_targets
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.sdf_density import laplace_density
from cgsgan.training.draws import DensityDraws, FakeDraws, step_generator
from cgsgan.training.judged import JudgedImages
from cgsgan.training.judging import Stats
from cgsgan.training.steps import AdversarialSteps, told_cameras
from cgsgan.training.surface import SurfaceTrainingConfig
from cgsgan.types import RenderOutput, Scenes

PATCH_STREAM = 2**17
"""Of random numbers; far from those of latents, pictures and points."""


@dataclass(kw_only=True)
class SurfaceSteps(AdversarialSteps):
    """Both players and how their gradients are made; other attributes are those of :class:`AdversarialSteps`.

    Attributes:
        surface: stages and weights.
    """

    surface: SurfaceTrainingConfig

    @property
    def volumetric(self) -> bool:
        """Pictures are rendered with random samples."""
        return True

    def density_due(self, step_index: int, images_seen: int) -> bool:
        """Only in the early stage."""
        return images_seen < self.surface.density_kimg * 1000 and super().density_due(step_index, images_seen)

    def present_reals(self, reals: JudgedImages, images_seen: int) -> JudgedImages:
        """Real pictures with as much detail as generated ones have at this moment."""
        return replace(reals, images=self._with_detail(reals.images, images_seen))

    def density_gradients(self, draws: DensityDraws) -> Stats:
        """Accumulate the gradient of the lazy regularisation: weight * interval * mean |difference of density|."""
        planes, renderer = self.planes, self._robust
        with self.autocast():
            scenes = self.generator(draws.z, **told_cameras(draws.told_labels)).scenes

        def density(points: Tensor) -> Tensor:
            distances, betas, _ = renderer.query(scenes, points)
            return laplace_density(distances, betas)

        difference = density_smoothness(density, draws.points, draws.offsets)
        loss = difference * (planes.density_weight * planes.density_interval)
        stats = {"density": difference.detach()}
        if self.surface.eikonal_weight > 0:
            error = eikonal(lambda points: renderer.query(scenes, points)[0], draws.points, 2 * planes.density_distance)
            loss = loss + error * (self.surface.eikonal_weight * planes.density_interval)
            stats["eikonal"] = error.detach()
        loss.backward()
        return stats

    def _render(self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int) -> JudgedImages:
        return self._present(self._follow_rays(scenes, draws, view, images_seen), draws, view, images_seen)

    def _render_view(
        self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int
    ) -> tuple[JudgedImages, Tensor | None, Stats]:
        """One view of every scene; that its surface is not as tight as it should be; what the sampler has to learn."""
        surface, logits = self.surface, None
        losses: list[Tensor] = []
        stats: Stats = {}
        if surface.stage(images_seen) != "low":
            taught, entropy, logits = self._teach_sampler(scenes, draws, view, images_seen)
            losses.append(taught * surface.proposal_weight)
            # The patch decides the entropy: only what is above it tells how well the sampler knows its targets.
            stats |= {"proposal": taught.detach(), "proposal_divergence": taught.detach() - entropy}
        rendered = self._follow_rays(scenes, draws, view, images_seen, logits)
        assert rendered.betas is not None
        mean = mean_beta(rendered.betas, rendered.alphas)
        losses.append(tightness(mean, surface.beta_target(images_seen)) * surface.tightness_weight)
        stats["mean_beta"] = mean.detach()
        loss = torch.stack(losses).sum()
        return self._present(rendered, draws, view, images_seen), loss, stats

    def _follow_rays(
        self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int, logits: Tensor | None = None
    ) -> RenderOutput:
        """Small pictures with uniform samples, or large ones with the sampler's."""
        assert draws.jitter_seeds is not None, "a renderer of fields needs draws with jitter"
        surface, renderer = self.surface, self._robust.for_training(draws.jitter_seeds[:, view, None])
        cameras = _cameras(draws, view)
        backgrounds = draws.backgrounds[:, view].unsqueeze(1)
        if surface.stage(images_seen) == "full":
            return renderer.render_robust(
                scenes,
                cameras,
                size=self.size,
                backgrounds=backgrounds,
                logits=None if logits is None else logits.detach(),
            )
        size, samples = surface.low_resolution, surface.low_samples
        return renderer.render_uniform(scenes, cameras, size=size, backgrounds=backgrounds, samples=samples)

    def _teach_sampler(
        self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy of what the sampler proposes on a random patch, whose gradient reaches the sampler alone; the
        least it could be, the entropy of the targets; and the logits of whole pictures.
        """
        given, cameras, patch = scenes.map(Tensor.detach), _cameras(draws, view), self.surface.patch_size
        logits = self._robust.propose(given, cameras)
        # One patch for all pictures, wherever they are: a function of the moment alone.
        random = step_generator(images_seen, view, PATCH_STREAM)
        row, column = torch.randint(self.size - patch + 1, (2,), generator=random).tolist()
        weights = self._robust.weights_of_patch(given, cameras, size=self.size, corner=(row, column), patch=patch)
        proposed = logits[..., row : row + patch, column : column + patch]
        targets = proposal_targets(weights)
        entropy = -torch.xlogy(targets, targets).sum(dim=2).mean()
        return proposal_cross_entropy(proposed, targets), entropy, logits

    def _present(self, rendered: RenderOutput, draws: FakeDraws, view: int, images_seen: int) -> JudgedImages:
        images = rendered.images.squeeze(1)
        low = images.shape[-1] != self.size
        images = resize(images, self.size) if low else self._with_detail(images, images_seen)
        return JudgedImages(images=images, camera_labels=draws.camera_labels[:, view], z=draws.z)

    def _with_detail(self, images: Tensor, images_seen: int) -> Tensor:
        """Large pictures without what small ones cannot show, or with a share of it."""
        share = self.surface.detail(images_seen)
        if share == 1 or self.surface.low_resolution >= self.size:
            return images
        blurred = resize(resize(images, self.surface.low_resolution), self.size)
        return blurred.lerp(images, share) if share > 0 else blurred

    @property
    def _robust(self) -> RobustRenderer:
        assert isinstance(self.renderer, RobustRenderer)
        return self.renderer


def _cameras(draws: FakeDraws, view: int) -> Cameras:
    return Cameras.from_labels(draws.camera_labels[:, view].unsqueeze(1))
