"""Everything that the explorer's controls say, in one frozen object. Nothing comes from a page but through here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS

LARGEST_SEED = (1 << 31) - 1
SEEDS = "seed"
"""The choice among heads that stands for the generator's own, by seed."""
SPLATS, PICTURE = "splats", "exact picture"
"""What the large view shows: splats drawn by the page, or pictures drawn by the server."""
FRONTAL_FOV = math.degrees(2 * math.atan(0.5 / FOCAL_NORMALIZED))
"""Field of view of the data's cameras, degrees."""
STEEPEST = 85.0
"""Largest pitch, degrees: at the poles "up" has no direction."""
FARTHEST_TARGET = 1.0
"""The point that a free camera circles stays within so many world units of the origin along every axis."""
LONGEST_TEXT = 200


class RefusedValueError(ValueError):
    """A value that no control can have; the state stays as it was."""


@dataclass(frozen=True)
class Number:
    """A number in [low, high]: outside, it becomes the nearest of them.

    Attributes:
        low: smallest.
        high: largest.
        step: of a slider.
        whole: an integer.
    """

    low: float | int
    high: float | int
    step: float | int
    whole: bool = False

    def clean(self, value: Any) -> float | int:
        """What the control holds after this came.

        Raises:
            RefusedValueError: for anything but a finite number.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RefusedValueError("expected a finite number")
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else float(inside)


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    def clean(self, value: Any) -> bool:
        """See :meth:`Number.clean`."""
        if not isinstance(value, bool):
            raise RefusedValueError("expected true or false")
        return value


@dataclass(frozen=True)
class Choice:
    """One of some words.

    Attributes:
        options: all of them.
    """

    options: tuple[str, ...]

    def clean(self, value: Any) -> str:
        """See :meth:`Number.clean`."""
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or value not in self.options:
            raise RefusedValueError(f"expected one of {', '.join(self.options)}")
        return value


@dataclass(frozen=True)
class Color:
    """Red, green and blue, 0 to 255."""

    def clean(self, value: Any) -> tuple[int, int, int]:
        """See :meth:`Number.clean`."""
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise RefusedValueError("expected red, green and blue")
        channel = Number(0, 255, 1, whole=True)
        red, green, blue = (int(channel.clean(part)) for part in value)
        return red, green, blue


Kind = Number | Flag | Choice | Color


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What there is to choose from: follows from the generator, and from what the server is ready to draw.

    Attributes:
        heads: where the first head may come from; the first is the one to start with.
        levels: of detail; 1 means that there is nothing to choose.
        layers: names of the groups of style rows that can be mixed, coarse to fine.
        directions: principal directions with a slider each.
        looks: what pictures can show.
        sizes: of the exact picture, pixels, ascending.
        size: to start with, one of them.
        splats: whether scenes are Gaussians.
    """

    heads: tuple[str, ...]
    levels: int
    layers: tuple[str, ...]
    directions: int
    looks: tuple[str, ...]
    sizes: tuple[int, ...]
    size: int
    splats: bool


