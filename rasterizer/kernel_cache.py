"""Compiled kernels kept between runs, in the user's cache folder.

``RASTERIZER_CACHE`` names another folder. Files are written under a temporary name and renamed, so that a reader
never sees half a file and processes may write the same one; each holds the hash of its content, so that one damaged
later is not used. A folder that cannot be written costs compiling at every start, not the run.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import uuid
import warnings
from pathlib import Path

CACHE_VARIABLE = "RASTERIZER_CACHE"
MAGIC = b"rasterizer kernels 1\n"
HASH_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path | None:
    """``$RASTERIZER_CACHE``, else ``rasterizer`` in the user's cache folder; None where a user has no home."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        return Path(base, "rasterizer") if base else None
    default = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return (Path(base) if base else default) / "rasterizer"


def _hash(name: str, image: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + image).digest()


def read_image(path: Path) -> bytes | None:
    """The image in a cached file, or None where there is no whole one of this name."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + HASH_BYTES
    image = content[start:]
    if content[: len(MAGIC)] != MAGIC or content[len(MAGIC) : start] != _hash(path.name, image):
        return None
    return image


def write_image(path: Path, image: bytes) -> bool:
    """Keep an image; False, after one warning, when the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(MAGIC + _hash(path.name, image) + image)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _warn_unwritable(path.parent, error.strerror or str(error))
        return False
    return True


@functools.cache  # once per folder and reason
def _warn_unwritable(folder: Path, reason: str) -> None:
    warnings.warn(
        f"compiled CUDA kernels cannot be kept in {folder} ({reason}); they are compiled again at every start: "
        f"set {CACHE_VARIABLE} to a folder that can be written",
        RuntimeWarning,
        stacklevel=3,
    )
