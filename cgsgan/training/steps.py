"""The objective, the generator's side: methods accumulate gradients and return named scalars. No optimiser, no loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import generator_loss, relativistic_generator_loss
from cgsgan.losses.density import density_smoothness
from cgsgan.models.mapping import Mapping
from cgsgan.rendering.volume import VolumeRenderer
from cgsgan.training.draws import DensityDraws, FakeDraws
from cgsgan.training.growth import enlarge
from cgsgan.training.judged import JudgedImages
from cgsgan.training.judging import DiscriminatorSteps, Stats, logits_of
from cgsgan.training.multiview import multiview_backward
from cgsgan.training.regularization import regularize_anchors
from cgsgan.training.schedules import density_noise
from cgsgan.types import RenderOutput, SceneOutput, Scenes


@dataclass(kw_only=True)
class AdversarialSteps(DiscriminatorSteps):
    """Both players and how their gradients are made; other attributes are those of :class:`DiscriminatorSteps`.

    Attributes:
        generator: latents to scenes.
        views_apart: each view of a scene is judged in a call of its own; otherwise all in one.
    """

    generator: nn.Module
    views_apart: bool = True

    @property
    def conditioned(self) -> bool:
        """Whether the generator is told cameras."""
        return bool(getattr(self.generator.config, "camera_conditioning", False))

    @property
    def volumetric(self) -> bool:
        """Whether pictures are rendered with random samples."""
        return isinstance(self.renderer, VolumeRenderer)

    def density_due(self, step_index: int, images_seen: int) -> bool:
        """Whether density is regularised in this step."""
        return self.planes.density_weight > 0 and step_index % self.planes.density_interval == 0

    def generator_gradients(
        self,
        draws: FakeDraws,
        images_seen: int,
        *,
        keep_view: int | None = None,
        reals: JudgedImages | None = None,
    ) -> tuple[Stats, JudgedImages | None]:
        """Accumulate the generator's gradient over all views of ``draws``.

        Args:
            draws: B latents with V cameras and backgrounds each, or B x V latents with one each.
            images_seen: for the blur schedule.
            keep_view: also give the pictures of this view, for the discriminator's step.
            reals: what fakes are compared with by a relativistic objective.
        """
        self.freeze_discriminator(True)
        real_logits = self._rivals(reals, images_seen)
        scenes, found = draws.scenes(), []
        kept: JudgedImages | None = None
        for view, part in enumerate(scenes):
            keep = keep_view if len(scenes) == 1 else (0 if view == keep_view else None)
            stats, fakes = self._scene_gradients(part, images_seen, keep, real_logits, share=1 / len(scenes))
            found.append(stats)
            kept = fakes or kept
        self.freeze_discriminator(False)
        return _mean_stats(found), kept

    def _scene_gradients(
        self, draws: FakeDraws, images_seen: int, keep_view: int | None, real_logits: Tensor | None, *, share: float
    ) -> tuple[Stats, JudgedImages | None]:
        """``share`` of the gradient of one set of scenes, averaged over their views."""
        output = self._generate(draws)
        views = range(draws.camera_labels.shape[1])
        logits: list[Tensor] = []
        errors: list[Stats] = []
        kept: list[JudgedImages] = []
        measured: list[Stats] = []

        def view_loss(scenes: Scenes, view: int) -> Tensor:
            pictures, penalty, found = self._render_view(scenes, draws, view, images_seen)
            measured.append(found)
            if view == keep_view:
                fakes = self.judge_for_both(pictures, images_seen)
                kept.append(fakes)
                loss = self._generator_loss(fakes, real_logits, errors)
                gradients = torch.autograd.grad(loss, fakes.parts, retain_graph=True)
                # A loss with exactly these gradients at the pictures.
                loss = sum((part * gradient).sum() for part, gradient in zip(pictures.parts, gradients, strict=True))
                assert isinstance(loss, Tensor)
            else:
                fakes = self.judge(pictures, images_seen)
                loss = self._generator_loss(fakes, real_logits, errors)
            logits.append(logits_of(fakes).detach())
            return _add_penalties(loss, [penalty]) * share

        def joint_loss(scenes: Scenes, _: int) -> Tensor:
            rendered = [self._render_view(scenes, draws, view, images_seen) for view in views]
            measured.extend(found for _, _, found in rendered)
            pictures = [view for view, _, _ in rendered]
            if keep_view is not None:
                kept.append(pictures[keep_view].map(torch.Tensor.detach))
            seen = [self.discriminator_input(self.as_judged(view, images_seen), images_seen) for view in pictures]
            # Views of a scene lie B apart, as the members of a minibatch-std group do when V is a multiple of its size.
            labels = torch.cat([view.camera_labels for view in pictures])
            judgement = self.discriminate([torch.cat(part) for part in zip(*seen, strict=True)], labels)
            logits.append(judgement.logits.detach())
            rivals = None if real_logits is None else real_logits.repeat(len(views), 1)
            images, z = torch.cat([view.images for view in pictures]), draws.z.repeat(len(views), 1)
            fakes = JudgedImages(images=images, camera_labels=labels, z=z, **judgement.parts())
            return _add_penalties(self._generator_loss(fakes, rivals, errors), [p for _, p, _ in rendered]) * share

        regularizer, stats = regularize_anchors(output, self.loss)
        if regularizer is not None:
            regularizer = regularizer * share
        apart = self.views_apart or len(views) == 1
        multiview_backward(
            output.scenes,
            view_loss if apart else joint_loss,
            views=len(views) if apart else 1,
            regularizer=regularizer,
        )
        stats |= _mean_stats(measured) | {"generator_logits": torch.cat(logits).mean()} | _mean_stats(errors)
        return stats, kept[0] if kept else None

    @torch.no_grad()
    def fresh_fakes(self, draws: FakeDraws, images_seen: int) -> JudgedImages:
        """Pictures of new latents (view 0 of ``draws``), without a graph."""
        return self._render(self._generate(draws).scenes, draws, 0, images_seen)

    def density_gradients(self, draws: DensityDraws) -> Stats:
        """Accumulate the gradient of the lazy regularisation of density: weight * interval * mean |difference|."""
        planes = self.planes
        renderer = self.renderer
        assert isinstance(renderer, VolumeRenderer), "only tri-planes have a density"
        with self.autocast():
            scenes = self.generator(draws.z, **told_cameras(draws.told_labels)).scenes
        difference = density_smoothness(lambda points: renderer.query(scenes, points)[0], draws.points, draws.offsets)
        (difference * (planes.density_weight * planes.density_interval)).backward()
        return {"density": difference.detach()}

    def _generator_loss(self, fakes: JudgedImages, real_logits: Tensor | None, errors: list[Stats]) -> Tensor:
        """Of fakes that have been judged; what was recognised of them goes to ``errors``."""
        logits = logits_of(fakes)
        loss = generator_loss(logits) if real_logits is None else relativistic_generator_loss(logits, real_logits)
        return self.with_recognition(loss, fakes, errors)

    @torch.no_grad()
    def _rivals(self, reals: JudgedImages | None, images_seen: int) -> Tensor | None:
        """Logits of the real pictures that fakes are compared with, for an objective that does so."""
        if self.loss.objective != "relativistic":
            return None
        assert reals is not None, "a relativistic generator needs real pictures"
        return self.judge(reals, images_seen).logits

    def _generate(self, draws: FakeDraws) -> SceneOutput:
        update, told = self.generator.training, told_cameras(draws.told_labels)
        with self.autocast():
            if draws.mixed_z is None or draws.crossovers is None:
                return self.generator(draws.z, update_w_average=update, **told)
            mapping: Mapping = self.generator.mapping  # type: ignore[assignment]
            first = mapping(draws.z, update_average=update, **told)
            second = mapping(draws.mixed_z, **told)
            rows = torch.arange(first.shape[1], device=first.device)
            keep = rows < draws.crossovers[:, None]
            return self.generator(ws=torch.where(keep[:, :, None], first, second))

    def _render_view(
        self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int
    ) -> tuple[JudgedImages, Tensor | None, Stats]:
        """One view of every scene, and what it costs the generator beside being judged: nothing here."""
        return self._render(scenes, draws, view, images_seen), None, {}

    def _render(self, scenes: Scenes, draws: FakeDraws, view: int, images_seen: int) -> JudgedImages:
        """One view of every scene; with what was before super-resolution, if that is judged."""
        labels, renderer = draws.camera_labels[:, view], self.renderer
        if isinstance(renderer, VolumeRenderer):
            assert draws.jitter_seeds is not None, "a volume renderer needs draws with jitter"
            seeds = draws.jitter_seeds[:, view, None]
            config = renderer.config
            noise = density_noise(images_seen, initial=config.density_noise, kimg=config.density_noise_kimg)
            renderer = renderer.for_training(self.neural_resolution(images_seen), seeds, density_noise=noise)
        rendered: RenderOutput = renderer(
            scenes,  # type: ignore[arg-type]
            Cameras.from_labels(labels.unsqueeze(1)),
            size=self.growth.size(images_seen, self.size),
            backgrounds=draws.backgrounds[:, view].unsqueeze(1),
        )
        raw = rendered.raw_images.squeeze(1) if self.dual and rendered.raw_images is not None else None
        images = enlarge(rendered.images.squeeze(1), self.size)
        return JudgedImages(images=images, camera_labels=labels, raw_images=raw, z=draws.z)


def _add_penalties(loss: Tensor, penalties: Sequence[Tensor | None]) -> Tensor:
    """Plus the mean of what views cost beside being judged."""
    given = [penalty for penalty in penalties if penalty is not None]
    return loss + torch.stack(given).mean() if given else loss


def _mean_stats(found: Sequence[Stats]) -> Stats:
    return {name: torch.stack([stats[name] for stats in found]).mean() for name in found[0]}


def told_cameras(labels: Tensor | None) -> dict[str, Tensor]:
    """The argument for a generator that is told cameras; none for others."""
    return {} if labels is None else {"camera_labels": labels}
