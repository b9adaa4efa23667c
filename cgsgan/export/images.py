"""Float pictures -> 8-bit pictures -> files, and grids of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from cgsgan.export.atomic import atomic_path

LABEL_HEIGHT = 14
"""Pixels of the strip above a grid that holds the column labels; fits Pillow's own font."""
_SAVE_OPTIONS = {
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def to_uint8(
    images: Float[Tensor, "*batch channel height width"],
) -> UInt8[np.ndarray, "*batch height width channel"]:
    """Float pictures in [0, 1] as 8-bit arrays with the channels last.

    Values outside are clamped; halves are rounded up.

    Raises:
        ValueError: when a pixel is NaN, which has no colour.
    """
    images = images.detach().float()
    invalid = int(images.isnan().sum())
    if invalid:
        raise ValueError(f"to_uint8: expected colours in [0, 1], {invalid} of {images.numel()} values are NaN")
    levels = (images.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def save_image(path: str | os.PathLike[str], image: Float[Tensor, "channel height width"]) -> None:
    """Write one picture, atomically.

    >>> cgsgan.save_image("grey.png", torch.full((3, 8, 8), 0.5))

    Args:
        path: ends in .png, .webp (lossless) or .jpg (quality 95).
        image: RGB in [0, 1], or RGBA with straight alpha (not for .jpg).

    Raises:
        ValueError: for another suffix, another number of channels, or NaN.
    """
    if image.shape[0] not in (3, 4):
        raise ValueError(f"save_image: expected 3 (RGB) or 4 (RGBA) channels, got {image.shape[0]}")
    _save(Path(path), Image.fromarray(to_uint8(image)))


def make_grid(
    images: Float[Tensor, "image channel height width"],
    *,
    columns: int,
    padding: int = 2,
    background: float | int | Sequence[float] = 1.0,
) -> Float[Tensor, "channel grid_height grid_width"]:
    """Lay pictures out row by row.

    Args:
        images: RGB or RGBA in [0, 1]; a last row that is not full is filled with the background.
        columns: pictures per row.
        padding: pixels between pictures and around the grid.
        background: grey level of the padding, [0, 1], or its colour, one number per channel.

    Raises:
        ValueError: for no picture, or ``columns`` < 1, or ``padding`` < 0.
    """
    count, channels, height, width = images.shape
    if count == 0 or columns < 1 or padding < 0:
        raise ValueError(
            "make_grid: expected at least one picture, columns >= 1 and padding >= 0, "
            f"got {count} pictures, columns {columns}, padding {padding}"
        )
    rows = -(-count // columns)
    cell_height, cell_width = height + padding, width + padding
    filling = images.new_tensor(background).reshape(-1, 1, 1)
    grid = filling.expand(channels, rows * cell_height + padding, columns * cell_width + padding).clone()
    for index, image in enumerate(images):
        top = padding + index // columns * cell_height
        left = padding + index % columns * cell_width
        grid[:, top : top + height, left : left + width] = image
    return grid


def save_grid(
    path: str | os.PathLike[str],
    images: Float[Tensor, "image 3 height width"],
    *,
    columns: int,
    padding: int = 2,
    background: float | int = 1.0,
    labels: Sequence[str] | None = None,
) -> None:
    """Write :func:`make_grid` of ``images``, atomically.

    Args:
        path: as :func:`save_image`.
        images: RGB in [0, 1].
        columns: pictures per row.
        padding: pixels between pictures and around the grid.
        background: grey level of the padding, [0, 1].
        labels: one short text per column, written in a strip above the grid.

    Raises:
        ValueError: as :func:`make_grid` and :func:`save_image`, or when the labels are not one per column.
    """
    if labels is not None and len(labels) != columns:
        raise ValueError(f"save_grid: expected one label per column ({columns}), got {len(labels)}")
    grid = to_uint8(make_grid(images, columns=columns, padding=padding, background=background))
    picture = Image.fromarray(grid)
    if labels is not None:
        picture = _with_labels(picture, labels, step=images.shape[-1] + padding, background=background)
    _save(Path(path), picture)


def _with_labels(picture: Image.Image, labels: Sequence[str], *, step: int, background: float | int) -> Image.Image:
    level = round(255 * background)
    labeled = Image.new("RGB", (picture.width, picture.height + LABEL_HEIGHT), (level, level, level))
    labeled.paste(picture, (0, LABEL_HEIGHT))
    draw = ImageDraw.Draw(labeled)
    ink = (0, 0, 0) if background > 0.5 else (255, 255, 255)
    for column, label in enumerate(labels):
        draw.text((3 + column * step, 1), label, fill=ink)
    return labeled


def _save(path: Path, picture: Image.Image) -> None:
    options = _SAVE_OPTIONS.get(path.suffix.lower())
    if options is None:
        raise ValueError(f"{path}: expected a picture file {' '.join(_SAVE_OPTIONS)}, got suffix {path.suffix!r}")
    if options["format"] == "JPEG" and picture.mode != "RGB":
        raise ValueError(f"{path}: JPEG cannot hold transparency; use .png or .webp")
    with atomic_path(path) as temporary:
        picture.save(temporary, **options)
