"""Frames -> a folder of numbered PNG files, for other programs to cut and encode."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from cgsgan.export.video import Frame

FRAME_NAME = re.compile(r"\d{5,}\.png")


def save_frames(folder: str | os.PathLike[str], frames: Iterable[Frame]) -> int:
    """Write ``00000.png``, ``00001.png`` and so on; the folder appears complete or not at all.

    Args:
        folder: an earlier one is replaced, if it holds such frames alone.
        frames: 8-bit RGB or RGBA pictures, taken one by one.

    Returns:
        The number of frames.

    Raises:
        ValueError: when there is a file of that name, or a folder with anything else in it, or there is no frame.
    """
    target = Path(folder)
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    partial.mkdir()
    try:
        count = 0
        for frame in frames:
            Image.fromarray(frame).save(partial / f"{count:05d}.png", compress_level=4)
            count += 1
        if count == 0:
            raise ValueError(f"{target}: expected at least one frame, got none")
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected a folder for frames")
    others = [entry.name for entry in folder.iterdir() if not FRAME_NAME.fullmatch(entry.name)]
    if others:
        raise ValueError(f"{folder}: holds {others[0]}, which is no frame; move it away, or choose another --out")
