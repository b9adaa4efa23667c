"""Where the files of a data set lie: a folder or a zip, read without extracting.

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
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cgsgan.data.errors import DatasetError

LABEL_FILE = "dataset.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_READ_ERRORS = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@runtime_checkable
class FileSource(Protocol):
    """A read-only set of files."""

    location: Path
    names: frozenset[str]

    def read(self, name: str) -> bytes:
        """The bytes of one file; DatasetError when it is not there or cannot be read."""
        ...

    def signature(self, names: list[str]) -> str:
        """A string that changes when the files ``names`` change (sizes and times, not contents)."""
        ...


def check_entry_name(name: str, location: Path) -> None:
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


class FolderSource:
    """The files below a folder."""

    def __init__(self, location: Path) -> None:
        self.location = location
        found = []
        for folder, _, files in os.walk(location, followlinks=True):
            prefix = Path(folder).relative_to(location).as_posix()
            found.extend(name if prefix == "." else f"{prefix}/{name}" for name in files)
        self.names = frozenset(found)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        check_entry_name(name, self.location)
        try:
            return (self.location / name).read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.location}: cannot read {name!r} ({error.strerror or error})") from error

    def signature(self, names: list[str]) -> str:
        """Sizes and modification times of the files, hashed."""
        digest = hashlib.sha256()
        for name in names:
            info = (self.location / name).stat()
            digest.update(f"{name}\0{info.st_size}\0{info.st_mtime_ns}\n".encode())
        return digest.hexdigest()


class ZipSource:
    """The files of a zip; one open handle per process, shared by its threads (ZipFile locks its reads).

    Handles are neither inherited over ``fork`` (the file position would be shared) nor pickled.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        entries = [info for info in self._archive().infolist() if not info.is_dir()]
        for info in entries:
            check_entry_name(info.orig_filename, location)
        names = [info.filename for info in entries if not info.filename.startswith("__MACOSX/")]
        self._prefix = _label_folder(names)
        self.names = frozenset(n[len(self._prefix) :] for n in names if n.startswith(self._prefix))

    def read(self, name: str) -> bytes:
        """The bytes of one entry."""
        try:
            return self._archive().read(self._prefix + name)
        except KeyError as error:
            raise DatasetError(f"{self.location}: there is no entry {name!r}") from error
        except _READ_ERRORS as error:
            raise DatasetError(f"{self.location}: cannot read entry {name!r} ({error})") from error

    def signature(self, names: list[str]) -> str:
        """Size and modification time of the archive; ``names`` adds nothing."""
        del names
        info = self.location.stat()
        return f"{info.st_size}-{info.st_mtime_ns}"

    def _archive(self) -> zipfile.ZipFile:
        with self._lock:
            if self._handle is None or self._owner != os.getpid():
                try:
                    self._handle = zipfile.ZipFile(self.location)
                except _READ_ERRORS as error:
                    raise DatasetError(f"{self.location}: not a readable zip archive ({error})") from error
                self._owner = os.getpid()
            return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_handle", "_owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _handle=None, _owner=-1)


def _label_folder(names: list[str]) -> str:
    """The folder of ``dataset.json`` inside an archive: people zip the folder as often as its contents."""
    if LABEL_FILE in names:
        return ""
    nested = [name for name in names if name.endswith("/" + LABEL_FILE)]
    return nested[0][: -len(LABEL_FILE)] if len(nested) == 1 else ""


def open_source(path: str | os.PathLike[str]) -> FileSource:
    """Open a folder or a zip.

    Raises:
        DatasetError: when there is nothing at ``path``, or it is neither a folder nor a zip.
    """
    location = Path(path).expanduser()
    if location.is_dir():
        return FolderSource(location)
    if not location.exists():
        raise DatasetError(f"{location}: no such data set (expected a folder or a .zip file)")
    if location.suffix.lower() != ".zip":
        raise DatasetError(f"{location}: unknown file type {location.suffix!r} (expected a folder or a .zip file)")
    return ZipSource(location)


def resolve_images(names: list[str], source: FileSource, mask_folder: str | None) -> list[str | None]:
    """The file of each label name, or None where it is missing.

    A name counts as it stands; otherwise the one image with the same stem is taken, because CGS-GAN's data
    sets always write ``<stem>.png`` in the labels, whatever the folder and the type of the picture.
    """
    by_stem: dict[str, str | None] = {}
    for name in source.names:
        stem, suffix = os.path.splitext(name.rsplit("/", 1)[-1])
        inside_masks = mask_folder is not None and name.startswith(mask_folder.rstrip("/") + "/")
        if suffix.lower() in IMAGE_SUFFIXES and not inside_masks:
            by_stem[stem] = None if stem in by_stem else name
    resolved = []
    for name in names:
        check_entry_name(name, source.location)
        stem = os.path.splitext(name.rsplit("/", 1)[-1])[0]
        resolved.append(name if name in source.names else by_stem.get(stem))
    return resolved


def resolve_masks(images: list[str], masks: FileSource, folder: str) -> list[str | None]:
    """The mask of each image, ``folder/<same path>.png`` or ``folder/<stem>.png``; None where missing."""
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    resolved = []
    for image in images:
        stem = os.path.splitext(image)[0]
        candidates = (f"{prefix}{stem}.png", f"{prefix}{stem.rsplit('/', 1)[-1]}.png")
        resolved.append(next((name for name in candidates if name in masks.names), None))
    return resolved
