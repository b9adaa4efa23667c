"""The document of a glTF file and the numbers it points at."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from cgsgan.export.scene import SplatFileError, check_expansion, read_bytes

GLB = struct.Struct("<4sII")
CHUNK = struct.Struct("<II")
JSON_CHUNK, BIN_CHUNK = 0x4E4F534A, 0x004E4942
TYPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
LARGEST = 1 << 53
"""Integers beyond this are no offsets."""
BYTES_PER_SPLAT = 14 * 8


@dataclass(kw_only=True)
class GltfDocument:
    """A parsed document and what is needed to follow its indices.

    Attributes:
        path: for messages, and for the files beside it.
        root: the JSON object.
        binary: the buffer inside a ``.glb``.
        size: bytes of the file.
    """

    path: Path
    root: dict[str, Any]
    binary: bytes | None
    size: int
    _buffers: dict[int, bytes] = field(default_factory=dict)
    _splats: int = 0

    def error(self, text: str) -> SplatFileError:
        """What to raise."""
        return SplatFileError(f"{self.path}: {text}")

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """The object at an index of one of the document's lists."""
        items = self.list_of(self.root, kind, "the document")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(items):
            raise self.error(f"expected an index into {len(items)} {kind}, got {str(index)[:40]}")
        if not isinstance(items[index], dict):
            raise self.error(f"expected an object at {kind}[{index}], got {type(items[index]).__name__}")
        return items[index]

    def list_of(self, owner: dict[str, Any], key: str, where: str) -> list[Any]:
        """A list that may be missing."""
        value = owner.get(key, [])
        if not isinstance(value, list):
            raise self.error(f"expected a list {key} in {where}, got {type(value).__name__}")
        return value

    def dict_of(self, owner: Any, key: str, where: str) -> dict[str, Any]:
        """An object that may be missing."""
        value = owner.get(key, {}) if isinstance(owner, dict) else None
        if not isinstance(value, dict):
            raise self.error(f"expected an object {key} in {where}, got something else")
        return value

    def integer(self, owner: dict[str, Any], key: str, where: str, *, default: int | None = None) -> int:
        """A whole number >= 0."""
        value = owner.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
            raise self.error(f"{where}: expected a whole number {key} >= 0, got {str(value)[:40]}")
        return value

    def count_splats(self, count: int) -> None:
        """Refuse a scene that shows one buffer so often that it becomes a bomb."""
        self._splats += count
        unpacked = self._splats * BYTES_PER_SPLAT
        check_expansion(self.path, packed=self.size, unpacked=unpacked, what=f"{self._splats} splats")

    def read_accessor(self, index: Any, components: int, where: str) -> np.ndarray:
        """The numbers of an accessor, [count, components], float64 when they are normalised integers.

        Raises:
            SplatFileError: when it is of another kind, or points outside its buffer.
        """
        accessor = self.item("accessors", index)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise self.error(f"{where}: expected an accessor with all its numbers in a buffer view, got a sparse one")
        kind, component = accessor.get("type"), accessor.get("componentType")
        if not isinstance(kind, str) or TYPES.get(kind) != components:
            raise self.error(f"{where}: expected {components} components, got type {str(kind)[:20]!r}")
        if not isinstance(component, int) or component not in COMPONENTS:
            raise self.error(f"{where}: expected floats or small integers, got componentType {str(component)[:20]}")
        dtype = np.dtype(COMPONENTS[component])
        view = self.item("bufferViews", accessor["bufferView"])
        count = self.integer(accessor, "count", where)
        row = dtype.itemsize * components
        stride = self.integer(view, "byteStride", where, default=row)
        inside = self.integer(accessor, "byteOffset", where, default=0)
        start, length = (self.integer(view, "byteOffset", where, default=0), self.integer(view, "byteLength", where))
        buffer = self._buffer(view.get("buffer"))
        if count == 0 or stride < row or start + length > len(buffer) or inside + stride * (count - 1) + row > length:
            raise self.error(
                f"{where}: expected at least one row, inside its buffer view of {length} bytes in a buffer of "
                f"{len(buffer)}, got {count} rows of {row} bytes every {stride}, from {inside}"
            )
        values = np.ndarray((count, components), dtype, buffer, start + inside, (stride, dtype.itemsize))
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / float(np.iinfo(dtype).max), -1)
        return values

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item("buffers", index)
        if index not in self._buffers:
            self._buffers[index] = self._load_buffer(buffer, index)
        length = self.integer(buffer, "byteLength", f"buffers[{index}]")
        if length > len(self._buffers[index]):
            raise self.error(f"buffers[{index}]: expected {length} bytes, it has {len(self._buffers[index])}")
        return self._buffers[index]

    def _load_buffer(self, buffer: dict[str, Any], index: int) -> bytes:
        uri = buffer.get("uri")
        if uri is None and index == 0 and self.binary is not None:
            return self.binary
        if not isinstance(uri, str):
            raise self.error(f"buffers[{index}]: expected a uri or the BIN chunk of a .glb, got neither")
        if uri.startswith("data:"):
            head, comma, text = uri.partition(",")
            try:
                if not comma or not head.endswith(";base64"):
                    raise ValueError
                return base64.b64decode(text, validate=True)
            except (ValueError, binascii.Error):
                raise self.error(f"buffers[{index}]: expected base64 in its data uri, it is damaged") from None
        name = unquote(uri)
        # Nothing outside the file's own folder is read, whatever the file asks for.
        if not name or Path(name).name != name or "\\" in name or ":" in name or "\0" in name:
            raise self.error(f"buffers[{index}]: expected the name of a file in the same folder, got {uri[:60]!r}")
        if not (self.path.parent / name).is_file():
            raise self.error(f"buffers[{index}]: expected the file {name[:60]!r} beside it, there is none")
        data = (self.path.parent / name).read_bytes()
        self.size += len(data)
        return data


