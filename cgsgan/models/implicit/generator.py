"""pi-GAN's generator: latents to the frequencies and phases of a field (Chan et al. 2021), for any size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.implicit.field import FieldConfig, ImplicitField
from cgsgan.models.layers import LEAKY_SLOPE, at_least_float32
from cgsgan.models.mapping import Mapping, MappingConfig
from cgsgan.types import ImplicitOutput, ImplicitScenes


@dataclass(frozen=True, kw_only=True)
class ImplicitGeneratorConfig:
    """The generator; defaults are the published network.

    Attributes:
        kind: which generator this is.
        resolution: edge length of the pictures it is trained on, pixels; its scenes have none.
        mapping: latents to styles: the hidden layers of pi-GAN's mapping network.
        field: what the styles modulate.
        modulation_gain: frequencies and phases vary so much at the start, against Kaiming's initialisation of the
            layer that makes them.
    """

    kind: Literal["implicit"] = "implicit"
    resolution: int = 128
    mapping: MappingConfig = field(
        default_factory=lambda: MappingConfig(z_dim=256, w_dim=256, layers=3, lr_multiplier=1.0, normalize=False)
    )
    field: FieldConfig = field(default_factory=FieldConfig)
    modulation_gain: float = 0.25

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"generator: resolution must be >= 1, got {self.resolution}")
        if self.mapping.label_dim:
            raise ValueError(
                "generator: an implicit generator does not look at cameras; expected mapping.label_dim 0, got "
                f"{self.mapping.label_dim}"
            )
        if not 0 < self.modulation_gain < math.inf:
            raise ValueError(f"generator: expected modulation_gain > 0, got {self.modulation_gain}")


class Modulation(nn.Module):
    """Styles to frequencies and phases, each layer's from its own row.

    Args:
        w_dim: numbers per style row.
        config: of the field.
        gain: standard deviation of what is said, for styles of mean square 1, over Kaiming's.
    """

    def __init__(self, w_dim: int, config: FieldConfig, *, gain: float) -> None:
        super().__init__()
        rows = config.layers + 1
        self.config = config
        self.weight = nn.Parameter(torch.randn(rows, w_dim, 2 * config.width))
        self.bias = nn.Parameter(torch.zeros(rows, 1, 2 * config.width))
        self.weight_scale = gain * math.sqrt(2 / (1 + LEAKY_SLOPE**2) / w_dim)

    def forward(
        self, ws: Float[Tensor, "batch row w_dim"]
    ) -> tuple[Float[Tensor, "batch row width"], Float[Tensor, "batch row width"]]:
        """Frequencies, around ``frequency_mean``, and phases in radians."""
        said = torch.baddbmm(self.bias, ws.transpose(0, 1), self.weight * self.weight_scale).transpose(0, 1)
        frequencies, phases = said.chunk(2, dim=-1)
        return frequencies * self.config.frequency_scale + self.config.frequency_mean, phases.contiguous()


class ImplicitGenerator(nn.Module):
    """Latents to scenes.

    Attributes:
        config: what it was made from.
        z_dim: numbers per latent.
        num_ws: style rows, one for each sine layer; the last one is the colour's.
        resolution: edge length of the pictures it is trained on, pixels.
    """

    def __init__(self, config: ImplicitGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolution, self.z_dim = config.resolution, config.mapping.z_dim
        self.num_ws = config.field.layers + 1
        self.mapping = Mapping(config.mapping, self.num_ws)
        self.modulation = Modulation(config.mapping.w_dim, config.field, gain=config.modulation_gain)
        self.field = ImplicitField(config.field)

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"] | None = None,
        *,
        ws: Float[Tensor, "batch num_ws w_dim"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_average: bool = False,
    ) -> ImplicitOutput:
        """Generate a batch of scenes.

        Args:
            z: latents ~ N(0, 1).
            ws: styles, instead of ``z``; taken as they are, without truncation.
            truncation_psi: 1 for full variety, towards 0 for the scene of mean frequencies and phases.
            truncation_cutoff: truncate only the first so many style rows; None truncates all.
            update_w_average: move the running mean of w, in training.

        Raises:
            ValueError: unless exactly one of ``z`` and ``ws`` is given, or when a shape does not fit.
        """
        ws = self.mapping.styles(
            z,
            ws,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            update_average=update_w_average,
        )
        # Half precision would make other scenes: a frequency of 30 has 3 bits behind the point in bfloat16.
        with torch.autocast(ws.device.type, enabled=False):
            frequencies, phases = self.modulation(at_least_float32(ws))
        return ImplicitOutput(scenes=ImplicitScenes(frequencies=frequencies, phases=phases, read=self.field), ws=ws)

    def position_parameters(self) -> list[nn.Parameter]:
        """The parameters with a learning rate of their own: none here."""
        return []
