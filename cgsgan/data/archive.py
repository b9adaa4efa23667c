"""Where the files of a data set lie: a folder or a zip (or shards, see there), read without extracting.

Names use forward slashes and are relative to the folder that holds ``dataset.json``. A name that would leave
that folder is refused, although nothing is ever extracted: such an archive was made by mistake or in bad
faith.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from cgsgan.data.errors import DatasetError, Location
from cgsgan.data.names import NameIndex
from cgsgan.data.zip_index import read_zip_index

LABEL_FILE = "dataset.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CHUNK_BYTES = 4 << 20
_BLOCK = 65536
_SUSPICIOUS = ("\n/", "..", "\\", "\0", ":", "\n\n")
_READ_ERRORS = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@runtime_checkable
class FileSource(Protocol):
    """A read-only set of files."""

    names: NameIndex

    @property
    def location(self) -> Location:
        """Where they lie, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; DatasetError when it is not there or cannot be read."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """The same bytes, some megabytes at a time."""
        ...

    def signature(self, names: Sequence[str]) -> str:
        """A string that changes when the files ``names`` change (sizes and times, not contents)."""
        ...


def check_entry_name(name: str, location: Location) -> None:
    """Refuse a name that leaves the data set's folder.

    Raises:
        DatasetError: for absolute names, ``..``, drive letters, backslashes and NUL characters.
    """
    leaves = name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name) is not None
    if not name or leaves or "\\" in name or "\0" in name:
        raise DatasetError(
            f"{location}: entry {name!r} points outside the data set; refused (expected a relative name with "
            "forward slashes, without '..')",
            "name points outside the data set",
        )


def check_entry_names(names: Sequence[str], location: Location) -> None:
    """:func:`check_entry_name` for a million names: they are looked at singly only where a search finds something."""
    for first in range(0, len(names), _BLOCK):
        block = names[first : first + _BLOCK]
        joined = "\n".join(("", *block, "end"))
        if any(mark in joined for mark in _SUSPICIOUS):
            for name in block:
                check_entry_name(name, location)


def _walk(location: Path) -> Iterator[str]:
    for folder, _, files in os.walk(location, followlinks=True):
        prefix = Path(folder).relative_to(location).as_posix()
        yield from (name if prefix == "." else f"{prefix}/{name}" for name in files)


class FolderSource:
    """The files below a folder."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.names = NameIndex(_walk(location))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        check_entry_name(name, self.location)
        try:
            return (self.location / name).read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.location}: cannot read {name!r} ({error.strerror or error})") from error

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one file, some megabytes at a time."""
        check_entry_name(name, self.location)
        try:
            with (self.location / name).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise DatasetError(f"{self.location}: cannot read {name!r} ({error.strerror or error})") from error

    def signature(self, names: Sequence[str]) -> str:
        """Sizes and modification times of the files, hashed."""
        digest = hashlib.sha256()
        for name in names:
            info = (self.location / name).stat()
            digest.update(f"{name}\0{info.st_size}\0{info.st_mtime_ns}\n".encode())
        return digest.hexdigest()


class ZipSource:
    """The files of a zip; one open handle per process, shared by its threads.

    Handles are neither inherited over ``fork`` (the file position would be shared) nor pickled.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._handle: BinaryIO | None = None
        self._owner = -1
        try:
            self._index = read_zip_index(location)
        except _READ_ERRORS as error:
            raise DatasetError(f"{location}: not a readable zip archive ({error})") from error
        check_entry_names(self._index.names, location)
        self._prefix = _label_folder(self._index.names)
        prefix = self._prefix
        self.names = self._index.names
        if prefix or any(name.startswith("__MACOSX/") for name in self.names):
            kept = (n for n in self._index.names if n.startswith(prefix) and not n.startswith("__MACOSX/"))
            self.names = NameIndex(name[len(prefix) :] for name in kept)

    def read(self, name: str) -> bytes:
        """The bytes of one entry."""
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one entry, some megabytes at a time; its checksum is compared at the end."""
        row = self._index.names.find(self._prefix + name)
        if row < 0:
            raise DatasetError(f"{self.location}: there is no entry {name!r}")
        try:
            if int(self._index.flags[row]) & 1 or int(self._index.methods[row]) not in (0, 8):
                with zipfile.ZipFile(self.location) as archive:  # rare methods; says what is wrong with encrypted ones
                    yield archive.read(self._prefix + name)
                return
            checksum = 0
            for chunk in self._decompress(row):
                checksum = zlib.crc32(chunk, checksum)
                yield chunk
            if checksum != int(self._index.checksums[row]):
                raise zipfile.BadZipFile("Bad CRC-32")
        except _READ_ERRORS as error:
            raise DatasetError(f"{self.location}: cannot read entry {name!r} ({error})") from error

    def signature(self, names: Sequence[str]) -> str:
        """Size and modification time of the archive; ``names`` adds nothing."""
        del names
        info = self.location.stat()
        return f"{info.st_size}-{info.st_mtime_ns}"

    def _decompress(self, row: int) -> Iterator[bytes]:
        index = self._index
        offset, left = int(index.offsets[row]), int(index.sizes[row])
        head = self._bytes_at(offset, 30)
        if head[:4] != b"PK\3\4":
            raise zipfile.BadZipFile("Bad magic number for file header")
        offset += 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        inflate = zlib.decompressobj(-15) if int(index.methods[row]) == 8 else None
        wanted = int(index.full_sizes[row])
        while left > 0:
            chunk = self._bytes_at(offset, min(left, CHUNK_BYTES))
            offset, left = offset + len(chunk), left - len(chunk)
            while chunk:
                # Bounded, so that a small entry cannot swell to gigabytes.
                part = inflate.decompress(chunk, CHUNK_BYTES) if inflate else chunk
                chunk = inflate.unconsumed_tail if inflate else b""
                wanted -= len(part)
                if wanted < 0:
                    raise zipfile.BadZipFile("longer than its table of contents says")
                yield part
        if wanted:
            raise zipfile.BadZipFile("shorter than its table of contents says")

    def _bytes_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._handle is None or self._owner != os.getpid():
                self._handle = self.location.open("rb", buffering=0)
                self._owner = os.getpid()
            handle = self._handle
        if hasattr(os, "pread"):
            content = os.pread(handle.fileno(), size, offset)  # no lock: threads read side by side
        else:
            with self._lock:
                handle.seek(offset)
                content = handle.read(size) or b""
        if len(content) != size:
            raise EOFError("the archive ends before the entry")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_handle", "_owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _handle=None, _owner=-1)


def _label_folder(names: NameIndex) -> str:
    """The folder of ``dataset.json`` inside an archive: people zip the folder as often as its contents."""
    if LABEL_FILE in names:
        return ""
    nested = [n for n in names if n.endswith("/" + LABEL_FILE) and not n.startswith("__MACOSX/")]
    return nested[0][: -len(LABEL_FILE)] if len(nested) == 1 else ""


def resolve_images(names: Sequence[str], source: FileSource, mask_folder: str | None) -> Sequence[str | None]:
    """The file of each label name, or None where it is missing; ``names`` itself when all of them are files.

    A name counts as it stands; otherwise the one image with the same stem is taken, because CGS-GAN's data
    sets always write ``<stem>.png`` in the labels, whatever the folder and the type of the picture.
    """
    check_entry_names(names, source.location)
    rows = source.names.find_all(names)
    if bool((rows >= 0).all()):
        return names
    by_stem: dict[str, str | None] = {}
    for name in source.names:
        stem, suffix = os.path.splitext(name.rsplit("/", 1)[-1])
        inside_masks = mask_folder is not None and name.startswith(mask_folder.rstrip("/") + "/")
        if suffix.lower() in IMAGE_SUFFIXES and not inside_masks:
            by_stem[stem] = None if stem in by_stem else name
    return [
        name if row >= 0 else by_stem.get(os.path.splitext(name.rsplit("/", 1)[-1])[0])
        for name, row in zip(names, rows.tolist(), strict=True)
    ]


def resolve_masks(images: Sequence[str], masks: FileSource, folder: str) -> list[str | None]:
    """The mask of each image, ``folder/<same path>.png`` or ``folder/<stem>.png``; None where missing."""
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    resolved = []
    for image in images:
        stem = os.path.splitext(image)[0]
        candidates = (f"{prefix}{stem}.png", f"{prefix}{stem.rsplit('/', 1)[-1]}.png")
        resolved.append(next((name for name in candidates if name in masks.names), None))
    return resolved
