"""Blocks of StyleGAN2's skip architecture (Karras et al. 2020, section 4.1), and the backbone made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.triplane.modulation import Noise, StyledConv, SynthesisSettings, ToImage
from cgsgan.models.triplane.resampling import upsample_image

CONST_SIZE = 4
"""Edge length of the constant that the backbone starts from, pixels."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The network that draws the planes; defaults are the published one.

    Attributes:
        resolution: edge length of the planes, pixels, a power of two, at least 8.
        plane_channels: channels of each of the three planes.
        channels: channels of the blocks, from 4 px up to ``resolution``. None: min(32768 / size, 512).
        noise: ``constant`` adds fixed noise images, scaled by one learned number per layer; ``none`` adds
            nothing and leaves those numbers frozen. There is no fresh noise per call, as StyleGAN2 has in
            training: a scene is a function of its latent here, so that the views of a training step, its
            repetition after a resume and the other processes all see the same one.
        clamp: bound of the activations. None: no clamp.
    """

    resolution: int = 256
    plane_channels: int = 32
    channels: tuple[int, ...] | None = None
    noise: Noise = "constant"
    clamp: float | None = None

    def __post_init__(self) -> None:
        size = self.resolution
        if size & (size - 1) or size < 2 * CONST_SIZE:
            raise ValueError(f"backbone: resolution must be a power of two of at least 8 px, got {size}")
        if self.plane_channels < 1:
            raise ValueError(f"backbone: plane_channels must be >= 1, got {self.plane_channels}")
        if self.channels is not None and (len(self.channels) != len(self.sizes) or min(self.channels) < 1):
            raise ValueError(
                f"backbone: expected {len(self.sizes)} channels >= 1, for blocks of {[*self.sizes]} px, got "
                f"{self.channels}"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Edge lengths of the blocks' feature maps, pixels, coarse to fine."""
        return tuple(2**power for power in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Style rows: one per convolution, and one for the last skip layer."""
        return 2 * len(self.sizes)

    def resolve_channels(self) -> tuple[int, ...]:
        """Channels of the blocks, coarse to fine."""
        return self.channels or tuple(min(32768 // size, 512) for size in self.sizes)


class SynthesisBlock(nn.Module):
    """Two styled convolutions and a layer to the skip image.

    Args:
        in_channels: channels of the input. 0: the input has ``channels``, and the first convolution is left out.
        channels: channels of the output.
        size: edge length of the output, pixels.
        settings: shared by all layers.
        up: whether features and skip image are doubled in size.
    """

    def __init__(
        self, in_channels: int, channels: int, *, size: int, settings: SynthesisSettings, up: bool = True
    ) -> None:
        super().__init__()
        self.up = up
        self.conv0 = StyledConv(in_channels, channels, size=size, settings=settings, up=up) if in_channels else None
        self.conv1 = StyledConv(channels, channels, size=size, settings=settings)
        self.to_image = ToImage(channels, settings)

    def forward(
        self,
        x: Float[Tensor, "batch in height width"],
        image: Float[Tensor, "batch image height width"] | None,
        ws: Float[Tensor, "batch layer w_dim"],
    ) -> tuple[Float[Tensor, "batch out out_height out_width"], Float[Tensor, "batch image out_height out_width"]]:
        """Features and skip image to the next features and skip image; ``ws`` has one row per layer."""
        rows = ws.unbind(1)
        if self.conv0 is not None:
            x = self.conv0(x, rows[0])
        x = self.conv1(x, rows[-2])
        drawn = self.to_image(x, rows[-1])
        if image is not None:
            drawn = drawn + (upsample_image(image) if self.up else image)
        return x, drawn


class Backbone(nn.Module):
    """Styles to planes.

    Args:
        config: sizes.
        w_dim: numbers in a style vector.
    """

    def __init__(self, config: BackboneConfig, w_dim: int) -> None:
        super().__init__()
        self.config, self.num_ws = config, config.num_ws
        channels = config.resolve_channels()
        settings = SynthesisSettings(
            w_dim=w_dim, image_channels=3 * config.plane_channels, noise=config.noise, clamp=config.clamp
        )
        self.const = nn.Parameter(torch.randn(channels[0], CONST_SIZE, CONST_SIZE))
        self.blocks = nn.ModuleList(
            SynthesisBlock(before, after, size=size, settings=settings)
            for before, after, size in zip((0, *channels), channels, config.sizes)
        )

    def forward(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, "batch 3 plane_channel height width"]:
        """Draw the planes; plane p has channels p C to (p + 1) C - 1 of the last skip image. Channels-last memory."""
        return self.draw(ws)[1].unflatten(1, (3, -1))

    def draw(
        self, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> tuple[Float[Tensor, "batch feature height width"], Float[Tensor, "batch image height width"]]:
        """Features and skip image of the last block."""
        x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image, first = None, 0
        for block in self.blocks:
            # The skip layer of a block takes the row of the next block's first convolution.
            rows = 2 if first == 0 else 3
            x, image = block(x, image, ws[:, first : first + rows])
            first += rows - 1
        assert image is not None
        return x, image
