"""The objective, the discriminator's side: how pictures are judged, and what it learns. No optimiser, no loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cgsgan.losses.adversarial import discriminator_loss_fake, discriminator_loss_real, relativistic_discriminator_loss
from cgsgan.losses.gradient_penalty import r1_penalty
from cgsgan.models.discriminator import Judgement
from cgsgan.models.triplane.resampling import resize
from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.volume import VolumeRenderer
from cgsgan.training.growth import GrowthConfig
from cgsgan.training.judged import JudgedImages
from cgsgan.training.planes import PlaneTrainingConfig
from cgsgan.training.recognition import recognition_loss
from cgsgan.training.schedules import blur, blur_sigma, neural_resolution
from cgsgan.training.settings import LossConfig

Stats = dict[str, Tensor]
"""Named scalars of one step."""


@dataclass(kw_only=True)
class DiscriminatorSteps:
    """The discriminator and how its gradients are made.

    Attributes:
        discriminator: images in [-1, 1] and labels to logits.
        renderer: scenes to images; one of volumes decides how large raw pictures are.
        size: image size in pixels.
        loss: weights.
        planes: what only tri-planes need.
        growth: how pictures grow.
        dual: the discriminator also sees what was rendered before super-resolution.
        autocast: makes the context in which the networks run (Accelerate's mixed precision).
        augment: changes pictures in [-1, 1] before the discriminator sees them.
    """

    discriminator: nn.Module
    renderer: Renderer
    size: int
    loss: LossConfig
    planes: PlaneTrainingConfig = field(default_factory=PlaneTrainingConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    dual: bool = False
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    augment: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self._judging_weights = [p for p in self.discriminator.parameters() if p.requires_grad]

    def present_reals(self, reals: JudgedImages, images_seen: int) -> JudgedImages:
        """Real pictures as the discriminator is to see them at this moment of the run: as they are."""
        return reals

    def discriminator_gradients(self, fakes: JudgedImages, reals: JudgedImages, images_seen: int) -> Stats:
        """Accumulate the discriminator's gradient on a batch of fakes and a batch of reals, judged separately."""
        if self.loss.objective == "non_saturating":
            return self.real_gradients(reals, self.fake_gradients(fakes, images_seen), images_seen)
        fakes = self._judged(fakes, images_seen)
        fake_logits, real_logits = logits_of(fakes), logits_of(self._judged(reals, images_seen))
        loss = relativistic_discriminator_loss(fake_logits, real_logits)
        self.with_recognition(loss, fakes).backward(inputs=self._judging_weights)
        return self._logit_stats(real_logits.detach(), fake_logits.detach())

    def fake_gradients(self, fakes: JudgedImages, images_seen: int) -> Tensor:
        """The first half of :meth:`discriminator_gradients`; gives the logits of the fakes."""
        fakes = self._judged(fakes, images_seen)
        loss = discriminator_loss_fake(logits_of(fakes))
        self.with_recognition(loss, fakes).backward(inputs=self._judging_weights)
        return logits_of(fakes).detach()

    def real_gradients(self, reals: JudgedImages, fake_logits: Tensor, images_seen: int) -> Stats:
        """The second half of :meth:`discriminator_gradients`."""
        real_logits = logits_of(self._judged(reals, images_seen))
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
        return pictures if pictures.logits is not None else self.judge(pictures, images_seen)

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
        whole = self.with_raw(pictures, images_seen)
        images = [(part.detach() * 2 - 1).requires_grad_(True) for part in whole.parts]
        image, *raw = self.discriminator_input(images, images_seen)
        with self.autocast():
            # Not through __call__, which may be compiled: compiled graphs have no second derivative.
            logits = self.discriminator.forward(image, pictures.camera_labels, *raw)
        penalty = r1_penalty(logits, *images)
        (penalty.mean() * (0.5 * gamma * self.loss.r1_interval)).backward()
        return penalty.detach().mean()

    def with_recognition(self, loss: Tensor, fakes: JudgedImages, errors: list[Stats] | None = None) -> Tensor:
        """Plus the error of what a discriminator with heads for that recognised of fakes: the same for both players."""
        more, found = recognition_loss(fakes, self.loss)
        if errors is not None:
            errors.append(found)
        return loss if more is None else loss + more

    def freeze_discriminator(self, frozen: bool) -> None:
        """Whether gradients of what is judged from now on leave the discriminator's weights alone."""
        for parameter in self._judging_weights:
            parameter.requires_grad_(not frozen)

    def neural_resolution(self, images_seen: int) -> int:
        """Side in pixels of what a volume renderer renders before super-resolution, at this moment of the run."""
        assert isinstance(self.renderer, VolumeRenderer)
        return neural_resolution(
            images_seen,
            start=self.renderer.config.neural_resolution,
            final=self.planes.final_neural_resolution,
            kimg=self.planes.fade_kimg,
        )

    def with_raw(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """For a dual discriminator, with the raw picture that a real one does not have: the same, made smaller."""
        if not self.dual or pictures.raw_images is not None:
            return pictures
        return replace(pictures, raw_images=resize(pictures.images, self.neural_resolution(images_seen)))

    def discriminator_input(self, pictures: Sequence[Tensor], images_seen: int) -> list[Tensor]:
        """Pictures in [-1, 1] (and raw ones) under the blur of this moment, and augmented alike."""
        loss = self.loss
        sigma = blur_sigma(images_seen, initial=loss.blur_sigma, fade_kimg=loss.blur_fade_kimg)
        seen = [blur(self.growth.show(part, images_seen), sigma) for part in pictures]
        if self.augment is None:
            return seen
        # A shift of whole pixels of the small raw picture would be another one: they are changed at the same size.
        joined = torch.cat([resize(part, self.size) for part in seen], dim=1) if len(seen) > 1 else seen[0]
        return list(self.augment(joined).split(3, dim=1))

    def as_judged(self, pictures: JudgedImages, images_seen: int) -> list[Tensor]:
        """Pictures in [-1, 1], and the raw ones of a dual discriminator."""
        return [part * 2 - 1 for part in self.with_raw(pictures, images_seen).parts]

    def judge(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """The same pictures with what the discriminator says of them."""
        seen = self.discriminator_input(self.as_judged(pictures, images_seen), images_seen)
        return replace(pictures, **self.discriminate(seen, pictures.camera_labels).parts())

    def discriminate(self, seen: Sequence[Tensor], labels: Tensor) -> Judgement:
        """What the discriminator says of :meth:`discriminator_input`, with what its heads recognise if it has any."""
        image, *raw = seen
        with self.autocast():
            if getattr(self.discriminator, "recognizes", False):
                return self.discriminator.judge(image, labels, *raw)  # type: ignore[operator]
            # Through __call__, which may be compiled.
            return Judgement(logits=self.discriminator(image, labels, *raw))

    def judge_for_both(self, pictures: JudgedImages, images_seen: int) -> JudgedImages:
        """Logits whose graph leads to the pictures, as the generator needs it, and to the discriminator's weights."""
        cut = pictures.map(lambda tensor: tensor.detach().requires_grad_(tensor.requires_grad))
        self.freeze_discriminator(False)
        fakes = self.judge(cut, images_seen)
        self.freeze_discriminator(True)
        return fakes


def logits_of(judged: JudgedImages) -> Tensor:
    """Of pictures that have been judged."""
    assert judged.logits is not None, "these pictures have not been judged"
    return judged.logits
