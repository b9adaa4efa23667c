"""What ``cgsgan render`` is told: its options, held to their ranges before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

MOST_SEEDS = 4096


@dataclass(frozen=True, kw_only=True)
class RenderArguments:
    """Show what a generator makes. Without --turntable, --ply or --grid it writes a grid.

    Attributes:
        checkpoint: a run folder, a checkpoint folder or a generator.safetensors; default the generator that comes with
            the package, and a turntable beside the grid.
        seeds: identities, like 0-7 or 3,5,9-12; default the heads that `cgsgan invert` found, or 0-7.
        psi: truncation; 1 is full variety, 0 the average head.
        size: pixels of each picture; default the training size for grids, at least 256 for turntables.
        grid: write a contact sheet of seeds and views.
        turntable: write one video with all seeds side by side.
        path: swing (the range of the training poses) or orbit (all around).
        frames: frames of the turntable.
        ply: write one .ply per seed.
        axes: axes of the .ply: opencv (y down, what most splat viewers expect) or opengl (y up).
        bake_dilation: add the renderer's pixel dilation to the .ply scales, so that a viewer shows the same picture.
        out: folder to write to; default "renders" in the checkpoint's run, or here.
        best: of a run folder, the checkpoint with the best score (--training.evaluate-kimg) instead of the newest.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    seeds: str | None = None
    psi: float = 1.0
    size: int | None = None
    grid: bool = False
    turntable: Literal["webp", "gif", "mp4", "webm"] | None = None
    path: Literal["swing", "orbit"] = "swing"
    frames: int = 96
    ply: bool = False
    axes: Literal["opencv", "opengl"] = "opencv"
    bake_dilation: bool = True
    out: Path | None = None
    best: bool = False

    def check(self) -> None:
        """Hold the options to their ranges.

        Raises:
            ValueError: naming the option.
        """
        if not math.isfinite(self.psi):
            raise ValueError(f"--psi: expected a finite number, usually 0 to 1, got {self.psi}")
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out}: is a file; expected a folder to write to")
        if self.size is not None and not 8 <= self.size <= 8192:
            raise ValueError(f"--size: expected 8 to 8192 pixels, got {self.size}")

    def output_folder(self) -> Path:
        """Where to write."""
        if self.out is not None:
            return self.out
        if self.checkpoint is None:
            return Path("renders")
        folder = self.checkpoint.parent if self.checkpoint.is_file() else self.checkpoint
        run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder
        return run_folder / "renders"


def parse_seeds(text: str) -> list[int]:
    """``"0-3,7"`` to ``[0, 1, 2, 3, 7]``.

    Raises:
        ValueError: for anything else.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            span = range(int(first), int(last if dash else first) + 1)
            if not span or len(seeds) + len(span) > MOST_SEEDS:
                raise ValueError
            seeds.extend(span)
    except ValueError:
        seeds = []
    if not seeds:
        raise ValueError(f"--seeds: expected something like 0-7 or 3,5,9-12 (at most {MOST_SEEDS}), got {text!r}")
    return seeds
