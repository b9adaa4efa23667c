"""Who the procedural heads are: every number that shapes and colours them, drawn per (seed, index).

Each person is a row of uniform random numbers; the attributes are functions of its columns. Lengths are
world units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_COLUMNS = 80
_TONES = ((244, 212, 192), (230, 188, 160), (214, 164, 128), (176, 122, 86), (128, 84, 58), (84, 54, 40))
_HAIR = (
    (26, 22, 22), (34, 27, 24), (56, 38, 28), (88, 58, 36), (122, 82, 46), (178, 138, 82), (216, 186, 126),
    (128, 64, 36), (150, 148, 146), (206, 204, 200), (62, 84, 150),
)  # fmt: skip
_HAIR_WEIGHTS = (0.2, 0.14, 0.17, 0.14, 0.08, 0.08, 0.06, 0.05, 0.04, 0.03, 0.01)
_IRIS = ((62, 40, 26), (96, 62, 34), (74, 104, 66), (72, 116, 158), (108, 124, 134))

STYLES = ("bald", "buzz", "short", "side", "fringe", "bob", "long", "bun", "ponytail", "curly", "beanie")
_STYLE_WEIGHTS = (0.07, 0.08, 0.17, 0.13, 0.1, 0.1, 0.12, 0.07, 0.05, 0.07, 0.04)
"""Hair styles and how often they occur."""

# Per style: shell thickness, hairline height, nape height, radius around the ears that stays free, hair
# length (0 = no hair below the head), top volume, curl depth.
_STYLE_SHAPES = {
    "bald": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "buzz": (0.006, 0.168, -0.085, 0.055, 0.0, 0.0, 0.0),
    "short": (0.018, 0.166, -0.095, 0.052, 0.0, 0.3, 0.0),
    "side": (0.022, 0.168, -0.095, 0.048, 0.0, 1.0, 0.0),
    "fringe": (0.024, 0.098, -0.10, 0.04, 0.0, 0.2, 0.0),
    "bob": (0.026, 0.15, -0.13, 0.0, 0.19, 0.3, 0.0),
    "long": (0.026, 0.168, -0.13, 0.0, 0.36, 0.3, 0.0),
    "bun": (0.014, 0.172, -0.095, 0.045, 0.0, 0.0, 0.0),
    "ponytail": (0.014, 0.172, -0.095, 0.045, 0.0, 0.0, 0.0),
    "curly": (0.06, 0.155, -0.11, 0.0, 0.0, 0.2, 0.012),
    "beanie": (0.024, 0.13, 0.02, 0.0, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class People:
    """A batch of persons: numbers are ``[person, 1]``, colours ``[person, 3, 1]`` (sRGB in [0, 1])."""

    style: Tensor
    # Shape
    head_width: Tensor
    face_length: Tensor
    jaw_width: Tensor
    cheeks: Tensor
    chin: Tensor
    nose_length: Tensor
    nose_width: Tensor
    nose_depth: Tensor
    eye_spread: Tensor
    eye_height: Tensor
    eye_size: Tensor
    ear_size: Tensor
    neck_width: Tensor
    shoulder_width: Tensor
    shoulder_height: Tensor
    # Expression
    eye_open: Tensor
    gaze_x: Tensor
    gaze_y: Tensor
    brow_raise: Tensor
    brow_tilt: Tensor
    brow_thickness: Tensor
    mouth_width: Tensor
    mouth_open: Tensor
    smile: Tensor
    lips: Tensor
    # Hair
    hair_thickness: Tensor
    hairline: Tensor
    nape: Tensor
    ear_gap: Tensor
    hair_length: Tensor
    hair_volume: Tensor
    curl: Tensor
    parting: Tensor
    beard: Tensor
    glasses: Tensor
    glasses_radius: Tensor
    dark_lenses: Tensor
    # Clothes: neckline is the height where cloth begins, v_depth how far a V reaches down.
    neckline: Tensor
    v_depth: Tensor
    pattern: Tensor
    pattern_scale: Tensor
    # Light
    light_x: Tensor
    light_y: Tensor
    light_z: Tensor
    ambient: Tensor
    # Colours
    skin_color: Tensor
    lip_color: Tensor
    hair_color: Tensor
    brow_color: Tensor
    iris_color: Tensor
    cloth_color: Tensor
    trim_color: Tensor
    glasses_color: Tensor
    hat_color: Tensor
    # Camera
    yaw: Tensor
    pitch: Tensor

    def select(self, part: slice) -> People:
        """Some of the persons."""
        return People(**{f.name: getattr(self, f.name)[part] for f in fields(self)})


def sample_people(seed: int, indices: range) -> People:
    """Draw persons; each depends on ``seed`` and its own index only.

    Cameras follow the distribution of common head data: yaw 70 % normal with a standard deviation of 20
    degrees, 30 % uniform in +-60; pitch normal with 9, clipped to +-25 (radians here).
    """
    rows = [np.random.default_rng([seed, index]).random(_COLUMNS) for index in indices]
    draws = _Draws(torch.from_numpy(np.stack(rows)).double())
    attributes = {**_cameras(draws), **_shapes(draws), **_expressions(draws), **_hair(draws)}
    attributes |= _clothes(draws, attributes["skin_color"])
    return People(**{name: value.float() for name, value in attributes.items()})


class _Draws:
    """Hands out the columns one after the other."""

    def __init__(self, columns: Float[Tensor, "person column"]) -> None:
        self._columns = columns
        self._used = 0

    def uniform(self, low: int | float, high: int | float) -> Tensor:
        self._used += 1
        return low + (high - low) * self._columns[:, self._used - 1 : self._used]

    def normal(self, mean: int | float, deviation: int | float, limit: int | float = 2) -> Tensor:
        """Normal, clipped to +-``limit`` deviations."""
        value = torch.special.ndtri(self.uniform(1e-6, 1 - 1e-6))
        return mean + deviation * value.clamp(-limit, limit)

    def chance(self, probability: float) -> Tensor:
        return (self.uniform(0, 1) < probability).double()

    def choice(self, weights: tuple[float, ...]) -> Tensor:
        """Indices into ``weights``, ``[person, 1]``."""
        edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(edges / edges[-1], self.uniform(0, 1)).clamp(max=len(weights) - 1)


def _cameras(draws: _Draws) -> dict[str, Any]:
    narrow, wide = draws.normal(0, 20, limit=3), draws.uniform(-60, 60)
    yaw = torch.where(draws.chance(0.3) > 0, wide, narrow)
    pitch = draws.normal(0, 9, limit=25 / 9)
    return {"yaw": torch.deg2rad(yaw), "pitch": torch.deg2rad(pitch)}


def _shapes(draws: _Draws) -> dict[str, Any]:
    return {
        "head_width": draws.normal(1.0, 0.035),
        "face_length": draws.normal(1.0, 0.05),
        "jaw_width": draws.normal(1.0, 0.09),
        "cheeks": draws.normal(1.0, 0.12),
        "chin": draws.normal(1.0, 0.15),
        "nose_length": draws.normal(1.0, 0.12),
        "nose_width": draws.normal(1.0, 0.16),
        "nose_depth": draws.normal(1.0, 0.18),
        "eye_spread": draws.normal(0.056, 0.003),
        "eye_height": draws.normal(0.042, 0.004),
        "eye_size": draws.normal(1.0, 0.08),
        "ear_size": draws.normal(1.0, 0.13),
        "neck_width": draws.normal(1.0, 0.1),
        "shoulder_width": draws.normal(1.0, 0.06),
        "shoulder_height": draws.normal(-0.262, 0.012),
    }


def _expressions(draws: _Draws) -> dict[str, Any]:
    blink = draws.chance(0.03)
    mouth_open = draws.chance(0.3) * draws.uniform(0.25, 1.0)
    return {
        "eye_open": torch.where(blink > 0, 0.05, draws.normal(0.92, 0.14)),
        "gaze_x": draws.normal(0, 0.35),
        "gaze_y": draws.normal(0, 0.2),
        "brow_raise": draws.normal(0, 0.005),
        "brow_tilt": draws.normal(0, 0.12),
        "brow_thickness": draws.uniform(0.6, 1.3),
        "mouth_width": draws.normal(0.044, 0.004),
        "mouth_open": mouth_open,
        "smile": draws.normal(0.45, 0.55),
        "lips": draws.normal(1.0, 0.18),
        "light_x": draws.uniform(-0.8, 0.8),
        "light_y": draws.uniform(0.1, 0.9),
        "light_z": draws.uniform(0.7, 1.2),
        "ambient": draws.uniform(0.45, 0.62),
    }


def _hair(draws: _Draws) -> dict[str, Any]:
    style = draws.choice(_STYLE_WEIGHTS)
    shapes = torch.tensor([_STYLE_SHAPES[name] for name in STYLES], dtype=torch.float64)[style[:, 0]]
    thickness, hairline, nape, ear_gap, length, volume, curl = shapes.split(1, dim=1)
    long_haired = length > 0
    beard = draws.chance(0.3) * draws.uniform(0.25, 1.0)
    tone = draws.uniform(0, 1) ** 1.3 * (len(_TONES) - 1.001)
    shade = draws.choice(_HAIR_WEIGHTS)
    # Light hair on dark skin stays possible but rare, as among people.
    shade = torch.where((tone > 2.4) & (shade < 8) & (draws.uniform(0, 1) < 0.85), shade % 3, shade)
    hair_color = _palette(_HAIR, shade) * draws.uniform(0.85, 1.15)[..., None]
    return {
        "style": style,
        "skin_color": _skin_color(draws, tone),
        "hair_thickness": thickness * draws.uniform(0.8, 1.3),
        "hairline": hairline + draws.normal(0, 0.006),
        "nape": nape,
        "ear_gap": ear_gap,
        "hair_length": length * draws.uniform(0.8, 1.1),
        "hair_volume": volume * draws.uniform(0.6, 1.4),
        "curl": curl + long_haired * draws.uniform(0, 0.006),
        "parting": draws.uniform(-1, 1),
        "beard": torch.where(long_haired, 0.0, beard),
        "glasses": draws.chance(0.2),
        "glasses_radius": draws.uniform(0.036, 0.044),
        "dark_lenses": draws.chance(0.25),
        "hair_color": hair_color.clamp(0, 1),
        "brow_color": (hair_color * 0.7).clamp(0.04, 0.6),
    }


def _skin_color(draws: _Draws, tone: Tensor) -> Tensor:
    """Between two neighbours of the palette, with a little variation of its own."""
    tones = torch.tensor(_TONES, dtype=torch.float64) / 255
    lower = tone.floor().long()[:, 0]
    blend = (tone - tone.floor())[:, None]
    skin = tones[lower][..., None] * (1 - blend) + tones[lower + 1][..., None] * blend
    skin = skin * (1 + torch.stack([draws.normal(0, s) for s in (0.02, 0.03, 0.04)], dim=1))
    return skin.clamp(0.1, 0.98)


def _clothes(draws: _Draws, skin: Tensor) -> dict[str, Any]:
    red = torch.tensor([[0.72], [0.22], [0.24]], dtype=torch.float64)
    makeup = draws.uniform(0.2, 0.55)[..., None]
    kind = draws.choice((0.55, 0.2, 0.25))  # crew neck, V-neck, turtleneck
    neckline = torch.where(kind == 2, -0.195, draws.normal(-0.24, 0.008))
    return {
        "lip_color": skin * (1 - makeup) * 0.85 + red * makeup,
        "iris_color": _palette(_IRIS, draws.choice((0.35, 0.25, 0.12, 0.18, 0.1))),
        "cloth_color": _random_color(draws, 0.12, 0.9),
        "trim_color": _random_color(draws, 0.12, 0.95),
        "hat_color": _random_color(draws, 0.15, 0.85),
        "glasses_color": _random_color(draws, 0.05, 0.3),
        "neckline": neckline,
        "v_depth": torch.where(kind == 1, draws.uniform(0.04, 0.09), 0.0),
        "pattern": draws.choice((0.5, 0.22, 0.14, 0.14)).double(),
        "pattern_scale": draws.uniform(0.7, 1.5),
    }


def _palette(colors: tuple[tuple[int, int, int], ...], chosen: Tensor) -> Tensor:
    return (torch.tensor(colors, dtype=torch.float64) / 255)[chosen[:, 0]][..., None]


def _random_color(draws: _Draws, low: float, high: float) -> Tensor:
    """A colour of random hue, saturation and value (the value between ``low`` and ``high``)."""
    hue, saturation, value = draws.uniform(0, 6), draws.uniform(0, 0.75), draws.uniform(low, high)
    channels = [
        (1 - saturation * (1 - ((hue + shift) % 6 - 3).abs().sub(1).clamp(0, 1))) * value for shift in (0, 4, 2)
    ]
    return torch.stack(channels, dim=1)
