"""The space of a generator's styles, whitened: coordinates in which all heads of the generator look like N(0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLES = 8192
SMALLEST_SPREAD = 1e-2
"""Directions whose spread is below this share of the widest one are taken to be this wide: the mapping network hardly
uses them, and an optimiser that could would leave the heads it knows."""


@runtime_checkable
class StyleMapping(Protocol):
    """The mapping network of any generator here."""

    def __call__(self, z: Tensor) -> Tensor:
        """Latents ``[batch, z_dim]`` to styles ``[batch, num_ws, w_dim]``."""
        ...


@dataclass(frozen=True)
class StyleSpace:
    """Mean and principal axes of the styles w (the space P_N of Zhu et al. 2020, "Improved StyleGAN embedding").

    Attributes:
        mean: of w.
        axes: orthonormal rows, widest first: the principal directions (Harkonen et al. 2020, GANSpace).
        spreads: standard deviation along each, > 0.
    """

    mean: Float[Tensor, " w_dim"]
    axes: Float[Tensor, "w_dim w_dim"]
    spreads: Float[Tensor, " w_dim"]

    @staticmethod
    @torch.no_grad()
    def of(
        mapping: StyleMapping,
        z_dim: int,
        *,
        samples: int = SAMPLES,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> StyleSpace:
        """Measure the space on random latents, the same ones on every device.

        Args:
            mapping: latents to styles; its first row of styles is looked at.
            z_dim: numbers per latent.
            samples: latents drawn.
            seed: of them.
            device: where the mapping is, and where the space will be.
        """
        z = torch.randn(samples, z_dim, generator=torch.Generator().manual_seed(seed)).to(device)
        ws = mapping(z)[:, 0].double()
        mean = ws.mean(dim=0)
        _, spreads, axes = torch.linalg.svd((ws - mean) / (samples - 1) ** 0.5, full_matrices=False)
        if len(axes) < len(mean):
            raise ValueError(f"style space: expected at least {len(mean)} samples, got {samples}")
        spreads = spreads.clamp_min(float(spreads[0]) * SMALLEST_SPREAD)
        return StyleSpace(mean.float(), axes.float(), spreads.float())

    def to_styles(self, coordinates: Float[Tensor, "*batch w_dim"]) -> Float[Tensor, "*batch w_dim"]:
        """Coordinates, N(0, 1) for the generator's own heads, to styles."""
        return self.mean + (coordinates * self.spreads) @ self.axes

    def to_coordinates(self, styles: Float[Tensor, "*batch w_dim"]) -> Float[Tensor, "*batch w_dim"]:
        """The inverse of :meth:`to_styles`."""
        return ((styles - self.mean) @ self.axes.mT) / self.spreads
