"""Which entries a data set has: its labels' file, the picture and mask of each label, and the chosen ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from cgsgan.data import label_cache
from cgsgan.data.archive import (
    IMAGE_SUFFIXES,
    LABEL_FILE,
    FileSource,
    resolve_images,
    resolve_masks,
)
from cgsgan.data.errors import DatasetError, Location
from cgsgan.data.label_stream import stream_labels
from cgsgan.data.labels import check_labels, parse_label_file
from cgsgan.data.names import Names
from cgsgan.data.shards import ShardSource, mask_name
from cgsgan.data.sources import open_source


def read_label_pairs(source: FileSource) -> list[tuple[str, Any]]:
    """The (name, numbers) pairs of the set's ``dataset.json``, unchecked; those of shards have been checked.

    Raises:
        DatasetError: when the file is missing or malformed.
    """
    if isinstance(source, ShardSource):
        return list(zip(source.images, source.labels.tolist(), strict=True))
    _expect_labels(source)
    return parse_label_file(source.read(LABEL_FILE), source.location)


def read_labels(source: FileSource, *, use_cache: bool = True) -> tuple[Names, Float32[np.ndarray, "image 25"]]:
    """Names and checked labels of the set's ``dataset.json`` or shards, in little memory whatever its size.

    Raises:
        DatasetError: when the file is missing or malformed, or a label is wrong.
    """
    if isinstance(source, ShardSource):
        expect_no_faults(source)
        return source.images, source.labels
    _expect_labels(source)
    if use_cache and (kept := label_cache.load_labels(source)) is not None:
        return kept
    streamed = stream_labels(source.chunks(LABEL_FILE))
    if streamed is not None:
        if use_cache:
            label_cache.save_labels(source, *streamed)
        return streamed
    pairs = parse_label_file(source.read(LABEL_FILE), source.location)
    return Names(name for name, _ in pairs), check_labels(pairs, source.location).astype(np.float32)


def has_cameras(path: str | None) -> bool:
    """Whether the set at ``path`` has cameras; the procedural heads (None) do.

    Raises:
        DatasetError: when there is nothing to open.
    """
    if path is None:
        return True
    source = open_source(path)
    return isinstance(source, ShardSource) or LABEL_FILE in source.names


def find_pictures(source: FileSource, mask_folder: str | None) -> Names:
    """Every picture of a set without cameras, by name; hidden files and a mask folder inside the set left out.

    Raises:
        DatasetError: when there is none.
    """
    if isinstance(source, ShardSource):
        expect_no_faults(source)
        return source.images
    masks = None if mask_folder is None else f"{mask_folder.rstrip('/')}/"
    found = sorted(
        name
        for name in source.names
        if name.lower().endswith(IMAGE_SUFFIXES)
        and not any(part.startswith(".") for part in name.split("/"))
        and not (masks is not None and name.startswith(masks))
    )
    if not found:
        raise DatasetError(f"{source.location}: there is no picture in it; expected PNG, JPEG or WebP files")
    return Names(found)


def expect_no_faults(source: ShardSource) -> None:
    """Raise a DatasetError that names the first sample of shards that cannot be used, and one for an empty set."""
    if source.faults:
        (name, fault), more = source.faults[0], len(source.faults) - 1
        raise DatasetError(f"{source.location}: {name!r}: {fault}" + (f" (and {more} more samples)" if more else ""))
    if not len(source.labels):
        raise DatasetError(
            f"{source.location}: there is no sample in its shards; expected KEY.png (or .webp, .jpg) and KEY.json"
        )


def _expect_labels(source: FileSource) -> None:
    if LABEL_FILE not in source.names:
        raise DatasetError(
            f"{source.location}: there is no {LABEL_FILE} in it; expected EG3D's format: pictures, and a "
            f"{LABEL_FILE} with the camera of each (training without cameras: data.labels: false and "
            "training.poses.source: prior)"
        )


def find_images(names: Sequence[str], source: FileSource, mask_folder: str | None) -> Sequence[str]:
    """The file of every label name.

    Raises:
        DatasetError: naming the first that is missing, or is no PNG, JPEG or WebP.
    """
    found = resolve_images(names, source, mask_folder)
    missing = [] if found is names else [name for name, image in zip(names, found, strict=True) if image is None]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DatasetError(f"{source.location}: image {missing[0]!r}{more} is named in {LABEL_FILE} but is missing")
    images = names if found is names else Names(image for image in found if image is not None)
    for image in images:
        if not image.lower().endswith(IMAGE_SUFFIXES):
            raise DatasetError(f"{source.location}: {image!r} has an unknown file type; expected PNG, JPEG or WebP")
    return images


def find_masks(
    images: Sequence[str], source: FileSource, mask_folder: str | None
) -> tuple[FileSource, Sequence[str] | None]:
    """Where the masks lie (inside the set, or in a folder on disk) and the mask of every image; None without masks.

    Raises:
        DatasetError: when the folder, or the mask of an image, is missing.
    """
    in_shards = mask_folder is None and isinstance(source, ShardSource) and source.has_masks
    if mask_folder is None and not in_shards:
        return source, None
    place, masks = locate_masks(images, source, mask_folder)
    missing = [image for image, mask in zip(images, masks, strict=True) if mask is None]
    if missing and in_shards:
        raise DatasetError(
            f"{source.location}: there is no {mask_name(missing[0])!r}, but others have masks: all must, or none"
        )
    if missing:
        more = f" (and for {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DatasetError(
            f"{source.location}: there is no mask for {missing[0]!r}{more} in {mask_folder!r}; expected a "
            "grey PNG with the stem of the picture"
        )
    return place, Names(mask for mask in masks if mask is not None)


def locate_masks(
    images: Sequence[str], source: FileSource, mask_folder: str | None
) -> tuple[FileSource, list[str | None]]:
    """As :func:`find_masks`, with None for masks that are missing; without a folder, those of shards."""
    if mask_folder is None:
        masks = [mask_name(image) for image in images]
        return source, [mask if row >= 0 else None for mask, row in zip(masks, source.names.find_all(masks).tolist())]
    inside = f"{mask_folder.rstrip('/')}/"
    if any(name.startswith(inside) for name in source.names):
        return source, resolve_masks(images, source, mask_folder)
    if not Path(mask_folder).expanduser().is_dir():
        raise DatasetError(f"{source.location}: mask folder {mask_folder!r} is neither in the data set nor on disk")
    place = open_source(mask_folder)
    return place, resolve_masks(images, place, "")


def select_entries(
    names: Sequence[str], location: Location, *, index_list: str | None, max_size: int | None
) -> Int64[np.ndarray, " entry"]:
    """Positions in ``names`` of the chosen entries: all, or the list's (with repeats), at most ``max_size``.

    Raises:
        DatasetError: when the list cannot be read or names an image that is not in the set.
    """
    order = np.arange(len(names), dtype=np.int64)
    if index_list is not None:
        order = _read_index_list(Path(index_list).expanduser(), names, location)
    return order[:max_size]


def _read_index_list(path: Path, names: Sequence[str], location: Location) -> Int64[np.ndarray, " entry"]:
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: cannot read the index list ({error.strerror or error})") from error
    except ValueError as error:
        raise DatasetError(f"{path}: the index list is not valid JSON ({error})") from error
    if not isinstance(items, list) or not items:
        raise DatasetError(f"{path}: the index list must be a non-empty JSON array of image names or positions")
    named = any(isinstance(item, str) for item in items)
    positions = {name: position for position, name in enumerate(names)} if named else {}
    order = np.empty(len(items), dtype=np.int64)
    for number, item in enumerate(items):
        position = positions.get(item) if isinstance(item, str) else item
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < len(names):
            raise DatasetError(f"{path}: item {number}, {item!r}, is not in {location} ({len(names)} images)")
        order[number] = position
    return order
