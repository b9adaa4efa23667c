"""Headers of binary PLY files, read with suspicion: a header is a claim, the file size is the check."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgsgan.export.scene import SplatFileError

HEADER_LIMIT = 1 << 16
"""Bytes in which ``end_header`` must appear; degree-3 splat files need about 1,500."""
SCALAR_TYPES = {
    **{"char": "<i1", "uchar": "<u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "<i1", "uint8": "<u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
LITTLE_ENDIAN = "binary_little_endian"
AXES_COMMENT = "cgsgan axes "
"""What a header written here says of its frame."""


class PlyError(SplatFileError):
    """A file is not the PLY it should be; the message is one line: file, what was expected, what came."""


@dataclass(frozen=True, kw_only=True)
class PlyTable:
    """Where the rows of an element lie.

    Attributes:
        dtype: the structured type of one row, as declared.
        count: number of rows; the file was long enough for them when it was looked at.
        offset: bytes before the first one.
        comments: the header's comment lines, without the word ``comment``.
    """

    dtype: np.dtype
    count: int
    offset: int
    comments: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The properties."""
        return self.dtype.names or ()

    def read(self, path: Path) -> np.ndarray:
        """The rows.

        Raises:
            PlyError: when the file has become shorter.
        """
        rows = np.fromfile(path, dtype=self.dtype, count=self.count, offset=self.offset)
        if len(rows) != self.count:
            raise PlyError(f"{path}: expected {self.count} rows at byte {self.offset}, could read {len(rows)}")
        return rows


@dataclass(frozen=True, kw_only=True)
class _Element:
    name: str
    count: int
    properties: dict[str, str]
    has_list: bool


def read_vertex_table(path: Path) -> PlyTable:
    """Read and check the header of a little-endian binary PLY of plain splats.

    Args:
        path: the file.

    Returns:
        The layout of its ``vertex`` element, at least one row, which fits into the file.

    Raises:
        PlyError: not a PLY, another encoding, a malformed or absurd header, a size that does not match.
        OSError: when the file cannot be opened.
    """
    tables = read_tables(path)
    if "chunk" in tables:
        raise PlyError(
            f"{path}: expected plain splats, got a compressed PLY (element 'chunk'); "
            "read it with read_splats or read_compressed_ply, or convert it: cgsgan export IN OUT"
        )
    if "vertex" not in tables:
        raise PlyError(f"{path}: expected one element 'vertex', got elements {list(tables)[:8]}")
    if tables["vertex"].count == 0:
        raise PlyError(f"{path}: expected at least one splat, got 'element vertex 0'")
    return tables["vertex"]


def read_tables(path: Path) -> dict[str, PlyTable]:
    """The elements of fixed size of a little-endian binary PLY, all of which fit into the file.

    Args:
        path: the file.

    Returns:
        Their layouts by name, in the order of the file, up to the first element with a list.

    Raises:
        PlyError: not a PLY, another encoding, a malformed or absurd header, a size that does not match.
        OSError: when the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_LIMIT)
        size = os.fstat(file.fileno()).st_size
    if not re.match(rb"ply\r?\n", head):
        raise PlyError(f"{path}: expected a PLY file (first line 'ply'), the file starts with {head[:8]!r}")
    end = re.search(rb"\nend_header\r?\n", head)
    if end is None:
        raise PlyError(f"{path}: expected 'end_header' within the first {HEADER_LIMIT} bytes, found none")
    lines = head[: end.start()].decode("ascii", errors="replace").splitlines()[1:]
    elements, comments = _parse_lines(path, lines)
    return _locate_tables(path, elements, comments, offset=end.end(), size=size)


def stated_axes(comments: tuple[str, ...]) -> str | None:
    """The frame that a header written here names, or None."""
    stated = [comment.removeprefix(AXES_COMMENT) for comment in comments if comment.startswith(AXES_COMMENT)]
    return stated[0] if stated else None


def _parse_lines(path: Path, lines: list[str]) -> tuple[list[_Element], tuple[str, ...]]:
    elements: list[_Element] = []
    comments: list[str] = []
    encoding = None
    for line in lines:
        words = line.split()
        keyword = words[0] if words else ""
        if keyword in ("comment", "obj_info", ""):
            comments.append(line.partition(" ")[2])
        elif keyword == "format" and len(words) == 3:
            encoding = words[1]
        elif keyword == "element" and len(words) == 3 and re.fullmatch(r"[0-9]{1,15}", words[2]):
            elements.append(_Element(name=words[1], count=int(words[2]), properties={}, has_list=False))
        elif keyword == "property" and elements and len(words) in (3, 5):
            elements[-1] = _with_property(path, elements[-1], words)
        else:
            raise PlyError(f"{path}: expected format, element, property or comment in the header, got {line[:60]!r}")
    if encoding != LITTLE_ENDIAN:
        raise PlyError(f"{path}: expected format {LITTLE_ENDIAN}, got {str(encoding)[:40]!r}; save it as binary")
    return elements, tuple(comments)


def _with_property(path: Path, element: _Element, words: list[str]) -> _Element:
    kind, name = words[1], words[-1]
    if (kind == "list") != (len(words) == 5) or (kind != "list" and kind not in SCALAR_TYPES):
        raise PlyError(f"{path}: expected a PLY scalar type for property {name[:40]!r}, got {kind[:40]!r}")
    if name in element.properties:
        raise PlyError(f"{path}: expected every property once, got {name[:40]!r} twice")
    return _Element(
        name=element.name,
        count=element.count,
        properties={**element.properties, name: SCALAR_TYPES.get(kind, "")},
        has_list=element.has_list or kind == "list",
    )


def _locate_tables(
    path: Path, elements: list[_Element], comments: tuple[str, ...], *, offset: int, size: int
) -> dict[str, PlyTable]:
    names = [element.name for element in elements]
    if len(set(names)) != len(names):
        raise PlyError(f"{path}: expected every element once, got elements {names[:8]}")
    tables: dict[str, PlyTable] = {}
    start = offset
    for element in elements:
        if element.has_list:  # what lies behind it cannot be known from the header
            break
        dtype = np.dtype(list(element.properties.items()))
        tables[element.name] = PlyTable(dtype=dtype, count=element.count, offset=start, comments=comments)
        start += element.count * dtype.itemsize
    open_ended = len(tables) < len(elements)
    if open_ended and "vertex" in names and "vertex" not in tables:
        raise PlyError(f"{path}: expected vertices of fixed size, got a list property (a mesh, not splats?)")
    if size < start or (size > start and not open_ended):
        raise PlyError(
            f"{path}: expected {start} bytes for {_rows(tables)}, the file has {size}"
            f" ({'truncated' if size < start else 'longer than its header says'})"
        )
    return tables


def _rows(tables: dict[str, PlyTable]) -> str:
    return ", ".join(f"{table.count} {'vertices' if name == 'vertex' else name[:20]}" for name, table in tables.items())
