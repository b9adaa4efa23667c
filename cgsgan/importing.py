"""Published weights as a generator file of this project: what ``cgsgan import`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from cgsgan.config import ExperimentConfig, config_to_dict
from cgsgan.export.atomic import atomic_path
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official import load_cgsgan_generator, load_eg3d_generator
from cgsgan.interop.pickles import read_networks
from cgsgan.models.discriminator import DiscriminatorConfig
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import published_discriminator
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering.splatting import SplattingConfig
from cgsgan.rendering.volume import VolumeConfig
from cgsgan.training.generator_file import GENERATOR_FILE, GeneratorFile, write_generator

SUFFIX = ".safetensors"
MOST_NAMED = 3
PUBLISHED_SPLATTING = SplattingConfig(eps2d=0.3, near_plane=0.01, far_plane=10.0)
PUBLISHED_VOLUME = VolumeConfig(plane_axes="official")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What published files do not say of themselves.

    Attributes:
        network: which of a snapshot's networks; a file with a bare state dict has only one.
        camera_conditioning: of EG3D: whether the mapping sees the camera.
        rendering: of EG3D: ranges, box, plane axes.
    """

    network: str = "G_ema"
    camera_conditioning: bool = True
    rendering: VolumeConfig = field(default_factory=lambda: PUBLISHED_VOLUME)


def import_generator(source: Path, out: Path, options: ImportOptions) -> tuple[Path, ExperimentConfig]:
    """Read a published generator and write it as this project's.

    Args:
        source: a pickle of a training snapshot, a file of ``torch.save``, or safetensors.
        out: a file ending in ``.safetensors``, or a folder to write ``generator.safetensors`` to. It appears whole or
            not at all; one that is there is replaced.
        options: see :class:`ImportOptions`.

    Returns:
        The file written, and the experiment that it says it comes from.

    Raises:
        WeightsError: when the source is refused, or the file cannot be written.
    """
    networks = read_networks(source, wanted=(options.network,))
    (state,) = networks.values()
    try:
        network, config = make_generator(state, options)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    file = GeneratorFile(
        config=config_to_dict(config),
        images_seen=0,
        weights=network.state_dict(),
        provenance={"imported from": source.name},
    )
    target = out if out.suffix == SUFFIX else out / GENERATOR_FILE
    try:
        with atomic_path(target) as path:
            write_generator(path, file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{target}: could not be written ({' '.join(str(error).split())})") from None
    return target, config


def make_generator(
    state: Mapping[str, Tensor], options: ImportOptions
) -> tuple[GaussianGenerator | TriPlaneGenerator, ExperimentConfig]:
    """The network of a published state dict and an experiment to render it with.

    Raises:
        WeightsError: when it is neither a CGS-GAN nor an EG3D generator.
    """
    if "_xyz" in state:
        network = load_cgsgan_generator(state)
        config = ExperimentConfig(
            name=f"cgsgan{network.resolution}_imported",
            resolution=network.resolution,
            generator=network.config,
            discriminator=published_discriminator(network.resolution, official=True),
            rendering=PUBLISHED_SPLATTING,
        )
        return network, config.resolved()
    if "backbone.synthesis.b4.const" in state:
        axes = options.rendering.plane_axes
        loaded = load_eg3d_generator(state, plane_axes=axes, camera_conditioning=options.camera_conditioning)
        config = ExperimentConfig(
            name=f"eg3d{loaded.network.resolution}_imported",
            resolution=loaded.network.resolution,
            generator=loaded.network.config,
            discriminator=DiscriminatorConfig(resolution=loaded.network.resolution, dual=True),
            rendering=options.rendering,
        )
        return loaded.network, config.resolved()
    names = [name if name.isprintable() else repr(name) for name in list(state)[:MOST_NAMED]]
    raise WeightsError(
        f"neither a CGS-GAN nor an EG3D generator: expected tensors like _xyz or backbone.synthesis.b4.const, found "
        f"{', '.join(names)}{' ...' if len(state) > MOST_NAMED else ''}"
    )
