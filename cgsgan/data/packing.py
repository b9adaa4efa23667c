"""A folder of pictures and its labels -> one zip in EG3D's format, or WebDataset shards."""

from __future__ import annotations

import io
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from cgsgan.data.archive import FileSource
from cgsgan.data.decoding import decode_image, decode_mask, multiply_alpha
from cgsgan.data.entries import expect_no_faults, find_images, find_masks, read_label_pairs
from cgsgan.data.errors import DatasetError, Location
from cgsgan.data.labels import check_labels, parse_label_file
from cgsgan.data.packed_files import PackedSample, ShardPlan, write_shards, write_zip
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.data.shards import ShardSource
from cgsgan.data.sources import open_source


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How pictures are written.

    Attributes:
        labels: the label file; None takes ``dataset.json`` in the folder.
        mask_folder: folder of grey PNG masks, inside the set or on disk; kept apart where pictures are kept as they
            are, otherwise multiplied into their alpha.
        resolution: reduce all pictures to this size; None keeps them, and they must have one size.
        filter: of the reduction, which is done in premultiplied colours.
        webp: write lossless WebP instead of PNG.
        shards: write a folder of so many WebDataset shards instead of a zip.
        shard_mb: write a folder of WebDataset shards of at most so many megabytes (2^20 bytes).
    """

    labels: Path | None = None
    mask_folder: str | None = None
    resolution: int | None = None
    filter: Literal["box", "lanczos"] = "box"
    webp: bool = False
    shards: int | None = None
    shard_mb: float | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise DatasetError(f"--resolution: expected at least 1, got {self.resolution}")
        if self.shards is not None and self.shard_mb is not None:
            raise DatasetError("--shards and --shard-mb: give one of them")
        if self.shards is not None and self.shards < 1:
            raise DatasetError(f"--shards: expected at least 1, got {self.shards}")
        if self.shard_mb is not None and not 0 < self.shard_mb < math.inf:
            raise DatasetError(f"--shard-mb: expected a positive number, got {self.shard_mb:g}")

    @property
    def keeps_files(self) -> bool:
        """Whether pictures are written as they are."""
        return self.resolution is None and not self.webp


def pack_dataset(
    folder: str | os.PathLike[str],
    out: Path,
    config: PackConfig,
    *,
    overwrite: bool = False,
    progress: Progress = ignore_progress,
) -> int:
    """Write a data set that can be trained on; it appears when complete, and the same pictures give the same bytes.

    Args:
        folder: pictures, or another data set.
        out: the zip, or the folder of shards.
        config: see PackConfig.
        overwrite: replace ``out`` if it exists.
        progress: called after every picture.

    Returns:
        The number of pictures.

    Raises:
        DatasetError: for a label or picture that is missing or wrong, an ``out`` that exists, sizes that differ.
    """
    sharded = config.shards is not None or config.shard_mb is not None
    if sharded and out.suffix.lower() in (".zip", ".tar"):
        raise DatasetError(f"{out}: shards are written into a folder; give a name without {out.suffix}")
    if not sharded and out.suffix.lower() != ".zip":
        raise DatasetError(
            f"{out}: data sets are packed into a .zip file; give a name that ends in .zip (or write shards into a "
            "folder, with --shards or --shard-mb)"
        )
    if out.exists() and not overwrite:
        raise DatasetError(f"{out} exists; choose another name, or replace it with --overwrite")
    source = open_source(folder)
    pairs = _read_pairs(source, config.labels)
    check_labels(pairs, source.location)
    images = find_images([name for name, _ in pairs], source, None)
    names = _packed_names(images, config, source.location)
    pictures = _Pictures(source, images, *find_masks(images, source, config.mask_folder), config)
    with write_shards(out, _plan(config, len(images))) if sharded else write_zip(out) as writer:
        encoded = _encode_all(pictures)
        for number, (name, (picture, mask), (_, numbers)) in enumerate(zip(names, encoded, pairs, strict=True)):
            writer.add(PackedSample(name=name, picture=picture, mask=mask, numbers=numbers))
            progress("packing", number + 1, len(images))
    return len(images)


def _plan(config: PackConfig, pictures: int) -> ShardPlan:
    size = None if config.shard_mb is None else int(config.shard_mb * 2**20)
    return ShardPlan(pictures=pictures, shards=config.shards, size=size)


def _read_pairs(source: FileSource, labels: Path | None) -> list[tuple[str, Any]]:
    if labels is None:
        if isinstance(source, ShardSource):
            expect_no_faults(source)
        return read_label_pairs(source)
    try:
        return parse_label_file(labels.read_bytes(), labels)
    except OSError as error:
        raise DatasetError(f"--labels: cannot read {labels} ({error.strerror or error})") from error


def _packed_names(images: Sequence[str], config: PackConfig, location: Location) -> list[str]:
    """The pictures' own names (masks and index lists go by them), with the suffix of what is written."""
    suffix = ".webp" if config.webp else ".png"
    names = [image if config.keeps_files else os.path.splitext(image)[0] + suffix for image in images]
    taken: dict[str, str] = {}
    for image, name in zip(images, names, strict=True):
        if name in taken:
            raise DatasetError(f"{location}: {taken[name]!r} and {image!r} would both be packed as {name!r}")
        taken[name] = image
    return names


