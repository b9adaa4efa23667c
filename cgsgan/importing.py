"""Published weights as files of this project: what ``cgsgan import`` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from cgsgan.config import ExperimentConfig, config_to_dict
from cgsgan.export.atomic import atomic_path
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official import (
    load_cgsgan_discriminator,
    load_cgsgan_generator,
    load_eg3d_discriminator,
    load_eg3d_generator,
)
from cgsgan.interop.pickles import read_networks
from cgsgan.models.discriminator import Discriminator, DiscriminatorConfig
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import published_discriminator
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering.splatting import SplattingConfig
from cgsgan.rendering.volume import VolumeConfig
from cgsgan.training.checkpoint import STATE_FILE, TRAINING_FILE
from cgsgan.training.generator_file import GENERATOR_FILE, GeneratorFile, save_tensors, write_generator
from cgsgan.training.state_tensors import prefixed

SUFFIX = ".safetensors"
DISCRIMINATOR = "D"
"""Its name in a published snapshot."""
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


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What was imported.

    Attributes:
        generator: the file of the generator.
        config: the experiment that it says it comes from.
        discriminator: the file of the discriminator, if there was one and a folder to put it in.
    """

    generator: Path
    config: ExperimentConfig
    discriminator: Path | None = None


def import_networks(source: Path, out: Path, options: ImportOptions) -> ImportResult:
    """Read published networks and write them as this project's.

    A folder becomes a checkpoint to start training from (``training.start_from``), if the source has a discriminator.

    Args:
        source: a pickle of a training snapshot, a file of ``torch.save``, or safetensors.
        out: a file ending in ``.safetensors`` for the generator alone, replaced if it is there; or a folder that holds
            none. Files appear whole or not at all.
        options: see :class:`ImportOptions`.

    Raises:
        WeightsError: when the source is refused, or a file cannot be written.
    """
    alone = out.suffix == SUFFIX
    target = out if alone else out / GENERATOR_FILE
    if not alone and target.exists():
        raise WeightsError(f"{target}: is there already; remove it, or name another folder or a {SUFFIX} file")
    networks = read_networks(source, wanted=(options.network,) if alone else (options.network, DISCRIMINATOR))
    state = networks.get(options.network, networks.get(""))
    if state is None:
        raise WeightsError(f"{source}: holds no {options.network}, only {', '.join(networks)}")
    try:
        network, config = make_generator(state, options)
        critic = _make_discriminator(networks.get(DISCRIMINATOR), config)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    if critic is not None:
        config = replace(config, discriminator=critic.config)
    file = GeneratorFile(
        config=config_to_dict(config),
        images_seen=0,
        weights=network.state_dict(),
        provenance={"imported from": source.name},
    )
    try:
        if critic is not None:
            with atomic_path(out / TRAINING_FILE) as path:
                save_tensors(path, prefixed("discriminator", critic.state_dict()))
            with atomic_path(out / STATE_FILE) as path:
                path.write_text(json.dumps({"images_seen": 0, "step": 0}), encoding="utf-8")
        with atomic_path(target) as path:
            write_generator(path, file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{target}: could not be written ({' '.join(str(error).split())})") from None
    return ImportResult(
        generator=target, config=config, discriminator=out / TRAINING_FILE if critic is not None else None
    )


def _make_discriminator(state: Mapping[str, Tensor] | None, config: ExperimentConfig) -> Discriminator | None:
    """The discriminator that goes with a generator.

    Raises:
        WeightsError: when it is another one.
    """
    if state is None:
        return None
    dual = config.generator.kind == "triplanes"
    try:
        critic = (load_eg3d_discriminator if dual else load_cgsgan_discriminator)(state).network
        if critic.config.resolution != config.resolution:
            raise WeightsError(
                f"a generator of {config.resolution} and a discriminator of {critic.config.resolution} px"
            )
    except WeightsError as error:
        raise WeightsError(
            f"its {DISCRIMINATOR} is {error}; name a {SUFFIX} file to import the generator alone"
        ) from None
    return critic


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
    names = [name[:100] if name.isprintable() else repr(name[:100]) for name in list(state)[:MOST_NAMED]]
    raise WeightsError(
        f"neither a CGS-GAN nor an EG3D generator: expected tensors like _xyz or backbone.synthesis.b4.const, found "
        f"{', '.join(names)}{' ...' if len(state) > MOST_NAMED else ''}"
    )
