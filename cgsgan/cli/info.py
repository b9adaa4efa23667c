"""``cgsgan info [FILE]``: what a splat file or a checkpoint holds, or why it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

KINDS = {
    "gaussians": "CGS-GAN generator",
    "triplanes": "EG3D tri-plane generator",
    "implicit": "pi-GAN implicit generator",
    "sdf_planes": "WYSIWYG generator of tri-planes of signed distance",
}


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Say what a file holds.

    Attributes:
        file: a splat file (.ply, .spz ...), a generator.safetensors, a checkpoint folder or a run folder; default the
            generator that comes with the package.
    """

    file: Annotated[Path | None, tyro.conf.Positional] = None


def run(argv: list[str]) -> int:
    """Print facts, a line each."""
    file = tyro.cli(InfoArguments, args=argv, prog="cgsgan info").file
    for name, value in describe(file):
        print(f"{name:18s} {value}")
    return 0


def describe(file: Path | None) -> list[tuple[str, str]]:
    """Facts about a file, as (name, value).

    Raises:
        ValueError: when it is neither a readable splat file nor a checkpoint.
    """
    from cgsgan.training.checkpoint import find_generator, means_shipped

    if file is not None and means_shipped(file):
        file = None
    if file is not None and not file.exists():
        raise ValueError(f"{file}: no such file or folder; expected a splat file, a checkpoint or a run folder")
    from cgsgan.export.formats import FORMATS, describe_splats

    if file is not None and file.name.lower().endswith(tuple(FORMATS)):
        return describe_splats(file)
    from cgsgan.training.generator_file import read_generator

    path = find_generator(file)
    stored = read_generator(path)
    parameters = sum(tensor.numel() for tensor in stored.weights.values())
    config = stored.config
    # Published weights do not say how long they were trained, nor on which file.
    imported = "imported from" in stored.provenance
    data = (config.get("data") or {}).get("path") or ("not known" if imported else "synthetic heads")
    return [
        ("file", str(path)),
        ("kind", f"{_kind(config)} (averaged weights)"),
        ("experiment", str(config.get("name"))),
        ("training size", f"{config.get('resolution')} px"),
        ("trained on", "not known" if imported else f"{stored.images_seen / 1000:.1f} kimg"),
        ("values", f"{parameters:,} in {len(stored.weights)} tensors"),
        ("data file", str(data)),
        *stored.provenance.items(),
    ]


def _kind(config: dict[str, Any]) -> str:
    kind = (config.get("generator") or {}).get("kind", "gaussians")
    return KINDS.get(kind, str(kind))