@dataclass(frozen=True, kw_only=True)
class State:
    """All control values; angles in degrees, distances in world units.

    Attributes:
        head: where the first head comes from: ``seed``, or the name of one that was found in a photograph.
        seed: of the first head, when it comes from one.
        psi: truncation of both heads; 1 is full variety, 0 the average head.
        other_seed: of the second head.
        share: how far from the first head to the second, 0 to 1.
        mixed: for each group of style rows, whether it is the second head's.
        steps: along each principal direction, standard deviations.
        yaw: of the camera, see :mod:`cgsgan.cameras`.
        pitch: likewise.
        radius: from the camera to the target.
        fov: field of view.
        target: what the camera looks at.
        background: RGB, 0 to 255.
        level: so many levels of detail are shown.
        scale: factor on the sizes of the Gaussians.
        look: what the picture shows.
        size: of the picture, pixels.
        view: what the large view shows, :data:`SPLATS` or :data:`PICTURE`.
    """

    head: str
    seed: int = 0
    psi: float = 1.0
    other_seed: int = 1
    share: float = 0.0
    mixed: tuple[bool, ...] = ()
    steps: tuple[float, ...] = ()
    yaw: float = 0.0
    pitch: float = 0.0
    radius: float = ORBIT_RADIUS
    fov: float = FRONTAL_FOV
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    background: tuple[int, int, int] = (255, 255, 255)
    level: int = 1
    scale: float = 1.0
    look: str = "colour"
    size: int = 256
    view: str = SPLATS

    @staticmethod
    def start(limits: Limits) -> State:
        """What is shown at first: the first head, from the front, as trained."""
        return State(
            head=limits.heads[0],
            mixed=(False,) * len(limits.layers),
            steps=(0.0,) * limits.directions,
            level=limits.levels,
            size=limits.size,
            view=SPLATS if limits.splats else PICTURE,
        )

    @property
    def latent(self) -> tuple[Any, ...]:
        """What the styles follow from."""
        return self.head, self.seed, self.psi, self.other_seed, self.share, self.mixed, self.steps

    def with_value(self, limits: Limits, name: str, value: Any) -> State:
        """The state after a control got a value, which is made to fit.

        Args:
            limits: of the server.
            name: of the field, or ``mixed.2``, ``steps.0`` for one of several.
            value: anything at all.

        Raises:
            RefusedValueError: when nothing that fits is near.
        """
        kind = kinds(limits).get(name)
        if kind is None:
            raise RefusedValueError("no such control")
        cleaned = kind.clean(value)
        field, dot, index = name.partition(".")
        if name == "size":
            return replace(self, size=int(str(cleaned)))  # a choice among words
        if not dot:
            return replace(self, **{field: cleaned})
        values = list(getattr(self, field))
        values[int(index)] = cleaned
        return replace(self, **{field: tuple(values)})

    def value(self, name: str) -> Any:
        """What a control shows; names as in :meth:`with_value`."""
        field, dot, index = name.partition(".")
        value = getattr(self, field)
        if field == "size":
            return str(value)
        return value[int(index)] if dot else value

    def with_camera(self, limits: Limits, position: Any, target: Any, fov: Any) -> State:
        """The state after a page's own camera moved; roll is left out.

        Args:
            limits: of the server.
            position: of the camera, three numbers, world units.
            target: what it circles, three numbers.
            fov: vertical field of view, radians.

        Raises:
            RefusedValueError: for anything but finite numbers, or a camera that stands in its target.
        """
        known = kinds(limits)
        coordinate, target_coordinate = Number(-1e6, 1e6, 1), Number(-FARTHEST_TARGET, FARTHEST_TARGET, 1)
        for triple in (position, target):
            if not isinstance(triple, (list, tuple)) or len(triple) != 3:
                raise RefusedValueError("expected three numbers")
        eye = [float(coordinate.clean(part)) for part in position]
        seen = [float(coordinate.clean(part)) for part in target]
        x, y, z = (a - b for a, b in zip(eye, seen))
        radius = math.hypot(x, y, z)
        if radius < 1e-6:
            raise RefusedValueError("expected a camera outside its target")
        angles = {"yaw": math.atan2(x, z), "pitch": math.asin(y / radius), "fov": Number(0, math.pi, 1).clean(fov)}
        moved: dict[str, Any] = {name: known[name].clean(math.degrees(angle)) for name, angle in angles.items()}
        moved["radius"] = known["radius"].clean(radius)
        moved["target"] = tuple(float(target_coordinate.clean(part)) for part in seen)
        return replace(self, **moved)


def kinds(limits: Limits) -> dict[str, Kind]:
    """Every control there is, in the order of the page. What does not apply to a generator is not there."""
    seed = Number(0, LARGEST_SEED, 1, whole=True)
    found: dict[str, Kind] = {}
    if len(limits.heads) > 1:
        found["head"] = Choice(limits.heads)
    found |= {"seed": seed, "psi": Number(0, 1.5, 0.01), "other_seed": seed, "share": Number(0, 1, 0.01)}
    found |= {f"mixed.{index}": Flag() for index in range(len(limits.layers))}
    found |= {f"steps.{index}": Number(-4, 4, 0.1) for index in range(limits.directions)}
    found["yaw"] = Number(-180, 180, 0.5)
    found["pitch"] = Number(-STEEPEST, STEEPEST, 0.5)
    found["radius"] = Number(0.8, 10, 0.05)
    found["fov"] = Number(3, 90, 0.1)
    found["background"] = Color()
    if limits.splats:
        if limits.levels > 1:
            found["level"] = Number(1, limits.levels, 1, whole=True)
        found["scale"] = Number(0.1, 3, 0.05)
        found["view"] = Choice((SPLATS, PICTURE))
    found["look"] = Choice(limits.looks)
    found["size"] = Choice(tuple(map(str, limits.sizes)))
    return found
