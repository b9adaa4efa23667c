"""How SPZ files are wrapped: one gzip stream (versions 2 and 3), or a plain header and zstd streams (version 4).

Version 4 needs the package ``zstandard``. What is unpacked is bounded before it is: a header's claim is checked
against the size of the file, and no stream is read beyond its claim.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cgsgan.export.scene import SplatFileError, check_expansion, read_bytes

MAGIC = b"NGSP"
GZIP_MAGIC = b"\x1f\x8b"
HEADER = struct.Struct("<4sIIBBBB")  # magic, version, count, degree of harmonics, fractional bits, flags, 0 or streams
HEADER_4 = struct.Struct("<4sIIBBBBI12x")  # the same, and where the table of streams lies
STREAM = struct.Struct("<QQ")  # bytes compressed and not
EXTENDED = 2
"""The flag that announces records of vendors."""
ZSTD_LEVEL = 12
"""As the format's reference implementation."""
GZIP_LEVEL = 6
COEFFICIENTS = (0, 3, 8, 15, 24)
"""Per channel and degree of harmonics, without the constant one."""


@dataclass(frozen=True, kw_only=True)
class SpzHeader:
    """What a file says of itself.

    Attributes:
        version: 2, 3 or 4.
        count: splats, at least 1.
        degree: of spherical harmonics, 0 to 4.
        fractional_bits: of positions, 0 to 23.
        extended: records of vendors lie somewhere, which nothing here reads.
    """

    version: int
    count: int
    degree: int
    fractional_bits: int
    extended: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of positions, opacities, colours, scales, rotations and harmonics."""
        rotation = 3 if self.version == 2 else 4
        return tuple(self.count * each for each in (9, 1, 3, 3, rotation, 3 * COEFFICIENTS[self.degree]))


def pack_streams(header: SpzHeader, streams: tuple[bytes, ...]) -> bytes:
    """The whole file of degree 0.

    Args:
        header: how it begins.
        streams: positions, opacities, colours, scales and rotations.

    Raises:
        ValueError: for version 4 where ``zstandard`` is missing.
    """
    fields = (MAGIC, header.version, header.count, header.degree, header.fractional_bits, 0)
    if header.version < 4:
        return gzip.compress(HEADER.pack(*fields, 0) + b"".join(streams), GZIP_LEVEL, mtime=0)
    compressor = _zstandard("writing SPZ version 4").ZstdCompressor(level=ZSTD_LEVEL)
    packed = [compressor.compress(stream) for stream in streams]
    table = b"".join(STREAM.pack(len(small), len(large)) for small, large in zip(packed, streams, strict=True))
    return HEADER_4.pack(*fields, len(streams), HEADER_4.size) + table + b"".join(packed)


def unpack_streams(path: Path) -> tuple[SpzHeader, list[bytes]]:
    """Header and the streams of positions, opacities, colours, scales, rotations and (perhaps empty) harmonics.

    Raises:
        SplatFileError: no SPZ, of another version, damaged, or too large for the file it comes from.
        ValueError: version 4 where ``zstandard`` is missing.
        OSError: when the file cannot be opened.
    """
    data = read_bytes(path, smallest=HEADER.size + 2, kind="an SPZ file")
    if data[:2] == GZIP_MAGIC:
        return _unpack_gzip(path, data)
    if data[:4] == MAGIC:
        return _unpack_zstd(path, data)
    raise SplatFileError(f"{path}: expected an SPZ file (gzip, or 'NGSP'), the file starts with {data[:4]!r}")


def _unpack_gzip(path: Path, data: bytes) -> tuple[SpzHeader, list[bytes]]:
    stream = zlib.decompressobj(wbits=31)
    try:
        body = stream.decompress(data, HEADER.size)
        header = _check_header(path, body, versions=(2, 3))
        size = sum(header.sizes)
        check_expansion(path, packed=len(data), unpacked=size, what=f"{header.count} splats")
        body = stream.decompress(stream.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise SplatFileError(f"{path}: expected a whole gzip stream, it is damaged ({error})") from None
    if len(body) < size or (not header.extended and (len(body) > size or not stream.eof)):
        got = "more" if len(body) > size else f"{len(body)}{'' if stream.eof else ' and then the file ends'}"
        raise SplatFileError(
            f"{path}: expected {size} bytes for {header.count} splats of version {header.version}, got {got}"
        )
    return header, _split(body, header.sizes)


def _unpack_zstd(path: Path, data: bytes) -> tuple[SpzHeader, list[bytes]]:
    if len(data) < HEADER_4.size:
        raise SplatFileError(f"{path}: expected a header of {HEADER_4.size} bytes, the file has {len(data)}")
    header = _check_header(path, data, versions=(4,))
    count, start = HEADER_4.unpack_from(data)[6:]
    sizes = [size for size in header.sizes if size]
    if count not in (len(sizes), len(header.sizes)) or not HEADER_4.size <= start <= len(data) - count * STREAM.size:
        raise SplatFileError(
            f"{path}: expected {len(sizes)} streams and their table inside the file, got {count} streams and a table "
            f"at byte {start} of {len(data)}"
        )
    table = [STREAM.unpack_from(data, start + i * STREAM.size) for i in range(count)]
    expected = sizes if count == len(sizes) else list(header.sizes)
    offset = start + count * STREAM.size
    if [large for _, large in table] != expected or offset + sum(small for small, _ in table) != len(data):
        raise SplatFileError(
            f"{path}: expected streams of {expected} bytes for {header.count} splats that fill the file of "
            f"{len(data)} bytes, the table says {[large for _, large in table]}"
        )
    check_expansion(path, packed=len(data), unpacked=sum(expected), what=f"{header.count} splats")
    streams = []
    for small, large in table:
        streams.append(_unpack_stream(path, data[offset : offset + small], large))
        offset += small
    return header, streams + [b""] * (len(header.sizes) - len(streams))


def _unpack_stream(path: Path, packed: bytes, size: int) -> bytes:
    if size == 0:
        return b""
    zstandard = _zstandard(f"{path}: reading SPZ version 4")
    try:
        # The reader stops at the bytes it is asked for, whatever the frame's own header claims.
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader:
            body = reader.read(size + 1)
    except zstandard.ZstdError as error:
        raise SplatFileError(f"{path}: expected whole zstd streams, one is damaged ({error})") from None
    if len(body) != size:
        got = "more" if len(body) > size else len(body)
        raise SplatFileError(f"{path}: expected a stream of {size} bytes, got {got}")
    return body


def _check_header(path: Path, data: bytes, *, versions: tuple[int, ...]) -> SpzHeader:
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise SplatFileError(f"{path}: expected an SPZ header that starts with 'NGSP', got {data[:4]!r}")
    _, version, count, degree, fractional_bits, flags, _ = HEADER.unpack_from(data)
    if version not in versions:
        raise SplatFileError(f"{path}: expected SPZ version {' or '.join(map(str, versions))} here, got {version}")
    if count == 0:
        raise SplatFileError(f"{path}: expected at least one splat, the header says 0")
    if degree >= len(COEFFICIENTS) or fractional_bits > 23:
        raise SplatFileError(
            f"{path}: expected harmonics of degree 0 to 4 and at most 23 fractional bits, got {degree} and "
            f"{fractional_bits}"
        )
    extended = bool(flags & EXTENDED)
    return SpzHeader(version=version, count=count, degree=degree, fractional_bits=fractional_bits, extended=extended)


def _split(body: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    streams, start = [], 0
    for size in sizes:
        streams.append(body[start : start + size])
        start += size
    return streams


def _zstandard(purpose: str) -> ModuleType:
    try:
        import zstandard
    except ImportError:
        raise ValueError(f'{purpose} needs zstandard: pip install "cgsgan[formats]"; or use version 3') from None
    return zstandard
