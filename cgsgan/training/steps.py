"""The objective: each method accumulates gradients in one network and returns named scalars. No optimiser, no loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import discriminator_loss_fake, discriminator_loss_real, generator_loss
from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.losses.gradient_penalty import r1_penalty
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
        autocast: makes the context in which the networks run (Accelerate's mixed precision).
        augment: changes pictures in [-1, 1] before the discriminator sees them.
    """

    generator: nn.Module
    discriminator: nn.Module
    renderer: Renderer
    size: int
    loss: LossConfig
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    augment: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self._judging_weights = [p for p in self.discriminator.parameters() if p.requires_grad]

    def generator_gradients(
        self, draws: FakeDraws, images_seen: int, *, keep_view: int | None = None
    ) -> tuple[Stats, JudgedImages | None]:
        """Accumulate the generator's gradient over all views of ``draws``.

        Args:
            draws: B latents with V cameras and backgrounds each.
            images_seen: for the blur schedule.
            keep_view: also give the pictures of this view, for the discriminator's step.
        """
        self._freeze_discriminator(True)
        output = self._generate(draws.z)
        views = draws.camera_labels.shape[1]
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
                (gradient,) = torch.autograd.grad(generator_loss(view_logits), fakes.images, retain_graph=True)
                loss = (images * gradient).sum()  # a loss with exactly this gradient at the pictures
            else:
                view_logits = self._judge(images, labels, images_seen)
                loss = generator_loss(view_logits)
            logits.append(view_logits.detach())
            return loss

        regularizer, stats = self._regularize(output)
        multiview_backward(output.gaussians, view_loss, views=views, regularizer=regularizer)
        self._freeze_discriminator(False)
        stats["generator_logits"] = torch.cat(logits).mean()
        return stats, kept[0] if kept else None

    @torch.no_grad()
    def fresh_fakes(self, draws: FakeDraws) -> JudgedImages:
        """Pictures of new latents (view 0 of ``draws``), without a graph."""
        labels = draws.camera_labels[:, 0]
        images = self._render(self._generate(draws.z).gaussians, labels, draws.backgrounds[:, 0])
        return JudgedImages(images=images, camera_labels=labels)

    def discriminator_gradients(self, fakes: JudgedImages, reals: JudgedImages, images_seen: int) -> Stats:
        """Accumulate the discriminator's gradient on a batch of fakes and a batch of reals, judged separately."""
        return self.real_gradients(reals, self.fake_gradients(fakes, images_seen), images_seen)

    def fake_gradients(self, fakes: JudgedImages, images_seen: int) -> Tensor:
        """The first half of :meth:`discriminator_gradients`; gives the logits of the fakes."""
        fake_logits = fakes.logits
        if fake_logits is None:
            fake_logits = self._judge(fakes.images, fakes.camera_labels, images_seen)
        discriminator_loss_fake(fake_logits).backward(inputs=self._judging_weights)
        return fake_logits.detach()

    def real_gradients(self, reals: JudgedImages, fake_logits: Tensor, images_seen: int) -> Stats:
        """The second half of :meth:`discriminator_gradients`."""
        real_logits = self._judge(reals.images, reals.camera_labels, images_seen)
        discriminator_loss_real(real_logits).backward()
        real_logits = real_logits.detach()
        stats = {
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
            "logit_gap": real_logits.mean() - fake_logits.mean(),
        }
        if self.augment is not None:
            stats["real_signs"] = real_logits.sign().mean()
        return stats

    def penalty_gradients(self, reals: JudgedImages, images_seen: int) -> Stats:
        """Accumulate the gradient of the lazy R1 penalty: gamma / 2 * interval * mean |grad|^2."""
        # The range conversion stands before requires_grad, so that gamma keeps its published meaning; the blur behind
        # it: the penalty is on the gradient at the picture.
        images = (reals.images * 2 - 1).requires_grad_(True)
        seen = self._discriminator_input(images, images_seen)
        with self.autocast():
            # Not through __call__, which may be compiled: compiled graphs have no second derivative.
            logits = self.discriminator.forward(seen, reals.camera_labels)
        penalty = r1_penalty(logits, images)
        (penalty.mean() * (0.5 * self.loss.r1_gamma * self.loss.r1_interval)).backward()
        return {"r1_penalty": penalty.detach().mean()}

    def _freeze_discriminator(self, frozen: bool) -> None:
        for parameter in self._judging_weights:
            parameter.requires_grad_(not frozen)

    def _generate(self, z: Tensor) -> GeneratorOutput:
        with self.autocast():
            return self.generator(z, update_w_average=self.generator.training)

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
        seen = self._discriminator_input(images * 2 - 1, images_seen)
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
