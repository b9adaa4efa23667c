"""CGS-GAN's generator: latents to scenes of 3D Gaussians (Barthel et al. 2025), for any resolution and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.anchors import AnchorConfig, AnchorDecoder
from cgsgan.models.mapping import Mapping, MappingConfig
from cgsgan.models.points import Points, PointsConfig
from cgsgan.models.transformer import Transformer, TransformerConfig
from cgsgan.types import GeneratorOutput


@dataclass(frozen=True, kw_only=True)
class GaussianGeneratorConfig:
    """The generator; defaults are the published network for 512 px with its dead parts left out.

    Attributes:
        kind: what makes it this one, in a config file.
        resolution: image edge length the levels are made for, pixels: a power of two, 32..2048. Gaussians can
            be rendered at any size; this sets their number and how fine they may become.
        mapping: latents to styles.
        points: the tokens.
        transformer: the blocks.
        anchors: the levels.
        xyz_group: what gets the separate position learning rate: the ``points`` alone, or
            ``points_and_heads``, the published rule (every parameter with "xyz" in its name, so the position
            heads too).
    """

    kind: Literal["gaussians"] = "gaussians"
    resolution: int = 512
    mapping: MappingConfig = field(default_factory=MappingConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    xyz_group: Literal["points", "points_and_heads"] = "points"

    def __post_init__(self) -> None:
        if self.resolution not in (32, 64, 128, 256, 512, 1024, 2048):
            raise ValueError(f"generator: resolution must be a power of two from 32 to 2048, got {self.resolution}")


class GaussianGenerator(nn.Module):
    """Latents to scenes.

    Attributes:
        config: what it was made from.
        z_dim: numbers per latent.
        num_ws: style rows, one per transformer block.
        resolution: image edge length the levels are made for, pixels.
    """

    def __init__(self, config: GaussianGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.resolution
        self.z_dim = config.mapping.z_dim
        levels = len(config.anchors.resolve_split_factors(config.resolution))
        width = config.transformer.width
        self.num_ws = config.transformer.block_count(levels)
        self.mapping = Mapping(config.mapping, self.num_ws)
        self.points = Points(config.points, width)
        self.transformer = Transformer(config.transformer, w_dim=config.mapping.w_dim, levels=levels)
        self.decoder = AnchorDecoder(
            config.anchors, resolution=config.resolution, width=width, points=config.points.count
        )

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"] | None = None,
        *,
        ws: Float[Tensor, "batch num_ws w_dim"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_average: bool = False,
    ) -> GeneratorOutput:
        """Generate a batch of scenes.

        Args:
            z: latents ~ N(0, 1).
            ws: styles, instead of ``z``; taken as they are, without truncation.
            truncation_psi: 1 for full variety, towards 0 for the mean scene.
            truncation_cutoff: truncate only the first so many style rows; None truncates all.
            update_w_average: move the running mean of w, in training.

        Raises:
            ValueError: unless exactly one of ``z`` and ``ws`` is given, or when its shape does not fit.
        """
        ws = self.mapping.styles(
            z,
            ws,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            update_average=update_w_average,
        )
        positions, features = self.points()
        gaussians, anchors = self.decoder(self.transformer(features, ws), positions)
        return GeneratorOutput(gaussians=gaussians, anchors=anchors, level_sizes=self.decoder.level_sizes, ws=ws)

    def position_parameters(self) -> list[nn.Parameter]:
        """The parameters with a learning rate of their own, by ``config.xyz_group``."""
        if self.config.xyz_group == "points":
            return [self.points.xyz]
        return [self.points.xyz, *self.decoder.position_head_parameters()]
