"""A look at a data set: a contact sheet, and how its cameras are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.dataset import HeadDataset

_BAR = 40
_TITLE = 16


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


def grouped_sheet(
    dataset: HeadDataset, groups: Mapping[str, Sequence[int]], notes: Mapping[int, str], *, columns: int = 12
) -> Image.Image:
    """Pictures over white in groups, each below its title.

    Args:
        dataset: where to read.
        groups: title and indices; empty groups show their title only.
        notes: by index, written into the corner of the picture.
        columns: pictures in a row.
    """
    size = dataset.resolution
    heights = [_TITLE + math.ceil(len(indices) / columns) * size for indices in groups.values()]
    sheet = Image.new("RGB", (columns * size, sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (title, indices), height in zip(groups.items(), heights, strict=True):
        draw.text((2, top + 1), title, fill="black", font_size=11)
        for position, index in enumerate(indices):
            corner = (position % columns * size, top + _TITLE + position // columns * size)
            sheet.paste(_to_image(dataset.read([index]).composite(torch.ones(1, 3))[0]), corner)
            draw.text((corner[0] + 1, corner[1]), notes.get(index, ""), fill=(200, 0, 0), font_size=9)
        top += height
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
