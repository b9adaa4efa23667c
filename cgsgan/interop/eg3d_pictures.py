"""The published EG3D generator from latent to picture: networks and volume renderer under one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer

LARGEST_SEED = 2**62


@dataclass(frozen=True, kw_only=True)
class PictureOutput:
    """Pictures of generated scenes, one each.

    Attributes:
        images: the final picture, [0, 1] for colours in range and not clamped: what the published code gives is
            2 x - 1.
        raw_images: the same before super-resolution, at the neural resolution.
        depths: mean distance along the ray, world units; where nothing is hit, clamped to the range of all distances.
    """

    images: Float[Tensor, "batch 3 height width"]
    raw_images: Float[Tensor, "batch 3 raw_height raw_width"]
    depths: Float[Tensor, "batch 1 raw_height raw_width"]


class PictureGenerator(nn.Module):
    """A tri-plane generator that renders what it makes.

    Attributes:
        network: latents to scenes.
        rendering: how they are rendered.
    """

    def __init__(self, network: TriPlaneGenerator, rendering: VolumeConfig) -> None:
        super().__init__()
        self.network, self.rendering = network, rendering

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        camera_labels: Float[Tensor, "batch 25"],
        neural_resolution: int = 64,
        deterministic: bool = True,
        truncation_psi: float = 1.0,
    ) -> PictureOutput:
        """One picture of each latent.

        Args:
            z: latents ~ N(0, 1).
            camera_labels: 25 numbers: from where each is seen; they also condition the mapping where it takes them.
            neural_resolution: edge length of what is rendered before super-resolution, pixels.
            deterministic: samples in the middles of their strata, then at evenly spaced quantiles; otherwise at random
                places, by torch's generator.
            truncation_psi: 1 for full variety, towards 0 for the mean scene.
        """
        labels = camera_labels if self.network.config.camera_conditioning else None
        scenes = self.network(z, camera_labels=labels, truncation_psi=truncation_psi).scenes
        renderer = VolumeRenderer(self.rendering, self.network.resolution)
        if not deterministic:
            renderer = renderer.for_training(neural_resolution, torch.randint(LARGEST_SEED, (len(z), 1)))
        traced = renderer.trace(scenes, Cameras.from_labels(camera_labels[:, None]), neural_resolution)
        features = traced.features[:, 0]
        if self.rendering.white_back:
            features = features + (1 - traced.alphas[:, 0].movedim(-1, 1))
        signed = features * 2 - 1
        assert scenes.refine is not None
        images = (scenes.refine(signed[:, :3], signed, scenes.ws) + 1) / 2
        return PictureOutput(images=images, raw_images=features[:, :3], depths=traced.distances[:, 0].movedim(-1, 1))
