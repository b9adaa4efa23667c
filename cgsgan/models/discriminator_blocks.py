"""What the discriminator is made of: residual blocks (StyleGAN2, Karras et al. 2020) and the last layers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.discriminator_config import EPILOGUE_SIZE, DiscriminatorConfig
from cgsgan.models.discriminator_inputs import append_coordinates
from cgsgan.models.layers import EqualizedConv2d, EqualizedLinear, at_least_float32

RESIDUAL_GAIN = math.sqrt(0.5)
"""Both branches of a residual sum are multiplied by this."""


class Downsample(nn.Module):
    """Low-pass filter before a convolution or decimation by two.

    Args:
        kind: ``fir`` or ``average``.
    """

    kernel: Tensor

    def __init__(self, kind: Literal["fir", "average"]) -> None:
        super().__init__()
        self.kind = kind
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def filter(
        self, x: Float[Tensor, "batch channel height width"], *, padding: int, stride: int = 1
    ) -> Float[Tensor, "batch channel out_height out_width"]:
        """Correlate every channel with the FIR kernel."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return functional.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)

    def convolve(
        self, x: Float[Tensor, "batch in height width"], conv: EqualizedConv2d
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """A 3 x 3 convolution to half the size, gain sqrt(1/2)."""
        if self.kind == "average":
            return conv(functional.avg_pool2d(x, 2), gain=RESIDUAL_GAIN)
        return conv(self.filter(x, padding=2), gain=RESIDUAL_GAIN, stride=2, padding=0)

    def decimate(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel out_height out_width"]:
        """Filter and keep every second row and column."""
        return functional.avg_pool2d(x, 2) if self.kind == "average" else self.filter(x, padding=1, stride=2)


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions and a 1 x 1 skip, to half the size."""

    def __init__(self, channels: int, out_channels: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.coordinates = config.coordinates == "blocks"
        more = 2 if self.coordinates else 0
        self.conv0 = EqualizedConv2d(channels + more, channels, 3, activation="leaky_relu", clamp=config.clamp)
        self.conv1 = EqualizedConv2d(channels + more, out_channels, 3, activation="leaky_relu", clamp=config.clamp)
        self.skip = EqualizedConv2d(channels, out_channels, 1, bias=False)
        self.downsample = Downsample(config.downsample)

    def forward(self, x: Float[Tensor, "batch in height width"]) -> Float[Tensor, "batch out out_height out_width"]:
        """Apply the block in the dtype of ``x``."""
        skip = self.skip(self.downsample.decimate(x), gain=RESIDUAL_GAIN)
        place = append_coordinates if self.coordinates else _unchanged
        return skip + self.downsample.convolve(place(self.conv0(place(x))), self.conv1)


def _unchanged(x: Tensor) -> Tensor:
    return x


class Epilogue(nn.Module):
    """Minibatch standard deviation, one convolution, two linear layers: 4 x 4 features to a vector; float32."""

    def __init__(self, channels: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.group = config.minibatch_std_group
        self.conv = EqualizedConv2d(channels + 1, channels, 3, activation="leaky_relu", clamp=config.clamp)
        self.fc = EqualizedLinear(channels * EPILOGUE_SIZE**2, channels, activation="leaky_relu")
        self.out = EqualizedLinear(channels, config.camera_width if config.camera_conditioning else 1)
        self.pose = EqualizedLinear(channels, 2) if config.pose_head else None
        self.latent = EqualizedLinear(channels, config.latent_head) if config.latent_head else None

    def forward(
        self, x: Float[Tensor, "batch channel 4 4"]
    ) -> tuple[Float[Tensor, "batch out"], Float[Tensor, "batch 2"] | None, Float[Tensor, "batch z_dim"] | None]:
        """Features to the vector that is projected on the camera's, or to the logit; to pose and latent, if told."""
        x = append_minibatch_std(at_least_float32(x), self.group)
        x = self.fc(self.conv(x).flatten(1))
        pose = None if self.pose is None else self.pose(x)
        return self.out(x), pose, None if self.latent is None else self.latent(x)


def append_minibatch_std(
    x: Float[Tensor, "batch channel height width"], group: int
) -> Float[Tensor, "batch channels_and_one height width"]:
    """Append the standard deviation over a group of images, averaged over channels and pixels (Karras et al.
    2018).

    Members of a group are interleaved: with n groups, images i, i + n, i + 2 n...

    Raises:
        ValueError: when the batch is neither smaller than ``group`` nor a multiple of it.
    """
    batch, _, height, width = x.shape
    group = min(group, batch)
    if batch % group:
        raise ValueError(
            f"discriminator: a batch must be a multiple of minibatch_std_group ({group}) or smaller, got {batch}"
        )
    grouped = x.unflatten(0, (group, -1))
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))
    statistic = deviation.repeat(group)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat([x, statistic], dim=1)
