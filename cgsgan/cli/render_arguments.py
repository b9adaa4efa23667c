"""What ``cgsgan render`` is told: its options, held to their ranges before anything is loaded."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

MOST_SEEDS = 4096
MOST_FRAMES = 100_000
FILM_OPTIONS = ("path", "yaw", "pitch", "fov", "walk", "frames", "fps", "show", "normals", "columns")
COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass(frozen=True, kw_only=True)
class RenderArguments:
    """Show what a generator makes: a grid of heads and views, a film, splat files. By default a grid.

    A film shows all seeds side by side, or one head that walks from seed to seed (--walk). Its frames depend on their
    number alone, the last leads back to the first, focal length and background stay, and no generator is told the
    camera: one that is conditioned on cameras is told the front throughout.

    Attributes:
        checkpoint: a run folder, a checkpoint folder or a generator.safetensors; default the generator that comes with
            the package, and a turntable beside the grid.
        seeds: identities, like 0-7 or 3,5,9-12; default the heads that `cgsgan invert` found, or 0-7.
        psi: truncation; 1 is full variety, 0 the average head.
        size: pixels of each picture; default the training size for grids, at least 256 for films.
        grid: write a contact sheet of seeds and views.
        turntable: write a film: webp or gif, mp4 or webm (cgsgan[video]), or a folder of png frames; webp when only
            another option of a film is given.
        path: of the camera: swing (around the front, the range of the training poses), orbit (all around), ellipse (all
            around, farther away at the sides), spiral (from the front outwards and back), still.
        yaw: degrees: the largest of swing and spiral, the one of still.
        pitch: degrees: the largest of swing and spiral, the one of the others.
        fov: field of view in degrees; default that of the training cameras, 13.4.
        walk: one head that turns into the next seed's, and on, and from the last into the first.
        frames: of the film; default 96, or 30 from head to head.
        fps: frames a second.
        show: of each head, side by side: color, depth (from 0.25 before the origin, yellow, to 0.25 behind, violet),
            normal, alpha (coverage).
        normals: axes of normals: world (a head keeps its colours while it turns) or camera.
        columns: heads in a row of the film.
        background: white, black, #rrggbb, R,G,B of 0 to 255, or transparent (films in webp and png).
        ply: write one .ply per seed.
        html: write all seeds as one page on which they turn, in any browser, without a network: this .html file.
        axes: axes of the .ply: opencv (y down, what most splat viewers expect) or opengl (y up).
        bake_dilation: add the renderer's pixel dilation to the .ply scales (and to the page), so that a viewer shows
            the same picture.
        out: folder to write to; default "renders" in the checkpoint's run, or here.
        best: of a run folder, the checkpoint with the best score (--training.evaluate-kimg) instead of the newest.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    seeds: str | None = None
    psi: float = 1.0
    size: int | None = None
    grid: bool = False
    turntable: Literal["webp", "gif", "mp4", "webm", "png"] | None = None
    path: Literal["swing", "orbit", "ellipse", "spiral", "still"] = "swing"
    yaw: float | None = None
    pitch: float | None = None
    fov: float | None = None
    walk: bool = False
    frames: int | None = None
    fps: float = 24.0
    show: tuple[Literal["color", "depth", "normal", "alpha"], ...] = ("color",)
    normals: Literal["world", "camera"] = "world"
    columns: int | None = None
    background: str = "white"
    ply: bool = False
    html: Path | None = None
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
        if self.html is not None and self.html.suffix.lower() != ".html":
            raise ValueError(f"--html {self.html}: expected a file that ends in .html")
        for name, smallest, largest, unit in (
            ("size", 8, 8192, " pixels"),
            ("frames", 1, MOST_FRAMES, ""),
            ("fps", 0.1, 240, ""),
            ("columns", 1, 1024, ""),
            ("fov", 0.1, 170, " degrees"),
            ("yaw", -360, 360, " degrees"),
            ("pitch", -89, 89, " degrees"),
        ):
            value = getattr(self, name)
            if value is not None and not smallest <= value <= largest:
                raise ValueError(f"--{name}: expected {smallest} to {largest}{unit}, got {value}")
        if not self.show or len(set(self.show)) < len(self.show):
            raise ValueError(f"--show: expected color, depth, normal, alpha, each at most once, got {list(self.show)}")
        if self.ground() is None and self.html is not None:
            raise ValueError("--background transparent: a page has a background; name a colour")
        if self.ground() is None and self.film_format() not in (None, "webp", "png"):
            raise ValueError(f"--background transparent: a film in {self.film_format()} holds none; take webp or png")

    def film_format(self) -> str | None:
        """What kind of film to write; None: none."""
        if self.turntable is not None:
            return self.turntable
        defaults = {field.name: field.default for field in fields(self)}
        return "webp" if any(getattr(self, name) != defaults[name] for name in FILM_OPTIONS) else None

    def film_name(self) -> str:
        """What the film is called: what moves, and what is shown unless it is colour alone."""
        kinds = "" if self.show == ("color",) else "-" + "-".join(self.show)
        suffix = "" if self.film_format() == "png" else f".{self.film_format()}"
        return ("walk" if self.walk else "turntable") + kinds + suffix

    def ground(self) -> tuple[float, float, float] | None:
        """RGB of the background; None: transparent."""
        return parse_background(self.background)

    def output_folder(self) -> Path:
        """Where to write."""
        if self.out is not None:
            return self.out
        if self.checkpoint is None:
            return Path("renders")
        folder = self.checkpoint.parent if self.checkpoint.is_file() else self.checkpoint
        run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder
        return run_folder / "renders"


def parse_background(text: str) -> tuple[float, float, float] | None:
    """``white``, ``black``, ``#rrggbb`` or ``R,G,B`` (0 to 255) to RGB in [0, 1], ``transparent`` to None.

    Raises:
        ValueError: for anything else.
    """
    if text == "transparent":
        return None
    if text in COLORS:
        return COLORS[text]
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        r, g, b = bytes.fromhex(text[1:])
        return r / 255, g / 255, b / 255
    levels = text.split(",")
    if len(levels) != 3 or not all(re.fullmatch(r" *\d{1,3} *", level) and int(level) <= 255 for level in levels):
        raise ValueError(f"--background: expected white, black, transparent, #rrggbb or R,G,B (0 to 255), got {text!r}")
    r, g, b = map(int, levels)
    return r / 255, g / 255, b / 255


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
