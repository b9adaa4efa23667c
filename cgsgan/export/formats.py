"""Every splat format by the ending of its files: which there are, how to write one, how to read any."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from cgsgan.export import compressed_ply, gltf, html, ply, sog, splat, spz
from cgsgan.export.axes import AXES
from cgsgan.export.compressed_ply import read_compressed_ply, write_compressed_ply
from cgsgan.export.gltf import read_gltf, write_gltf
from cgsgan.export.html import read_html, write_html
from cgsgan.export.ply import read_ply, read_sh_rest, write_ply
from cgsgan.export.ply_header import PlyError, read_tables, stated_axes
from cgsgan.export.scene import DEFAULTS, ExportOptions, ViewDependentColorWarning
from cgsgan.export.sog import read_sog, write_sog
from cgsgan.export.splat import read_splat, write_splat
from cgsgan.export.spz import read_spz, write_spz
from cgsgan.types import Gaussians


@runtime_checkable
class Reader(Protocol):
    """What reads a format."""

    def __call__(self, path: str | os.PathLike[str], *, axes: str) -> Gaussians:
        """One scene in this library's world, from a file in ``axes``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of splat file.

    Attributes:
        name: for people.
        axes: the frame its files are taken to be in, unless they or the caller say otherwise.
        read: file to scene.
        write: scene to file; returns the number of splats.
    """

    name: str
    axes: str
    read: Reader
    write: Callable[[str | os.PathLike[str], Gaussians, ExportOptions], int]


def _write_ply(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions) -> int:
    axes = options.axes or ply.AXES
    return write_ply(path, gaussians, axes=axes, prune=options.prune, extra_dilation=options.extra_dilation)


FORMATS = {
    ".compressed.ply": Format(
        name="PlayCanvas compressed PLY", axes=compressed_ply.AXES, read=read_compressed_ply, write=write_compressed_ply
    ),
    ".ply": Format(name="Inria PLY", axes=ply.AXES, read=read_ply, write=_write_ply),
    ".splat": Format(name="antimatter15 .splat", axes=splat.AXES, read=read_splat, write=write_splat),
    ".spz": Format(name="Niantic SPZ", axes=spz.AXES, read=read_spz, write=write_spz),
    ".sog": Format(name="PlayCanvas SOG", axes=sog.AXES, read=read_sog, write=write_sog),
    ".glb": Format(name="glTF with KHR_gaussian_splatting", axes=gltf.AXES, read=read_gltf, write=write_gltf),
    ".gltf": Format(name="glTF with KHR_gaussian_splatting", axes=gltf.AXES, read=read_gltf, write=write_gltf),
    ".html": Format(name="self-contained page", axes=html.AXES, read=read_html, write=write_html),
}
"""By ending; of two that fit, the first one counts."""


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a file's name asks for.

    Raises:
        ValueError: when no format has that ending.
    """
    name = Path(path).name.lower()
    for suffix, found in FORMATS.items():
        if name.endswith(suffix):
            return found
    raise ValueError(f"{path}: expected a file name that ends in {', '.join(FORMATS)}")


def write_splats(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene in the format that the file's name asks for, atomically.

    >>> generator = cgsgan.load_generator()
    >>> head = generator.sample(3).scene(0)
    >>> as_trained = cgsgan.ExportOptions(extra_dilation=generator.dilation)  # the renderer's pixel dilation baked in
    >>> count = cgsgan.write_splats("head.spz", head, as_trained)

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: axes, pruning, dilation.

    Returns:
        The number of splats written.

    Raises:
        ValueError: for an unknown ending, or as :func:`cgsgan.export.scene.prepare_scene`.
    """
    return format_of(path).write(path, gaussians, options)


def read_splats(path: str | os.PathLike[str], *, axes: str | None = None) -> Gaussians:
    """Read a splat file of any known format; colour that changes with the view is dropped with a warning.

    >>> count = cgsgan.write_splats("head.sog", cgsgan.load_generator().sample(3).scene(0))
    >>> cgsgan.read_splats("head.sog").count == count
    True

    Args:
        path: the file. Its ending names the format; a ``.ply`` may also be a compressed one.
        axes: its frame; None takes what the file says, or else what is usual in its format.

    Returns:
        One scene on the CPU, float32, in this library's world.

    Raises:
        SplatFileError: the file is damaged, or not what its ending says.
        ValueError: for an unknown ending.
        OSError: when the file cannot be opened.
    """
    path = Path(path)
    found = _found_format(path)
    return found.read(path, axes=axes or _stated_axes(path, found) or found.axes)


def convert_splats(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: ExportOptions = DEFAULTS,
    *,
    source_axes: str | None = None,
) -> int:
    """From one splat file to another; spherical harmonics stay from one Inria PLY to another, and nowhere else.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`read_splats` and :func:`write_splats`.
        OSError: when a file cannot be opened.
    """
    source = Path(source)
    kept = format_of(target) is FORMATS[".ply"] is _found_format(source)
    if not kept:
        return write_splats(target, read_splats(source, axes=source_axes), options)
    axes = source_axes or _stated_axes(source, FORMATS[".ply"]) or ply.AXES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ViewDependentColorWarning)
        scene = read_ply(source, axes=axes)
    sh_rest = read_sh_rest(source, axes=axes)
    out = options.axes or ply.AXES
    return write_ply(
        target, scene, axes=out, prune=options.prune, extra_dilation=options.extra_dilation, sh_rest=sh_rest
    )


def describe_splats(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """What a splat file holds, as (label, value) lines for people; bounds are in the axes of the file.

    Raises:
        ValueError: as :func:`read_splats`.
        OSError: when the file cannot be opened.
    """
    path = Path(path)
    found = _found_format(path)
    if found is FORMATS[".ply"]:
        return [("format", found.name), *ply.describe_ply(path)]
    with warnings.catch_warnings(record=True) as dropped:
        warnings.simplefilter("always", ViewDependentColorWarning)
        scene = found.read(path, axes="opengl")
    stated = _stated_axes(path, found)
    low, high = scene.means.min(dim=0).values.tolist(), scene.means.max(dim=0).values.tolist()
    return [
        ("format", found.name),
        ("splats", f"{scene.count:,}"),
        ("bytes per splat", f"{path.stat().st_size / scene.count:.1f}"),
        ("view-dependent", "yes (read without)" if dropped else "no"),
        *((f"{name} range", f"{a:.4g} .. {b:.4g}") for name, a, b in zip("xyz", low, high)),
        ("opacity 5/50/95 %", ply.quantiles(scene.opacities)),
        ("scale 5/50/95 %", ply.quantiles(scene.scales)),
        ("axes", f"{stated[:20]} (stated by the file)" if stated else f"{found.axes} (usual in this format)"),
    ]


def _found_format(path: Path) -> Format:
    found = format_of(path)
    if found is FORMATS[".ply"] and "chunk" in read_tables(path):
        return FORMATS[".compressed.ply"]
    return found


def _stated_axes(path: Path, found: Format) -> str | None:
    """The frame that a PLY written here names; other formats have no place for it."""
    if found not in (FORMATS[".ply"], FORMATS[".compressed.ply"]):
        return None
    tables = read_tables(path)
    axes = stated_axes(next(iter(tables.values())).comments) if tables else None
    if axes not in (None, *AXES):
        raise PlyError(f"{path}: expected opencv or opengl as the axes in its header, got {axes[:20]!r}; say which")
    return axes
