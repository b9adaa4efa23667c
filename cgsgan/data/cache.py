"""Decoded data sets kept between runs, in the user's cache folder.

``CGSGAN_CACHE`` names another folder. Files are written under a temporary name and renamed, so that a reader
never sees half a file and two processes may write the same one. A cache that cannot be written costs time,
not the run.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


def cache_folder() -> Path:
    """The folder of cached files: ``$CGSGAN_CACHE``, else ``cgsgan`` in the user's cache folder."""
    chosen = os.environ.get("CGSGAN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "cgsgan"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path next to ``path``; it is synced and renamed to ``path`` if no exception passes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_pixels(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "image size size 4"] | None:
    """The cached array, mapped into memory (processes of one machine share it), or None."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def save_pixels(path: Path, pixels: UInt8[np.ndarray, "image size size 4"]) -> bool:
    """Write the array; False, after one warning, when the folder cannot be written."""
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels, allow_pickle=False)
    except OSError as error:
        warn_unwritable(path.parent, error)
        return False
    return True


def warn_unwritable(folder: Path, error: OSError) -> None:
    """Say once that nothing will be cached."""
    warnings.warn(
        f"cannot write the data cache {folder} ({error.strerror or error}); going on without it. "
        "Set CGSGAN_CACHE to a folder that can be written, or data.cache: false",
        stacklevel=3,
    )
