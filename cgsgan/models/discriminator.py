"""The camera-conditioned residual discriminator (StyleGAN2's, with the projection of EG3D and CGS-GAN), and its dual
form, which also sees what was rendered before super-resolution (EG3D; Chan et al. 2022, section 4.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.discriminator_blocks import Block, Epilogue
from cgsgan.models.discriminator_config import DiscriminatorConfig
from cgsgan.models.discriminator_inputs import (
    append_coordinates,
    append_raw_images,
    check_raw_images,
    to_channels_last,
)
from cgsgan.models.layers import EqualizedConv2d, at_least_float32
from cgsgan.models.mapping import CameraMapping


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


__all__ = ["Discriminator", "DiscriminatorConfig", "Judgement"]
