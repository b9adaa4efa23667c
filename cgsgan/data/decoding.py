"""Picture files -> premultiplied RGBA of the training resolution.

Reduction happens in premultiplied space: then ``rgb + (1 - a) * background`` of the reduced picture equals
the reduced composite, up to one rounding to 8 bits. Reducing straight colours would bleed hidden pixels in.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from cgsgan.data.errors import DatasetError, Location

_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA", "1")


def decode_image(content: bytes, name: str, location: Location) -> Image.Image:
    """Decode a PNG, JPEG or WebP file into an 8-bit RGBA image (straight alpha, 255 where the file has none).

    Raises:
        DatasetError: for other formats, truncated files, more than 8 bits per channel, non-square pictures.
    """
    where = f"{location}: image {name!r}"
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            image.load()
            if image.mode not in _MODES:
                raise DatasetError(
                    f"{where} has mode {image.mode}; expected 8-bit grey, RGB or RGBA",
                    "picture of an unsupported mode",
                )
            if image.width != image.height:
                raise DatasetError(
                    f"{where} is {image.width}x{image.height}; expected a square picture",
                    "picture not square",
                )
            return image.convert("RGBA")
    except Image.UnidentifiedImageError as error:
        raise DatasetError(f"{where} is not a PNG, JPEG or WebP file", "not a PNG, JPEG or WebP file") from error
    except DatasetError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where} cannot be decoded ({error})", "picture cannot be decoded") from error


def decode_mask(content: bytes, name: str, *, location: Location, size: int) -> Image.Image:
    """Decode a grey mask, linearly resized to ``size`` x ``size`` (as CGS-GAN's data loader does)."""
    mask = decode_image(content, name, location).convert("L")
    return mask if mask.width == size else mask.resize((size, size), Image.Resampling.BILINEAR)


def multiply_alpha(image: Image.Image, mask: Image.Image) -> Image.Image:
    """``image`` with its alpha multiplied by ``mask`` (of the same size)."""
    alpha = np.asarray(image)[..., 3].astype(np.float32) * np.asarray(mask) / 255
    result = image.copy()
    result.putalpha(Image.fromarray(np.rint(alpha).astype(np.uint8)))
    return result


def premultiply_and_reduce(image: Image.Image, resolution: int) -> UInt8[np.ndarray, "size size 4"]:
    """Premultiply by alpha, then average over boxes down to ``resolution``; one rounding at the end.

    Args:
        image: square RGBA, straight alpha, at least ``resolution`` wide.
        resolution: size of the result; need not divide the size of the image (boxes then share pixels by
            area).
    """
    if resolution == image.width:
        # Pillow rounds (value * alpha / 255) to the nearest in whole numbers: the same as below, ten times as fast.
        return np.array(image.convert("RGBa"))
    # Plane by plane, as loops over neighbours in memory are fast.
    planes = np.stack([np.asarray(band) for band in image.split()]).astype(np.float32)
    planes[:3] *= planes[3] * np.float32(1 / 255)
    average = _average_boxes if image.width % resolution == 0 else _average_shared_boxes
    reduced = (average(planes, resolution) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(reduced.transpose(1, 2, 0))


def _average_boxes(planes: Float32[np.ndarray, "4 full full"], resolution: int) -> Float32[np.ndarray, "4 size size"]:
    factor = planes.shape[1] // resolution
    rows = planes[:, 0::factor].copy()
    for offset in range(1, factor):
        rows += planes[:, offset::factor]
    total = rows[..., 0::factor].copy()
    for offset in range(1, factor):
        total += rows[..., offset::factor]
    return total * np.float32(1 / factor**2)


def _average_shared_boxes(
    planes: Float32[np.ndarray, "4 full full"], resolution: int
) -> Float32[np.ndarray, "4 size size"]:
    """Boxes whose edges cut through pixels, which then count by area."""
    weights = _box_weights(planes.shape[1], resolution)
    rows = np.tensordot(weights, planes.transpose(1, 2, 0), axes=(1, 0))
    return np.tensordot(weights, rows, axes=(1, 1)).transpose(2, 1, 0)


@lru_cache(maxsize=8)
def _box_weights(size: int, resolution: int) -> Float32[np.ndarray, "size full"]:
    """Overlap of each output box with each input pixel, rows summing to 1."""
    edges = np.arange(resolution + 1) * (size / resolution)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None) * (resolution / size)
    return weights.astype(np.float32)
