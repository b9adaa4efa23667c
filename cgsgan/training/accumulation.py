"""A batch in parts: the gradients of the whole, with the memory of one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from cgsgan.training.augmentation import Augmenter
from cgsgan.training.draws import DensityDraws, FakeDraws
from cgsgan.training.judged import JudgedImages
from cgsgan.training.judging import Stats
from cgsgan.training.steps import AdversarialSteps

T = TypeVar("T")


class AccumulatedSteps:
    """Does what ``steps`` does, in ``parts`` parts of this process's share of a batch, one after the other.

    Part j holds elements j, j + parts, j + 2 parts...: the minibatch-std groups of the whole batch (see
    ``training.draws``) lie whole in one part each. So gradients, scalars and the running mean of w are those of the
    whole batch, to the rounding of sums.

    Args:
        steps: the objective.
        parts: how many; a part must hold whole minibatch-std groups.
        augmenter: the one that ``steps`` uses, which has to give each part its own share of one set of draws.
    """

    def __init__(self, steps: AdversarialSteps, parts: int, augmenter: Augmenter | None) -> None:
        self._steps, self._parts, self._augmenter = steps, parts, augmenter

    def generator_gradients(
        self,
        draws: FakeDraws,
        images_seen: int,
        *,
        keep_view: int | None = None,
        reals: JudgedImages | None = None,
    ) -> tuple[Stats, JudgedImages | None]:
        """See :meth:`AdversarialSteps.generator_gradients`.

        The pictures that are kept have been judged for both players; what the discriminator learns from them is in its
        gradients at once, so that no part's graph outlives it. Their logits come without one.
        """
        kept: list[JudgedImages] = []

        def run(part: slice) -> Stats:
            share = draws.map(lambda tensor: tensor[part])
            stats, fakes = self._steps.generator_gradients(
                share, images_seen, keep_view=keep_view, reals=None if reals is None else _share(reals, part)
            )
            if fakes is not None:
                logits = self._steps.fake_gradients(fakes, images_seen)
                kept.append(replace(fakes.map(Tensor.detach), logits=logits))
            return stats

        stats = self._mean(self._each(run, moves_w_average=True))
        self._divide(self._steps.generator)
        return stats, self._join(kept) if kept else None

    def fresh_fakes(self, draws: FakeDraws, images_seen: int) -> JudgedImages:
        """See :meth:`AdversarialSteps.fresh_fakes`."""

        def run(part: slice) -> JudgedImages:
            return self._steps.fresh_fakes(draws.map(lambda tensor: tensor[part]), images_seen)

        return self._join(self._each(run, moves_w_average=True))

    def density_gradients(self, draws: DensityDraws) -> Stats:
        """See :meth:`AdversarialSteps.density_gradients`."""
        stats = self._mean(self._each(lambda part: self._steps.density_gradients(draws.map(lambda t: t[part]))))
        self._divide(self._steps.generator)
        return stats

    def discriminator_gradients(self, fakes: JudgedImages, reals: JudgedImages, images_seen: int) -> Stats:
        """See :meth:`AdversarialSteps.discriminator_gradients`; fakes with logits are in the gradients already."""

        def run(part: slice) -> Stats:
            fake_logits = fakes.logits
            fake_logits = (
                self._steps.fake_gradients(_share(fakes, part), images_seen)
                if fake_logits is None
                else fake_logits[part]
            )
            return self._steps.real_gradients(_share(reals, part), fake_logits, images_seen)

        stats = self._mean(self._each(run))
        self._divide(self._steps.discriminator)
        return stats

    def penalty_gradients(self, reals: JudgedImages, images_seen: int, *, fakes: JudgedImages | None = None) -> Stats:
        """See :meth:`AdversarialSteps.penalty_gradients`."""

        def run(part: slice) -> Stats:
            share = None if fakes is None else _share(fakes, part)
            return self._steps.penalty_gradients(_share(reals, part), images_seen, fakes=share)

        stats = self._mean(self._each(run))
        self._divide(self._steps.discriminator)
        return stats

    def _each(self, run: Callable[[slice], T], *, moves_w_average: bool = False) -> list[T]:
        """What every part gives; each begins where the first one did."""
        w_average = self._steps.generator.get_buffer("mapping.w_average") if moves_w_average else torch.zeros(())
        start, total = w_average.clone(), torch.zeros_like(w_average)
        first_call = self._augmenter.calls if self._augmenter else 0
        found: list[T] = []
        for index in range(self._parts):
            part = slice(index, None, self._parts)
            if self._augmenter is not None:
                self._augmenter.calls, self._augmenter.part = first_call, part
            w_average.copy_(start)
            found.append(run(part))
            total += w_average
        # One update of the running mean by the whole batch is the mean of the updates by its parts.
        w_average.copy_(total / self._parts)
        if self._augmenter is not None:
            self._augmenter.part = slice(None)
        return found

    def _mean(self, found: list[Stats]) -> Stats:
        return {name: torch.stack([stats[name] for stats in found]).mean() for name in found[0]}

    def _divide(self, network: nn.Module) -> None:
        """From the sum over parts to their mean."""
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self._parts)

    def _join(self, found: list[JudgedImages]) -> JudgedImages:
        raw = [part.raw_images for part in found if part.raw_images is not None]
        logits = [part.logits for part in found if part.logits is not None]
        z = [part.z for part in found if part.z is not None]
        return JudgedImages(
            images=_interleave([part.images for part in found]),
            camera_labels=_interleave([part.camera_labels for part in found]),
            raw_images=_interleave(raw) if raw else None,
            logits=_interleave(logits) if logits else None,
            z=_interleave(z) if z else None,
        )


def _share(judged: JudgedImages, part: slice) -> JudgedImages:
    return replace(judged, logits=None, pose=None, latent=None).map(lambda tensor: tensor[part])


def _interleave(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts, dim=1).flatten(0, 1)
