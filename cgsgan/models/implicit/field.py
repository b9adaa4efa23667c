"""The field: points and directions to density and colour, by sine layers that each scene modulates (pi-GAN's
FiLM-SIREN; Chan et al. 2021, section 3.1, on SIREN; Sitzmann et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.implicit.evaluation import SineStack, follow_in_pieces, follow_plainly


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """The field; defaults are the published network.

    Attributes:
        width: units of every sine layer.
        layers: sine layers before density is read; one more, which also sees the direction, makes the colour.
        box_size: side of the cube around the origin that becomes [-1, 1] in every coordinate, world units. Published
            is 0.24 for cameras at a distance of 1.
        frequency_mean: of the frequencies at the start.
        frequency_scale: what the modulation says is multiplied by this before it is added to ``frequency_mean``.
        weight_frequency: the frequency that weights are made for: those of all but the first layer are uniform in
            +-sqrt(6 / inputs) / this (SIREN, theorem 1.8, where it is called omega_0).
        head_gain: density and colour before their activations are multiplied by this: how fast both are learned.
        density_bias: added to raw densities; below 0 the field begins with clear air.
        ball_density: added to raw densities at the origin; it falls linearly with the distance, is 0 at
            ``ball_radius`` and negative beyond. Published is 0: none. Where heads are cut out and lie on random
            colours, nothing but this keeps a generator from filling the air with colours of its own.
        ball_radius: see there; world units.
    """

    width: int = 256
    layers: int = 8
    box_size: float = 1.0
    frequency_mean: float = 30.0
    frequency_scale: float = 15.0
    weight_frequency: float = 25.0
    head_gain: float = 1.0
    density_bias: float = 0.0
    ball_density: float = 0.0
    ball_radius: float = 0.3

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"field: expected width and layers >= 1, got {self.width} and {self.layers}")
        for name in ("box_size", "weight_frequency", "head_gain", "ball_radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"field: expected {name} > 0, got {getattr(self, name)}")


class SineLayer(nn.Module):
    """``sin(frequency * (W x + b) + phase)``, with a frequency and a phase for each unit of each scene.

    Args:
        in_features: numbers per point.
        width: units.
        bound: weights begin uniform in +-bound.
    """

    def __init__(self, in_features: int, width: int, *, bound: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-1, 1) / math.sqrt(in_features))

    def modulated(
        self, frequency: Float[Tensor, "batch width"], phase: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch inputs width"], Float[Tensor, "batch 1 width"]]:
        """Weight and bias with both in them: an affine map per scene costs no more than one for all."""
        return (frequency.unsqueeze(2) * self.weight).mT, (frequency * self.bias + phase).unsqueeze(1)


class ImplicitField(nn.Module):
    """A :class:`~cgsgan.field_scenes.ConditionedField`.

    Args:
        config: sizes.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        sizes = [3] + [width] * config.layers
        self.layers = nn.ModuleList(
            SineLayer(size, width, bound=1 / size if index == 0 else self._bound(size))
            for index, size in enumerate(sizes[:-1])
        )
        self.color_layer = SineLayer(width + 3, width, bound=self._bound(width + 3))
        self.density_head, self.color_head = self._head(1), self._head(3)

    def forward(
        self,
        points: Float[Tensor, "batch point 3"],
        directions: Float[Tensor, "batch point 3"],
        frequencies: Float[Tensor, "batch layer width"],
        phases: Float[Tensor, "batch layer width"],
    ) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point 3"]]:
        """See :class:`~cgsgan.field_scenes.ConditionedField`; the last frequencies and phases are those of the colour
        layer.
        """
        config = self.config
        layers: list[SineLayer] = [*self.layers, self.color_layer]  # type: ignore[list-item]
        maps = [layer.modulated(frequencies[:, i], phases[:, i]) for i, layer in enumerate(layers)]
        weights, biases = zip(*maps)
        stack = SineStack(
            weights=(*weights[:-1], weights[-1][:, 3:]),
            biases=biases,
            seen_weight=weights[-1][:, :3],
            heads=torch.cat([self.density_head.weight, self.color_head.weight]).mT * config.head_gain,
        )
        follow = follow_in_pieces if points.device.type == "cpu" else follow_plainly
        densities, colors = follow(stack, points * (2 / config.box_size), directions)
        densities = densities + (self.density_head.bias * config.head_gain + config.density_bias)
        if config.ball_density:
            densities = densities + config.ball_density * (1 - points.norm(dim=-1, keepdim=True) / config.ball_radius)
        return densities, torch.sigmoid(colors + self.color_head.bias * config.head_gain)

    def _bound(self, size: int) -> float:
        return math.sqrt(6 / size) / self.config.weight_frequency

    def _head(self, out_features: int) -> nn.Linear:
        head = nn.Linear(self.config.width, out_features)
        bound = self._bound(self.config.width)
        nn.init.uniform_(head.weight, -bound, bound)
        return head
