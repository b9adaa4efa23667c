"""Headers of binary PLY files, read with suspicion: a header is a claim, the file size is the check."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER_LIMIT = 1 << 16
"""Bytes in which ``end_header`` must appear; degree-3 splat files need about 1,500."""
SCALAR_TYPES = {
    **{"char": "<i1", "uchar": "<u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "<i1", "uint8": "<u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
LITTLE_ENDIAN = "binary_little_endian"


class PlyError(ValueError):
    """A file is not the PLY it should be; the message is one line: file, what was expected, what came."""


@dataclass(frozen=True, kw_only=True)
class VertexTable:
    """Where the vertices of a file lie.

    Attributes:
        dtype: the structured type of one vertex, as declared.
        count: number of vertices, >= 1; the file was long enough for them when it was looked at.
        offset: bytes before the first one.
        comments: the header's comment lines, without the word ``comment``.
    """

    dtype: np.dtype
    count: int
    offset: int
    comments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Element:
    name: str
    count: int
    properties: dict[str, str]
    has_list: bool


def read_vertex_table(path: Path) -> VertexTable:
    """Read and check the header of a little-endian binary PLY.

    Args:
        path: the file.

    Returns:
        The layout of its ``vertex`` element, which fits into the file.

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
    return _locate_vertices(path, elements, comments, offset=end.end(), size=size)


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


def _locate_vertices(
    path: Path, elements: list[_Element], comments: tuple[str, ...], *, offset: int, size: int
) -> VertexTable:
    names = [element.name for element in elements]
    if "chunk" in names:
        raise PlyError(
            f"{path}: expected plain splats, got a compressed PLY (element 'chunk'); "
            "unpack it first, for example with splat-transform"
        )
    if names.count("vertex") != 1:
        raise PlyError(f"{path}: expected one element 'vertex', got elements {names[:8]}")
    index = names.index("vertex")
    vertex = elements[index]
    if any(element.has_list for element in elements[: index + 1]):
        raise PlyError(f"{path}: expected vertices of fixed size, got a list property (a mesh, not splats?)")
    if vertex.count == 0:
        raise PlyError(f"{path}: expected at least one splat, got 'element vertex 0'")
    sizes = [e.count * sum(np.dtype(t).itemsize for t in e.properties.values() if t) for e in elements]
    expected = offset + sum(sizes)
    # The bytes of a list element behind the vertices cannot be known from the header.
    open_ended = any(element.has_list for element in elements[index + 1 :])
    if size < expected or (size > expected and not open_ended):
        raise PlyError(
            f"{path}: expected {expected} bytes for {vertex.count} vertices, the file has {size}"
            f" ({'truncated' if size < expected else 'longer than its header says'})"
        )
    dtype = np.dtype(list(vertex.properties.items()))
    return VertexTable(dtype=dtype, count=vertex.count, offset=offset + sum(sizes[:index]), comments=comments)
