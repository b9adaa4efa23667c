"""Super-resolution: pictures and features at the neural resolution to the final picture (EG3D, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.triplane.modulation import Noise, SynthesisSettings
from cgsgan.models.triplane.resampling import resize
from cgsgan.models.triplane.synthesis import SynthesisBlock


@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig:
    """Two blocks; defaults are the published ones for 512 px.

    Attributes:
        input_resolution: edge length that pictures and features are resized to first, pixels. A half or a
            quarter of the final one: a half, and only the second block doubles the size; a quarter, and both do.
            (The published module for 256 px leaves inputs above 128 px as they are, and its result is larger then;
            here it keeps its size.)
        channels: channels of the two blocks.
        noise: as in :class:`~cgsgan.models.triplane.synthesis.BackboneConfig`; the published networks carry
            noise images here and do not use them.
        clamp: bound of the activations, in any precision. None: no clamp.
        zero_start: it begins as a plain resizing: its layers to the picture have weights of 0.
    """

    input_resolution: int = 128
    channels: tuple[int, int] = (256, 128)
    noise: Noise = "none"
    clamp: float | None = 256.0
    zero_start: bool = False

    def __post_init__(self) -> None:
        if self.input_resolution < 1 or min(self.channels) < 1:
            raise ValueError(f"superresolution: sizes must be >= 1, got {self}")


class SuperResolution(nn.Module):
    """See the module; satisfies :class:`cgsgan.field_scenes.Refiner`.

    Args:
        config: sizes.
        resolution: edge length of the result, pixels.
        features: channels of the features.
        w_dim: numbers in a style vector.

    Raises:
        ValueError: unless ``resolution`` is two or four times ``input_resolution``.
    """

    def __init__(self, config: SuperResolutionConfig, *, resolution: int, features: int, w_dim: int) -> None:
        super().__init__()
        if resolution not in (2 * config.input_resolution, 4 * config.input_resolution):
            raise ValueError(
                f"superresolution: resolution must be 2 or 4 times input_resolution ({config.input_resolution}), got "
                f"{resolution}"
            )
        self.config, self.resolution = config, resolution
        settings = SynthesisSettings(w_dim=w_dim, image_channels=3, noise=config.noise, clamp=config.clamp)
        first, second = config.channels
        double = resolution == 4 * config.input_resolution
        self.block0 = SynthesisBlock(features, first, size=resolution // 2, settings=settings, up=double)
        self.block1 = SynthesisBlock(first, second, size=resolution, settings=settings)
        if config.zero_start:
            for block in (self.block0, self.block1):
                nn.init.zeros_(block.to_image.weight)

    def forward(
        self,
        raw_images: Float[Tensor, "batch 3 raw_height raw_width"],
        features: Float[Tensor, "batch feature raw_height raw_width"],
        ws: Float[Tensor, "batch num_ws w_dim"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Refine; the last row of ``ws`` serves all layers. In and out: [-1, 1], not clamped to it."""
        size = self.config.input_resolution
        x = resize(features, size).contiguous(memory_format=torch.channels_last)
        rows = ws[:, -1:].expand(-1, 3, -1)
        x, image = self.block0(x, resize(raw_images, size), rows)
        return self.block1(x, image, rows)[1]
