"""Finds the .tar files of a sharded data set: braces, stars, folders, and URLs of everything that fsspec reads."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

from cgsgan.data.errors import DatasetError, UnreachableError

MANY = 1_000_000
REQUESTS = 32
"""Asked of a remote store at the same time."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One .tar.

    Attributes:
        url: as a user would write it.
        path: its name on its file system.
        size: bytes.
        stamp: changes when the file does: its time, or what the store knows of its content.
        remote: whether it is read through fsspec.
    """

    url: str
    path: str
    size: int
    stamp: str
    remote: bool


def names_shards(path: str) -> bool:
    """Whether ``path`` can only mean shards: a URL, a .tar, or a pattern of them."""
    return "://" in path or path.lower().endswith(".tar")


def holds_shards(folder: Path) -> bool:
    """Whether a local folder has .tar files in it."""
    return any(name.lower().endswith(".tar") for name in os.listdir(folder))


def expand_braces(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` and ``{a,b}.tar`` as a list, in order; numbers keep the width of the first.

    Raises:
        DatasetError: for a range that goes down, or more than a million names.
    """
    pieces: list[list[str]] = []
    end, total = 0, 1
    for found in _BRACES.finditer(pattern):
        pieces += [[pattern[end : found.start()]], _choices(found.group(1), pattern)]
        end, total = found.end(), total * len(pieces[-1])
        if total > MANY:
            raise DatasetError(f"{pattern}: expected at most {MANY:,} shards")
    return ["".join(parts) for parts in itertools.product(*pieces, [pattern[end:]])]


def _choices(inside: str, pattern: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    if not first <= last < first + MANY:
        raise DatasetError(f"{pattern}: expected a range such as {{000000..000127}}, got {{{inside}}}")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def find_shards(path: str) -> list[ShardFile]:
    """The shards that ``path`` names, in order.

    Args:
        path: a .tar, a folder of them, a pattern with ``{000000..000127}`` or ``*``, local or as a URL.

    Raises:
        DatasetError: when there is none, or one is missing.
        UnreachableError: when a remote store cannot be asked.
    """
    patterns = expand_braces(path)
    found = list(_find_remote(patterns)) if "://" in path else [s for p in patterns for s in _find_local(p)]
    if not found:
        raise DatasetError(f"{path}: there is no shard (expected .tar files)")
    return found


def _find_local(pattern: str) -> Iterator[ShardFile]:
    place = Path(pattern).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.name.lower().endswith(".tar"))
    elif "*" in pattern and not place.exists():
        files = [Path(name) for name in sorted(glob(str(place)))]
    else:
        files = [place]
    for file in files:
        if not file.is_file():
            raise DatasetError(f"{file}: no such shard")
        info = file.stat()
        path = str(file.resolve())
        yield ShardFile(url=str(file), path=path, size=info.st_size, stamp=str(info.st_mtime_ns), remote=False)


def _find_remote(patterns: list[str]) -> Iterator[ShardFile]:
    system, _ = open_system(patterns[0])
    if _is_local(system):
        for pattern in patterns:
            yield from _find_local(str(open_system(pattern)[1]))
        return

    def look(pattern: str) -> list[dict[str, Any]]:
        path = open_system(pattern)[1]
        try:
            if "*" in path:
                return [info for _, info in sorted(system.glob(path, detail=True).items())]
            if path.lower().endswith(".tar"):
                return [system.info(path)]
            infos = sorted(system.ls(path, detail=True), key=lambda info: info["name"])
        except FileNotFoundError:
            raise DatasetError(f"{pattern}: no such shard") from None
        except Exception as error:  # every store has errors of its own
            raise UnreachableError(f"{pattern}: cannot be looked up ({one_line(error)})") from error
        return [info for info in infos if info["name"].lower().endswith(".tar")]

    with ThreadPoolExecutor(REQUESTS) as pool:
        for info in itertools.chain.from_iterable(pool.map(look, patterns)):
            stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), "")
            url = str(system.unstrip_protocol(info["name"]))
            yield ShardFile(url=url, path=info["name"], size=int(info["size"]), stamp=stamp, remote=True)


@lru_cache(maxsize=4096)
def open_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path on it.

    Raises:
        DatasetError: for an unknown kind of URL, or one whose package is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DatasetError(f"{url}: cannot be opened ({one_line(error)})") from error


def _is_local(system: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, cut after 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
