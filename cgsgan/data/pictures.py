"""Reads the pictures of an opened data set, one or all, with their masks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cgsgan.data.archive import LABEL_FILE, FileSource
from cgsgan.data.decoding import decode_image, decode_mask, multiply_alpha, premultiply_and_reduce
from cgsgan.data.errors import DatasetError
from cgsgan.data.progress import Progress

_CACHE_FORMAT = 1
_CHUNK = 64


class PictureReader:
    """Reads single pictures of a source by row, as premultiplied 8-bit RGBA."""

    def __init__(
        self,
        *,
        images: list[str],
        masks: list[str] | None,
        sources: tuple[FileSource, FileSource],
        resolution: int,
    ) -> None:
        self.images = images
        self.resolution = resolution
        self._masks = masks
        self._source, self._mask_source = sources
        self.location = self._source.location
        self._size = 0
        self._size = self._decode(0).width
        if resolution > self._size:
            raise DatasetError(
                f"{self.location}: the pictures are {self._size} px, smaller than the resolution asked for, "
                f"{resolution}; set resolution to {self._size} or less"
            )

    def _decode(self, row: int) -> Image.Image:
        name = self.images[row]
        image = decode_image(self._source.read(name), name, self.location)
        if self._size and image.width != self._size:
            raise DatasetError(
                f"{self.location}: image {name!r} is {image.width} px, but {self.images[0]!r} is "
                f"{self._size} px; all pictures of a set must have one size"
            )
        if self._masks is None:
            return image
        mask_name = self._masks[row]
        content = self._mask_source.read(mask_name)
        mask = decode_mask(content, mask_name, location=self._mask_source.location, size=image.width)
        return multiply_alpha(image, mask)

    def read(self, row: int) -> UInt8[np.ndarray, "size size 4"]:
        """One picture."""
        return premultiply_and_reduce(self._decode(row), self.resolution)

    def read_all(self, progress: Progress) -> UInt8[np.ndarray, "image size size 4"]:
        """All pictures, decoded by all cores (Pillow decodes without holding Python's lock)."""
        total = len(self.images)
        pixels = np.empty((total, self.resolution, self.resolution, 4), dtype=np.uint8)

        def fill(start: int) -> int:
            for row in range(start, min(start + _CHUNK, total)):
                pixels[row] = self.read(row)
            return min(_CHUNK, total - start)

        done = 0
        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            for count in pool.map(fill, range(0, total, _CHUNK)):
                done += count
                progress("decoding pictures", done, total)
        finally:
            pool.shutdown(cancel_futures=True)
        return pixels

    def content_key(self, rows: Iterable[int]) -> str:
        """Changes with the bytes of the chosen files and the resolution; names, places and times do not count."""
        digest = hashlib.sha256(f"{_CACHE_FORMAT}-{self.resolution}\n".encode())
        for row in rows:
            digest.update(hashlib.sha256(self._source.read(self.images[row])).digest())
            if self._masks is not None:
                digest.update(hashlib.sha256(self._mask_source.read(self._masks[row])).digest())
        return digest.hexdigest()[:32]

    def cache_key(self) -> str:
        """Changes with the files, their order, their labels' file and the resolution."""
        digest = hashlib.sha256(f"{_CACHE_FORMAT}-{self.resolution}\n".encode())
        digest.update(self._source.signature(self.images).encode())
        digest.update(self._source.read(LABEL_FILE) if LABEL_FILE in self._source.names else b"")
        digest.update("\n".join(self.images).encode())
        if self._masks is not None:
            digest.update(self._mask_source.signature(self._masks).encode())
            digest.update("\n".join(self._masks).encode())
        return digest.hexdigest()[:32]
