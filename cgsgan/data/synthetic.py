"""Procedural heads: a data set that needs no download.

Every person is drawn from (seed, index), shaped by signed distance fields, and rendered once from an
exactly known camera. The archive has EG3D's format, so everything downstream treats it like any other data
set.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cgsgan.cameras import orbit
from cgsgan.data.archive import LABEL_FILE
from cgsgan.data.cache import replacing
from cgsgan.data.errors import DatasetError
from cgsgan.data.head_people import sample_people
from cgsgan.data.head_renderer import render_people
from cgsgan.data.progress import Progress, ignore_progress

CHUNK = 32
"""Persons rendered together. Fixed, so that a picture does not depend on how many are made."""
_VERSION = 1
"""Raise it when the pictures change: cached archives carry it in their name."""
_PIXELS_AT_ONCE = CHUNK * 64 * 64


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Procedural heads.

    Attributes:
        count: number of pictures, one person each.
        resolution: their size; even.
        seed: of the persons; the first pictures of a larger set equal those of a smaller one.
    """

    count: int = 6000
    resolution: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DatasetError(f"synthetic.count: expected at least 1, got {self.count}")
        if self.resolution < 8 or self.resolution % 2 != 0:
            raise DatasetError(f"synthetic.resolution: expected an even number, 8 or more, got {self.resolution}")
        if self.seed < 0:
            raise DatasetError(f"synthetic.seed: expected 0 or more, got {self.seed}")


def synthetic_name(config: SyntheticConfig) -> str:
    """The file name of the set in the cache."""
    return f"heads-{config.count}x{config.resolution}px-seed{config.seed}-v{_VERSION}.zip"


def make_synthetic(
    config: SyntheticConfig, out_path: str | os.PathLike[str], progress: Progress = ignore_progress
) -> Path:
    """Render the heads into a zip of RGBA PNG files with a ``dataset.json``; it appears when complete.

    Args:
        config: how many, how large.
        out_path: the archive to write; replaced if it exists.
        progress: called after every few heads.

    Returns:
        The path written.
    """
    path = Path(out_path).expanduser()
    if path.suffix.lower() != ".zip":
        raise DatasetError(f"{path}: procedural heads are written as a .zip file; give a name that ends in .zip")
    labels: list[tuple[str, list[float]]] = []
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for pictures in _render_chunks(config):
            for content, label in pictures[: config.count - len(labels)]:
                name = f"{len(labels) // 1000:05d}/img{len(labels):08d}.png"
                archive.writestr(zipfile.ZipInfo(name), content)
                labels.append((name, label))
            progress("making heads", len(labels), config.count)
        archive.writestr(zipfile.ZipInfo(LABEL_FILE), json.dumps({"labels": labels}))
    return path


def _render_chunks(config: SyntheticConfig) -> Iterator[list[tuple[bytes, list[float]]]]:
    """PNG contents and labels, chunk by chunk in order, rendered by one thread per core."""
    threads = os.cpu_count() or 1
    starts = iter(range(0, config.count, CHUNK))
    pending: deque[Future[list[tuple[bytes, list[float]]]]] = deque()
    with _one_torch_thread(), ThreadPoolExecutor(threads, thread_name_prefix="cgsgan-heads") as pool:
        try:
            while True:
                while len(pending) < 2 * threads and (start := next(starts, None)) is not None:
                    pending.append(pool.submit(_render_chunk, config, start))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _render_chunk(config: SyntheticConfig, start: int) -> list[tuple[bytes, list[float]]]:
    who = sample_people(config.seed, range(start, start + CHUNK))
    cameras = orbit(who.yaw[:, 0], who.pitch[:, 0])
    step = max(1, _PIXELS_AT_ONCE // config.resolution**2)
    images = torch.cat(
        [
            render_people(who.select(part), cameras.map(lambda tensor, part=part: tensor[part]), config.resolution)
            for part in (slice(first, first + step) for first in range(0, CHUNK, step))
        ]
    )
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return [(_encode(image), label) for image, label in zip(pixels, cameras.to_labels().tolist(), strict=True)]


def _encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Chunks run side by side, so torch must not split them further.

    One large block is allocated and freed first: glibc then keeps blocks of up to that size on its heap
    instead of asking the system for fresh pages at every temporary, which makes rendering half as fast.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.empty(8 * 2**20 - 2**12)
    try:
        yield
    finally:
        torch.set_num_threads(before)
