"""Looks through a whole data set and reports everything that is wrong with it, instead of the first thing."""

from __future__ import annotations

import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.archive import IMAGE_SUFFIXES, FileSource, check_entry_name, resolve_images
from cgsgan.data.decoding import decode_image
from cgsgan.data.entries import locate_masks, read_label_pairs
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import label_problem
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.data.shards import ShardSource
from cgsgan.data.sources import open_source

_EXAMPLES = 3


NEAREST_CAMERA, FARTHEST_CAMERA = 1.0, 10.0
"""World units; heads fill [-0.5, 0.5]^3, and cameras of the format are at 2.7."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of fault.

    Attributes:
        kind: what is wrong.
        count: how many entries have it.
        examples: up to 3 of their names.
    """

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} x {self.kind}: {', '.join(self.examples)}{more}"


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What a data set holds; angles in degrees, None where no label could be read.

    Attributes:
        labels: entries of ``dataset.json``.
        pictures: how many of them could be decoded.
        size: the commonest size of the pictures, px.
        modes: colour modes of the files and how often they occur.
        yaw: smallest and largest.
        pitch: smallest and largest.
        unlabeled: pictures without a label; they are not used.
    """

    labels: int
    pictures: int
    size: int | None
    modes: dict[str, int]
    yaw: tuple[float, float] | None
    pitch: tuple[float, float] | None
    unlabeled: int

    def __str__(self) -> str:
        modes = ", ".join(f"{count} {mode}" for mode, count in self.modes.items()) or "none"
        lines = [f"{self.labels} labels, {self.pictures} readable pictures ({modes}), size {self.size} px"]
        if self.yaw is not None and self.pitch is not None:
            lines.append(
                f"yaw {self.yaw[0]:.0f}..{self.yaw[1]:.0f} degrees, "
                f"pitch {self.pitch[0]:.0f}..{self.pitch[1]:.0f} degrees"
            )
        if self.unlabeled:
            lines.append(f"{self.unlabeled} pictures have no label and are not used")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """Problems (none for a good set) and what was seen."""

    problems: tuple[Problem, ...]
    summary: DatasetSummary


@dataclass
class _Faults:
    """Counts faults by kind, keeping the first few names."""

    names: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, name: str) -> None:
        self.counts[kind] += 1
        examples = self.names.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(name)

    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(kind=kind, count=count, examples=tuple(self.names[kind])) for kind, count in self.counts.items()
        )


def check_dataset(
    path: str | os.PathLike[str], mask_folder: str | None = None, progress: Progress = ignore_progress
) -> DatasetReport:
    """Check every label, picture and mask of a data set; faults are reported, not raised.

    Args:
        path: folder, zip or shards.
        mask_folder: as in :class:`cgsgan.data.dataset.DataConfig`.
        progress: called while pictures are decoded.
    """
    faults = _Faults()
    try:
        source = open_source(path)
        pairs = read_label_pairs(source)
    except DatasetError as error:
        faults.add(error.kind, str(error))
        return DatasetReport(problems=faults.problems(), summary=_summary([], [], 0))
    for name, fault in source.faults if isinstance(source, ShardSource) else ():
        faults.add(fault, name)
    labels = _check_labels(pairs, faults)
    images = _check_names([name for name, _ in pairs], source, mask_folder, faults)
    if mask_folder is not None or (isinstance(source, ShardSource) and source.has_masks):
        _check_masks(images, source, mask_folder, faults)
    found = _check_pictures(images, source, faults, progress)
    unlabeled = _count_unlabeled(images, source, mask_folder)
    summary = _summary(labels, found, len(pairs), unlabeled=unlabeled)
    return DatasetReport(problems=faults.problems(), summary=summary)


def _count_unlabeled(images: list[str], source: FileSource, mask_folder: str | None) -> int:
    if isinstance(source, ShardSource):
        return 0  # a picture without a camera is a fault there
    in_masks = f"{mask_folder.rstrip('/')}/" if mask_folder else None
    pictures = {n for n in source.names if n.lower().endswith(IMAGE_SUFFIXES)}
    pictures = {n for n in pictures if in_masks is None or not n.startswith(in_masks)}
    return len(pictures - set(images))


def _check_labels(pairs: list[tuple[str, Any]], faults: _Faults) -> list[list[float]]:
    good = []
    for name, numbers in pairs:
        fault = label_problem(numbers)
        if fault is None:
            good.append(numbers)
            if (unlikely := _unlikely_camera(numbers)) is not None:
                faults.add(f"camera: {unlikely}", name)
        else:
            faults.add(f"label: {fault}", name)
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            faults.add("picture labelled more than once", name)
    return good


def _unlikely_camera(numbers: list[float]) -> str | None:
    """What is odd about a valid pose in a set of heads at the origin, or None. Training would take it as it is."""
    position, forward = numbers[3:12:4], numbers[2:11:4]
    distance = math.hypot(*position)
    if not NEAREST_CAMERA <= distance <= FARTHEST_CAMERA:
        return f"not {NEAREST_CAMERA:g} to {FARTHEST_CAMERA:g} world units from the origin (the format has 2.7)"
    towards_origin = -sum(p * f for p, f in zip(position, forward)) / distance
    return "does not look at the origin (more than 20 degrees off)" if towards_origin < 0.94 else None


def _check_names(names: list[str], source: FileSource, mask_folder: str | None, faults: _Faults) -> list[str]:
    inside = []
    for name in names:
        try:
            check_entry_name(name, source.location)
            inside.append(name)
        except DatasetError as error:
            faults.add(error.kind, name)
    images = []
    for name, image in zip(inside, resolve_images(inside, source, mask_folder), strict=True):
        if image is None:
            faults.add("picture missing", name)
        elif not image.lower().endswith(IMAGE_SUFFIXES):
            faults.add("unknown file type", image)
        else:
            images.append(image)
    return images


def _check_masks(images: list[str], source: FileSource, mask_folder: str | None, faults: _Faults) -> None:
    try:
        place, masks = locate_masks(images, source, mask_folder)
    except DatasetError as error:
        faults.add(error.kind, str(error))
        return
    for image, mask in zip(images, masks, strict=True):
        if mask is None:
            faults.add("mask missing", image)
            continue
        try:
            decode_image(place.read(mask), mask, place.location)
        except DatasetError as error:
            faults.add(f"mask: {error.kind}", mask)


def _check_pictures(
    images: list[str], source: FileSource, faults: _Faults, progress: Progress
) -> list[tuple[str, int]]:
    """Mode and size of every picture that can be decoded."""

    def look(name: str) -> tuple[str, int] | DatasetError:
        try:
            content = source.read(name)
            image = decode_image(content, name, source.location)
        except DatasetError as error:
            return error
        transparent = image.getchannel("A").getextrema() != (255, 255)
        return ("RGBA" if transparent else "RGB"), image.width

    found: list[tuple[str, tuple[str, int]]] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, (name, result) in enumerate(zip(images, pool.map(look, images), strict=True)):
            if isinstance(result, DatasetError):
                faults.add(result.kind, name)
            else:
                found.append((name, result))
            progress("checking pictures", number + 1, len(images))
    common = _common_size([result for _, result in found])
    for name, (_, size) in found:
        if size != common:
            faults.add(f"size differs from the common one ({common} px)", name)
    return [result for _, result in found]


def _common_size(found: list[tuple[str, int]]) -> int | None:
    sizes = Counter(size for _, size in found)
    return sizes.most_common(1)[0][0] if sizes else None


def _summary(labels: list[list[float]], found: list[tuple[str, int]], count: int, unlabeled: int = 0) -> DatasetSummary:
    yaw_range = pitch_range = None
    if labels:
        cameras = Cameras.from_labels(torch.tensor(np.array(labels), dtype=torch.float32))
        yaw, pitch = (torch.rad2deg(angle) for angle in yaw_pitch(cameras))
        yaw_range = (float(yaw.min()), float(yaw.max()))
        pitch_range = (float(pitch.min()), float(pitch.max()))
    return DatasetSummary(
        labels=count,
        pictures=len(found),
        size=_common_size(found),
        modes=dict(Counter(mode for mode, _ in found)),
        yaw=yaw_range,
        pitch=pitch_range,
        unlabeled=unlabeled,
    )
