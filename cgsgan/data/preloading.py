"""Whole sets in memory, decoded once and kept in the user's cache."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import UInt8

from cgsgan.data import cache
from cgsgan.data.pictures import PictureReader
from cgsgan.data.progress import Progress, ignore_progress

PRELOAD_SHARE = 0.25
"""A set is held in memory by default when it takes at most this share of the machine's memory."""


def preload_wanted(asked: bool | None, images: int, resolution: int) -> bool:
    """Whether to hold a set in memory: as asked for, or by its size and that of the memory.

    Args:
        asked: None decides by size.
        images: in the set.
        resolution: of the decoded pictures, pixels.
    """
    if asked is not None:
        return asked
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = 8 << 30  # Windows has no sysconf; 8 GiB is a small computer
    return images * resolution**2 * 4 <= PRELOAD_SHARE * memory


def preload(
    reader: PictureReader, use_cache: bool, progress: Progress = ignore_progress
) -> UInt8[np.ndarray, "image size size 4"]:
    """All pictures of a set, premultiplied RGBA: from the user's cache, or decoded and then kept there."""
    if not use_cache:
        return reader.read_all(progress)
    path = cache.cache_folder() / "pixels" / f"{reader.cache_key()}.npy"
    shape = (len(reader.images), reader.resolution, reader.resolution, 4)
    pixels = cache.load_pixels(path, shape)
    if pixels is None:
        pixels = reader.read_all(progress)
        cache.save_pixels(path, pixels)
    else:
        reader.recall_damaged(pixels)
    return pixels
