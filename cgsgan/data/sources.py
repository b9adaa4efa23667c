"""Opens a data set of any kind: a folder, a zip, or WebDataset shards."""

from __future__ import annotations

import os
from pathlib import Path

from cgsgan.data.archive import LABEL_FILE, FileSource, FolderSource, ZipSource
from cgsgan.data.errors import DatasetError
from cgsgan.data.shard_files import holds_shards, names_shards
from cgsgan.data.shards import ShardSource

EXPECTED = "expected a folder, a .zip file, or .tar shards"


def check_presence(path: str | os.PathLike[str]) -> None:
    """Refuse a path at which nothing is; of shards, which may be far away, nothing is said.

    Raises:
        DatasetError: names the path.
    """
    location = Path(path).expanduser()
    if not names_shards(os.fspath(path)) and not location.exists():
        raise DatasetError(f"{location}: no such data set ({EXPECTED})")


def open_source(path: str | os.PathLike[str], *, use_cache: bool = True, keep_bytes: int = 0) -> FileSource:
    """Open a folder, a zip, or shards.

    Args:
        path: shards are a .tar, a folder of them without a ``dataset.json``, or a pattern of them, also as a URL.
        use_cache: keep what is learnt about shards in the user's cache folder.
        keep_bytes: of remote shards, keep so many bytes there.

    Raises:
        DatasetError: when there is nothing at ``path``, or it is of another kind.
    """
    text = os.fspath(path)
    location = Path(path).expanduser()
    if names_shards(text):
        return ShardSource(text, use_cache=use_cache, keep_bytes=keep_bytes)
    if location.is_dir():
        if not (location / LABEL_FILE).is_file() and holds_shards(location):
            return ShardSource(text, use_cache=use_cache)
        return FolderSource(location)
    check_presence(path)
    if location.suffix.lower() != ".zip":
        raise DatasetError(f"{location}: unknown file type {location.suffix!r} ({EXPECTED})")
    return ZipSource(location)
