"""The camera-conditioned residual discriminator (StyleGAN2's, with the projection of EG3D and CGS-GAN), and its dual
form, which also sees what was rendered before super-resolution (EG3D; Chan et al. 2022, section 4.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.discriminator_inputs import (
    append_coordinates,
    append_raw_images,
    check_raw_images,
    to_channels_last,
)
from cgsgan.models.layers import EqualizedConv2d, EqualizedLinear, at_least_float32
from cgsgan.models.mapping import CameraMapping

RESIDUAL_GAIN = math.sqrt(0.5)
"""Both branches of a residual sum are multiplied by this."""
EPILOGUE_SIZE = 4
"""Edge length of the feature map that the last layers see, pixels."""
DEAD_BLOCK_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator; defaults are the published network for 512 px with its dead block left out.

    Attributes:
        resolution: image edge length, pixels, a power of two.
        unshuffle: 1, 2 or 4; edge length of the squares of pixels that become channels first. Saves most of
            the cost of the finest blocks on small machines.
        channels: channels at the input of every block and of the last layers, from ``resolution / unshuffle``
            down to 4 px. None: min(32768 / size, 512).
        downsample: ``fir`` filters with [1, 3, 3, 1], as published; ``average`` pools 2 x 2, far cheaper on a
            CPU.
        label_dim: numbers per camera label.
        camera_conditioning: off, it does not see the camera labels, and its features end in one logit.
        camera_width: numbers of the vector that the label and the image features meet in.
        camera_layers: fully connected layers of the camera mapping after its linear embedding.
        camera_lr_multiplier: equalised learning-rate multiplier of those layers.
        minibatch_std_group: images over which a standard deviation is taken; a batch must be a multiple of it
            or smaller.
        clamp: bound of the activations; needed in half precision. None: no clamp.
        half_precision_blocks: blocks, finest first, in half precision on CUDA; elsewhere all is float32.
        half_dtype: the type those blocks use; ``float16`` needs ``clamp``.
        half_on_cpu: half precision on a CPU too, in ``bfloat16`` only. 1.6 times as fast where the CPU has
            bfloat16 instructions (AVX512-BF16, AMX), slower than float32 elsewhere.
        dual: whether it takes two pictures: the final one, and the one rendered at the neural resolution, which is
            enlarged and follows in channels of its own. What super-resolution adds must then fit what was
            rendered.
        coordinates: channels that hold the position of each pixel (CoordConv): none, at the first convolution
            ("input"), or also at every 3 x 3 convolution of the blocks ("blocks", as in pi-GAN).
        pose_head: it also tells yaw and pitch of the camera of a picture; see ``training.loss.pose_weight``.
        latent_head: it also tells so many numbers of the latent of a picture, the generator's ``mapping.z_dim``;
            see ``training.loss.latent_weight``. 0: it does not.
        dead_block: whether it carries the unused, frozen copy of the 8 px block of the published networks.
    """

    resolution: int = 512
    unshuffle: int = 1
    channels: tuple[int, ...] | None = None
    downsample: Literal["fir", "average"] = "fir"
    label_dim: int = 25
    camera_conditioning: bool = True
    camera_width: int = 512
    camera_layers: int = 8
    camera_lr_multiplier: float = 0.01
    minibatch_std_group: int = 4
    clamp: float | None = 256.0
    half_precision_blocks: int = 4
    half_dtype: Literal["float16", "bfloat16"] = "float16"
    half_on_cpu: bool = False
    dual: bool = False
    coordinates: Literal["none", "input", "blocks"] = "none"
    pose_head: bool = False
    latent_head: int = 0
    dead_block: bool = False

    def __post_init__(self) -> None:
        size = self.resolution
        if self.unshuffle not in (1, 2, 4):
            raise ValueError(f"discriminator: unshuffle must be 1, 2 or 4, got {self.unshuffle}")
        if size & (size - 1) or size // self.unshuffle < 2 * EPILOGUE_SIZE:
            raise ValueError(
                f"discriminator: resolution must be a power of two of at least {2 * EPILOGUE_SIZE * self.unshuffle} "
                f"px with unshuffle {self.unshuffle}, got {size}"
            )
        if self.latent_head < 0:
            raise ValueError(f"discriminator: latent_head must be 0 or generator.mapping.z_dim, got {self.latent_head}")
        if self.half_on_cpu and self.half_dtype != "bfloat16":
            raise ValueError(f"discriminator: half_on_cpu needs half_dtype bfloat16, got {self.half_dtype}")
        if self.channels is not None and len(self.channels) != len(self.block_sizes) + 1:
            raise ValueError(
                f"discriminator: expected {len(self.block_sizes) + 1} channels, for feature maps of "
                f"{[*self.block_sizes, EPILOGUE_SIZE]} px, got {self.channels}"
            )

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Edge lengths of the feature maps that the blocks take, pixels, finest first."""
        first = (self.resolution // self.unshuffle).bit_length() - 1
        return tuple(2**power for power in range(first, 2, -1))

    def resolve_channels(self) -> tuple[int, ...]:
        """Channels at the input of every block and of the last layers."""
        if self.channels is not None:
            return self.channels
        return tuple(min(32768 // size, 512) for size in (*self.block_sizes, EPILOGUE_SIZE))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a discriminator says of pictures.

    Attributes:
        logits: > 0 is real.
        pose: yaw and pitch of their cameras, radians; None without such a head.
        latent: that they were made from; None without such a head.
    """

    logits: Float[Tensor, "batch 1"]
    pose: Float[Tensor, "batch 2"] | None = None
    latent: Float[Tensor, "batch z_dim"] | None = None

    def parts(self) -> dict[str, Tensor | None]:
        """By name, without copies."""
        return {"logits": self.logits, "pose": self.pose, "latent": self.latent}


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


