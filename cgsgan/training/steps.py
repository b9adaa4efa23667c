"""The objective: each method accumulates gradients in one network and returns named scalars. No optimiser, no loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import (
    discriminator_loss_fake,
    discriminator_loss_real,
    generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from cgsgan.losses.density import density_smoothness
from cgsgan.losses.gradient_penalty import r1_penalty
from cgsgan.models.discriminator import Judgement
from cgsgan.models.mapping import Mapping
from cgsgan.models.triplane.resampling import resize
from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.volume import VolumeRenderer
from cgsgan.training.draws import DensityDraws, FakeDraws
from cgsgan.training.growth import GrowthConfig, enlarge
from cgsgan.training.judged import JudgedImages
from cgsgan.training.multiview import multiview_backward
from cgsgan.training.planes import PlaneTrainingConfig
from cgsgan.training.recognition import recognition_loss
from cgsgan.training.regularization import regularize_anchors
from cgsgan.training.schedules import blur, blur_sigma, density_noise, neural_resolution
from cgsgan.training.settings import LossConfig
from cgsgan.types import RenderOutput, SceneOutput, Scenes

Stats = dict[str, Tensor]


@dataclass(kw_only=True)
class AdversarialSteps:
    """Both players and how their gradients are made.

    Attributes:
        generator: latents to scenes.
        discriminator: images in [-1, 1] and labels to logits.
        renderer: scenes to images.
        size: image size in pixels.
        loss: weights.
        planes: what only tri-planes need.
        growth: how pictures grow.
        dual: the discriminator also sees what was rendered before super-resolution.
        views_apart: each view of a scene is judged in a call of its own; otherwise all in one.
        autocast: makes the context in which the networks run (Accelerate's mixed precision).
        augment: changes pictures in [-1, 1] before the discriminator sees them.
    """

    generator: nn.Module
    discriminator: nn.Module
    renderer: Renderer
    size: int
    loss: LossConfig
    planes: PlaneTrainingConfig = field(default_factory=PlaneTrainingConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    dual: bool = False
    views_apart: bool = True
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    augment: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self._judging_weights = [p for p in self.discriminator.parameters() if p.requires_grad]

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

    def present_reals(self, reals: JudgedImages, images_seen: int) -> JudgedImages:
        """Real pictures as the discriminator is to see them at this moment of the run: as they are."""
        return reals

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
        self._freeze_discriminator(True)
        real_logits = self._rivals(reals, images_seen)
        scenes, found = draws.scenes(), []
        kept: JudgedImages | None = None
        for view, part in enumerate(scenes):
            keep = keep_view if len(scenes) == 1 else (0 if view == keep_view else None)
            stats, fakes = self._scene_gradients(part, images_seen, keep, real_logits, share=1 / len(scenes))
            found.append(stats)
            kept = fakes or kept
        self._freeze_discriminator(False)
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
                fakes = self._judge_for_both(pictures, images_seen)
                kept.append(fakes)
                loss = self._generator_loss(fakes, real_logits, errors)
                gradients = torch.autograd.grad(loss, fakes.parts, retain_graph=True)
                # A loss with exactly these gradients at the pictures.
                loss = sum((part * gradient).sum() for part, gradient in zip(pictures.parts, gradients, strict=True))
                assert isinstance(loss, Tensor)
            else:
                fakes = self._judge(pictures, images_seen)
                loss = self._generator_loss(fakes, real_logits, errors)
            logits.append(_logits_of(fakes).detach())
            return _add_penalties(loss, [penalty]) * share

        def joint_loss(scenes: Scenes, _: int) -> Tensor:
            rendered = [self._render_view(scenes, draws, view, images_seen) for view in views]
            measured.extend(found for _, _, found in rendered)
            pictures = [view for view, _, _ in rendered]
            if keep_view is not None:
                kept.append(pictures[keep_view].map(torch.Tensor.detach))
            seen = [self._discriminator_input(self._as_judged(view, images_seen), images_seen) for view in pictures]
            # Views of a scene lie B apart, as the members of a minibatch-std group do when V is a multiple of its size.
            labels = torch.cat([view.camera_labels for view in pictures])
            judgement = self._discriminate([torch.cat(part) for part in zip(*seen, strict=True)], labels)
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

    def discriminator_gradients(self, fakes: JudgedImages, reals: JudgedImages, images_seen: int) -> Stats:
        """Accumulate the discriminator's gradient on a batch of fakes and a batch of reals, judged separately."""
        if self.loss.objective == "non_saturating":
            return self.real_gradients(reals, self.fake_gradients(fakes, images_seen), images_seen)
        fakes = self._judged(fakes, images_seen)
        fake_logits, real_logits = _logits_of(fakes), _logits_of(self._judged(reals, images_seen))
        loss = relativistic_discriminator_loss(fake_logits, real_logits)
        self._with_recognition(loss, fakes).backward(inputs=self._judging_weights)
        return self._logit_stats(real_logits.detach(), fake_logits.detach())

    def fake_gradients(self, fakes: JudgedImages, images_seen: int) -> Tensor:
        """The first half of :meth:`discriminator_gradients`; gives the logits of the fakes."""
        fakes = self._judged(fakes, images_seen)
        loss = discriminator_loss_fake(_logits_of(fakes))
        self._with_recognition(loss, fakes).backward(inputs=self._judging_weights)
        return _logits_of(fakes).detach()

    def real_gradients(self, reals: JudgedImages, fake_logits: Tensor, images_seen: int) -> Stats:
        """The second half of :meth:`discriminator_gradients`."""
        real_logits = _logits_of(self._judged(reals, images_seen))
        discriminator_loss_real(real_logits).backward()
        return self._logit_stats(real_logits.detach(), fake_logits)

    def _logit_stats(self, real_logits: Tensor, fake_logits: Tensor) -> Stats:
        stats = {
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
            "logit_gap": real_logits.mean() - fake_logits.mean(),
        }
        if self.augment is not None:
            stats["real_signs"] = real_logits.sign().mean()
        return stats

    def _judged(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """With the judgement that is there already, or a new one."""
        return pictures if pictures.logits is not None else self._judge(pictures, images_seen)

    def penalty_gradients(self, reals: JudgedImages, images_seen: int, *, fakes: JudgedImages | None = None) -> Stats:
        """Accumulate the gradient of the lazy penalties, R1 on reals and R2 on fakes, those whose gamma is not 0:
        gamma / 2 * interval * mean |grad|^2.
        """
        judged = {"r1_penalty": (reals, self.loss.r1_gamma), "r2_penalty": (fakes, self.loss.resolve_r2_gamma())}
        return {
            name: self._penalize(pictures, gamma, images_seen)
            for name, (pictures, gamma) in judged.items()
            if pictures is not None and gamma > 0
        }

    def _penalize(self, pictures: JudgedImages, gamma: float, images_seen: int) -> Tensor:
        # The range conversion stands before requires_grad, so that gamma keeps its published meaning; the blur behind
        # it: the penalty is on the gradient at the picture.
        whole = self._with_raw(pictures, images_seen)
        images = [(part.detach() * 2 - 1).requires_grad_(True) for part in whole.parts]
        image, *raw = self._discriminator_input(images, images_seen)
        with self.autocast():
            # Not through __call__, which may be compiled: compiled graphs have no second derivative.
            logits = self.discriminator.forward(image, pictures.camera_labels, *raw)
        penalty = r1_penalty(logits, *images)
        (penalty.mean() * (0.5 * gamma * self.loss.r1_interval)).backward()
        return penalty.detach().mean()

    def _generator_loss(self, fakes: JudgedImages, real_logits: Tensor | None, errors: list[Stats]) -> Tensor:
        """Of fakes that have been judged; what was recognised of them goes to ``errors``."""
        logits = _logits_of(fakes)
        loss = generator_loss(logits) if real_logits is None else relativistic_generator_loss(logits, real_logits)
        return self._with_recognition(loss, fakes, errors)

    def _with_recognition(self, loss: Tensor, fakes: JudgedImages, errors: list[Stats] | None = None) -> Tensor:
        """Plus the error of what a discriminator with heads for that recognised of fakes: the same for both players."""
        more, found = recognition_loss(fakes, self.loss)
        if errors is not None:
            errors.append(found)
        return loss if more is None else loss + more

    @torch.no_grad()
    def _rivals(self, reals: JudgedImages | None, images_seen: int) -> Tensor | None:
        """Logits of the real pictures that fakes are compared with, for an objective that does so."""
        if self.loss.objective != "relativistic":
            return None
        assert reals is not None, "a relativistic generator needs real pictures"
        return self._judge(reals, images_seen).logits

    def _freeze_discriminator(self, frozen: bool) -> None:
        for parameter in self._judging_weights:
            parameter.requires_grad_(not frozen)

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

    def neural_resolution(self, images_seen: int) -> int:
        """Side in pixels of what a volume renderer renders before super-resolution, at this moment of the run."""
        assert isinstance(self.renderer, VolumeRenderer)
        return neural_resolution(
            images_seen,
            start=self.renderer.config.neural_resolution,
            final=self.planes.final_neural_resolution,
            kimg=self.planes.fade_kimg,
        )

    def _with_raw(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """For a dual discriminator, with the raw picture that a real one does not have: the same, made smaller."""
        if not self.dual or pictures.raw_images is not None:
            return pictures
        return replace(pictures, raw_images=resize(pictures.images, self.neural_resolution(images_seen)))

    def _discriminator_input(self, pictures: Sequence[Tensor], images_seen: int) -> list[Tensor]:
        """Pictures in [-1, 1] (and raw ones) under the blur of this moment, and augmented alike."""
        loss = self.loss
        sigma = blur_sigma(images_seen, initial=loss.blur_sigma, fade_kimg=loss.blur_fade_kimg)
        seen = [blur(self.growth.show(part, images_seen), sigma) for part in pictures]
        if self.augment is None:
            return seen
        # A shift of whole pixels of the small raw picture would be another one: they are changed at the same size.
        joined = torch.cat([resize(part, self.size) for part in seen], dim=1) if len(seen) > 1 else seen[0]
        return list(self.augment(joined).split(3, dim=1))

    def _as_judged(self, pictures: JudgedImages, images_seen: int) -> list[Tensor]:
        return [part * 2 - 1 for part in self._with_raw(pictures, images_seen).parts]

    def _judge(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """The same pictures with what the discriminator says of them."""
        seen = self._discriminator_input(self._as_judged(pictures, images_seen), images_seen)
        return replace(pictures, **self._discriminate(seen, pictures.camera_labels).parts())

    def _discriminate(self, seen: Sequence[Tensor], labels: Tensor) -> Judgement:
        image, *raw = seen
        with self.autocast():
            if getattr(self.discriminator, "recognizes", False):
                return self.discriminator.judge(image, labels, *raw)  # type: ignore[operator]
            # Through __call__, which may be compiled.
            return Judgement(logits=self.discriminator(image, labels, *raw))

    def _judge_for_both(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """Logits whose graph leads to the pictures, as the generator needs it, and to the discriminator's weights."""
        cut = pictures.map(lambda tensor: tensor.detach().requires_grad_(tensor.requires_grad))
        self._freeze_discriminator(False)
        fakes = self._judge(cut, images_seen)
        self._freeze_discriminator(True)
        return fakes


def _logits_of(judged: JudgedImages) -> Tensor:
    assert judged.logits is not None, "these pictures have not been judged"
    return judged.logits


def _add_penalties(loss: Tensor, penalties: Sequence[Tensor | None]) -> Tensor:
    """Plus the mean of what views cost beside being judged."""
    given = [penalty for penalty in penalties if penalty is not None]
    return loss + torch.stack(given).mean() if given else loss


def _mean_stats(found: Sequence[Stats]) -> Stats:
    return {name: torch.stack([stats[name] for stats in found]).mean() for name in found[0]}


def told_cameras(labels: Tensor | None) -> dict[str, Tensor]:
    """The argument for a generator that is told cameras; none for others."""
    return {} if labels is None else {"camera_labels": labels}
