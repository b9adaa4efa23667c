"""The table of contents of a zip as arrays: a million entries in 60 MB, where ``zipfile`` needs 600.

Format: PKWARE's APPNOTE 6.3, sections 4.3.12 (central directory), 4.3.14 to 4.3.16 (end records, ZIP64).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from cgsgan.data.names import NameIndex

_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LONGEST_COMMENT = 0xFFFF
_FULL32 = 0xFFFFFFFF
_UTF8 = 0x800


@dataclass(frozen=True, kw_only=True)
class ZipIndex:
    """The entries of an archive that are files.

    Attributes:
        names: as written in the archive.
        offsets: of the local headers, bytes.
        sizes: compressed, bytes.
        full_sizes: decompressed, bytes.
        checksums: CRC-32 of the contents.
        methods: 0 stored, 8 deflated; others are for ``zipfile``.
        flags: general purpose bits; bit 0 is encryption.
    """

    names: NameIndex
    offsets: Int64[np.ndarray, " entry"]
    sizes: Int64[np.ndarray, " entry"]
    full_sizes: Int64[np.ndarray, " entry"]
    checksums: UInt32[np.ndarray, " entry"]
    methods: UInt16[np.ndarray, " entry"]
    flags: UInt16[np.ndarray, " entry"]


def read_zip_index(location: Path) -> ZipIndex:
    """Read the central directory.

    Raises:
        zipfile.BadZipFile: when it is damaged or there is none.
        OSError: when the file cannot be read.
    """
    with location.open("rb") as file:
        count, size, begin, shift = _find_directory(file)
        file.seek(begin)
        directory = file.read(size)
    if len(directory) != size or count * _ENTRY.size > size:
        raise zipfile.BadZipFile("Truncated central directory")
    numbers = np.empty((6, count), dtype=np.int64)
    kept = np.empty(count, dtype=bool)
    names = NameIndex(_walk(directory, numbers, kept, shift))
    columns = numbers[:, kept]
    return ZipIndex(
        names=names,
        offsets=columns[0].copy(),
        sizes=columns[1].copy(),
        full_sizes=columns[2].copy(),
        checksums=columns[3].astype(np.uint32),
        methods=columns[4].astype(np.uint16),
        flags=columns[5].astype(np.uint16),
    )


def _walk(directory: bytes, numbers: np.ndarray, kept: np.ndarray, shift: int) -> Iterator[str]:
    """Names of the files, while their numbers are written to ``numbers`` and folders are left out of ``kept``."""
    position, unpack = 0, _ENTRY.unpack_from
    for row in range(numbers.shape[1]):
        try:
            head = unpack(directory, position)
        except struct.error:
            raise zipfile.BadZipFile("Truncated central directory") from None
        if head[0] != b"PK\1\2":
            raise zipfile.BadZipFile("Bad magic number for central directory")
        flags, method, checksum, size, full_size = head[3], head[4], head[7], head[8], head[9]
        name_length, extra_length, comment_length, offset = head[10], head[11], head[12], head[16]
        name_end = position + _ENTRY.size + name_length
        extra_end = name_end + extra_length
        name_bytes = directory[position + _ENTRY.size : name_end]
        position = extra_end + comment_length
        if position > len(directory):
            raise zipfile.BadZipFile("Truncated central directory")
        if _FULL32 in (full_size, size, offset):
            full_size, size, offset = _zip64_numbers(directory[name_end:extra_end], full_size, size, offset)
        try:
            name = name_bytes.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError as error:
            raise zipfile.BadZipFile(f"an entry's name is not UTF-8 ({error})") from None
        numbers[:, row] = offset + shift, size, full_size, checksum, method, flags
        kept[row] = not name.endswith("/")
        if kept[row]:
            yield name


def _zip64_numbers(extra: bytes, full_size: int, size: int, offset: int) -> tuple[int, int, int]:
    values = [full_size, size, offset]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            body = extra[4 : 4 + length]
            for place, value in enumerate(values):
                if value == _FULL32:
                    if len(body) < 8:
                        raise zipfile.BadZipFile("Corrupt zip64 extra field")
                    values[place], body = struct.unpack_from("<Q", body)[0], body[8:]
            break
        extra = extra[4 + length :]
    if max(values) >= 2**62:
        raise zipfile.BadZipFile("Corrupt zip64 extra field")
    return values[0], values[1], values[2]


def _find_directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Number of entries, size and place of the central directory, and how far the archive is shifted in its file."""
    total = file.seek(0, os.SEEK_END)
    tail_begin = max(total - _END.size - _LONGEST_COMMENT - _END64_LOCATOR.size - _END64.size, 0)
    file.seek(tail_begin)
    tail = file.read()
    # A comment may hold the signature, too; the true record's comment ends with the file.
    end = tail.rfind(b"PK\5\6")
    while end >= 0 and not _ends_with_file(tail, end):
        end = tail.rfind(b"PK\5\6", 0, end)
    if end < 0:
        raise zipfile.BadZipFile("File is not a zip file")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, end)
    directory_end = tail_begin + end
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        record = locator - _END64.size
        if record < 0 or tail[record : record + 4] != b"PK\6\6":
            raise zipfile.BadZipFile("Corrupt zip64 end of central directory")
        _, _, _, _, _, _, _, count, size, offset = _END64.unpack_from(tail, record)
        directory_end = tail_begin + record
    begin = directory_end - size
    if begin < 0 or offset > begin:
        raise zipfile.BadZipFile("Bad offset for central directory")
    return count, size, begin, begin - offset


def _ends_with_file(tail: bytes, end: int) -> bool:
    comment = end + _END.size
    return comment <= len(tail) and comment + int.from_bytes(tail[comment - 2 : comment], "little") == len(tail)
