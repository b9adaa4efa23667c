"""Pinhole cameras: look-at, orbits, and the 25-number labels of EG3D-format data sets.

World: +y up, the face looks along +z, the subject's left is +x. Camera axes are OpenCV (x right, y down, z forward).
Yaw > 0 moves the camera to +x, pitch > 0 moves it up; both 0 is frontal. Angles are radians, distances world units.
Labels are the only place where a camera is 25 anonymous numbers; this file packs and unpacks them, nothing else does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LABEL_SIZE = 25
ORBIT_RADIUS = 2.7
"""Distance of the camera from the origin in EG3D-format data."""
FOCAL_NORMALIZED = 4.2647
"""Focal length over image size in EG3D-format face data (2985.29 / 700), about 13.4 degrees of field of view."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Pinhole cameras, usually ``[batch, view]``.

    Attributes:
        viewmats: world-to-camera transforms.
        Ks_normalized: intrinsics divided by the image size: fx/W, fy/H, cx/W, cy/H.
    """

    viewmats: Float[Tensor, "*batch 4 4"]
    Ks_normalized: Float[Tensor, "*batch 3 3"]

    @staticmethod
    def from_labels(camera_labels: Float[Tensor, "*batch 25"]) -> Cameras:
        """Unpack 25-number labels: 16 = row-major camera-to-world, 9 = row-major normalised intrinsics."""
        cam_to_world = camera_labels[..., :16].unflatten(-1, (4, 4))
        intrinsics = camera_labels[..., 16:].unflatten(-1, (3, 3))
        return Cameras(viewmats=invert_rigid(cam_to_world), Ks_normalized=intrinsics)

    def to_labels(self) -> Float[Tensor, "*batch 25"]:
        """Pack into 25-number labels; the inverse of :meth:`from_labels`."""
        return torch.cat([self.cam_to_world.flatten(-2), self.Ks_normalized.flatten(-2)], dim=-1)

    @property
    def cam_to_world(self) -> Float[Tensor, "*batch 4 4"]:
        """Camera-to-world transforms."""
        return invert_rigid(self.viewmats)

    def Ks(self, width: int, height: int) -> Float[Tensor, "*batch 3 3"]:  # noqa: N802
        """Intrinsics in pixels for images of ``width`` x ``height``."""
        size = self.Ks_normalized.new_tensor([[width], [height], [1.0]])
        return self.Ks_normalized * size

    def map(self, function: Callable[[Tensor], Tensor]) -> Cameras:
        """The same cameras with ``function`` applied to both tensors (indexing, ``to``...)."""
        return Cameras(viewmats=function(self.viewmats), Ks_normalized=function(self.Ks_normalized))


def invert_rigid(transforms: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert rotation-plus-translation matrices exactly (transpose), without a general solver."""
    rotation = transforms[..., :3, :3].mT
    with full_float32():
        translation = -(rotation @ transforms[..., :3, 3:])
    upper = torch.cat([rotation, translation], dim=-1)
    return torch.cat([upper, transforms[..., 3:, :]], dim=-2)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TensorFloat-32 in matrix products here: its 11 bits put a head off by a pixel at 512 px."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def intrinsics(focal: float = FOCAL_NORMALIZED, *, device: torch.device | str | None = None) -> Float[Tensor, "3 3"]:
    """Normalised intrinsics of a square-pixel camera with a centred principal point."""
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]], device=device)