class Discriminator(nn.Module):
    """Images and the cameras they claim to be seen from, to logits.

    Args:
        config: sizes.
    """

    label_mean: Tensor
    label_std: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.resolve_channels()
        self.from_rgb = EqualizedConv2d(
            (6 if config.dual else 3) * config.unshuffle**2 + (0 if config.coordinates == "none" else 2),
            channels[0],
            1 if config.unshuffle == 1 else 3,
            activation="leaky_relu",
            clamp=config.clamp,
        )
        self.blocks = nn.ModuleList(Block(a, b, config) for a, b in pairwise(channels))
        self.dead_block = None
        if config.dead_block:
            self.dead_block = Block(channels[-2], channels[-1], config).requires_grad_(False)
        self.camera = None
        if config.camera_conditioning:
            self.camera = CameraMapping(
                config.label_dim,
                config.camera_width,
                layers=config.camera_layers,
                lr_multiplier=config.camera_lr_multiplier,
            )
        self.epilogue = Epilogue(channels[-1], config)
        self.register_buffer("label_mean", torch.zeros(config.label_dim))
        self.register_buffer("label_std", torch.ones(config.label_dim))

    def set_label_statistics(self, mean: Float[Tensor, " label"], std: Float[Tensor, " label"]) -> None:
        """Standardise camera labels by these; columns that hardly vary (std < 1e-4) are only centred.

        Raises:
            ValueError: when the shapes are not ``[label_dim]``.
        """
        if mean.shape != self.label_mean.shape or std.shape != self.label_std.shape:
            raise ValueError(
                f"discriminator: expected label statistics of shape [{self.config.label_dim}], got "
                f"{list(mean.shape)} and {list(std.shape)}"
            )
        self.label_mean.copy_(mean)
        self.label_std.copy_(torch.where(std < 1e-4, torch.ones_like(std), std))

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        camera_labels: Float[Tensor, "batch label"],
        raw_images: Float[Tensor, "batch 3 raw_height raw_width"] | None = None,
    ) -> Float[Tensor, "batch 1"]:
        """The logits alone; see :meth:`judge`."""
        return self.judge(images, camera_labels, raw_images).logits

    def judge(
        self,
        images: Float[Tensor, "batch 3 height width"],
        camera_labels: Float[Tensor, "batch label"],
        raw_images: Float[Tensor, "batch 3 raw_height raw_width"] | None = None,
    ) -> Judgement:
        """Judge images.

        Args:
            images: RGB in [-1, 1], ``resolution`` squared.
            camera_labels: 25 numbers per image.
            raw_images: for the dual form, and only for it: the same before super-resolution, of any size.

        Raises:
            ValueError: when the shapes do not fit the configuration, or raw images are missing or unwanted.
        """
        self._check(images, camera_labels, raw_images)
        # It chooses its own precision; an outer autocast would reach into the epilogue and its statistics.
        with torch.autocast(images.device.type, enabled=False):
            images = at_least_float32(images)
            if raw_images is not None:
                images = append_raw_images(images, at_least_float32(raw_images))
            x = to_channels_last(images, self.config.unshuffle)
            half = self.config.half_precision_blocks if images.is_cuda or self.config.half_on_cpu else 0
            if self.config.coordinates != "none":
                x = append_coordinates(x)
            x = self.from_rgb(x.to(self._dtype(half > 0)))
            for index, block in enumerate(self.blocks):
                x = block(x.to(self._dtype(index < half)))
            logits, pose, latent = self.epilogue(x)
            if self.camera is not None:
                labels = (camera_labels - self.label_mean) / self.label_std
                product = logits * self.camera(labels)
                logits = product.sum(dim=1, keepdim=True) * (1 / math.sqrt(self.config.camera_width))
            return Judgement(logits=logits, pose=pose, latent=latent)

    @property
    def recognizes(self) -> bool:
        """Whether it tells more of pictures than logits."""
        return self.config.pose_head or self.config.latent_head > 0

    def _dtype(self, half: bool) -> torch.dtype:
        return getattr(torch, self.config.half_dtype) if half else self.label_mean.dtype

    def _check(self, images: Tensor, camera_labels: Tensor, raw_images: Tensor | None) -> None:
        size = self.config.resolution
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"discriminator: expected images of shape [batch, 3, {size}, {size}], got {list(images.shape)}"
            )
        if camera_labels.shape != (len(images), self.config.label_dim):
            raise ValueError(
                f"discriminator: expected camera_labels of shape [{len(images)}, {self.config.label_dim}], got "
                f"{list(camera_labels.shape)}"
            )
        check_raw_images(raw_images, images, dual=self.config.dual)


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
