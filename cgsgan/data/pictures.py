"""Reads the pictures of an opened data set, one or all, with their masks."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cgsgan.data.archive import LABEL_FILE, FileSource
from cgsgan.data.decoding import decode_image, decode_mask, multiply_alpha, premultiply_and_reduce
from cgsgan.data.errors import DatasetError, UnreachableError
from cgsgan.data.progress import Progress

_CACHE_FORMAT = 1
_CHUNK = 64
_DAMAGED = np.array([255, 255, 255, 0], dtype=np.uint8)
"""Marks a damaged picture among the decoded ones: no premultiplied colour exceeds its alpha."""


class PictureReader:
    """Reads single pictures of a source by row, as premultiplied 8-bit RGBA.

    Args:
        images: their files.
        masks: a file for each of them, or None.
        sources: where pictures and masks lie.
        resolution: size of the results.
        skip_damaged: count pictures that cannot be decoded, instead of raising.

    Attributes:
        damaged: which rows are known to be damaged.
        file_size: of the pictures as they lie in their files, px.
    """

    def __init__(
        self,
        *,
        images: Sequence[str],
        masks: Sequence[str] | None,
        sources: tuple[FileSource, FileSource],
        resolution: int,
        skip_damaged: bool = False,
    ) -> None:
        self.images = images
        self.resolution = resolution
        self._masks = masks
        self._source, self._mask_source = sources
        self.location = self._source.location
        self._skip_damaged = skip_damaged
        self._counting = threading.Lock()
        self.damaged = np.zeros(len(images), dtype=bool)
        self.damaged_count = 0
        self.file_size, self._size_from = 0, images[0]
        self.file_size = self._first_size()
        if resolution > self.file_size:
            raise DatasetError(
                f"{self.location}: the pictures are {self.file_size} px, smaller than the resolution asked for, "
                f"{resolution}; set resolution to {self.file_size} or less"
            )

    def _first_size(self) -> int:
        for row, name in enumerate(self.images):
            try:
                self._size_from = name
                return self._decode(row).width
            except DatasetError as error:
                if not self._skip_damaged or isinstance(error, UnreachableError):
                    raise
                self._note_damaged(row, error)
        raise DatasetError(f"{self.location}: all of its pictures are damaged")

    def _note_damaged(self, row: int, error: DatasetError) -> None:
        with self._counting:
            if self.damaged[row]:
                return
            self.damaged[row] = True
            self.damaged_count += 1
            count = self.damaged_count
        if count & (count - 1) == 0:  # at 1, 2, 4, 8, ...: a set may hold thousands
            warnings.warn(
                f"{count} damaged picture(s) so far, each replaced by the next good one; the latest: {error}",
                stacklevel=2,
            )

    def _decode(self, row: int) -> Image.Image:
        name = self.images[row]
        image = decode_image(self._source.read(name), name, self.location)
        if self.file_size and image.width != self.file_size:
            raise DatasetError(
                f"{self.location}: image {name!r} is {image.width} px, but {self._size_from!r} is "
                f"{self.file_size} px; all pictures of a set must have one size"
            )
        if self._masks is None:
            return image
        mask_name = self._masks[row]
        content = self._mask_source.read(mask_name)
        mask = decode_mask(content, mask_name, location=self._mask_source.location, size=image.width)
        return multiply_alpha(image, mask)

    def read(self, row: int) -> UInt8[np.ndarray, "size size 4"] | None:
        """One picture; None when it is damaged and damaged ones are skipped.

        Raises:
            DatasetError: when it is damaged and damaged ones are refused.
            UnreachableError: when the place where it lies does not answer.
        """
        if self.damaged[row]:
            return None
        try:
            return premultiply_and_reduce(self._decode(row), self.resolution)
        except DatasetError as error:
            if not self._skip_damaged or isinstance(error, UnreachableError):
                raise
            self._note_damaged(row, error)
            return None

    def recall_damaged(self, pixels: UInt8[np.ndarray, "image size size 4"]) -> None:
        """Find the damaged rows of pictures that :meth:`read_all` made in another run."""
        if not self._skip_damaged:
            return
        self.damaged = (pixels[:, 0, 0] == _DAMAGED).all(axis=1)
        self.damaged_count = int(self.damaged.sum())
        if self.damaged_count:
            warnings.warn(
                f"{self.location}: {self.damaged_count} damaged picture(s), each replaced by the next good one",
                stacklevel=2,
            )

    def read_all(self, progress: Progress) -> UInt8[np.ndarray, "image size size 4"]:
        """All pictures, decoded by all cores (Pillow decodes without holding Python's lock)."""
        total = len(self.images)
        pixels = np.empty((total, self.resolution, self.resolution, 4), dtype=np.uint8)

        def fill(start: int) -> int:
            for row in range(start, min(start + _CHUNK, total)):
                picture = self.read(row)
                pixels[row] = _DAMAGED if picture is None else picture
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
        if self._skip_damaged:
            digest.update(b"damaged ones marked\n")
        digest.update(self._source.signature(self.images).encode())
        digest.update(self._source.read(LABEL_FILE) if LABEL_FILE in self._source.names else b"")
        digest.update("\n".join(self.images).encode())
        if self._masks is not None:
            digest.update(self._mask_source.signature(self._masks).encode())
            digest.update("\n".join(self._masks).encode())
        return digest.hexdigest()[:32]
