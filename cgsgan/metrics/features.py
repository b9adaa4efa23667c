"""Features of a fixed random network: a yardstick that needs no download and no pretrained weights."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEATURE_SIZE = 32
"""Side of the pictures the network sees, pixels."""
CHANNELS = (32, 64, 48)
CELLS = 2
"""The last layer is averaged over CELLS x CELLS parts of the picture, so that it counts where things are."""
FEATURE_COUNT = CHANNELS[-1] * CELLS**2
SEED = 4
"""Part of the definition of the features; another seed is another yardstick."""
NEGATIVE_SLOPE = 0.2


def random_features(
    images: Float[Tensor, "image 3 height width"], *, batch_size: int = 256
) -> Float[Tensor, "image 192"]:
    """Describe pictures by 192 numbers: three random 3x3 convolutions of stride 2, averaged over quarters.

    Random convolutions keep enough of colour, contrast and layout to rank generators, and the same numbers
    come out on every machine: the weights are He-normal draws of NumPy's PCG64, independent of torch's random
    numbers.

    Args:
        images: RGB in [0, 1], square, the side a multiple of 32; larger ones are box-reduced to 32 x 32.
        batch_size: pictures per pass; changes memory, not the result.

    Returns:
        float32 features on the CPU, not standardised.

    Raises:
        ValueError: for pictures of another size.
    """
    height, width = images.shape[-2:]
    if height != width or height % FEATURE_SIZE or height == 0:
        raise ValueError(
            f"random_features: expected square images with a side that is a multiple of {FEATURE_SIZE}, "
            f"got {height} x {width}"
        )
    weights = [weight.to(images.device) for weight in network_weights()]
    with torch.no_grad():
        features = [_forward(batch.float(), weights).cpu() for batch in images.split(batch_size)]
    return torch.cat(features)


def network_weights() -> list[Float[Tensor, "out in 3 3"]]:
    """The weights of the three layers, the same on every call and machine."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    weights: list[Tensor] = []
    fan_channels = 3
    for channels in CHANNELS:
        draw = generator.standard_normal((channels, fan_channels, 3, 3)).astype(np.float32)
        weights.append(torch.from_numpy(draw * np.float32(math.sqrt(2 / (9 * fan_channels)))))
        fan_channels = channels
    return weights


def _forward(images: Tensor, weights: list[Tensor]) -> Tensor:
    reduced = F.avg_pool2d(images, images.shape[-1] // FEATURE_SIZE)
    hidden = reduced * 2 - 1
    for weight in weights:
        hidden = F.leaky_relu(F.conv2d(hidden, weight, stride=2, padding=1), NEGATIVE_SLOPE)
    return F.adaptive_avg_pool2d(hidden, CELLS).flatten(1)
