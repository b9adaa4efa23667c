"""What can be read off a head's picture without labels, so that directions can be learned from the generator alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import orbit
from cgsgan.latents.scene_source import SceneSource

MEASURED_SIZE = 32
"""Heads are measured from the front at this size, pixels."""
SCENES_AT_ONCE = 16
LUMA = (0.2126, 0.7152, 0.0722)
"""Of linear BT.709; here only to order colours from dark to light."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of a picture that is cropped as EG3D crops: the face in the middle."""

HAIR: Box = (0.35, 0.1, 0.65, 0.25)
SKIN: Box = (0.38, 0.45, 0.62, 0.7)
CLOTHES: Box = (0.3, 0.94, 0.7, 1.0)
BESIDE_NECK: tuple[Box, ...] = ((0.1, 0.65, 0.28, 0.85), (0.72, 0.65, 0.9, 0.85))
AROUND_HEAD: tuple[Box, ...] = ((0.05, 0.05, 0.22, 0.5), (0.78, 0.05, 0.95, 0.5), (0.22, 0.0, 0.78, 0.08))

Figure = Callable[[Tensor, Tensor], Tensor]


def _crop(pictures: Tensor, box: Box) -> Tensor:
    left, top, right, bottom = (round(share * pictures.shape[-1]) for share in box)
    return pictures[..., top:bottom, left:right].flatten(2)


def _lightness(box: Box) -> Figure:
    def measure(colors: Tensor, alphas: Tensor) -> Tensor:
        luma = (_crop(colors, box) * colors.new_tensor(LUMA)[:, None]).sum(dim=1)
        return luma.sum(dim=1) / _crop(alphas, box)[:, 0].sum(dim=1).clamp_min(1e-3)

    return measure


def _coverage(boxes: tuple[Box, ...]) -> Figure:
    def measure(colors: Tensor, alphas: Tensor) -> Tensor:
        return torch.cat([_crop(alphas, box)[:, 0] for box in boxes], dim=1).mean(dim=1)

    return measure


FIGURES: dict[str, Figure] = {
    "hair-lightness": _lightness(HAIR),
    "hair-length": _coverage(BESIDE_NECK),
    "hair-volume": _coverage(AROUND_HEAD),
    "skin-lightness": _lightness(SKIN),
    "clothes-lightness": _lightness(CLOTHES),
}


@torch.no_grad()
def measure_heads(source: SceneSource, styles: Float[Tensor, "head w_dim"], name: str) -> Float[Tensor, " head"]:
    """One of :data:`FIGURES` of every head, seen from the front.

    Args:
        source: styles to pictures.
        styles: of heads.
        name: of the figure.

    Raises:
        ValueError: for a name that is not known.
    """
    if name not in FIGURES:
        raise ValueError(f"attribute: expected one of {', '.join(FIGURES)}, got {name!r}")
    rows = int(source.network.num_ws)  # type: ignore[arg-type]
    values = []
    for part in styles.split(SCENES_AT_ONCE):
        front = part.new_zeros(len(part), 1)
        scenes = source.network(ws=part[:, None].expand(-1, rows, -1)).scenes
        black = part.new_zeros(len(part), 1, 3)
        seen = source.renderer(scenes, orbit(front, front), size=MEASURED_SIZE, backgrounds=black)
        values.append(FIGURES[name](seen.images[:, 0].clamp(0, 1), seen.alphas[:, 0].movedim(-1, 1)))
    return torch.cat(values)
