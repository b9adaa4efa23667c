"""``cgsgan import FILE OUT``: weights of the published CGS-GAN and EG3D networks, for use here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Read a published generator without running anything that its file contains.

    Attributes:
        source: the published .pkl; or a state dict in a .pt or .safetensors.
        out: a .safetensors to write (or replace) for the generator alone; or a folder that holds none, where a
            discriminator goes too, to start training from.
        network: of a training snapshot: the averaged generator or the one in training.
        plane_axes: of EG3D: published weights need the official ones.
        camera_conditioning: of EG3D: whether the generator is told the camera; not so for ShapeNet cars.
        near: of EG3D: where rays begin; 2.25 for faces and cats, 0.1 for cars.
        far: of EG3D: where rays end; 3.3 for faces and cats, 2.6 for cars.
        box_warp: of EG3D: side of the cube that the planes cover; 1 for faces and cats, 1.6 for cars.
        white_back: of EG3D: empty space is white, as for cars.
    """

    source: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    network: Literal["G_ema", "G"] = "G_ema"
    plane_axes: Literal["official", "corrected"] = "official"
    camera_conditioning: bool = True
    near: float = 2.25
    far: float = 3.3
    box_warp: float = 1.0
    white_back: bool = False


def run(argv: list[str]) -> int:
    """Parse, import, say what was written."""
    arguments = tyro.cli(ImportArguments, args=argv, prog="cgsgan import")
    from cgsgan.importing import PUBLISHED_VOLUME, ImportOptions, import_networks

    options = ImportOptions(
        network=arguments.network,
        camera_conditioning=arguments.camera_conditioning,
        rendering=replace(
            PUBLISHED_VOLUME,
            plane_axes=arguments.plane_axes,
            near=arguments.near,
            far=arguments.far,
            box_warp=arguments.box_warp,
            white_back=arguments.white_back,
        ),
    )
    result = import_networks(arguments.source, arguments.out, options)
    path, config = result.generator, result.config
    print(f"wrote {path}: {config.generator.kind}, {config.resolution} px; nothing in {arguments.source} was run")
    if result.discriminator is not None:
        print(f"wrote {result.discriminator}: its discriminator; a run may start from it: training.start_from")
    print(f"now: python render.py {path} --seeds 0-7 --turntable webp")
    return 0
