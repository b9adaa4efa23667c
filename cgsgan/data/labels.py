"""``dataset.json``: reading and checking the 25-number camera labels, and mirroring them.

A label is 16 numbers, the row-major camera-to-world matrix (OpenCV axes), then 9, the row-major intrinsics
divided by the image size (EG3D, Chan et al. 2022). :mod:`cgsgan.cameras` turns labels into cameras.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cgsgan.cameras import LABEL_SIZE
from cgsgan.data.archive import LABEL_FILE
from cgsgan.data.errors import DatasetError, Location

RIGID_TOLERANCE = 1e-3
"""How far R^T R may be from the identity; float32 labels of the published sets stay below 1e-5."""
MAX_FOCAL = 50.0
"""A focal length over image size above this (1.1 degrees of view) means intrinsics left in pixels."""

FLIPPED_ENTRIES = (1, 2, 4, 8, 3)
"""m01, m02, m10, m20, m03: what changes sign in diag(-1,1,1) M diag(-1,1,1), the mirrored camera."""
_CX = 18
_HUGE = 1e30


def flip_labels(camera_labels: Float[Tensor, "*batch 25"]) -> Float[Tensor, "*batch 25"]:
    """Labels of the mirrored pictures: the camera mirrored at the plane x = 0, and cx -> 1 - cx.

    The skew entry changes sign too; it is zero in every data set of this kind.
    """
    signs = torch.ones(LABEL_SIZE, dtype=camera_labels.dtype, device=camera_labels.device)
    signs[list(FLIPPED_ENTRIES)] = -1
    signs[17] = -1
    flipped = camera_labels * signs
    flipped[..., _CX] = 1 - camera_labels[..., _CX]
    return flipped


def parse_label_file(content: bytes, location: Location) -> list[tuple[str, Any]]:
    """The (name, numbers) pairs of a ``dataset.json``, numbers still unchecked.

    Both forms are read: ``{"labels": [[name, numbers], ...]}`` and ``{name: numbers, ...}``.

    Raises:
        DatasetError: when it is not JSON of one of the two forms, or holds no label.
    """
    where = f"{location}: {LABEL_FILE}"
    try:
        document = json.loads(content)
    except ValueError as error:
        raise DatasetError(f"{where} is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise DatasetError(f'{where} must be an object {{"labels": [[name, 25 numbers], ...]}}')
    labels = document.get("labels", document)
    if labels is None:
        raise DatasetError(f'{where} has "labels": null; every image needs a label of 25 numbers')
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list):
        raise DatasetError(f'{where}: "labels" must be a list of [name, 25 numbers], got {type(pairs).__name__}')
    for number, pair in enumerate(pairs):
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise DatasetError(f"{where}: entry {number} must be [name, 25 numbers], got {json.dumps(pair)[:80]}")
    if not pairs:
        raise DatasetError(f"{where} names no images: the data set is empty")
    return [(name, numbers) for name, numbers in pairs]


def label_problem(numbers: Any) -> str | None:
    """What is wrong with one label, or None."""
    fault = not_numbers(numbers)
    if fault is not None:
        return fault
    label = np.array([numbers], dtype=np.float64)
    return None if first_fault(label) is None else _describe(label[0])


def not_numbers(numbers: Any) -> str | None:
    """Why ``numbers``, from JSON, are not 25 numbers of any value; None where they are."""
    if not isinstance(numbers, list):
        return f"expected {LABEL_SIZE} numbers, got {type(numbers).__name__}"
    if len(numbers) != LABEL_SIZE:
        return f"expected {LABEL_SIZE} numbers, got {len(numbers)} numbers"
    # Not isinstance: JSON's true is a bool, which Python counts among the integers; its integers have no bound.
    if not all(type(value) is float or (type(value) is int and abs(value) < _HUGE) for value in numbers):
        return "expected numbers only"
    return None


def check_labels(pairs: list[tuple[str, Any]], location: Location) -> Float64[np.ndarray, "image 25"]:
    """Check all labels and stack them.

    Raises:
        DatasetError: naming the first image whose label is not 25 finite numbers forming a rigid pose and
            normalised intrinsics.
    """
    for name, numbers in pairs:
        fault = not_numbers(numbers)
        if fault is not None:
            raise DatasetError(f"{location}: label of {name!r}: {fault}")
    labels = np.array([numbers for _, numbers in pairs], dtype=np.float64)
    first = first_fault(labels)
    if first is not None:
        raise DatasetError(f"{location}: label of {pairs[first][0]!r}: {_describe(labels[first])}")
    return labels


def _checks(labels: Float64[np.ndarray, "image 25"]) -> dict[str, np.ndarray]:
    """Boolean arrays, True where the named fault is found."""
    poses = labels[:, :16].reshape(-1, 4, 4)
    finite = np.asarray(np.isfinite(labels).all(1))
    rotations = np.where(finite.reshape(-1, 1, 1), poses[:, :3, :3], np.eye(3))
    error = np.abs(rotations.transpose(0, 2, 1) @ rotations - np.eye(3)).max((1, 2))
    rigid = (error < RIGID_TOLERANCE) & (np.linalg.det(rotations) > 0)
    last_row = np.abs(poses[:, 3] - [0, 0, 0, 1]).max(1) < RIGID_TOLERANCE
    focal = labels[:, [16, 20]]
    last = np.abs(labels[:, 22:] - [0, 0, 1]).max(1) < RIGID_TOLERANCE
    faults = {
        "it holds NaN or infinity": ~finite,
        "the pose is not rigid (rotation not orthonormal and right-handed, or last row not 0 0 0 1)": ~(
            rigid & last_row
        ),
        "the intrinsics must be divided by the image size (0 < focal < 50, last row 0 0 1)": ~(
            (focal > 0).all(1) & (focal < MAX_FOCAL).all(1) & last
        ),
    }
    return {fault: np.asarray(found) for fault, found in faults.items()}


def first_fault(labels: Float64[np.ndarray, "image 25"]) -> int | None:
    """The first row that is no rigid pose with normalised intrinsics, or None."""
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(np.stack(list(_checks(labels).values())).any(axis=0))
    return int(bad[0]) if len(bad) else None


def _describe(label: Float64[np.ndarray, "25"]) -> str:
    with np.errstate(invalid="ignore"):
        return next(fault for fault, found in _checks(label[None]).items() if found[0])