@dataclass(frozen=True)
class _Pictures:
    source: FileSource
    images: Sequence[str]
    mask_source: FileSource
    masks: Sequence[str] | None
    config: PackConfig


def _encode_all(pictures: _Pictures) -> Iterator[tuple[bytes, bytes | None]]:
    """Pictures and masks in order, by one thread per core, a few ahead; all pictures must have one size."""
    threads = os.cpu_count() or 1
    pending: deque[Future[tuple[bytes, bytes | None, int]]] = deque()
    sizes: dict[int, str] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="cgsgan-pack") as pool:
        try:
            for row in range(len(pictures.images) + 4 * threads):
                if row < len(pictures.images):
                    pending.append(pool.submit(_encode, pictures, row))
                if row >= 4 * threads:
                    content, mask, size = pending.popleft().result()
                    sizes.setdefault(size, pictures.images[row - 4 * threads])
                    _expect_one_size(sizes, pictures.source.location)
                    yield content, mask
        finally:
            for future in pending:
                future.cancel()


def _expect_one_size(sizes: dict[int, str], location: Location) -> None:
    if len(sizes) > 1:
        (one, first), (two, second) = sizes.items()
        raise DatasetError(
            f"{location}: {first!r} is {one} px, {second!r} is {two} px; all pictures of a set must have one size: "
            "reduce them with --resolution"
        )


def _encode(pictures: _Pictures, row: int) -> tuple[bytes, bytes | None, int]:
    """A picture's bytes, its mask's, and its size."""
    name, config, location = pictures.images[row], pictures.config, pictures.source.location
    content = pictures.source.read(name)
    image = decode_image(content, name, location)
    mask = None if pictures.masks is None else pictures.mask_source.read(pictures.masks[row])
    size = config.resolution or image.width
    if size > image.width:
        raise DatasetError(f"{location}: image {name!r} is {image.width} px, smaller than --resolution {size}")
    decoded_mask = None
    if mask is not None and pictures.masks is not None:
        place = pictures.mask_source.location
        decoded_mask = decode_mask(mask, pictures.masks[row], location=place, size=image.width)
    if config.keeps_files:
        return content, mask, size
    if decoded_mask is not None:
        image = multiply_alpha(image, decoded_mask)
    if size < image.width:
        kind = Image.Resampling.BOX if config.filter == "box" else Image.Resampling.LANCZOS
        image = image.convert("RGBa").resize((size, size), kind).convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    if config.webp:
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue(), None, size
