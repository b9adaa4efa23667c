"""Files that appear complete or not at all, and not in the place of others."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends without an error.

    The bytes are synced to disk before the rename, so a crash leaves either the old file or the whole new
    one. Missing parent folders are created. On an error the temporary file goes and ``path`` is untouched.

    Args:
        path: where the file shall be.

    Yields:
        The name to write to. It does not carry the suffix of ``path``: writers that choose a format by suffix
        must be told the format.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # a rename is durable only once its folder is; Windows cannot open folders
        _sync(target.parent)


def free_path(path: Path) -> Path:
    """The path itself, or the first of ``name-2``, ``name-3``... beside it that does not exist."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def _sync(path: Path) -> None:
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
