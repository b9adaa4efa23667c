"""A data set in WebDataset shards, read at random, without extracting, from disks and through fsspec.

Every shard is indexed once (:mod:`cgsgan.data.shard_index`); the index is kept in the user's cache folder, and may lie
beside the shard as ``NAME.index.npz``, where ``cgsgan data pack`` writes it. So a shard is a random-access file, and
the order of pictures, processes, flips, index lists and resuming are those of every other set.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

from cgsgan.data import cache
from cgsgan.data.errors import DatasetError, UnreachableError
from cgsgan.data.names import NameIndex, Names
from cgsgan.data.shard_files import REQUESTS, ShardFile, find_shards, one_line, open_system
from cgsgan.data.shard_index import HEADER, MASK_SUFFIX, ShardIndex, index_shard, load_index, save_index, split_name

INDEX_SUFFIX = ".index.npz"
PAUSES = (0.5, 1, 2, 4, 8, 16)
"""Seconds between the tries of a remote read; a store that is silent for longer ends the run."""
_Result = TypeVar("_Result")


class ShardSource:
    """The pictures and masks of shards, by name.

    Args:
        path: as for :func:`cgsgan.data.shard_files.find_shards`.
        use_cache: keep the indices in the user's cache folder.
        keep_bytes: of a remote set, keep the first so many bytes there once they have been read. Which bytes does not
            depend on the order of reading, so all processes of a machine share them; for shuffled epochs no choice
            is hit more often.

    Attributes:
        location: ``path``.
        names: of the pictures and the masks.
        images: of the pictures.
        labels: their cameras.
        faults: (name, what is wrong) of the samples that are in none of the others.

    Raises:
        DatasetError: when a shard is missing or no good .tar, or two samples have one name.
        UnreachableError: when a remote store does not answer.
    """

    def __init__(self, path: str, *, use_cache: bool = True, keep_bytes: int = 0) -> None:
        self.location = path
        self._shards = find_shards(path)
        self._keep_bytes = keep_bytes
        with ThreadPoolExecutor(REQUESTS if self._shards[0].remote else 1) as pool:
            parts = list(pool.map(lambda shard: _open_index(shard, use_cache), self._shards))
        self.faults = tuple(fault for part in parts for fault in part.faults)
        self.labels: Float32[np.ndarray, "picture 25"] = np.concatenate([part.labels for part in parts])
        self._ends = np.cumsum([len(part.members) for part in parts])
        self._begins = np.cumsum([0, *(shard.size for shard in self._shards)])
        self._offsets = np.concatenate([part.offsets for part in parts])
        self._sizes = np.concatenate([part.sizes for part in parts])
        self._headers = np.concatenate([part.headers for part in parts])
        self.names = NameIndex.joined([part.members for part in parts])
        if (twice := self.names.repeated()) is not None:
            raise DatasetError(f"{path}: {twice!r} is in it twice; names must differ, also between shards")
        counts = [(len(part.labels), len(part.members)) for part in parts]
        self.has_masks = any(pictures < members for pictures, members in counts)
        self.images: Names = self.names
        if self.has_masks:
            pictures = [np.arange(b - m, b - m + n) for (n, m), b in zip(counts, self._ends.tolist(), strict=True)]
            self.images = Names(self.names.take(np.concatenate(pictures)))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        row = self.names.find(name)
        if row < 0:
            raise DatasetError(f"{self.location}: there is no file {name!r}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        shard, begin = self._shards[number], int(self._offsets[row]) - HEADER
        wanted = HEADER + int(self._sizes[row])
        content = self._read_remote(number, begin, wanted) if shard.remote else _read_local(shard, begin, wanted)
        if len(content) != wanted or zlib.crc32(content[:HEADER]) != int(self._headers[row]):
            raise DatasetError(
                f"{shard.url}: {name!r} is not where it was when the shard was indexed: the file is damaged or was "
                "replaced",
                "shard changed or damaged",
            )
        return content[HEADER:]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one file, at once."""
        yield self.read(name)

    def signature(self, names: Sequence[str]) -> str:
        """Sizes and stamps of all shards, hashed; ``names`` adds nothing."""
        del names
        facts = "\n".join(f"{shard.size} {shard.stamp}" for shard in self._shards)
        return hashlib.sha256(facts.encode()).hexdigest()

    def _read_remote(self, number: int, begin: int, size: int) -> bytes:
        shard = self._shards[number]
        kept = None
        if int(self._begins[number]) + begin + size <= self._keep_bytes:
            kept = cache.cache_folder() / "shards" / _fingerprint(shard) / str(begin)
            try:
                content = kept.read_bytes()
                if len(content) == size:
                    return content
            except OSError:
                pass  # not there yet
        content = fetch(shard, lambda: open_system(shard.url)[0].cat_file(shard.path, start=begin, end=begin + size))
        if kept is not None and len(content) == size:
            _keep(kept, content)
        return content


