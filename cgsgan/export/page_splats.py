"""Splats as the text that a page of :mod:`cgsgan.export.html` carries: 26 bytes each, in planes, deflated, base64.

Plane by plane, so that bytes which resemble each other stand together: centres as 24-bit shares of their bounds,
ln(standard deviation) and colour as 16-bit shares of their ranges, opacity in 8 bits, the three smaller components
of the rotation in 10 bits each. The most significant byte of a number has the first plane.
``splat_page/splats.js`` is the other reader.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cgsgan.export.packing import join_largest, morton_order, split_largest, to_levels
from cgsgan.export.scene import RawSplats, SplatFileError, check_expansion
from cgsgan.types import Gaussians

PLANES = 26
MOST_SPLATS = 2_000_000
"""Of one head: what the textures of graphics cards that are common hold."""
SMALLEST_PEAK = 1e-6
ROTATION_LEVELS = 1023
LARGEST_NUMBER = 1e30
"""Bounds of a file beyond it would overflow float32."""


def pack_splats(scene: Gaussians) -> tuple[dict[str, object], str]:
    """A scene as :func:`cgsgan.export.scene.prepare_scene` gives it, along a space-filling curve.

    Returns:
        What the numbers in the text mean, for JSON; and the text.
    """
    scene = scene.map(lambda tensor: tensor[morton_order(scene.means.numpy()).copy()])
    means, logs, colors = scene.means.numpy(), np.log(scene.scales.numpy()), scene.colors.numpy()
    low, high = means.min(axis=0), means.max(axis=0)
    peak = max(float(colors.max()), SMALLEST_PEAK)
    largest, others = split_largest(scene.quats.numpy())
    parts = to_levels((others * math.sqrt(2) + 1) / 2, ROTATION_LEVELS)
    planes = [
        *_planes(_shares(means, low, high), 3),
        *_planes(_shares(logs, logs.min(keepdims=True), logs.max(keepdims=True)), 2),
        *_planes(colors / peak, 2),
        to_levels(scene.opacities.numpy(), 255).astype(np.uint8),
        *_bytes_of(largest << 30 | parts[:, 0] << 20 | parts[:, 1] << 10 | parts[:, 2], 4),
    ]
    assert len(planes) == PLANES
    meaning: dict[str, object] = {
        "count": scene.count,
        "low": low.tolist(),
        "high": high.tolist(),
        "log_low": float(logs.min()),
        "log_high": float(logs.max()),
        "peak": peak,
    }
    return meaning, base64.b64encode(zlib.compress(np.concatenate(planes).tobytes(), 9)).decode()


def unpack_splats(path: Path, meaning: Mapping[str, object], text: bytes) -> RawSplats:
    """The inverse of :func:`pack_splats`, of a file that may be damaged, with the dilation added to the scales.

    Raises:
        SplatFileError: for what no page written here holds.
    """
    count = meaning.get("count")
    if type(count) is not int or not 1 <= count <= MOST_SPLATS:
        raise SplatFileError(f"{path}: expected a count of 1 to {MOST_SPLATS} splats, got {str(count)[:20]}")
    low, high = (_numbers(path, meaning, name, 3) for name in ("low", "high"))
    single = ("log_low", "log_high", "peak", "dilation")
    log_low, log_high, peak, dilation = (_numbers(path, meaning, name, 1)[0] for name in single)
    check_expansion(path, packed=len(text), unpacked=count * PLANES, what="the splats")
    planes = np.frombuffer(_inflate(path, text, count * PLANES), np.uint8).reshape(PLANES, count)
    bits = _join_bytes(planes[22:])
    parts = np.stack([bits >> shift & ROTATION_LEVELS for shift in (20, 10, 0)], axis=1)
    logs = log_low + _join(planes[9:15], 2) * (log_high - log_low)
    return RawSplats(
        means=low + _join(planes[:9], 3) * (high - low),
        quats=join_largest(bits >> 30, (parts / ROTATION_LEVELS * 2 - 1) * math.sqrt(0.5)),
        scales=np.hypot(np.exp(np.minimum(logs, math.log(LARGEST_NUMBER))), dilation),
        opacities=planes[21] / 255,
        colors=_join(planes[15:21], 2) * peak,
    )


def _shares(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (values - low) / np.maximum(high - low, np.finfo(np.float64).tiny)


def _planes(shares: np.ndarray, size: int) -> list[np.ndarray]:
    """[N, 3] shares in [0, 1] as ``size`` planes for each of the three columns."""
    levels = to_levels(shares, (1 << 8 * size) - 1)
    return [plane for column in levels.T for plane in _bytes_of(column, size)]


def _bytes_of(numbers: np.ndarray, size: int) -> list[np.ndarray]:
    return [(numbers >> 8 * (size - 1 - place) & 255).astype(np.uint8) for place in range(size)]


def _join(planes: np.ndarray, size: int) -> np.ndarray:
    """The inverse of :func:`_planes`."""
    columns = [_join_bytes(planes[start : start + size]) for start in range(0, len(planes), size)]
    return np.stack(columns, axis=1) / ((1 << 8 * size) - 1)


def _join_bytes(planes: np.ndarray) -> np.ndarray:
    joined = np.zeros(planes.shape[1], np.int64)
    for plane in planes:
        joined = joined << 8 | plane
    return joined


def _numbers(path: Path, meaning: Mapping[str, object], name: str, count: int) -> np.ndarray:
    value = meaning.get(name)
    values = value if isinstance(value, list) else [value]
    numbers = [v for v in values if isinstance(v, int | float) and abs(v) <= LARGEST_NUMBER]  # NaN compares as false
    if len(values) != count or len(numbers) != count:
        raise SplatFileError(f"{path}: expected {count} finite numbers as {name}, got {str(value)[:40]!r}")
    return np.array(numbers, np.float64)


def _inflate(path: Path, text: bytes, size: int) -> bytes:
    try:
        machine = zlib.decompressobj()
        data = machine.decompress(base64.b64decode(text, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise SplatFileError(f"{path}: expected deflated splats in base64, got damaged ones ({error})") from None
    if len(data) != size or not machine.eof:
        more = "more" if len(data) > size else len(data)
        raise SplatFileError(f"{path}: expected {size} bytes of splats, the page holds {more}")
    return data