def look_at(
    positions: Float[Tensor, "*batch 3"], target: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world transforms at ``positions`` looking at ``target`` (default the origin), +y up.

    Raises:
        ValueError: when a camera looks straight up or down, where "up" has no direction.
    """
    target = positions.new_zeros(3) if target is None else target
    forward = torch.nn.functional.normalize(target - positions, dim=-1)
    up = positions.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.cross(forward, up, dim=-1)
    if bool((right.norm(dim=-1) < 1e-6).any()):
        raise ValueError("look_at: a camera looks straight up or down; keep the pitch inside (-90, 90) degrees")
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.cross(forward, right, dim=-1)
    upper = torch.stack([right, down, forward, positions], dim=-1)
    last = positions.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*positions.shape[:-1], 1, 4)
    return torch.cat([upper, last], dim=-2)


def orbit(
    yaw: Float[Tensor, "*batch"],
    pitch: Float[Tensor, "*batch"],
    *,
    radius: float = ORBIT_RADIUS,
    focal: float = FOCAL_NORMALIZED,
) -> Cameras:
    """Cameras on a sphere around the origin, looking at it.

    >>> from_three_sides = cgsgan.orbit(torch.tensor([-0.5, 0.0, 0.5]), torch.zeros(3))

    Args:
        yaw: radians; 0 is in front of the face, positive towards +x.
        pitch: radians; positive is above.
        radius: distance to the origin, world units.
        focal: focal length over image size.
    """
    positions = radius * torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=-1)
    Ks = intrinsics(focal, device=positions.device).expand(*yaw.shape, 3, 3)
    return Cameras(viewmats=invert_rigid(look_at(positions)), Ks_normalized=Ks)


def yaw_pitch(cameras: Cameras) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Yaw and pitch of the camera positions, radians; the inverse of :func:`orbit` for any radius."""
    x, y, z = cameras.cam_to_world[..., :3, 3].unbind(-1)
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def focal_of_view(degrees: float) -> float:
    """Focal length over image size of a field of view.

    Raises:
        ValueError: unless the angle is one that a flat picture can have.
    """
    if not 0.1 <= degrees <= 170:
        raise ValueError(f"field of view: expected 0.1 to 170 degrees, got {degrees:g}")
    return 0.5 / math.tan(math.radians(degrees) / 2)


PATHS = ("swing", "orbit", "ellipse", "spiral", "still")
"""Camera paths of :func:`turntable`."""
ELLIPSE_STRETCH = 1.3
"""Distance of an ellipse's cameras at the sides, as a factor of that in front."""
SPIRAL_TURNS = 3


def turntable(
    frames: int,
    *,
    kind: str = "swing",
    focal: float = FOCAL_NORMALIZED,
    radius: float = ORBIT_RADIUS,
    yaw: float | None = None,
    pitch: float | None = None,
) -> Cameras:
    """A closed camera path of ``frames`` views; the last frame leads back to the first without repeating it. The focal
    length stays, and the camera looks at the origin.

    >>> cameras = cgsgan.turntable(48, kind="orbit")
    >>> cameras.viewmats.shape
    torch.Size([48, 4, 4])

    Args:
        frames: number of views, >= 1.
        kind: ``swing``, around the front, up when in the middle, as EG3D's videos do (Chan et al. 2022; theirs are
            narrower); ``orbit``, all around, first towards the subject's left; ``ellipse``, all around, farther away
            at the sides (by 1.3; the head shrinks and grows); ``spiral``, from the front in three turns out to
            ``yaw`` and ``pitch``, and back; ``still``, no motion.
        focal: focal length over image size.
        radius: distance from the origin, of an ellipse that in front and behind.
        yaw: radians; largest one of a swing or a spiral (default 40 degrees, the range of the training poses), the one
            of a still camera (default 0).
        pitch: radians; largest one of a swing or a spiral (default 12 degrees), the one of all others (default 0).

    Raises:
        ValueError: for an unknown ``kind``, ``frames`` < 1, or a pitch that reaches the poles.
    """
    if frames < 1:
        raise ValueError(f"turntable: expected at least 1 frame, got {frames}")
    if kind not in PATHS:
        raise ValueError(f"turntable: kind must be one of {', '.join(PATHS)}, got {kind!r}")
    sways = kind in ("swing", "spiral")
    yaw = (math.radians(40) if sways else 0.0) if yaw is None else yaw
    pitch = (math.radians(12) if sways else 0.0) if pitch is None else pitch
    if not abs(pitch) <= math.radians(89):
        raise ValueError(f"turntable: expected a pitch from -89 to 89 degrees, got {math.degrees(pitch):g}")
    phase = torch.arange(frames, dtype=torch.float32) * (2 * math.pi / frames)
    if kind == "swing":
        return orbit(yaw * phase.sin(), pitch * phase.cos(), radius=radius, focal=focal)
    if kind == "spiral":
        share = (1 - phase.cos()) / 2
        turn = SPIRAL_TURNS * phase
        return orbit(yaw * share * turn.sin(), pitch * share * turn.cos(), radius=radius, focal=focal)
    angles = torch.full_like(phase, yaw) if kind == "still" else phase
    cameras = orbit(angles, torch.full_like(phase, pitch), radius=radius, focal=focal)
    if kind != "ellipse":
        return cameras
    stretch = torch.tensor([ELLIPSE_STRETCH, 1.0, 1.0])
    positions = cameras.cam_to_world[:, :3, 3] * stretch
    return Cameras(viewmats=invert_rigid(look_at(positions)), Ks_normalized=cameras.Ks_normalized)
