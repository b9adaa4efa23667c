"""A folder of pictures and its labels -> one zip in EG3D's format."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from cgsgan.data.archive import LABEL_FILE, FileSource, open_source
from cgsgan.data.cache import replacing
from cgsgan.data.decoding import decode_image
from cgsgan.data.entries import find_images, read_label_pairs
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import check_labels, parse_label_file
from cgsgan.data.progress import Progress, ignore_progress


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How pictures are written.

    Attributes:
        labels: the label file; None takes ``dataset.json`` in the folder.
        resolution: reduce all pictures to this size; None keeps them, and they must have one size.
        filter: of the reduction, which is done in premultiplied colours.
        webp: write lossless WebP instead of PNG.
    """

    labels: Path | None = None
    resolution: int | None = None
    filter: Literal["box", "lanczos"] = "box"
    webp: bool = False

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise DatasetError(f"--resolution: expected at least 1, got {self.resolution}")


def pack_dataset(
    folder: str | os.PathLike[str],
    out: Path,
    config: PackConfig,
    *,
    overwrite: bool = False,
    progress: Progress = ignore_progress,
) -> int:
    """Write a zip that can be trained on; it appears when complete.

    Args:
        folder: pictures, or another data set.
        out: the zip.
        config: see PackConfig.
        overwrite: replace ``out`` if it exists.
        progress: called after every picture.

    Returns:
        The number of pictures.

    Raises:
        DatasetError: for a label or picture that is missing or wrong, an ``out`` that exists, sizes that differ.
    """
    if out.suffix.lower() != ".zip":
        raise DatasetError(f"{out}: data sets are packed into a .zip file; give a name that ends in .zip")
    if out.exists() and not overwrite:
        raise DatasetError(f"{out} exists; choose another name, or replace it with --overwrite")
    source = open_source(folder)
    pairs = _read_pairs(source, config.labels)
    check_labels(pairs, source.location)
    images = find_images([name for name, _ in pairs], source, None)
    names = _names_in_zip(images, config, source.location)
    sizes: dict[int, str] = {}
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        encoded = _encode_all(source, images, config)
        for number, (image, name, (content, size)) in enumerate(zip(images, names, encoded, strict=True)):
            sizes.setdefault(size, image)
            if len(sizes) > 1:
                (one, first), (two, second) = sizes.items()
                raise DatasetError(
                    f"{source.location}: {first!r} is {one} px, {second!r} is {two} px; all pictures of a set must "
                    "have one size: reduce them with --resolution"
                )
            archive.writestr(zipfile.ZipInfo(name), content)
            progress("packing", number + 1, len(images))
        labels = [[name, numbers] for name, (_, numbers) in zip(names, pairs, strict=True)]
        archive.writestr(zipfile.ZipInfo(LABEL_FILE), json.dumps({"labels": labels}))
    return len(images)


def _read_pairs(source: FileSource, labels: Path | None) -> list[tuple[str, Any]]:
    if labels is None:
        return read_label_pairs(source)
    try:
        return parse_label_file(labels.read_bytes(), labels)
    except OSError as error:
        raise DatasetError(f"--labels: cannot read {labels} ({error.strerror or error})") from error


def _names_in_zip(images: Sequence[str], config: PackConfig, location: Path) -> list[str]:
    """The pictures' own names (masks and index lists go by them), with the suffix of what is written."""
    if config.resolution is None and not config.webp:
        names = list(images)
    else:
        suffix = ".webp" if config.webp else ".png"
        names = [os.path.splitext(image)[0] + suffix for image in images]
    taken: dict[str, str] = {}
    for image, name in zip(images, names, strict=True):
        if name in taken:
            raise DatasetError(f"{location}: {taken[name]!r} and {image!r} would both be packed as {name!r}")
        taken[name] = image
    return names


def _encode_all(source: FileSource, images: Sequence[str], config: PackConfig) -> Iterator[tuple[bytes, int]]:
    """Contents and sizes in order, by one thread per core, a few ahead."""
    threads = os.cpu_count() or 1
    pending: deque[Future[tuple[bytes, int]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="cgsgan-pack") as pool:
        try:
            for image in images:
                pending.append(pool.submit(_encode, source, image, config))
                if len(pending) > 4 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _encode(source: FileSource, name: str, config: PackConfig) -> tuple[bytes, int]:
    content = source.read(name)
    image = decode_image(content, name, source.location)
    size = config.resolution or image.width
    if size > image.width:
        raise DatasetError(f"{source.location}: image {name!r} is {image.width} px, smaller than --resolution {size}")
    if config.resolution is None and not config.webp:
        return content, size
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
    return buffer.getvalue(), size