def load_document(path: Path) -> GltfDocument:
    """Read ``.glb`` or ``.gltf``, whichever it is.

    Raises:
        SplatFileError: when it is neither.
        OSError: when it cannot be opened.
    """
    data = read_bytes(path, smallest=2, kind="a glTF file")
    text, binary = _split_glb(path, data) if data[:4] == b"glTF" else (data, None)
    try:
        root = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        start = "" if binary is not None or data[:1] in b"{ \n\r\t" else f", the file starts with {data[:8]!r}"
        reason = str(error).partition("\n")[0][:100]
        raise SplatFileError(f"{path}: expected glTF, its JSON is damaged ({reason}){start}") from None
    asset = root.get("asset") if isinstance(root, dict) else None
    version = asset.get("version") if isinstance(asset, dict) else None
    if not isinstance(version, str) or not version.startswith("2."):
        raise SplatFileError(f"{path}: expected a glTF document of version 2, got version {str(version)[:20]}")
    return GltfDocument(path=path, root=root, binary=binary, size=len(data))


def _split_glb(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and BIN chunks of a ``.glb``; further ones are passed over, as the format demands."""
    if len(data) < GLB.size + CHUNK.size:
        raise SplatFileError(f"{path}: expected the header of a .glb, {GLB.size + CHUNK.size} bytes, got {len(data)}")
    _, version, length = GLB.unpack_from(data)
    if version != 2 or length != len(data):
        raise SplatFileError(
            f"{path}: expected a .glb of version 2 and {len(data)} bytes, it says version {version} and {length} bytes"
        )
    chunks: dict[int, bytes] = {}
    start = GLB.size
    while start + CHUNK.size <= len(data):
        size, kind = CHUNK.unpack_from(data, start)
        start += CHUNK.size
        if start + size > len(data):
            raise SplatFileError(f"{path}: expected a chunk of {size} bytes at {start}, the file ends at {len(data)}")
        chunks.setdefault(kind, data[start : start + size])
        start += size
    if JSON_CHUNK not in chunks:
        raise SplatFileError(f"{path}: expected a JSON chunk in the .glb, found none")
    return chunks[JSON_CHUNK], chunks.get(BIN_CHUNK)
