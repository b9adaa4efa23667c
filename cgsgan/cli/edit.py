"""``cgsgan edit HEAD --towards OTHER | --mix OTHER --rows 0-1 | --direction NAME``: a head changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cgsgan.export.atomic import free_path

if TYPE_CHECKING:
    from cgsgan.editing import Edit
    from cgsgan.generators import TrainedGenerator

STEPS = 5
MOST = 20.0


@dataclass(frozen=True, kw_only=True)
class EditArguments:
    """Change a head that invert found (or one of a seed), and write it as invert does: edits can follow one another.

    Attributes:
        head: a folder that invert or edit wrote; or a generator, with --seed.
        seed: the head of this seed instead of the one that was found.
        towards: another head to go towards: a folder that was found with the same checkpoint, or seed:3.
        mix: another head to take style rows from: likewise.
        rows: of --mix: the first rows are coarse (shape), the last ones fine (colour); like 0 or 1-2.
        direction: pc:0, pc:1... (along which the generator's heads vary most); hair-lightness, hair-length,
            hair-volume, skin-lightness, clothes-lightness (measured on its heads); or a
            labels.json, {"SEED": FIGURE, ...}.
        amount: how far: of --towards and --mix a share (default 0.5 and 1), of --direction standard deviations
            (default 2; may be negative).
        film: also write film.webp, the way there and back.
        out: folder to write to, over what is in it; default edited/HEAD, or the first free edited/HEAD-2, -3...
    """

    head: Annotated[Path, tyro.conf.Positional]
    seed: int | None = None
    towards: str | None = None
    mix: str | None = None
    rows: str | None = None
    direction: str | None = None
    amount: float | None = None
    film: bool = False
    out: Path | None = None


def run(argv: list[str]) -> int:
    """Parse, edit, say what was written."""
    arguments = tyro.cli(EditArguments, args=argv, prog="cgsgan edit")
    out = arguments.out or free_path(Path("edited") / arguments.head.name)
    amount = _check(arguments, out)
    from cgsgan.editing import save_edited
    from cgsgan.generators import load_generator

    generator = load_generator(arguments.head)
    edit = _edit(arguments, generator)
    first = -amount if arguments.direction else 0.0
    last = amount if arguments.direction else 1.0
    amounts = [first + (last - first) * step / (STEPS - 1) for step in range(STEPS)]
    for path, what in save_edited(out, generator, edit, amount, amounts=amounts, film=arguments.film).items():
        print(f"wrote {path}: {what}")
    print(f"the head in {out} is at {amount:g}; more: python render.py {out} --turntable webp --ply")
    return 0


def _check(arguments: EditArguments, out: Path) -> float:
    """Everything that can be wrong before anything slow is done; gives the amount."""
    kinds = [name for name in ("towards", "mix", "direction") if getattr(arguments, name) is not None]
    if len(kinds) != 1:
        found = " and ".join(f"--{name}" for name in kinds) or "none"
        raise ValueError(f"expected one of --towards, --mix and --direction, got {found}; edits can follow one another")
    if (arguments.rows is None) == (kinds[0] == "mix"):
        raise ValueError("--rows: goes with --mix OTHER, such as --mix inverted/b --rows 1-2")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; expected a folder to write to")
    if out.exists() and arguments.head.exists() and out.resolve() == arguments.head.resolve():
        raise ValueError(f"--out {out}: is the head that is edited; choose another folder")
    if arguments.seed is not None and not 0 <= arguments.seed < 1 << 31:
        raise ValueError(f"--seed: expected 0 to {(1 << 31) - 1}, got {arguments.seed}")
    amount = {"towards": 0.5, "mix": 1.0, "direction": 2.0}[kinds[0]] if arguments.amount is None else arguments.amount
    least, most = (-MOST, MOST) if arguments.direction else (0.0, 1.0)
    if not (math.isfinite(amount) and least <= amount <= most):
        raise ValueError(f"--amount: expected {least:g} to {most:g} for --{kinds[0]}, got {amount}")
    return amount


def _edit(arguments: EditArguments, generator: TrainedGenerator) -> Edit:
    from cgsgan.editing import Edit, direction_of, head_of, other_head

    start = head_of(generator, arguments.seed)
    if arguments.direction is not None:
        return Edit(start, step=direction_of(generator, arguments.direction))
    other = other_head(generator, arguments.towards or arguments.mix or "")
    rows = None if arguments.rows is None else parse_rows(arguments.rows, start.ws.shape[1])
    return Edit(start, other=other, rows=rows)


def parse_rows(text: str, count: int) -> slice:
    """``"1-2"`` to ``slice(1, 3)``.

    Raises:
        ValueError: for anything else, and for rows that are not there.
    """
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()) or len(last) > 4 or not int(first) <= int(last) < count:
        raise ValueError(f"--rows: expected rows of 0 to {count - 1}, like 0 or 1-{count - 1}, got {text!r}")
    return slice(int(first), int(last) + 1)
