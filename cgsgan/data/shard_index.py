"""What one WebDataset shard holds, found by one pass over its headers; the same as arrays in a file beside it.

A sample is the files of one key, which is a name up to the first dot after the last slash: ``KEY.png`` (or .webp, .jpg,
.jpeg), ``KEY.json`` with the camera, and perhaps ``KEY.mask.png``. Other files of a key are not looked at. Nothing is
ever extracted.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Int64, UInt32

from cgsgan.cameras import LABEL_SIZE
from cgsgan.data import cache
from cgsgan.data.archive import IMAGE_SUFFIXES, check_entry_name
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import first_fault, label_problem, not_numbers
from cgsgan.data.names import Names

MASK_SUFFIX = ".mask.png"
LABEL_SUFFIX = ".json"
HEADER = tarfile.BLOCKSIZE
_LARGEST_LABEL = 1 << 20
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The pictures, masks and cameras of a shard.

    Attributes:
        members: names of the pictures, then of the masks.
        offsets: of the contents, bytes; a header of 512 bytes stands before each.
        sizes: of the contents, bytes.
        headers: CRC-32 of those headers, by which a read finds that the shard has changed.
        labels: the camera of each picture; the first ``len(labels)`` members are the pictures.
        faults: (name, what is wrong) of samples that cannot be used; they are in none of the above.
    """

    members: Names
    offsets: Int64[np.ndarray, " member"]
    sizes: Int64[np.ndarray, " member"]
    headers: UInt32[np.ndarray, " member"]
    labels: Float32[np.ndarray, "picture 25"]
    faults: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        counts = {len(self.members), len(self.offsets), len(self.sizes), len(self.headers)}
        if len(counts) != 1 or not len(self.labels) <= len(self.members):
            raise ValueError("the arrays of a shard's index differ in length")


@dataclass
class _Sample:
    pictures: list[tuple[str, int, int, int]] = field(default_factory=list)
    masks: list[tuple[str, int, int, int]] = field(default_factory=list)
    labels: list[bytes] = field(default_factory=list)


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix with its dot) of a member's name; None where it belongs to no sample."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem or not dot or stem.startswith("__"):
        return None
    return (f"{folder}/{stem}" if folder else stem), f".{suffix.lower()}"


def index_shard(file: Any, url: str, size: int) -> ShardIndex:
    """Read the headers, and the JSON files, of a .tar.

    Args:
        file: the .tar, binary and seekable (fsspec's files share no class with Python's).
        url: its name, for errors.
        size: of the .tar, bytes.

    Raises:
        DatasetError: when it is truncated or no plain .tar, or holds links or names that leave its folder. What is
            wrong with single samples stands in ``faults``.
        OSError: when it cannot be read.
    """
    samples: dict[str, _Sample] = {}
    for name, offset, length in _walk(file, url, size):
        split = split_name(name)
        if split is None:
            continue
        key, suffix = split
        if suffix in IMAGE_SUFFIXES or suffix == MASK_SUFFIX:
            file.seek(offset - HEADER)
            place = (name, offset, length, zlib.crc32(file.read(HEADER)))
            sample = samples.setdefault(key, _Sample())
            (sample.masks if suffix == MASK_SUFFIX else sample.pictures).append(place)
        elif suffix == LABEL_SUFFIX:
            file.seek(offset)
            samples.setdefault(key, _Sample()).labels.append(file.read(min(length, _LARGEST_LABEL)))
    return _arrange(samples)


