"""WYSIWYG's generator: latents (and cameras) to tri-planes of signed distance, with the network that proposes where
along rays to look at them (Trevithick et al. 2024, arXiv 2401.02411); for any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.layers import at_least_float32
from cgsgan.models.mapping import Mapping, MappingConfig
from cgsgan.models.triplane.modulation import SynthesisSettings
from cgsgan.models.triplane.proposal import ProposalConfig, ProposalNetwork
from cgsgan.models.triplane.sdf_decoder import SdfDecoder, SdfDecoderConfig, start_shape
from cgsgan.models.triplane.synthesis import Backbone, BackboneConfig, SynthesisBlock
from cgsgan.types import SdfOutput, SdfPlanes

DOUBLE_CAPACITY = (724, 724, 724, 724, 724, 362, 181)
"""EG3D's channels times sqrt(2): twice its weights, at 4 to 256 px."""
ORIENTED_ROWS = 3
"""Style rows that the blocks of the planes read; the first is the last one of the backbone."""


@dataclass(frozen=True, kw_only=True)
class SdfGeneratorConfig:
    """The generator; defaults are the published network for 512 px, as far as it was described.

    Attributes:
        kind: which generator this is.
        resolution: edge length of the final picture, pixels, every one of which is rendered.
        camera_conditioning: as in :class:`~cgsgan.models.triplane.generator.TriPlaneGeneratorConfig`.
        mapping: latents and labels to styles.
        backbone: styles to what all planes share; published with twice EG3D's capacity.
        oriented_channels: of the block that each plane has to itself.
        decoder: what was sampled from the planes, to signed distance, beta and colour.
        proposal: where to look.
    """

    kind: Literal["sdf_planes"] = "sdf_planes"
    resolution: int = 512
    camera_conditioning: bool = True
    mapping: MappingConfig = field(default_factory=lambda: MappingConfig(label_dim=25))
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(channels=DOUBLE_CAPACITY))
    oriented_channels: int = 128
    decoder: SdfDecoderConfig = field(default_factory=SdfDecoderConfig)
    proposal: ProposalConfig = field(default_factory=ProposalConfig)

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"generator: resolution must be >= 1, got {self.resolution}")
        if self.oriented_channels < 1:
            raise ValueError(f"generator.oriented_channels: expected >= 1, got {self.oriented_channels}")
        if self.camera_conditioning and not self.mapping.label_dim:
            raise ValueError(
                "generator: camera_conditioning needs mapping.label_dim 25, got 0; set mapping.label_dim: 25 or "
                "camera_conditioning: false"
            )
        self.proposal.doublings(self.resolution)


class SdfGenerator(nn.Module):
    """Latents to scenes.

    Attributes:
        config: what it was made from.
        z_dim: numbers per latent.
        num_ws: style rows.
        resolution: edge length of the final picture, pixels.
    """

    start: Tensor

    def __init__(self, config: SdfGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolution, self.z_dim = config.resolution, config.mapping.z_dim
        backbone, w_dim = config.backbone, config.mapping.w_dim
        self.num_ws = backbone.num_ws + ORIENTED_ROWS - 1
        self.mapping = Mapping(config.mapping, self.num_ws, conditional=config.camera_conditioning)
        self.backbone = Backbone(backbone, w_dim)
        settings = SynthesisSettings(
            w_dim=w_dim, image_channels=backbone.plane_channels, noise=backbone.noise, clamp=backbone.clamp
        )
        self.oriented = nn.ModuleList(
            SynthesisBlock(
                backbone.resolve_channels()[-1],
                config.oriented_channels,
                size=backbone.resolution,
                settings=settings,
                up=False,
            )
            for _ in range(3)
        )
        self.decoder = SdfDecoder(config.decoder, backbone.plane_channels)
        self.proposal = ProposalNetwork(config.proposal, config.resolution)
        self.register_buffer("start", start_shape(config.decoder, backbone.resolution), persistent=False)

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"] | None = None,
        *,
        ws: Float[Tensor, "batch num_ws w_dim"] | None = None,
        camera_labels: Float[Tensor, "batch label"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_average: bool = False,
    ) -> SdfOutput:
        """Generate a batch of scenes; arguments and errors are those of
        :meth:`cgsgan.models.triplane.generator.TriPlaneGenerator.forward`.
        """
        ws = self.mapping.styles(
            z,
            ws,
            camera_labels=camera_labels,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            update_average=update_w_average,
        )
        planes = at_least_float32(self._draw_planes(ws))
        return SdfOutput(scenes=SdfPlanes(planes=planes, ws=ws, decode=self.decoder, propose=self.proposal), ws=ws)

    def _draw_planes(self, ws: Tensor) -> Float[Tensor, "batch 3 channel height width"]:
        """What the backbone draws, and each plane's block to it; the first channel is the shape of the start."""
        features, shared = self.backbone.draw(ws[:, : self.backbone.num_ws])
        rows = ws[:, self.backbone.num_ws - 1 :]
        drawn = [
            block(features, part, rows)[1] for block, part in zip(self.oriented, shared.chunk(3, dim=1), strict=True)
        ]
        planes = torch.stack(drawn, dim=1)
        return torch.cat([self.start.to(planes).expand(len(ws), -1, -1, -1, -1), planes], dim=2)

    def position_parameters(self) -> list[nn.Parameter]:
        """The parameters with a learning rate of their own: none here."""
        return []