def mask_name(image: str) -> str:
    """The mask of a picture, in the same shard."""
    split = split_name(image)
    return f"{split[0] if split else image}{MASK_SUFFIX}"


def fetch(shard: ShardFile, read: Callable[[], _Result]) -> _Result:
    """``read()``, tried again for half a minute where the store fails.

    Raises:
        UnreachableError: when it fails to the end.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except DatasetError:
            raise  # the store answered, with something that is no good
        except Exception as error:  # every store has errors of its own
            if pause is None or isinstance(error, FileNotFoundError | PermissionError):
                raise UnreachableError(f"{shard.url}: cannot be read ({one_line(error)})") from error
        time.sleep(pause)
    raise AssertionError


def _read_local(shard: ShardFile, begin: int, size: int) -> bytes:
    try:
        with Path(shard.path).open("rb", buffering=0) as file:
            file.seek(begin)
            return file.read(size) or b""
    except OSError as error:
        raise DatasetError(f"{shard.url}: cannot be read ({error.strerror or error})") from error


def _open_index(shard: ShardFile, use_cache: bool) -> ShardIndex:
    """From the cache, from the file beside the shard, or from the shard."""
    path = cache.cache_folder() / "shards" / f"{_fingerprint(shard)}.npz"
    if use_cache and (index := load_index(path, shard.size, shard.stamp)) is not None:
        return index
    index = _index_beside(shard)
    if index is None and shard.remote:
        index = fetch(shard, lambda: _index_remote(shard))
    elif index is None:
        try:
            with Path(shard.path).open("rb") as file:
                index = index_shard(file, shard.url, shard.size)
        except OSError as error:
            raise DatasetError(f"{shard.url}: cannot be read ({error.strerror or error})") from error
    if use_cache:
        try:
            save_index(path, index, shard.size, shard.stamp)
        except OSError as error:
            cache.warn_unwritable(path.parent, error)
    return index


def _index_remote(shard: ShardFile) -> ShardIndex:
    with open_system(shard.url)[0].open(shard.path, "rb", cache_type="readahead") as file:
        return index_shard(file, shard.url, shard.size)


def _index_beside(shard: ShardFile) -> ShardIndex | None:
    beside = shard.path.removesuffix(".tar") + INDEX_SUFFIX
    if not shard.remote:
        return load_index(Path(beside), shard.size, "")
    try:
        content = open_system(shard.url)[0].cat_file(beside)
    except Exception:  # most often it is not there, which is no fault; the shard itself is read next
        return None
    return load_index(content, shard.size, "")


def _fingerprint(shard: ShardFile) -> str:
    return hashlib.sha256(f"{shard.url}\n{shard.path}\n{shard.size}\n{shard.stamp}".encode()).hexdigest()[:32]


def _keep(path: Path, content: bytes) -> None:
    """Not synced, as it can be had again: a file that a crash cut short has the wrong length."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        cache.warn_unwritable(path.parent, error)
