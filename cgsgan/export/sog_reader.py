"""Splats out of a SOG file, of which nothing is believed: sizes are checked before anything is unpacked."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cgsgan.export.packing import join_largest
from cgsgan.export.scene import RawSplats, SplatFileError, check_expansion, dc_to_color, warn_dropped_color

LARGEST_TAG = 252
"""Added to the index of a quaternion's largest component; w x y z."""
POSITION_LEVELS = 65535
META_LIMIT = 1 << 20
"""Bytes of a meta.json; a usual one has 12,000."""
PICTURES = (("means", 0), ("means", 1), ("quats", 0), ("scales", 0), ("sh0", 0))
"""Key in meta.json and index in its list of files."""
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, NotImplementedError, struct.error, zlib.error)
"""What zipfile and Pillow raise for damaged files."""


def read_textures(path: Path) -> RawSplats:
    """All splats.

    Raises:
        SplatFileError: see :func:`cgsgan.export.sog.read_sog`.
        OSError: when the file cannot be opened.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise SplatFileError(f"{path}: expected a .sog, which is a zip file, it does not begin like one")
        try:
            archive = zipfile.ZipFile(file)
        except (*DAMAGED, zipfile.BadZipFile) as error:
            raise SplatFileError(f"{path}: expected a whole zip file, it is damaged ({_reason(error)})") from None
        with archive:
            return _Textures(path, archive, path.stat().st_size).read()


@dataclass
class _Textures:
    path: Path
    archive: zipfile.ZipFile
    size: int

    def read(self) -> RawSplats:
        meta = self._meta()
        count = meta["count"]
        pixels = {(name, index): self._pixels(meta, name, index, count) for name, index in PICTURES}
        largest = pixels["quats", 0][:, 3].astype(np.int64) - LARGEST_TAG
        if (largest < 0).any():
            row = int(np.argmax(largest < 0))
            raise self._error(f"expected 252 to 255 as alpha of quats, splat {row} has {largest[row] + LARGEST_TAG}")
        low, high = self._numbers(meta, "means", "mins", 3, 3), self._numbers(meta, "means", "maxs", 3, 3)
        levels = pixels["means", 0][:, :3] + pixels["means", 1][:, :3].astype(np.float64) * 256
        means = low + (high - low) * (levels / POSITION_LEVELS)
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are found by believe
            return RawSplats(
                means=np.sign(means) * np.expm1(np.abs(means)),
                quats=join_largest(largest, (pixels["quats", 0][:, :3] / 255 - 0.5) * 2**0.5),
                scales=np.exp(self._decode(meta, "scales", pixels["scales", 0][:, :3])),
                opacities=pixels["sh0", 0][:, 3] / 255,
                colors=dc_to_color(self._decode(meta, "sh0", pixels["sh0", 0][:, :3])),
            )

    def _meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._entry("meta.json", META_LIMIT).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, SplatFileError):
                raise
            raise self._error(f"expected JSON in meta.json, it is damaged ({_reason(error)})") from None
        if not isinstance(meta, dict) or meta.get("version") != 2:
            version = meta.get("version", 1) if isinstance(meta, dict) else None
            raise self._error(f"expected SOG version 2, got {str(version)[:20]}; splat-transform converts older files")
        count = meta.get("count")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < 1 << 31:
            raise self._error(f"expected a number of splats as count in meta.json, got {str(count)[:30]}")
        if isinstance(meta.get("shN"), dict):
            bands = meta["shN"].get("bands")
            warn_dropped_color(self.path, bands if bands in (1, 2, 3) else 3)
        return meta

    def _pixels(self, meta: dict[str, Any], name: str, index: int, count: int) -> np.ndarray:
        """The first ``count`` pixels of a picture, [count, 4], uint8."""
        files = meta[name].get("files") if isinstance(meta.get(name), dict) else None
        if not isinstance(files, list) or len(files) <= index or not isinstance(files[index], str):
            raise self._error(f"expected the name of picture {index} of {name} in meta.json, got {str(files)[:60]}")
        label = files[index][:40]
        data = self._entry(files[index], self.size)
        width, height = self._picture_size(label, data)
        if width * height < count:
            raise self._error(f"expected a pixel for each of {count} splats, {label!r} has {width} x {height}")
        check_expansion(self.path, packed=self.size, unpacked=4 * width * height, what=f"picture {label!r}")
        try:
            with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as picture:
                pixels = np.asarray(picture.convert("RGBA")).reshape(-1, 4)
        except (*DAMAGED, Image.DecompressionBombError) as error:
            raise self._error(f"expected a whole picture {label!r}, it is damaged ({_reason(error)})") from None
        if len(pixels) != width * height:
            raise self._error(f"expected {width} x {height} pixels in {label!r}, got {len(pixels)}")
        return pixels[:count]

    def _picture_size(self, label: str, data: bytes) -> tuple[int, int]:
        """Width and height, before a decoder sets memory aside for them."""
        if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8L" and len(data) >= 25:
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
            return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        raise self._error(f"expected lossless WebP (or PNG) in {label!r}, it begins with {data[:16]!r}")

    def _entry(self, name: str, limit: int) -> bytes:
        """A file of the zip, if it is no larger than ``limit``."""
        try:
            info = self.archive.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._error(f"expected {name[:40]!r} stored or deflated, got method {info.compress_type}")
            if info.file_size > limit:
                raise self._error(f"expected at most {limit} bytes in {name[:40]!r}, the zip says {info.file_size}")
            with self.archive.open(info) as file:
                data = file.read(limit + 1)
        except KeyError:
            raise self._error(f"expected {name[:40]!r} in the zip, there is none") from None
        except (*DAMAGED, zipfile.BadZipFile) as error:
            if isinstance(error, SplatFileError):
                raise
            raise self._error(f"expected {name[:40]!r} to be whole, it is damaged ({_reason(error)})") from None
        if len(data) > limit:
            raise self._error(f"expected at most {limit} bytes in {name[:40]!r}, it unpacks to more")
        return data

    def _decode(self, meta: dict[str, Any], name: str, labels: np.ndarray) -> np.ndarray:
        codes = self._numbers(meta, name, "codebook", 1, 256)
        if int(labels.max()) >= len(codes):
            raise self._error(f"expected indices below {len(codes)} in {name}, the largest is {labels.max()}")
        return codes[labels]

    def _numbers(self, meta: dict[str, Any], name: str, key: str, fewest: int, most: int) -> np.ndarray:
        values = meta[name].get(key) if isinstance(meta.get(name), dict) else None
        if (
            not isinstance(values, list)
            or not fewest <= len(values) <= most
            or not all(isinstance(v, int | float) and abs(v) < 1e30 for v in values)
        ):
            raise self._error(f"expected {fewest} to {most} finite numbers as {name}.{key}, got {str(values)[:60]}")
        return np.array(values, dtype=np.float64)

    def _error(self, text: str) -> SplatFileError:
        return SplatFileError(f"{self.path}: {text}")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100]
