"""Heads whose shape is known: several persons, each with a depth map from every one of a few fixed cameras."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.data.entries import read_labels
from cgsgan.data.errors import DatasetError
from cgsgan.data.sources import open_source

DEPTH_FILE = "depth_landmarks.npz"
SAME_CAMERA = 1e-4
"""Largest difference of the labels of one view between persons."""


@dataclass(frozen=True)
class DepthTruth:
    """Depth maps of real heads.

    Attributes:
        cameras: the views, the same for every person.
        depths: z-depth in world units; NaN where a ray meets nothing.
    """

    cameras: Cameras
    depths: Float[Tensor, "person view size size"]


def open_depth_truth(path: Path | str) -> DepthTruth:
    """Read a folder or zip with ``dataset.json`` and ``depth_landmarks.npz``.

    The npz holds ``depth`` [person, view, size, size], 0 where there is nothing; the labels, sorted by name, are those
    of the views of the first person, then of the second...

    Raises:
        DatasetError: one line naming what is missing or does not fit.
    """
    source = open_source(str(path))
    names, labels = read_labels(source, use_cache=False)
    try:
        with np.load(io.BytesIO(source.read(DEPTH_FILE)), allow_pickle=False) as arrays:
            depths = torch.from_numpy(arrays["depth"].astype(np.float32))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: {DEPTH_FILE} holds no readable array `depth` ({error})") from None
    if depths.ndim != 4 or depths.shape[0] * depths.shape[1] != len(labels) or depths.shape[2] != depths.shape[3]:
        raise DatasetError(
            f"{path}: expected depth maps [person, view, size, size] for {len(labels)} labels, got {[*depths.shape]}"
        )
    order = sorted(range(len(labels)), key=list(names).__getitem__)
    views = torch.from_numpy(labels[order]).unflatten(0, depths.shape[:2])
    if float((views - views[:1]).abs().max()) > SAME_CAMERA:
        raise DatasetError(f"{path}: the persons are not seen by the same cameras; expected view k of each to be one")
    if not bool((depths > 0).flatten(1).any(dim=1).all()):
        raise DatasetError(f"{path}: a person has no depth anywhere")
    return DepthTruth(Cameras.from_labels(views[0]), torch.where(depths > 0, depths, torch.nan))
