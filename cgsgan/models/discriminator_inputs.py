"""What becomes of pictures before the discriminator's first layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cgsgan.models.triplane.resampling import resize


def check_raw_images(raw_images: Tensor | None, images: Tensor, *, dual: bool) -> None:
    """Raw images are there exactly for the dual form, and fit the images.

    Raises:
        ValueError: otherwise.
    """
    if dual and raw_images is None:
        raise ValueError("discriminator: it is dual; give raw_images, the pictures before super-resolution")
    if not dual and raw_images is not None:
        raise ValueError("discriminator: it is not dual; leave raw_images out, or set discriminator.dual: true")
    if raw_images is not None and (raw_images.ndim != 4 or raw_images.shape[:2] != images.shape[:2]):
        raise ValueError(
            f"discriminator: expected raw_images of shape [{len(images)}, 3, height, width], got "
            f"{list(raw_images.shape)}"
        )


def append_raw_images(
    images: Float[Tensor, "batch 3 height width"], raw_images: Float[Tensor, "batch 3 raw_height raw_width"]
) -> Float[Tensor, "batch 6 height width"]:
    """The raw images behind the images, brought to their size: bilinear, with antialiasing."""
    return torch.cat([images, resize(raw_images, images.shape[-1])], dim=1)


def append_coordinates(
    x: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch channels_and_two height width"]:
    """Append the position of every pixel: x and y from -1 (left, top) to 1 (right, bottom), the outermost pixels'
    centres included (CoordConv; Liu et al. 2018).
    """
    batch, _, height, width = x.shape
    across = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).expand(batch, 1, height, width)
    down = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)[:, None].expand(batch, 1, height, width)
    return torch.cat([x, across, down], dim=1)


def to_channels_last(
    images: Float[Tensor, "batch image_channel height width"], unshuffle: int
) -> Float[Tensor, "batch channel small_height small_width"]:
    """Pixel-unshuffle (channel order of ``torch.pixel_unshuffle``) into channels-last memory."""
    if unshuffle > 1:
        images = functional.pixel_unshuffle(images, unshuffle)
    return images.contiguous(memory_format=torch.channels_last)
