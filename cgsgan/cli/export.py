"""``cgsgan export IN OUT``: a generated head, or a splat file, as a file that viewers open."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from cgsgan.export import ExportOptions
    from cgsgan.gallery import WrittenScene


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write Gaussians in the format that OUT's ending names.

    .ply (Inria), .compressed.ply, .splat, .spz, .sog, .glb, .gltf; .html is a page on which the head turns, without a
    network. A file that is there already is replaced.

    Attributes:
        source: a run folder, checkpoint folder or generator.safetensors; or a splat file in any of these formats;
            "shipped" is the generator that comes with the package.
        out: the file to write.
        seed: of a generator: which head; default the one that `cgsgan invert` found, or 0.
        psi: of a generator: truncation; 1 is full variety, 0 the average head.
        level: of a generator: only the Gaussians of its first (coarsest) levels, this many.
        fit_colors: of a generator: where colours are above 1, which viewers cut off, fit colours, opacities, sizes and
            rotations so that they show the same picture (a few seconds); pages show such colours as they are.
        dilation: of a generator: bake in the renderer's pixel dilation, so that a viewer shows the same picture.
        axes: of the file: opencv (y down) or opengl (y up); default what the format prescribes or its viewers expect.
        source_axes: of a splat file that is read; default what it says, or what is usual in its format.
        prune: leave out what is less opaque; a number or a fraction, 0 keeps all.
        spz_version: of an .spz: 3 opens everywhere, 4 is newer and smaller, 2 is older and has coarser rotations.
        best: of a run folder, the checkpoint with the best score instead of the newest.
    """

    source: Annotated[str, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    seed: int | None = None
    psi: float | None = None
    level: int | None = None
    fit_colors: bool = True
    dilation: bool = True
    axes: Literal["opencv", "opengl"] | None = None
    source_axes: Literal["opencv", "opengl"] | None = None
    prune: str = "1/255"
    spz_version: Literal[2, 3, 4] = 3
    best: bool = False


def run(argv: list[str]) -> int:
    """Parse, export, say what was written."""
    arguments = tyro.cli(ExportArguments, args=argv, prog="cgsgan export")
    from cgsgan.export import ExportOptions
    from cgsgan.export.formats import FORMATS, format_of

    found = format_of(arguments.out)
    prune = parse_fraction(arguments.prune)
    options = ExportOptions(axes=arguments.axes, prune=prune, spz_version=arguments.spz_version)
    splats = any(arguments.source.lower().endswith(suffix) for suffix in FORMATS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        written = _convert(arguments, options) if splats else _generate(arguments, options)
    for warning in told:
        print(f"cgsgan export: {warning.message}", file=sys.stderr)
    size = arguments.out.stat().st_size
    each = size / written.count
    print(f"wrote {written.count:,} splats to {arguments.out} ({found.name}, {size:,} bytes, {each:.1f} each)")
    if written.colors:
        print(written.colors)
    return 0


def parse_fraction(text: str) -> float:
    """``"1/255"`` or ``"0.004"`` to a number.

    Raises:
        ValueError: for anything else, and outside [0, 1).
    """
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not 0 <= value < 1:
        raise ValueError(f"--prune: expected an opacity in [0, 1) like 1/255 or 0.004, got {text!r}")
    return value


def _convert(arguments: ExportArguments, options: ExportOptions) -> WrittenScene:
    from cgsgan.export import convert_splats
    from cgsgan.gallery import WrittenScene

    given = [name for name in ("seed", "psi", "level") if getattr(arguments, name) is not None]
    given += [f"no-{name}" for name in ("dilation", "fit-colors") if not getattr(arguments, name.replace("-", "_"))]
    if given:
        raise ValueError(f"--{given[0]}: is for generators; {arguments.source} is a file of splats")
    count = convert_splats(arguments.source, arguments.out, options, source_axes=arguments.source_axes)
    return WrittenScene(count=count)


def _generate(arguments: ExportArguments, options: ExportOptions) -> WrittenScene:
    from cgsgan.gallery import export_head
    from cgsgan.generators import load_generator

    if arguments.source_axes is not None:
        raise ValueError(f"--source-axes: is for splat files; {arguments.source} is taken for a generator")
    psi = 1.0 if arguments.psi is None else arguments.psi
    if not math.isfinite(psi):
        raise ValueError(f"--psi: expected a finite number, usually 0 to 1, got {psi}")
    generator = load_generator(arguments.source, best=arguments.best)
    if generator.config.generator.kind != "gaussians":
        raise ValueError(
            f"{arguments.source}: its scenes ({generator.config.generator.kind}) hold no Gaussians to write; "
            "`cgsgan mesh` makes a surface of them"
        )
    return export_head(
        generator,
        arguments.out,
        options,
        seed=arguments.seed,
        truncation_psi=psi,
        levels=arguments.level,
        bake_dilation=arguments.dilation,
        fit=arguments.fit_colors,
    )
