"""Writes data sets: a zip in EG3D's format, or a folder of WebDataset shards. Either appears when it is complete."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cgsgan.data.archive import LABEL_FILE
from cgsgan.data.cache import replacing
from cgsgan.data.errors import DatasetError
from cgsgan.data.shard_index import LABEL_SUFFIX, MASK_SUFFIX, index_shard, save_index, split_name
from cgsgan.data.shards import INDEX_SUFFIX

MASK_FOLDER = "mask"
"""Where masks lie in a zip that was packed."""


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """One picture, encoded.

    Attributes:
        name: of the picture, with its suffix.
        picture: the bytes of its file.
        mask: the bytes of its mask's file, if it is kept apart.
        numbers: the camera.
    """

    name: str
    picture: bytes
    mask: bytes | None
    numbers: Any


class SampleWriter(Protocol):
    """Takes samples in order."""

    def add(self, sample: PackedSample) -> None:
        """Write one."""
        ...


class _ZipWriter:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.labels: list[tuple[str, Any]] = []

    def add(self, sample: PackedSample) -> None:
        self._archive.writestr(zipfile.ZipInfo(sample.name), sample.picture)
        if sample.mask is not None:
            stem = os.path.splitext(sample.name)[0]
            self._archive.writestr(zipfile.ZipInfo(f"{MASK_FOLDER}/{stem}.png"), sample.mask)
        self.labels.append((sample.name, sample.numbers))


@contextmanager
def write_zip(out: Path) -> Iterator[SampleWriter]:
    """A writer of samples into a zip, which is renamed to ``out`` if no exception passes."""
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        writer = _ZipWriter(archive)
        yield writer
        archive.writestr(zipfile.ZipInfo(LABEL_FILE), json.dumps({"labels": writer.labels}))


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """How pictures are spread over shards.

    Attributes:
        pictures: all of them.
        shards: so many, as equal in pictures as can be.
        size: largest shard, bytes; instead of ``shards``.
    """

    pictures: int
    shards: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards > self.pictures:
            raise DatasetError(f"--shards: {self.pictures} pictures do not fill {self.shards} shards")

    def begins(self, number: int, size: int) -> bool:
        """Whether picture ``number`` begins a new shard, which would else have ``size`` bytes with it."""
        if self.size is not None or self.shards is None:
            return size > (self.size or 0)
        return number * self.shards // self.pictures != (number - 1) * self.shards // self.pictures


class _ShardWriter:
    def __init__(self, folder: Path, stem: str, plan: ShardPlan) -> None:
        self._folder, self._stem, self._plan = folder, stem, plan
        self._shards = self._pictures = 0
        self._path: Path | None = None
        self._archive: tarfile.TarFile | None = None

    def add(self, sample: PackedSample) -> None:
        key = check_key(sample.name)
        files = [(key + LABEL_SUFFIX, json.dumps({"label": sample.numbers}).encode()), (sample.name, sample.picture)]
        if sample.mask is not None:
            files.append((key + MASK_SUFFIX, sample.mask))
        room = sum(tarfile.BLOCKSIZE * (1 + math.ceil(len(content) / tarfile.BLOCKSIZE)) for _, content in files)
        if self._archive is not None and self._plan.begins(self._pictures, _tar_size(self._archive.offset + room)):
            self.close()
        archive = self._archive or self._open()
        for name, content in files:
            # Nothing of the machine, the user or the time: the same pictures give the same bytes.
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
        self._pictures += 1

    def _open(self) -> tarfile.TarFile:
        self._path = self._folder / f"{self._stem}-{self._shards:06d}.tar"
        self._archive = tarfile.open(self._path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed in "close")
        self._shards += 1
        return self._archive

    def close(self) -> None:
        """End the shard, and write its index from what can be read back of it."""
        if self._archive is None or self._path is None:
            return
        self._archive.close()
        self._archive = None
        size = self._path.stat().st_size
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
            index = index_shard(file, str(self._path), size)
        save_index(self._path.with_name(self._path.stem + INDEX_SUFFIX), index, size, "")


def _tar_size(content: int) -> int:
    """Of a whole .tar: two blocks of zeros end it, and it is filled up to whole records."""
    return math.ceil((content + 2 * tarfile.BLOCKSIZE) / tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def check_key(name: str) -> str:
    """The key of a picture's name.

    Raises:
        DatasetError: when the name has a dot besides the one of its suffix: in shards, keys end at the first dot.
    """
    split = split_name(name)
    stem = os.path.splitext(name)[0]
    if split is None or split[0] != stem:
        raise DatasetError(
            f"{name!r} cannot be put into shards, where a name ends at its first dot and does not begin with '__'; "
            "rename it, or pack into a .zip"
        )
    return stem


@contextmanager
def write_shards(out: Path, plan: ShardPlan) -> Iterator[SampleWriter]:
    """A writer of samples into shards of a new folder, which is renamed to ``out`` if no exception passes.

    Shards are ``<name of the folder>-000000.tar`` and so on, with an index beside each. An ``out`` that is there is
    replaced if it holds nothing but shards.

    Raises:
        DatasetError: when ``out`` is there and holds something else.
    """
    _expect_shards_only(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        writer = _ShardWriter(temporary, out.name, plan)
        yield writer
        writer.close()
        old = out.with_name(f".{out.name}.{uuid.uuid4().hex}.old")
        if out.exists():
            out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _expect_shards_only(out: Path) -> None:
    if not out.exists():
        return
    others = [] if not out.is_dir() else [n for n in os.listdir(out) if not n.endswith((".tar", INDEX_SUFFIX))]
    if not out.is_dir() or others:
        found = f"holds {sorted(others)[0]!r}" if others else "is a file"
        raise DatasetError(f"{out}: shards are written into a folder of their own, but it {found}; choose another name")
