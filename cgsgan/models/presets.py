"""Sizes of the networks: the published ones by resolution, and the small one that trains on two CPU cores."""

from __future__ import annotations

from cgsgan.models.anchors import AnchorConfig
from cgsgan.models.discriminator import DiscriminatorConfig
from cgsgan.models.gaussian_generator import GaussianGeneratorConfig
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.points import PointsConfig
from cgsgan.models.transformer import TransformerConfig
from cgsgan.models.triplane.decoder import DecoderConfig
from cgsgan.models.triplane.generator import TriPlaneGeneratorConfig
from cgsgan.models.triplane.superresolution import SuperResolutionConfig
from cgsgan.models.triplane.synthesis import BackboneConfig

PUBLISHED_RESOLUTIONS = (256, 512, 1024, 2048)
SUPER_RESOLUTIONS = {
    128: SuperResolutionConfig(input_resolution=64, channels=(128, 64)),
    256: SuperResolutionConfig(input_resolution=128, channels=(128, 64)),
    512: SuperResolutionConfig(input_resolution=128, channels=(256, 128)),
}
"""EG3D's super-resolution modules by final resolution."""


def _check(resolution: int) -> None:
    if resolution not in PUBLISHED_RESOLUTIONS:
        raise ValueError(f"presets: CGS-GAN is published for {PUBLISHED_RESOLUTIONS} px, got {resolution}")


def published_generator(resolution: int, *, official: bool = False) -> GaussianGeneratorConfig:
    """The generator of the CGS-GAN paper.

    Args:
        resolution: 256, 512, 1024 or 2048 pixels.
        official: the form of the published weights, with what is dead or defective in them: the line table
            read along the wrong axis, anchor heads at the last level, a pose input that sees zeros, and the
            separate learning rate for everything with "xyz" in its name.

    Raises:
        ValueError: for another resolution.
    """
    _check(resolution)
    # The published 2048 px network has 8 feature channels at its last level, where the rule would give 16.
    widths = (512, 256, 128, 64, 32, 16, 16, 8) if resolution == 2048 else None
    return GaussianGeneratorConfig(
        resolution=resolution,
        mapping=MappingConfig(label_dim=25 if official else 0),
        points=PointsConfig(line_axis="official" if official else "corrected"),
        anchors=AnchorConfig(feature_widths=widths, dead_heads=official),
        xyz_group="points_and_heads" if official else "points",
    )


def published_discriminator(resolution: int, *, official: bool = False) -> DiscriminatorConfig:
    """The discriminator of the CGS-GAN paper; ``official`` adds the dead block of the published weights.

    Raises:
        ValueError: for a resolution other than 256, 512, 1024 or 2048.
    """
    _check(resolution)
    return DiscriminatorConfig(resolution=resolution, dead_block=official)


def published_triplane_generator(resolution: int, *, camera_conditioning: bool = True) -> TriPlaneGeneratorConfig:
    """The generator of the EG3D paper.

    Args:
        resolution: 128, 256 or 512 pixels.
        camera_conditioning: off, for published networks that were trained without; their mapping sees zeros.

    Raises:
        ValueError: for another resolution.
    """
    _check_triplanes(resolution)
    return TriPlaneGeneratorConfig(
        resolution=resolution,
        camera_conditioning=camera_conditioning,
        superresolution=SUPER_RESOLUTIONS[resolution],
    )


def published_dual_discriminator(resolution: int) -> DiscriminatorConfig:
    """The discriminator of the EG3D paper.

    Raises:
        ValueError: for a resolution other than 128, 256 or 512.
    """
    _check_triplanes(resolution)
    return DiscriminatorConfig(resolution=resolution, dual=True)


def _check_triplanes(resolution: int) -> None:
    if resolution not in SUPER_RESOLUTIONS:
        raise ValueError(f"presets: EG3D is published for {(*SUPER_RESOLUTIONS,)} px, got {resolution}")


def quickstart_triplane_generator(resolution: int = 64) -> TriPlaneGeneratorConfig:
    """A tri-plane generator of half a million parameters that draws 64 px directly, for two CPU cores; its rival is
    :func:`quickstart_generator`, its discriminator :func:`quickstart_discriminator`.
    """
    return TriPlaneGeneratorConfig(
        resolution=resolution,
        mapping=MappingConfig(z_dim=64, w_dim=96, label_dim=25),
        backbone=BackboneConfig(resolution=64, plane_channels=12, channels=(96, 96, 64, 48, 32)),
        decoder=DecoderConfig(width=32, features=3),
        superresolution=None,
    )


def quickstart_generator(resolution: int = 64) -> GaussianGeneratorConfig:
    """A generator of half a million parameters for 32 or 64 px: learns heads in minutes on two CPU cores."""
    return GaussianGeneratorConfig(
        resolution=resolution,
        mapping=MappingConfig(z_dim=64, w_dim=96),
        points=PointsConfig(count=64, start="ball", radius=0.30, features="tokens"),
        transformer=TransformerConfig(width=96, heads=4, mlp_ratio=2, first_blocks=1),
        anchors=AnchorConfig(
            split_factors=(1, 4, 8) if resolution > 32 else (1, 4, 4),
            feature_widths=(96, 48, 24),
            first_offset=0.1,
            first_position="points",
            start_log_scale=-3.2,
            scale_bias=0.0,
            shrink=False,
        ),
        xyz_group="points_and_heads",
    )


def quickstart_discriminator(resolution: int = 64) -> DiscriminatorConfig:
    """The discriminator that goes with :func:`quickstart_generator`; 64 px pictures are unshuffled to 32."""
    return DiscriminatorConfig(
        resolution=resolution,
        unshuffle=2 if resolution > 32 else 1,
        channels=(32, 64, 96, 96),
        downsample="average",
        camera_width=64,
        camera_layers=2,
        clamp=None,
        half_precision_blocks=0,
    )


PRESETS: dict[str, tuple[GaussianGeneratorConfig, DiscriminatorConfig]] = {
    "quickstart": (quickstart_generator(), quickstart_discriminator()),
    **{f"cgsgan-{size}": (published_generator(size), published_discriminator(size)) for size in PUBLISHED_RESOLUTIONS},
}
"""Generator and discriminator by name."""
