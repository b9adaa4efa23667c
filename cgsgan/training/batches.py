"""What a step is fed with: this process's share of latents, cameras, backgrounds and real pictures."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from cgsgan.training.draws import FakeDraws, LabelPool, deal, draw_backgrounds, draw_fakes, step_generator
from cgsgan.training.settings import TrainingConfig
from cgsgan.training.steps import JudgedImages
from cgsgan.training.streams import RealStream

RANDOM_STREAMS = 3
"""Latents of the generator's step, of fresh fakes, and backgrounds of real images."""


class Batches:
    """Makes the batches of a step.

    Args:
        stream: this process's real images.
        labels: where the cameras of fakes come from.
        config: batch size, views, seed.
        z_dim: numbers per latent.
        accelerator: device and processes.
    """

    def __init__(
        self, stream: RealStream, labels: LabelPool, config: TrainingConfig, *, z_dim: int, accelerator: Accelerator
    ) -> None:
        self._stream, self._labels, self._config = stream, labels, config
        self._z_dim, self._accelerator = z_dim, accelerator

    def fakes(self, step: int, rollbacks: int) -> tuple[FakeDraws, FakeDraws | None]:
        """Scenes of the generator's step, and one view each of other ones for the discriminator's, unless reused."""
        config = self._config

        def draw(stream: int, views: int) -> FakeDraws:
            random = self._random(step, rollbacks, stream)
            whole = draw_fakes(random, self._labels, batch_size=config.batch_size, views=views, z_dim=self._z_dim)
            return FakeDraws(
                z=self._deal(whole.z),
                camera_labels=self._deal(whole.camera_labels),
                backgrounds=self._deal(whole.backgrounds),
            )

        return draw(0, config.views_per_scene), None if config.reuse_fakes else draw(1, 1)

    def reals(self, step: int, rollbacks: int) -> JudgedImages:
        """The next real pictures, each on a colour of its own."""
        batch = self._stream.next()
        random = self._random(step, rollbacks, stream=2)
        backgrounds = self._deal(draw_backgrounds(random, batch_size=self._config.batch_size))
        pixels = batch.premultiplied.to(self._accelerator.device)
        images = pixels[:, :3] + (1 - pixels[:, 3:]) * backgrounds[:, :, None, None]
        return JudgedImages(images=images, camera_labels=batch.camera_labels.to(self._accelerator.device))

    def _random(self, step: int, rollbacks: int, stream: int) -> torch.Generator:
        """The random numbers of a step; after a rollback, others than those that led there."""
        return step_generator(self._config.seed, step, stream + RANDOM_STREAMS * rollbacks)

    def _deal(self, whole: Tensor) -> Tensor:
        accelerator = self._accelerator
        return deal(
            whole,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            device=accelerator.device,
        )
