"""EG3D's generator: latents (and cameras) to scenes of three feature planes (Chan et al. 2022), for any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.layers import at_least_float32
from cgsgan.models.mapping import Mapping, MappingConfig
from cgsgan.models.triplane.decoder import Decoder, DecoderConfig
from cgsgan.models.triplane.superresolution import SuperResolution, SuperResolutionConfig
from cgsgan.models.triplane.synthesis import Backbone, BackboneConfig
from cgsgan.types import TriPlaneOutput, TriPlanes


@dataclass(frozen=True, kw_only=True)
class TriPlaneGeneratorConfig:
    """The generator; defaults are the published network for 512 px.

    Attributes:
        kind: which generator this is.
        resolution: edge length of the final picture, pixels.
        camera_conditioning: whether the mapping is given camera labels. Off, its pose input sees zeros; with
            ``mapping.label_dim`` 0 there is none.
        mapping: latents and labels to styles.
        backbone: styles to planes.
        decoder: what was sampled from the planes, to density and colour.
        superresolution: None: the rendered picture is the final one.
    """

    kind: Literal["triplanes"] = "triplanes"
    resolution: int = 512
    camera_conditioning: bool = True
    mapping: MappingConfig = field(default_factory=lambda: MappingConfig(label_dim=25))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    superresolution: SuperResolutionConfig | None = field(default_factory=SuperResolutionConfig)

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"generator: resolution must be >= 1, got {self.resolution}")
        if self.camera_conditioning and not self.mapping.label_dim:
            raise ValueError(
                "generator: camera_conditioning needs mapping.label_dim 25, got 0; set mapping.label_dim: 25 or "
                "camera_conditioning: false"
            )


class TriPlaneGenerator(nn.Module):
    """Latents to scenes.

    Attributes:
        config: what it was made from.
        z_dim: numbers per latent.
        num_ws: style rows; the last one also serves the super-resolution.
        resolution: edge length of the final picture, pixels.
    """

    def __init__(self, config: TriPlaneGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolution, self.z_dim = config.resolution, config.mapping.z_dim
        w_dim = config.mapping.w_dim
        self.num_ws = config.backbone.num_ws
        self.mapping = Mapping(config.mapping, self.num_ws, conditional=config.camera_conditioning)
        self.backbone = Backbone(config.backbone, w_dim)
        self.decoder = Decoder(config.decoder, config.backbone.plane_channels)
        self.superresolution = None
        if config.superresolution is not None:
            self.superresolution = SuperResolution(
                config.superresolution, resolution=config.resolution, features=config.decoder.features, w_dim=w_dim
            )

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"] | None = None,
        *,
        ws: Float[Tensor, "batch num_ws w_dim"] | None = None,
        camera_labels: Float[Tensor, "batch label"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_average: bool = False,
    ) -> TriPlaneOutput:
        """Generate a batch of scenes.

        Args:
            z: latents ~ N(0, 1).
            ws: styles, instead of ``z``; taken as they are, without truncation.
            camera_labels: 25 numbers per latent, which condition the mapping. Required with ``z`` where
                ``camera_conditioning`` is on, refused otherwise.
            truncation_psi: 1 for full variety, towards 0 for the mean scene.
            truncation_cutoff: truncate only the first so many style rows; None truncates all.
            update_w_average: move the running mean of w, in training.

        Raises:
            ValueError: unless exactly one of ``z`` and ``ws`` is given, or when labels are missing or unwanted,
                or when a shape does not fit.
        """
        ws = self.mapping.styles(
            z,
            ws,
            camera_labels=camera_labels,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            update_average=update_w_average,
        )
        planes = at_least_float32(self.backbone(ws))  # under autocast, too: half precision would put rays elsewhere
        return TriPlaneOutput(
            scenes=TriPlanes(planes=planes, ws=ws, decode=self.decoder, refine=self.superresolution), ws=ws
        )

    def position_parameters(self) -> list[nn.Parameter]:
        """The parameters with a learning rate of their own: none here."""
        return []
