"""Data sets of heads: pictures with alpha and the camera of each.

EG3D's format, a folder or zip with ``dataset.json``, or WebDataset shards. A set that fits is decoded once, reduced to
the training resolution and held as premultiplied 8-bit RGBA, in memory and in the user's cache; otherwise pictures are
decoded when they are asked for. Both ways give the same numbers.
"""

from __future__ import annotations

import copy
import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from cgsgan.cameras import LABEL_SIZE
from cgsgan.data import cache
from cgsgan.data.archive import FileSource
from cgsgan.data.entries import find_images, find_masks, find_pictures, read_labels, select_entries
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import flip_labels
from cgsgan.data.names import Names
from cgsgan.data.pictures import PictureReader
from cgsgan.data.preloading import preload, preload_wanted
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.data.sources import open_source
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic, synthetic_name


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures to train on.

    Attributes:
        path: folder or zip with ``dataset.json``, or WebDataset shards: a .tar, a folder of them, or a pattern such as
            ``s3://bucket/heads-{000000..000127}.tar``, of any file system that fsspec reads; None makes (once) and
            uses the procedural heads of ``synthetic``.
        labels: whether the cameras of pictures are read. Off, all pictures of a set are taken and no ``dataset.json``
            is looked at, or for; fakes then need cameras of their own, ``training.poses.source: prior``.
        resolution: size of the training pictures; larger files are reduced by a box filter.
        x_flip: add the mirror image of every picture, with the mirrored camera.
        mask_folder: grey PNG masks with the stems of the pictures, a folder inside the data set or on disk;
            they multiply the alpha of the pictures.
        index_list: JSON file, an array of image names or positions; pictures may repeat (rebalancing).
        max_size: use the first so many pictures only (after ``index_list``, before flips).
        preload: hold all pictures in memory, decoded; None decides by the size of the set and of the memory.
        on_damaged: a picture that cannot be decoded ends the run ("refuse"), or the next good one of the set is
            taken in its place, with its own camera, and the damaged ones are counted in a warning ("skip").
        cache: keep the decoded set, and indices of shards, in the user's cache folder (``CGSGAN_CACHE``).
        remote_cache_gb: of shards that are not on a disk, keep so many gigabytes there (10^9 bytes), encoded.
        workers: batches decoded ahead, each in a thread, when the set is not preloaded.
        synthetic: the procedural heads, when ``path`` is None.
    """

    path: str | None = None
    labels: bool = True
    resolution: int = 64
    x_flip: bool = True
    mask_folder: str | None = None
    index_list: str | None = None
    max_size: int | None = None
    preload: bool | None = None
    on_damaged: Literal["refuse", "skip"] = "refuse"
    cache: bool = True
    remote_cache_gb: float = 0.0
    workers: int = 4
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise DatasetError(f"data.resolution: expected at least 1, got {self.resolution}")
        if self.max_size is not None and self.max_size < 1:
            raise DatasetError(f"data.max_size: expected at least 1 (or null for all), got {self.max_size}")
        if not 0 <= self.remote_cache_gb < math.inf:
            raise DatasetError(f"data.remote_cache_gb: expected 0 or more, got {self.remote_cache_gb}")
        if self.workers < 0:
            raise DatasetError(f"data.workers: expected 0 or more, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class RealBatch:
    """Pictures and their cameras.

    Attributes:
        premultiplied: RGB times alpha, and alpha; all in [0, 1], sRGB.
        camera_labels: the 25 numbers of each; NaN for a set without, so that nothing can look at them unnoticed.
    """

    premultiplied: Float[Tensor, "batch 4 size size"]
    camera_labels: Float[Tensor, "batch 25"]

    def composite(self, backgrounds: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 size size"]:
        """The pictures over one solid colour each, sRGB in [0, 1]."""
        rgb, alpha = self.premultiplied[:, :3], self.premultiplied[:, 3:]
        return rgb + (1 - alpha) * backgrounds[:, :, None, None]

    def to(self, device: torch.device | str) -> RealBatch:
        """The same batch on another device."""
        return RealBatch(
            premultiplied=self.premultiplied.to(device, non_blocking=True),
            camera_labels=self.camera_labels.to(device, non_blocking=True),
        )


class HeadDataset:
    """Pictures with cameras, by index. With ``x_flip``, index ``i + count`` is the mirror of index ``i``.

    Attributes:
        resolution: size of the pictures.
        file_size: of the pictures in their files.
        location: what was opened.
        keep_alive: an object to be kept as long as the set, such as the folder its files lie in.
    """

    def __init__(
        self,
        reader: PictureReader,
        *,
        rows: Int64[np.ndarray, " entry"],
        labels: Float32[np.ndarray, "entry 25"] | None,
        x_flip: bool,
        pixels: UInt8[np.ndarray, "image size size 4"] | None = None,
    ) -> None:
        self._reader = reader
        self._rows = rows
        self._pixels = pixels
        self.x_flip = x_flip
        self.resolution = reader.resolution
        self.file_size = reader.file_size
        self.location = reader.location
        self.keep_alive: object = None
        self._straight: Float[Tensor, "entry 25"] | None = None if labels is None else torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self._rows) * (2 if self.x_flip else 1)

    @property
    def labels(self) -> Float[Tensor, "index 25"]:
        """The label of every index, mirror images included; made anew at each call.

        Raises:
            DatasetError: for a set that was opened without cameras.
        """
        straight = self._cameras()
        return torch.cat([straight, flip_labels(straight)]) if self.x_flip else straight

    @property
    def labelled(self) -> bool:
        """Whether it has cameras."""
        return self._straight is not None

    def _cameras(self) -> Float[Tensor, "entry 25"]:
        if self._straight is None:
            raise DatasetError(f"{self.location}: was opened without cameras (data.labels: false), which this needs")
        return self._straight

    def without_flips(self) -> HeadDataset:
        """The same pictures, not copied, without mirror images."""
        straight = copy.copy(self)
        straight.x_flip = False
        return straight

    @property
    def damaged(self) -> int:
        """How many pictures were found damaged so far; 0 where they are refused."""
        return self._reader.damaged_count

    @property
    def preloaded(self) -> bool:
        """Whether all pictures are decoded already."""
        return self._pixels is not None

    @cached_property
    def names(self) -> list[str]:
        """The file of each index before flips."""
        images = list(self._reader.images)
        return [images[row] for row in self._rows.tolist()]

    def content_key(self, indices: Sequence[int] | np.ndarray | Tensor) -> str:
        """A hash of what :meth:`read` would give for these indices, from the bytes of the files."""
        index = np.asarray(indices, dtype=np.int64)
        flips = hashlib.sha256((index >= len(self._rows)).tobytes()).hexdigest()[:8]
        return f"{self._reader.content_key(self._rows[index % len(self._rows)].tolist())}-{flips}"

    def read(self, indices: Sequence[int] | np.ndarray | Tensor) -> RealBatch:
        """Read pictures.

        Args:
            indices: any integers in [0, len), in any order, repeats allowed.

        Raises:
            DatasetError: when a picture that was not preloaded cannot be decoded.
            IndexError: for indices out of range.
        """
        index = np.asarray(indices, dtype=np.int64)
        if index.size and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise IndexError(f"indices must be in [0, {len(self)}), got {index.min()}..{index.max()}")
        flipped = index >= len(self._rows)
        pixels, entries = self._read_entries(index % len(self._rows))
        packed = pixels.view(np.uint32)[..., 0]
        packed[flipped] = packed[flipped][:, :, ::-1]
        # NumPy, not torch: waking torch's threads costs more than this little work when the cores are busy.
        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        values = np.divide(channels_first, np.float32(255), dtype=np.float32)
        return RealBatch(premultiplied=torch.from_numpy(values), camera_labels=self._labels_of(entries, flipped))

    def sample_labels(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "count 25"]:
        """Labels drawn uniformly, with replacement, from all indices; DatasetError for a set without cameras."""
        self._cameras()
        index = torch.randint(len(self), (count,), generator=generator).numpy()
        return self._labels_of(index % len(self._rows), index >= len(self._rows))

    def _labels_of(self, entries: np.ndarray, flipped: np.ndarray) -> Float[Tensor, "batch 25"]:
        if self._straight is None:
            return torch.full((len(entries), LABEL_SIZE), torch.nan)
        labels, mirrored = self._straight[torch.from_numpy(entries)], torch.from_numpy(flipped)
        labels[mirrored] = flip_labels(labels[mirrored])
        return labels

    def _read_entries(
        self, entries: Int64[np.ndarray, " entry"]
    ) -> tuple[UInt8[np.ndarray, "entry size size 4"], Int64[np.ndarray, " entry"]]:
        """Pixels, and the entries they belong to: those asked for, or the next ones where those are damaged."""
        entries = entries.copy()
        if self._pixels is not None:
            for position in np.flatnonzero(self._reader.damaged[self._rows[entries]]):
                entries[position] = self._next_good(int(entries[position]))
            return np.asarray(self._pixels[self._rows[entries]]), entries
        size = self.resolution
        pixels = np.empty((len(entries), size, size, 4), dtype=np.uint8)
        for position in range(len(entries)):
            while (picture := self._reader.read(int(self._rows[entries[position]]))) is None:
                entries[position] = self._next_good(int(entries[position]))
            pixels[position] = picture
        return pixels, entries

    def _next_good(self, entry: int) -> int:
        """The next entry, in the order of the set, whose picture is not known to be damaged."""
        count = len(self._rows)
        for step in range(1, count):
            candidate = (entry + step) % count
            if not self._reader.damaged[self._rows[candidate]]:
                return candidate
        raise DatasetError(f"{self.location}: all of its pictures are damaged")


def open_dataset(config: DataConfig, *, progress: Progress = ignore_progress) -> HeadDataset:
    """Open (and, where it fits, preload) a data set; make it first when ``config.path`` is None.

    With several processes, let one of them open it first: the others then find the cache.

    Args:
        config: which pictures, how large.
        progress: called while heads are made and pictures decoded; :func:`cgsgan.data.progress.progress_bar`
            gives one that draws a bar.

    Raises:
        DatasetError: one line naming the file or entry at fault.
    """
    if config.path is not None:
        keep = int(config.remote_cache_gb * 1e9)
        return _open(config, open_source(config.path, use_cache=config.cache, keep_bytes=keep), progress)
    folder = cache.cache_folder() / "synthetic"
    path = folder / synthetic_name(config.synthetic)
    if path.exists():
        return _open(config, open_source(path), progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = make_synthetic(config.synthetic, path, progress)
    except OSError as error:
        cache.warn_unwritable(folder, error)
        keep = tempfile.TemporaryDirectory(prefix="cgsgan-")
        made = make_synthetic(config.synthetic, Path(keep.name) / path.name, progress)
        dataset = _open(config, open_source(made), progress)
        dataset.keep_alive = keep
        return dataset
    return _open(config, open_source(made), progress)


def _open(config: DataConfig, source: FileSource, progress: Progress) -> HeadDataset:
    names, labels = (
        read_labels(source, use_cache=config.cache)
        if config.labels
        else (find_pictures(source, config.mask_folder), None)
    )
    images = find_images(names, source, config.mask_folder)
    order = select_entries(names, source.location, index_list=config.index_list, max_size=config.max_size)
    whole = len(order) == len(names) and bool((order[1:] > order[:-1]).all())
    used, rows = (order, order) if whole else np.unique(order, return_inverse=True)
    if len(used) < len(images):
        every = list(images)
        images = Names(every[i] for i in used.tolist())
    mask_source, masks = find_masks(images, source, config.mask_folder)
    reader = PictureReader(
        images=images,
        masks=masks,
        sources=(source, mask_source),
        resolution=config.resolution,
        skip_damaged=config.on_damaged == "skip",
    )
    pixels = (
        preload(reader, config.cache, progress)
        if preload_wanted(config.preload, len(images), config.resolution)
        else None
    )
    return HeadDataset(
        reader,
        rows=rows.astype(np.int64).reshape(-1),
        labels=labels if whole or labels is None else labels[order],
        x_flip=config.x_flip,
        pixels=pixels,
    )
