"""Adaptive augmentation: how often pictures are changed before the discriminator sees them (Karras et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from accelerate import Accelerator
from torch import Tensor

from cgsgan.losses.augmentation import AugmentationDraws, augment, draw_augmentations
from cgsgan.training.draws import deal, step_generator

_FIRST_STREAM = 16
"""Numbers below belong to latents, cameras and backgrounds."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Augmentation of all pictures that the discriminator sees; for sets of a few thousand pictures.

    Attributes:
        mode: "fixed" keeps ``p``; "adaptive" starts from it and holds the mean sign of the real logits at ``target``.
        p: probability of every transform.
        target: mean sign of D(real) above which ``p`` grows.
        speed_kimg: images in which ``p`` can go from 0 to 1; EG3D has 500, and 100 when fine-tuning.
        interval: steps between changes of ``p``.
        max_p: beyond about 0.8 generators learn to make augmented pictures.
    """

    mode: Literal["off", "fixed", "adaptive"] = "off"
    p: float = 0.0
    target: float = 0.6
    speed_kimg: float = 500.0
    interval: int = 4
    max_p: float = 0.8

    def __post_init__(self) -> None:
        """Refuse values without a meaning.

        Raises:
            ValueError: names the field.
        """
        if not 0 <= self.p <= self.max_p <= 1:
            raise ValueError(f"training.augmentation: expected 0 <= p <= max_p <= 1, got {self.p} and {self.max_p}")
        if self.interval < 1 or not self.speed_kimg > 0:
            raise ValueError(
                "training.augmentation: expected interval >= 1 and speed_kimg > 0, got "
                f"{self.interval} and {self.speed_kimg}"
            )


class Augmenter:
    """Changes the pictures of a step; its draws are a function of (seed, step, how many batches before in the step).

    Args:
        config: see AugmentationConfig.
        seed: of the run.
        batch_size: of all processes together.
        accelerator: processes.

    Attributes:
        p: the probability now.
        calls: batches of this step so far.
        part: which of this process's share of a batch comes next, when a batch comes in parts.
    """

    def __init__(self, config: AugmentationConfig, *, seed: int, batch_size: int, accelerator: Accelerator) -> None:
        self.config, self.p = config, config.p
        self._seed, self._batch_size, self._accelerator = seed, batch_size, accelerator
        self._step = self.calls = 0
        self.part = slice(None)
        self._signs, self._observed = 0.0, 0

    def begin_step(self, step: int) -> None:
        """Start the draws of a step."""
        self._step, self.calls = step, 0

    def __call__(self, images: Tensor) -> Tensor:
        """Change this process's share ``[batch, 3, size, size]`` of a batch, in [-1, 1].

        Two pictures of each, 6 channels, are changed alike.
        """
        self.calls += 1
        if self.p <= 0:
            return images
        random = step_generator(self._seed, self._step, _FIRST_STREAM + self.calls)
        whole = draw_augmentations(random, batch_size=self._batch_size, p=self.p)
        return augment(
            images,
            AugmentationDraws(
                zoom=self._deal(whole.zoom, images), shift=self._deal(whole.shift, images),
                color=self._deal(whole.color, images),
            ),
        )  # fmt: skip

    def observe(self, mean_sign: Tensor) -> None:
        """Take in the mean sign of this process's real logits of a step; change ``p`` when it is time."""
        if self.config.mode != "adaptive":
            return
        reduced = self._accelerator.reduce(mean_sign.detach().float(), reduction="mean")
        assert isinstance(reduced, Tensor)
        self._signs, self._observed = self._signs + float(reduced), self._observed + 1
        if self._observed == self.config.interval:
            change = self._batch_size * self._observed / (self.config.speed_kimg * 1000)
            mean = self._signs / self._observed
            direction = (mean > self.config.target) - (mean < self.config.target)
            self.p = min(max(self.p + direction * change, 0.0), self.config.max_p)
            self._signs, self._observed = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, JSON-able; the same on all processes."""
        return {"p": self.p, "signs": self._signs, "observed": self._observed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.p, self._signs, self._observed = float(state["p"]), float(state["signs"]), int(state["observed"])

    def _deal(self, whole: Tensor, images: Tensor) -> Tensor:
        rank, count = self._accelerator.process_index, self._accelerator.num_processes
        return deal(whole, rank=rank, world_size=count, device=images.device)[self.part]


def make_augmenter(
    config: AugmentationConfig, *, seed: int, batch_size: int, accelerator: Accelerator
) -> Augmenter | None:
    """The augmenter of a run, or None when it is off."""
    if config.mode == "off":
        return None
    return Augmenter(config, seed=seed, batch_size=batch_size, accelerator=accelerator)


__all__ = ["AugmentationConfig", "Augmenter", "make_augmenter"]
