"""A look at a data set: a contact sheet, and how its cameras are spread."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.dataset import HeadDataset

_BAR = 40


def contact_sheet(dataset: HeadDataset, count: int = 64, *, seed: int = 0, show_yaw: bool = True) -> Image.Image:
    """Random pictures over white, in a square arrangement.

    Args:
        dataset: where to read.
        count: how many; all, when the set has fewer.
        seed: of the choice.
        show_yaw: write the yaw of the camera, in degrees, into the corner of each picture.
    """
    count = min(count, len(dataset))
    chosen = np.sort(np.random.default_rng(seed).choice(len(dataset), count, replace=False))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    size = dataset.resolution
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    draw = ImageDraw.Draw(sheet)
    for position, index in enumerate(chosen):
        batch = dataset.read([int(index)])
        picture = batch.composite(torch.ones(1, 3))[0]
        corner = (position % columns * size, position // columns * size)
        sheet.paste(_to_image(picture), corner)
        if show_yaw:
            yaw, _ = yaw_pitch(Cameras.from_labels(batch.camera_labels))
            draw.text(
                (corner[0] + 1, corner[1]),
                f"{math.degrees(float(yaw[0])):.0f}",
                fill=(200, 0, 0),
                font_size=9,
            )
    return sheet


def pose_histogram(dataset: HeadDataset) -> str:
    """Histograms of yaw and pitch as text, 10 and 5 degrees a line."""
    yaw, pitch = (torch.rad2deg(angle) for angle in yaw_pitch(Cameras.from_labels(dataset.labels)))
    return "\n".join(
        ["yaw, degrees", *_histogram(yaw, 10), "pitch, degrees", *_histogram(pitch, 5)],
    )


def _histogram(values: Float[Tensor, " value"], width: int) -> list[str]:
    low = math.floor(float(values.min()) / width)
    bins = torch.bincount((values / width).floor().long() - low)
    scale = _BAR / int(bins.max())
    return [
        f"{(low + i) * width:5d}..{(low + i + 1) * width:<4d} {'#' * round(scale * int(n)):<{_BAR}} {int(n)}"
        for i, n in enumerate(bins)
    ]


def _to_image(picture: Float[Tensor, "3 height width"]) -> Image.Image:
    pixels = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())
