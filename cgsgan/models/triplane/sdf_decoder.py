"""What was sampled from tri-planes, to a surface: signed distance, its softness beta, colour (WYSIWYG; VolSDF)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import EqualizedLinear
from cgsgan.models.triplane.decoder import OVERSHOOT

PLANE_AXES = ((0, 1), (0, 2), (2, 1))
"""World axes along the columns and rows of the planes, as the renderer's corrected ones are."""
EMPTY_LEVEL = 3.0
"""What planes hold of :func:`start_shape` is lower by this, so that the zeros outside them read as far outside."""


@dataclass(frozen=True, kw_only=True)
class SdfDecoderConfig:
    """The decoder.

    Attributes:
        width: units of the one hidden layer.
        features: colour features per sample; the first three are RGB. There is no super-resolution that would read
            more.
        lr_multiplier: equalised learning-rate multiplier of both layers.
        distance_scale: world units of signed distance per unit of the network's output.
        start_radii: half axes x, y, z of the ellipsoid that every scene starts as, world units. A fresh network's own
            distances would be a fog of random sheets, from which a surface has to be found again; this one has an
            inside, an outside and a gradient of about 1 between them, and faces every camera.
        start_beta: beta everywhere at the start, world units.
        beta_floor: beta is greater than this, world units: below the distance of samples nothing would be seen of it.
        box_size: side of the cube around the origin that the planes cover, world units (``rendering.box_warp``).
    """

    width: int = 64
    features: int = 3
    lr_multiplier: float = 1.0
    distance_scale: float = 0.1
    start_radii: tuple[float, ...] = (0.25, 0.3, 0.27)
    start_beta: float = 0.1
    beta_floor: float = 1e-4
    box_size: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no surface.

        Raises:
            ValueError: names the setting.
        """
        if self.width < 1 or self.features < 3:
            raise ValueError(f"decoder: expected width >= 1 and features >= 3, got {self.width} and {self.features}")
        if not 0 < self.beta_floor < self.start_beta < math.inf:
            raise ValueError(
                "decoder: beta is a length > 0 in world units; expected 0 < beta_floor < start_beta, got "
                f"{self.beta_floor} and {self.start_beta}"
            )
        for name in ("lr_multiplier", "distance_scale", "box_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"decoder.{name}: expected a finite number > 0, got {getattr(self, name)}")
        if len(self.start_radii) != 3 or not all(0 < radius < self.box_size / 2 for radius in self.start_radii):
            raise ValueError(
                f"decoder.start_radii: expected three lengths, each > 0 and below half of box_size {self.box_size}, "
                f"got {[*self.start_radii]}"
            )


def start_shape(config: SdfDecoderConfig, resolution: int) -> Float[Tensor, "3 1 resolution resolution"]:
    """The ellipsoid that scenes start as, as one more channel of the three planes.

    The mean over the planes is (x/a)^2 + (y/b)^2 + (z/c)^2 - :data:`EMPTY_LEVEL`: every axis lies in two of them. A
    decoder that sees features alone can have no shape of its own; as a channel it costs one number per texel.
    """
    centers = ((torch.arange(resolution) + 0.5) / resolution - 0.5) * config.box_size
    squares = [(centers / radius).square() * 1.5 for radius in config.start_radii]
    planes = [squares[columns] + squares[rows][:, None] - EMPTY_LEVEL for columns, rows in PLANE_AXES]
    return torch.stack(planes).unsqueeze(1)


class SdfDecoder(nn.Module):
    """One hidden layer with softplus, as EG3D's, on top of the ellipsoid that scenes start as.

    Args:
        config: sizes.
        channels: channels of a plane, without the one of :func:`start_shape`.
    """

    def __init__(self, config: SdfDecoderConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = EqualizedLinear(channels, config.width, lr_multiplier=config.lr_multiplier)
        self.out = EqualizedLinear(config.width, 2 + config.features, lr_multiplier=config.lr_multiplier)
        with torch.no_grad():
            self.out.weight[:2] = 0.0
        self.radius = math.prod(config.start_radii) ** (1 / 3)
        self.start_raw_beta = math.log(math.expm1(config.start_beta - config.beta_floor))

    def forward(
        self, features: Float[Tensor, "*batch channel"]
    ) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"], Float[Tensor, "*batch feature"]]:
        """Mean features of the three planes to signed distances (world units, < 0 inside), betas (world units) and
        colour features in [-0.001, 1.001].

        With f = (x/a)^2 + (y/b)^2 + (z/c)^2 the start is (f - 1) m / 2, m the geometric mean of a, b and c: for a
        sphere (r^2 - a^2) / 2a, whose gradient at the surface is 1.
        """
        start, drawn = features[..., :1], features[..., 1:]
        hidden = functional.softplus(self.hidden(drawn))
        raw_distances, raw_betas, raw_colors = self.out(hidden).split((1, 1, self.config.features), dim=-1)
        distances = (start + (EMPTY_LEVEL - 1)) * (self.radius / 2) + raw_distances * self.config.distance_scale
        betas = functional.softplus(raw_betas + self.start_raw_beta) + self.config.beta_floor
        colors = torch.sigmoid(raw_colors)
        return distances, betas, torch.rsub(colors, -OVERSHOOT, alpha=-(1 + 2 * OVERSHOOT))
