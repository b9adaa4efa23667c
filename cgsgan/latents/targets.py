"""What is to be found: photographs of one person, with what is known of their background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

BORDER = 0.04
"""Share of the picture's edge length that counts as its border, where a plain background is looked for."""
LEAST_COVERAGE = 0.05
"""Share of a picture that a head fills at the least; in pictures cropped for training it is a third and more."""
PLAIN_SPREAD = 0.06
"""A border whose colours spread less than this (median distance to their median, full scale 1) is plain."""


class PhotoError(ValueError):
    """A photograph that cannot be used; one line says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Views of one person.

    Attributes:
        colors: RGB in [0, 1], multiplied by ``alphas`` where these are known.
        alphas: coverage of the head; None: not known, and the pictures lie on ``background``.
        background: colour of the pictures' plain background; with known alphas it is not used.
    """

    colors: Float[Tensor, "view 3 height width"]
    alphas: Float[Tensor, "view 1 height width"] | None = None
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def views(self) -> int:
        """Pictures."""
        return len(self.colors)

    @property
    def size(self) -> int:
        """Edge length, pixels."""
        return self.colors.shape[-1]

    @property
    def shown_on(self) -> Float[Tensor, "view 3"]:
        """Backgrounds to look at the pictures on: white where the coverage is known, else their own."""
        color = self.background if self.alphas is None else (1.0, 1.0, 1.0)
        return self.colors.new_tensor(color).expand(self.views, 3)

    def to(self, device: torch.device | str) -> Target:
        """The same views on another device."""
        alphas = None if self.alphas is None else self.alphas.to(device)
        return Target(colors=self.colors.to(device), alphas=alphas, background=self.background)

    def on(self, backgrounds: Float[Tensor, "view 3"]) -> Float[Tensor, "view 3 height width"]:
        """The pictures on these colours; as they are when the head's coverage is not known."""
        if self.alphas is None:
            return self.colors
        return self.colors + (1 - self.alphas) * backgrounds[:, :, None, None]

    def draw_backgrounds(self, generator: torch.Generator) -> Float[Tensor, "view 3"]:
        """Random colours when the coverage is known, so that it is fitted too; else the pictures' own.

        Args:
            generator: on the CPU, so that every device sees the same colours.
        """
        if self.alphas is None:
            return self.shown_on
        return torch.rand(self.views, 3, generator=generator).to(self.colors.device)


def read_target(photos: list[Path], *, size: int, masks: list[Path] | None = None, background: str = "auto") -> Target:
    """Read photographs of one person, square and cropped as the training pictures were.

    Args:
        photos: one file per view; transparent ones bring their own masks.
        size: edge length they are reduced to, pixels.
        masks: grey pictures, white where the head is, one for each photo.
        background: what is behind the head in photos without a mask: ``auto`` finds a plain colour at the border,
            ``white``, ``black`` or ``#rrggbb`` say it.

    Raises:
        PhotoError: names the file, what was expected and what was found.
    """
    if masks and len(masks) != len(photos):
        raise PhotoError(f"--mask: expected one for each of the {len(photos)} photos, got {len(masks)}")
    pictures = [_read(path, "RGBA", size) for path in photos]
    if masks:
        for picture, path in zip(pictures, masks):
            picture[3:] *= _read(path, "L", size)
    joined = torch.stack(pictures)
    alphas = joined[:, 3:]
    for picture, path in zip(alphas, photos):
        if float(picture.mean()) < LEAST_COVERAGE:
            raise PhotoError(
                f"{path}: no head in it: it is transparent, or its mask black, but for {float(picture.mean()):.1%} of "
                f"the picture; expected at least {LEAST_COVERAGE:.0%}"
            )
    if bool((alphas < 1).any()):
        return Target(colors=joined[:, :3] * alphas, alphas=alphas)
    colors = joined[:, :3]
    if background == "auto":
        return Target(colors=colors, background=_plain_background(colors, photos))
    return Target(colors=colors, background=parse_color(background))


def parse_color(text: str) -> tuple[float, float, float]:
    """``white``, ``black`` or ``#rrggbb`` to RGB in [0, 1].

    Raises:
        PhotoError: for anything else.
    """
    named = {"white": "#ffffff", "black": "#000000"}.get(text, text)
    try:
        if len(named) != 7 or named[0] != "#":
            raise ValueError
        red, green, blue = (int(named[i : i + 2], 16) / 255 for i in (1, 3, 5))
    except ValueError:
        raise PhotoError(f"--background: expected auto, white, black or #rrggbb, got {text!r}") from None
    return red, green, blue


def _read(path: Path, mode: str, size: int) -> Float[Tensor, "channel size size"]:
    if not path.is_file():
        raise PhotoError(f"{path}: no such file; expected a picture")
    try:
        with Image.open(path) as file:
            if file.width != file.height:
                raise PhotoError(
                    f"{path}: expected a square picture, cropped as the training pictures were, got {file.width} x "
                    f"{file.height}"
                )
            if file.width < size:
                raise PhotoError(f"{path}: expected at least {size} x {size} pixels, got {file.width} x {file.height}")
            picture = file.convert(mode)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path}: not a readable picture ({' '.join(str(error).split())})") from None
    if picture.mode == "RGBA":  # reduced premultiplied, or hidden colours bleed into the outline
        values = np.asarray(picture, dtype=np.float32) / 255
        alpha = values[..., 3:]
        premultiplied = np.concatenate([values[..., :3] * alpha, alpha], axis=-1)
        small = torch.from_numpy(premultiplied).movedim(-1, 0)
    else:
        small = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
    reduced = torch.nn.functional.interpolate(small[None], size=(size, size), mode="area")[0]
    if mode == "RGBA":
        reduced[:3] /= reduced[3:].clamp_min(1 / 512)
    return reduced.clamp(0, 1)


def _plain_background(colors: Tensor, photos: list[Path]) -> tuple[float, float, float]:
    """The colour of the upper and side borders of all pictures (at the lower one there are shoulders)."""
    width = max(1, round(BORDER * colors.shape[-1]))
    upper = colors.shape[-2] * 2 // 3
    border = torch.cat(
        [
            colors[:, :, :width].flatten(2),
            colors[:, :, :upper, :width].flatten(2),
            colors[:, :, :upper, -width:].flatten(2),
        ],
        dim=2,
    )
    border = border.movedim(1, 0).flatten(1)
    median = border.median(dim=1).values
    spread = float((border - median[:, None]).abs().max(dim=0).values.median())
    if spread > PLAIN_SPREAD:
        raise PhotoError(
            f"{photos[0]}: its background is not plain (colours at the border differ by {spread:.2f} of full scale); "
            "give a --mask, a picture with transparency, or say --background white"
        )
    red, green, blue = median.tolist()
    return red, green, blue
