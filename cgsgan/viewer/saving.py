"""Files that a page may ask for: where they go, what they are called, and how many there may be.

Names are made here and nothing that a client sends enters them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from cgsgan.cameras import turntable
from cgsgan.export.images import save_image, to_uint8
from cgsgan.export.scene import ExportOptions
from cgsgan.export.video import save_video
from cgsgan.gallery import save_scene
from cgsgan.types import Gaussians
from cgsgan.viewer.scene import Explorer, focal_of
from cgsgan.viewer.state import State

SAVE_INTERVAL = 1.0
"""Seconds between two files."""
MOST_FILES = 1000
VIDEO_FRAMES = 72
VIDEO_SIZE = 256
"""Videos are at most this large, pixels."""
FPS = 24


class SaveRefusedError(ValueError):
    """Nothing was written; the message says why."""


class OutputFolder:
    """Gives names for files in one folder, within limits.

    Args:
        path: the folder; made when the first file is.
        most_bytes: nothing is begun when files of the folder take this much.
        most_files: nor when it holds so many.
        interval: nor sooner than this after the last one, seconds.
        clock: seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        most_bytes: int,
        most_files: int = MOST_FILES,
        interval: float | int = SAVE_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.most_bytes, self.most_files, self.interval = most_bytes, most_files, interval
        self._clock = clock
        self._last: float | None = None

    def next_path(self, stem: str, suffix: str) -> Path:
        """A name that is not taken: the stem, a number, the suffix.

        Raises:
            SaveRefusedError: when a limit is reached.
        """
        now = self._clock()
        if self._last is not None and now - self._last < self.interval:
            raise SaveRefusedError(f"one file in {self.interval:g} s; try again")
        files = [file for file in self.path.iterdir() if file.is_file()] if self.path.is_dir() else []
        taken = sum(file.lstat().st_size for file in files)
        if len(files) >= self.most_files:
            raise SaveRefusedError(f"the folder holds {len(files)} files, the most there may be; move some away")
        if taken >= self.most_bytes:
            raise SaveRefusedError(
                f"{self.path} holds {taken >> 20} MB, the most there may be; move some away (--most-mb)"
            )
        self._last = now
        number = 1
        while (path := self.path / f"{stem}-{number:04d}{suffix}").exists() or path.is_symlink():
            number += 1
        return path


def save_picture(folder: OutputFolder, explorer: Explorer, state: State) -> Path:
    """The exact picture as PNG.

    Raises:
        SaveRefusedError: as :meth:`OutputFolder.next_path`.
    """
    path = folder.next_path("picture", ".png")
    save_image(path, explorer.picture(state))
    return path


def save_splats(folder: OutputFolder, explorer: Explorer, state: State) -> Path:
    """The Gaussians that are shown as Inria PLY, with the renderer's dilation baked in and colours that viewers show.

    Raises:
        SaveRefusedError: as :meth:`OutputFolder.next_path`, or for scenes without Gaussians.
    """
    shown = explorer.scene(state)
    if not isinstance(shown.scenes, Gaussians):
        raise SaveRefusedError("these scenes hold no Gaussians")
    scene = shown.scenes.scene(0)
    path = folder.next_path("head", ".ply")
    try:
        save_scene(path, scene, ExportOptions(extra_dilation=explorer.heads.generator.dilation))
    except ValueError as error:
        raise SaveRefusedError(str(error)) from None
    return path


def save_turn(folder: OutputFolder, explorer: Explorer, state: State, between: Callable[[int], None]) -> Path:
    """The head swinging around the front as a looping WebP, with the state's distance from the origin, field of view,
    background and look.

    Args:
        folder: where to.
        explorer: draws.
        state: what is saved.
        between: called before every frame with its number; may draw other states, or raise to give up.

    Raises:
        SaveRefusedError: as :meth:`OutputFolder.next_path`.
    """
    path = folder.next_path("turn", ".webp")
    size = min(state.size, VIDEO_SIZE)
    state = replace(state, target=(0.0, 0.0, 0.0))
    cameras = turntable(VIDEO_FRAMES, kind="swing", focal=focal_of(state.fov))

    def frames() -> Iterator[np.ndarray]:
        for index in range(VIDEO_FRAMES):
            between(index)
            camera = cameras.map(lambda tensor, i=index: tensor[None, i : i + 1])
            yield to_uint8(explorer.draw(state, camera, size))

    save_video(path, frames(), fps=FPS)
    return path
