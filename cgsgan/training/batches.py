"""What a step is fed with: this process's share of latents, cameras, backgrounds and real pictures."""

from __future__ import annotations

from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from cgsgan.training.draws import (
    DensityDraws,
    FakeDraws,
    LabelPool,
    Mixing,
    deal,
    draw_backgrounds,
    draw_density,
    draw_fakes,
    draw_jitter,
    step_generator,
    tell_cameras,
)
from cgsgan.training.judged import JudgedImages
from cgsgan.training.schedules import swap_probability
from cgsgan.training.settings import TrainingConfig
from cgsgan.training.streams import RealStream

RANDOM_STREAMS = 3
"""Latents of the generator's step, of fresh fakes, and backgrounds of real images."""
DENSITY_STREAM = 2**16
"""Far from those and from the augmenter's."""


class Batches:
    """Makes the batches of a step.

    Args:
        stream: this process's real images.
        labels: where the cameras of fakes come from.
        config: batch size, views, seed.
        z_dim: numbers per latent.
        num_ws: style rows of the generator.
        accelerator: device and processes.
        conditioned: the generator is told cameras.
        jittered: the renderer wants a seed for each picture.
    """

    def __init__(
        self,
        stream: RealStream,
        labels: LabelPool,
        config: TrainingConfig,
        *,
        z_dim: int,
        num_ws: int,
        accelerator: Accelerator,
        conditioned: bool = False,
        jittered: bool = False,
    ) -> None:
        self._stream, self._labels, self._config = stream, labels, config
        self._z_dim, self._num_ws, self._accelerator = z_dim, num_ws, accelerator
        self._conditioned, self._jittered = conditioned, jittered

    def fakes(self, step: int, rollbacks: int, images_seen: int) -> tuple[FakeDraws, FakeDraws | None]:
        """Scenes of the generator's step, and one view each of other ones for the discriminator's, unless reused."""
        config = self._config

        def draw(stream: int, views: int) -> FakeDraws:
            random = self._random(step, rollbacks, stream)
            whole = draw_fakes(
                random,
                self._labels,
                batch_size=config.batch_size,
                views=views,
                z_dim=self._z_dim,
                own_latents=views > 1 and not config.gradient_averaging,
                mixing=Mixing(share=config.style_mixing, num_ws=self._num_ws),
            )
            # What only some generators need is drawn last: everything else stays the same.
            if self._conditioned:
                whole = tell_cameras(random, whole, swap=self._swap(images_seen))
            if self._jittered:
                whole = draw_jitter(random, whole)
            return replace(whole, backgrounds=self._paint(whole.backgrounds)).map(self._deal)

        return draw(0, config.views_per_scene), None if config.reuse_fakes else draw(1, 1)

    def density(self, step: int, rollbacks: int) -> DensityDraws:
        """Points in other scenes, for the regularisation of density."""
        random, config = step_generator(self._config.seed, step, DENSITY_STREAM + rollbacks), self._config
        # Nothing is rendered here: a label at random is as good as a swapped one.
        told = self._labels.sample_labels(config.batch_size, random) if self._conditioned else None
        return draw_density(
            random,
            told,
            batch_size=config.batch_size,
            z_dim=self._z_dim,
            planes=config.planes,
        ).map(self._deal)

    def reals(self, step: int, rollbacks: int) -> JudgedImages:
        """The next real pictures, each on a colour of its own."""
        batch = self._stream.next()
        random = self._random(step, rollbacks, stream=2)
        backgrounds = self._deal(self._paint(draw_backgrounds(random, batch_size=self._config.batch_size)))
        pixels = batch.premultiplied.to(self._accelerator.device)
        images = pixels[:, :3] + (1 - pixels[:, 3:]) * backgrounds[:, :, None, None]
        return JudgedImages(images=images, camera_labels=batch.camera_labels.to(self._accelerator.device))

    def _swap(self, images_seen: int) -> float:
        planes = self._config.planes
        return swap_probability(images_seen, start=planes.swap_start, final=planes.swap_final, kimg=planes.swap_kimg)

    def _paint(self, backgrounds: Tensor) -> Tensor:
        """The colours that were drawn, or white; either way everything else of a step is the same."""
        return backgrounds if self._config.backgrounds == "random" else torch.ones_like(backgrounds)

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
