"""Parsed labels of large sets, kept between runs in the user's cache folder, found again by their content.

Text of 400 MB takes twenty seconds to parse; its hash and the arrays take two.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float32

from cgsgan.cameras import LABEL_SIZE
from cgsgan.data import cache
from cgsgan.data.archive import LABEL_FILE, FileSource
from cgsgan.data.names import Names

SMALLEST = 50_000
"""Smaller sets are parsed in less than a second."""
_FORMAT = 1


def load_labels(source: FileSource) -> tuple[Names, Float32[np.ndarray, "image 25"]] | None:
    """What :func:`save_labels` kept for a label file of the same content, or None."""
    folder = cache.cache_folder() / "labels"
    if not folder.is_dir():
        return None
    path = folder / f"{_content_hash(source)}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            labels, blob, ends = stored["labels"], stored["names"], stored["ends"]
    except (OSError, ValueError, EOFError, KeyError):
        return None
    fits = labels.dtype == np.float32 and labels.shape == (len(ends) - 1, LABEL_SIZE) and ends[-1] == len(blob)
    return (Names.from_arrays(blob, ends), labels) if fits else None


def save_labels(source: FileSource, names: Names, labels: Float32[np.ndarray, "image 25"]) -> None:
    """Keep the labels of a large set; a folder that cannot be written costs a warning."""
    if len(labels) < SMALLEST:
        return
    path = cache.cache_folder() / "labels" / f"{_content_hash(source)}.npz"
    blob, ends = names.arrays()
    try:
        with cache.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, labels=labels, names=blob, ends=ends)
    except OSError as error:
        cache.warn_unwritable(path.parent, error)


def _content_hash(source: FileSource) -> str:
    digest = hashlib.sha256(f"{_FORMAT}\n".encode())
    for chunk in source.chunks(LABEL_FILE):
        digest.update(chunk)
    return digest.hexdigest()[:32]
