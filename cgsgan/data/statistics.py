"""Numbers about every picture of a set: where its camera stands, and what its mask and its pixels look like."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.dataset import HeadDataset, RealBatch
from cgsgan.data.errors import DatasetError
from cgsgan.data.progress import Progress, ignore_progress

Values = Float[np.ndarray, " picture"]
UNITS = {
    "yaw": "degrees",
    "pitch": "degrees",
    "field of view": "degrees",
    "distance": "world units",
    "coverage": "share of the picture",
    "border": "share of the border that the mask touches",
    "off-centre": "mask's centre from the middle, picture sizes",
    "brightness": "mean luma of the head",
    "sharpness": "rms Laplacian of the head",
    "outlier": "distance from the rest",
    "probability": "of the rejected classes",
}
_CHUNK = 64
_LUMA = (0.299, 0.587, 0.114)


def camera_statistics(dataset: HeadDataset) -> dict[str, Values]:
    """Yaw, pitch, vertical field of view (degrees) and distance to the origin of every picture, flips left out."""
    labels = dataset.labels[: len(dataset.names)]
    cameras = Cameras.from_labels(labels)
    yaw, pitch = yaw_pitch(cameras)
    return {
        "yaw": torch.rad2deg(yaw).double().numpy(),
        "pitch": torch.rad2deg(pitch).double().numpy(),
        "field of view": torch.rad2deg(2 * torch.atan(0.5 / cameras.Ks_normalized[:, 1, 1])).double().numpy(),
        "distance": cameras.cam_to_world[:, :3, 3].norm(dim=-1).double().numpy(),
    }


def picture_statistics(dataset: HeadDataset, progress: Progress = ignore_progress) -> dict[str, Values]:
    """Coverage, border, off-centre, brightness and sharpness of every picture, flips left out.

    Raises:
        DatasetError: when a picture cannot be decoded: statistics of a replacement would be those of another one.
    """
    count = len(dataset.names)
    parts = []

    def look(start: int) -> dict[str, Values]:
        return _measure(dataset.read(range(start, min(start + _CHUNK, count))))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, part in enumerate(pool.map(look, range(0, count, _CHUNK))):
            parts.append(part)
            progress("measuring pictures", min((number + 1) * _CHUNK, count), count)
    if dataset.damaged:
        raise DatasetError(
            f"{dataset.location}: {dataset.damaged} pictures are damaged; `cgsgan data check` names them"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measure(batch: RealBatch) -> dict[str, Values]:
    alpha = batch.premultiplied[:, 3].double()
    size = alpha.shape[-1]
    weight = alpha.sum((1, 2)).clamp_min(1e-9)
    edge = torch.cat([alpha[:, 0], alpha[:, -1], alpha[:, 1:-1, 0], alpha[:, 1:-1, -1]], dim=1)
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    across = (alpha.sum(1) * place).sum(1) / weight
    down = (alpha.sum(2) * place).sum(1) / weight
    luma = (batch.premultiplied[:, :3].double() * torch.tensor(_LUMA).double()[:, None, None]).sum(1)
    laplacian = (
        4 * luma[:, 1:-1, 1:-1] - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    )
    # Only where all four neighbours are opaque: the outline of a mask is sharp in every picture.
    inner = torch.nn.functional.max_pool2d(-alpha.unsqueeze(1), 3, stride=1)[:, 0] < -0.99
    energy = (laplacian.square() * inner).sum((1, 2)) / inner.sum((1, 2)).clamp_min(1)
    found = {
        "coverage": alpha.mean((1, 2)),
        "border": edge.mean(1),
        "off-centre": torch.hypot(across, down),
        "brightness": luma.sum((1, 2)) / weight,
        "sharpness": energy.sqrt(),
    }
    return {name: value.numpy() for name, value in found.items()}
