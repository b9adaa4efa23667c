"""Where along the rays of a large picture a scene is, guessed from a small one (WYSIWYG; Trevithick et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import LEAKY_SLOPE

WEIGHT_FLOOR = 1e-3
"""Added to weights before their logarithm: a bin that a coarse pixel has nothing in is not excluded."""


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """The network; defaults are the published sizes: 128 px and 192 bins to 512 px and 192 bins.

    Attributes:
        bins: along a ray (``rendering.bins``).
        probe_resolution: side of the small picture, pixels; of its weights too.
        channels: of the layers at the probe's size.
        blocks: residual pairs of convolutions there.
        fine_channels: of the layers after each doubling. None: ``channels``.
    """

    bins: int = 192
    probe_resolution: int = 128
    channels: int = 256
    blocks: int = 2
    fine_channels: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes without a meaning.

        Raises:
            ValueError: names the setting.
        """
        for name, least in (("bins", 2), ("probe_resolution", 1), ("channels", 1), ("blocks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"proposal.{name}: expected >= {least}, got {getattr(self, name)}")
        if self.fine_channels is not None and self.fine_channels < 1:
            raise ValueError(f"proposal.fine_channels: expected >= 1 or null, got {self.fine_channels}")

    def doublings(self, size: int) -> int:
        """How often the probe is doubled to reach pictures of ``size`` pixels.

        Raises:
            ValueError: when it never does.
        """
        steps = max(size // self.probe_resolution, 1).bit_length() - 1
        if self.probe_resolution << steps != size:
            raise ValueError(
                f"proposal.probe_resolution: {self.probe_resolution} px doubled again and again never give the "
                f"resolution of {size} px"
            )
        return steps


class ProposalNetwork(nn.Module):
    """A small picture and its weights along the rays, to logits for every pixel of a large one.

    The logits are the logarithm of the small weights, enlarged, plus what convolutions say: as it starts, a fine pixel
    is looked for where the coarse ones around it are. The published description names a CNN alone; from this start the
    sampler is of use before it is trained.

    Args:
        config: sizes.
        size: side of the large picture, pixels.
    """

    def __init__(self, config: ProposalConfig, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        fine = config.fine_channels or config.channels
        self.first = _conv(config.bins + 3, config.channels)
        self.blocks = nn.ModuleList(
            nn.ModuleList([_conv(config.channels, config.channels) for _ in range(2)]) for _ in range(config.blocks)
        )
        widths = [config.channels] + [fine] * config.doublings(size)
        self.fine = nn.ModuleList(_conv(before, after) for before, after in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], config.bins, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(
        self, images: Float[Tensor, "batch 3 probe probe"], weights: Float[Tensor, "batch bin probe probe"]
    ) -> Float[Tensor, "batch bin height width"]:
        """Logits over the bins of every ray.

        Args:
            images: of the probe, [0, 1].
            weights: of its rays; their sum is the coverage.

        Raises:
            ValueError: for another number of bins or another size of the probe.
        """
        expected = (self.config.bins, self.config.probe_resolution, self.config.probe_resolution)
        if tuple(weights.shape[1:]) != expected:
            raise ValueError(
                f"proposal: expected weights of {expected[0]} bins at {expected[1]} x {expected[2]} px, got "
                f"{list(weights.shape[1:])}"
            )
        logarithms = (weights + WEIGHT_FLOOR).log()
        seen = torch.cat([images * 2 - 1, logarithms / -math.log(WEIGHT_FLOOR)], dim=1)
        x = _activate(self.first(seen.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            first, second = block  # type: ignore[misc]
            x = x + second(_activate(first(x)))
        for conv in self.fine:
            x = _activate(conv(functional.interpolate(x, scale_factor=2.0, mode="bilinear")))
        enlarged = functional.interpolate(weights, (self.size, self.size), mode="bilinear")
        return self.out(x) + (enlarged + WEIGHT_FLOOR).log()


def _conv(in_channels: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1)
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, LEAKY_SLOPE)
