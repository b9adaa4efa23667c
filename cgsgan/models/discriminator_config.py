"""Sizes and forms of the discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EPILOGUE_SIZE = 4
"""Edge length of the feature map that the last layers see, pixels."""
DEAD_BLOCK_SIZE = 8
"""Of what the unused copy of a block in the published networks would take, pixels."""


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