def _walk(file: Any, url: str, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every file, without the "./" that tar puts before them."""
    count, where = 0, 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] (it would keep them all)
                where = member.offset
                if member.size < 0 or member.offset_data + member.size > size:
                    raise EOFError("a file of it ends beyond its end")
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                check_entry_name(name, Path(url) if "://" not in url else url)
                if not member.isreg() or member.issparse():
                    kind = "a link" if member.issym() or member.islnk() else "no plain file"
                    raise DatasetError(f"{url}: {name!r} is {kind}; refused (expected plain files in a .tar)")
                count += 1
                yield name, member.offset_data, member.size
            where = int(archive.offset)
        file.seek(where)
        # tarfile takes a damaged or missing header for the end; the true end is a block of zeros.
        if file.read(HEADER) == bytes(HEADER):
            return
        reason = "no end mark"
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
    raise DatasetError(
        f"{url}: damaged or cut short after {count} files, at byte {where} of {size} ({reason}); expected a whole, "
        "uncompressed .tar"
    )


def _arrange(samples: dict[str, _Sample]) -> ShardIndex:
    faults: list[tuple[str, str]] = []
    numbers: dict[str, list[float]] = {}
    for key, sample in samples.items():
        found = _label_of(key, sample)
        if isinstance(found, str):
            faults.append((sample.pictures[0][0] if sample.pictures else key, found))
        else:
            numbers[key] = found
    labels = np.array(list(numbers.values()), dtype=np.float64).reshape(-1, LABEL_SIZE)
    if len(labels) and first_fault(labels) is not None:
        problems = {key: label_problem(label) for key, label in numbers.items()}
        faults += [(samples[key].pictures[0][0], f"label: {p}") for key, p in problems.items() if p is not None]
        good = [key for key, problem in problems.items() if problem is None]
        labels = np.array([numbers[key] for key in good], dtype=np.float64).reshape(-1, LABEL_SIZE)
        numbers = {key: numbers[key] for key in good}
    places = [samples[key].pictures[0] for key in numbers]
    places += [samples[key].masks[0] for key in numbers if samples[key].masks]
    return ShardIndex(
        members=Names(place[0] for place in places),
        offsets=np.array([place[1] for place in places], dtype=np.int64),
        sizes=np.array([place[2] for place in places], dtype=np.int64),
        headers=np.array([place[3] for place in places], dtype=np.uint32),
        labels=labels.astype(np.float32),
        faults=tuple(faults),
    )


def _label_of(key: str, sample: _Sample) -> list[float] | str:
    """The 25 numbers of a sample, their values still unchecked, or what is wrong with it."""
    if not sample.pictures:
        return "a camera without a picture" if sample.labels else "a mask without a picture"
    if len(sample.pictures) > 1 or len(sample.labels) > 1 or len(sample.masks) > 1:
        return "more than one picture, camera or mask of one key"
    if not sample.labels:
        return f"there is no {key.rsplit('/', 1)[-1]}{LABEL_SUFFIX} with its camera"
    try:
        document: Any = json.loads(sample.labels[0])
    except ValueError:
        return "its .json is not valid JSON"
    numbers = document.get("label") if isinstance(document, dict) else document
    fault = not_numbers(numbers)
    return f"label: {fault}" if fault is not None else cast(list[float], numbers)


def save_index(path: Path, index: ShardIndex, size: int, stamp: str) -> None:
    """Write an index as ``.npz``, for a shard of this size (and stamp, where that is known and lasts)."""
    blob, ends = index.members.arrays()
    facts = json.dumps({"format": _FORMAT, "size": size, "stamp": stamp, "faults": index.faults})
    with cache.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file, members=blob, ends=ends, offsets=index.offsets, sizes=index.sizes, headers=index.headers,
            labels=index.labels, facts=np.frombuffer(facts.encode(), dtype=np.uint8),
        )  # fmt: skip


def load_index(stored_index: bytes | Path, size: int, stamp: str) -> ShardIndex | None:
    """What :func:`save_index` wrote for a shard of this size and stamp, or None."""
    try:
        file = stored_index if isinstance(stored_index, Path) else io.BytesIO(stored_index)
        with np.load(file, allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            if (facts["format"], facts["size"], facts["stamp"]) != (_FORMAT, size, stamp):
                return None
            return ShardIndex(
                members=Names.from_arrays(stored["members"], stored["ends"]),
                offsets=stored["offsets"],
                sizes=stored["sizes"],
                headers=stored["headers"],
                labels=stored["labels"],
                faults=tuple((name, fault) for name, fault in facts["faults"]),
            )
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
