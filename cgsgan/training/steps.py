"""The objective: each method accumulates gradients in one network and returns named scalars. No optimiser, no loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import (
    discriminator_loss_fake,
    discriminator_loss_real,
    generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.losses.gradient_penalty import r1_penalty
from cgsgan.models.mapping import Mapping
from cgsgan.rendering.renderer import Renderer
from cgsgan.training.draws import FakeDraws
from cgsgan.training.multiview import multiview_backward
from cgsgan.training.schedules import blur, blur_sigma
from cgsgan.training.settings import LossConfig
from cgsgan.types import Gaussians, GeneratorOutput

Stats = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class JudgedImages:
    """Pictures of a generator's step, cut from its graph, for the discriminator's step; or real ones.

    Attributes:
        images: one view of each identity, in [0, 1].
        camera_labels: the labels they were rendered with.
        logits: what the discriminator said of them, with its graph, when it has been asked already.
    """

    images: Float[Tensor, "batch 3 height width"]
    camera_labels: Float[Tensor, "batch 25"]
    logits: Float[Tensor, "batch 1"] | None = None


@dataclass(kw_only=True)
class AdversarialSteps:
    """Both players and how their gradients are made.

    Attributes:
        generator: latents to scenes.
        discriminator: images in [-1, 1] and labels to logits.
        renderer: scenes to images.
        size: image size in pixels.
        loss: weights.
        views_apart: each view of a scene is judged in a call of its own; otherwise all in one.
        autocast: makes the context in which the networks run (Accelerate's mixed precision).
        augment: changes pictures in [-1, 1] before the discriminator sees them.
    """

    generator: nn.Module
    discriminator: nn.Module
    renderer: Renderer
    size: int
    loss: LossConfig
    views_apart: bool = True
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    augment: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self._judging_weights = [p for p in self.discriminator.parameters() if p.requires_grad]

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
        return {name: torch.stack([s[name] for s in found]).mean() for name in found[0]}, kept

    def _scene_gradients(
        self, draws: FakeDraws, images_seen: int, keep_view: int | None, real_logits: Tensor | None, *, share: float
    ) -> tuple[Stats, JudgedImages | None]:
        """``share`` of the gradient of one set of scenes, averaged over their views."""
        output = self._generate(draws)
        views = range(draws.camera_labels.shape[1])
        logits: list[Tensor] = []
        kept: list[JudgedImages] = []

        def view_loss(scenes: Gaussians, view: int) -> Tensor:
            labels = draws.camera_labels[:, view]
            images = self._render(scenes, labels, draws.backgrounds[:, view])
            if view == keep_view:
                fakes = self._judge_for_both(images, labels, images_seen)
                kept.append(fakes)
                view_logits = fakes.logits
                assert view_logits is not None
                loss = self._generator_loss(view_logits, real_logits)
                (gradient,) = torch.autograd.grad(loss, fakes.images, retain_graph=True)
                loss = (images * gradient).sum()  # a loss with exactly this gradient at the pictures
            else:
                view_logits = self._judge(images, labels, images_seen)
                loss = self._generator_loss(view_logits, real_logits)
            logits.append(view_logits.detach())
            return loss * share

        def joint_loss(scenes: Gaussians, _: int) -> Tensor:
            labels = list(draws.camera_labels.unbind(1))
            images = [self._render(scenes, labels[view], draws.backgrounds[:, view]) for view in views]
            if keep_view is not None:
                kept.append(JudgedImages(images=images[keep_view].detach(), camera_labels=labels[keep_view]))
            seen = torch.cat([self._discriminator_input(part * 2 - 1, images_seen) for part in images])
            # Views of a scene lie B apart, as the members of a minibatch-std group do when V is a multiple of its size.
            joint_logits = self._discriminate(seen, torch.cat(labels))
            logits.append(joint_logits.detach())
            rivals = None if real_logits is None else real_logits.repeat(len(views), 1)
            return self._generator_loss(joint_logits, rivals) * share

        regularizer, stats = self._regularize(output)
        if regularizer is not None:
            regularizer = regularizer * share
        apart = self.views_apart or len(views) == 1
        multiview_backward(
            output.gaussians,
            view_loss if apart else joint_loss,
            views=len(views) if apart else 1,
            regularizer=regularizer,
        )
        stats["generator_logits"] = torch.cat(logits).mean()
        return stats, kept[0] if kept else None

    @torch.no_grad()
    def fresh_fakes(self, draws: FakeDraws) -> JudgedImages:
        """Pictures of new latents (view 0 of ``draws``), without a graph."""
        labels = draws.camera_labels[:, 0]
        images = self._render(self._generate(draws).gaussians, labels, draws.backgrounds[:, 0])
        return JudgedImages(images=images, camera_labels=labels)

    def discriminator_gradients(self, fakes: JudgedImages, reals: JudgedImages, images_seen: int) -> Stats:
        """Accumulate the discriminator's gradient on a batch of fakes and a batch of reals, judged separately."""
        if self.loss.objective == "non_saturating":
            return self.real_gradients(reals, self.fake_gradients(fakes, images_seen), images_seen)
        fake_logits = self._logits(fakes, images_seen)
        real_logits = self._logits(reals, images_seen)
        relativistic_discriminator_loss(fake_logits, real_logits).backward(inputs=self._judging_weights)
        return self._logit_stats(real_logits.detach(), fake_logits.detach())

    def fake_gradients(self, fakes: JudgedImages, images_seen: int) -> Tensor:
        """The first half of :meth:`discriminator_gradients`; gives the logits of the fakes."""
        fake_logits = self._logits(fakes, images_seen)
        discriminator_loss_fake(fake_logits).backward(inputs=self._judging_weights)
        return fake_logits.detach()

    def real_gradients(self, reals: JudgedImages, fake_logits: Tensor, images_seen: int) -> Stats:
        """The second half of :meth:`discriminator_gradients`."""
        real_logits = self._logits(reals, images_seen)
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

    def _logits(self, judged: JudgedImages, images_seen: int) -> Tensor:
        """Those that are there already, or new ones."""
        if judged.logits is not None:
            return judged.logits
        return self._judge(judged.images, judged.camera_labels, images_seen)

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
        images = (pictures.images.detach() * 2 - 1).requires_grad_(True)
        seen = self._discriminator_input(images, images_seen)
        with self.autocast():
            # Not through __call__, which may be compiled: compiled graphs have no second derivative.
            logits = self.discriminator.forward(seen, pictures.camera_labels)
        penalty = r1_penalty(logits, images)
        (penalty.mean() * (0.5 * gamma * self.loss.r1_interval)).backward()
        return penalty.detach().mean()

    def _generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
        if real_logits is None:
            return generator_loss(fake_logits)
        return relativistic_generator_loss(fake_logits, real_logits)

    @torch.no_grad()
    def _rivals(self, reals: JudgedImages | None, images_seen: int) -> Tensor | None:
        """Logits of the real pictures that fakes are compared with, for an objective that does so."""
        if self.loss.objective != "relativistic":
            return None
        assert reals is not None, "a relativistic generator needs real pictures"
        return self._judge(reals.images, reals.camera_labels, images_seen)

    def _freeze_discriminator(self, frozen: bool) -> None:
        for parameter in self._judging_weights:
            parameter.requires_grad_(not frozen)

    def _generate(self, draws: FakeDraws) -> GeneratorOutput:
        update = self.generator.training
        with self.autocast():
            if draws.mixed_z is None or draws.crossovers is None:
                return self.generator(draws.z, update_w_average=update)
            mapping: Mapping = self.generator.mapping  # type: ignore[assignment]
            first, second = mapping(draws.z, update_average=update), mapping(draws.mixed_z)
            rows = torch.arange(first.shape[1], device=first.device)
            keep = rows < draws.crossovers[:, None]
            return self.generator(ws=torch.where(keep[:, :, None], first, second))

    def _render(self, scenes: Gaussians, labels: Tensor, backgrounds: Tensor) -> Tensor:
        cameras = Cameras.from_labels(labels.unsqueeze(1))
        rendered = self.renderer(scenes, cameras, size=self.size, backgrounds=backgrounds.unsqueeze(1))
        return rendered.images.squeeze(1)

    def _discriminator_input(self, images: Tensor, images_seen: int) -> Tensor:
        """Pictures in [-1, 1] under the blur of this moment, and augmented."""
        loss = self.loss
        sigma = blur_sigma(images_seen, initial=loss.blur_sigma, fade_kimg=loss.blur_fade_kimg)
        seen = blur(images, sigma)
        return seen if self.augment is None else self.augment(seen)

    def _judge(self, images: Tensor, labels: Tensor, images_seen: int) -> Tensor:
        return self._discriminate(self._discriminator_input(images * 2 - 1, images_seen), labels)

    def _discriminate(self, seen: Tensor, labels: Tensor) -> Tensor:
        with self.autocast():
            return self.discriminator(seen, labels)

    def _judge_for_both(self, images: Tensor, labels: Tensor, images_seen: int) -> JudgedImages:
        """Logits whose graph leads to the pictures, as the generator needs it, and to the discriminator's weights."""
        cut = images.detach().requires_grad_()
        self._freeze_discriminator(False)
        logits = self._judge(cut, labels, images_seen)
        self._freeze_discriminator(True)
        return JudgedImages(images=cut, camera_labels=labels, logits=logits)

    def _regularize(self, output: GeneratorOutput) -> tuple[Tensor | None, Stats]:
        loss, means = self.loss, output.anchors[0].means
        total, stats = None, {}
        if loss.knn_weight > 0:
            stats["knn"] = knn_loss(means, loss.knn_neighbors)
            total = loss.knn_weight * stats["knn"]
        if loss.center_weight > 0:
            stats["center"] = center_loss(means)
            term = loss.center_weight * stats["center"]
            total = term if total is None else total + term
        return total, {name: value.detach() for name, value in stats.items()}
