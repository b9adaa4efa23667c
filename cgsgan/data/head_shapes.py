"""The shape of the procedural heads: signed distance fields joined by smooth minima.

Four surfaces share one evaluation: skin (skull, face, ears, neck), hair or hat, clothes, glasses. Distances
are bounds, not exact; the ray marcher steps by less than them. World axes: +y up, the face looks along +z,
left is +x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.data.head_people import STYLES, People

SKIN, HAIR, CLOTH, GLASSES = range(4)
_FAR = 1.0
EYE_DEPTH = 0.128
EYE_RADIUS = 0.037


def normalize(vectors: Float[Tensor, "person 3 point"]) -> Float[Tensor, "person 3 point"]:
    """Unit vectors; several times faster than torch's function along a middle axis."""
    x, y, z = vectors.unbind(1)
    inverse = (x * x).addcmul_(y, y).addcmul_(z, z).clamp_(min=1e-24).rsqrt_()
    return vectors * inverse[:, None]


class Points(NamedTuple):
    """Coordinates ``[person, point]``, apart, because that is how every formula here reads them."""

    x: Tensor
    y: Tensor
    z: Tensor


def smooth_min(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Minimum, rounded where ``a`` and ``b`` differ by less than ``width`` (quadratic polynomial)."""
    blend = (a - b).abs_().neg_().add_(width).clamp_(min=0).square_()
    return torch.minimum(a, b).sub_(blend, alpha=0.25 / width)


def smooth_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Maximum, rounded likewise."""
    blend = (a - b).abs_().neg_().add_(width).clamp_(min=0).square_()
    return torch.maximum(a, b).add_(blend, alpha=0.25 / width)


Center = tuple[Tensor | float, Tensor | float, Tensor | float]


def _squares(p: Points, center: Center) -> tuple[Tensor, Tensor, Tensor]:
    """Squared offsets from ``center``; most centres lie in the plane x = 0, which saves a pass."""
    x = p.x.square() if isinstance(center[0], float) and center[0] == 0.0 else (p.x - center[0]).square_()
    return x, (p.y - center[1]).square_(), (p.z - center[2]).square_()


def _sphere(p: Points, center: Center, radius: Tensor | float) -> Tensor:
    x, y, z = _squares(p, center)
    return x.add_(y).add_(z).sqrt_().sub_(radius)


def _ellipsoid(p: Points, center: Center, radii: Center) -> Tensor:
    """First-order distance k0 (k0 - 1) / k1 to an ellipsoid, with k0 = |p / r| and k1 = |p / r^2|."""
    squares = _squares(p, center)
    inverse = [1 / (radius * radius) for radius in radii]
    k0 = _weighted_sum(squares, inverse)
    k1 = _weighted_sum(squares, [weight * weight for weight in inverse])
    return (k0 - k0.sqrt()).mul_(k1.rsqrt_())


def _weighted_sum(values: tuple[Tensor, Tensor, Tensor], weights: list[Tensor | float]) -> Tensor:
    """Sum of products; plain numbers stay plain, because making tensors of them takes longer than the sum."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        if isinstance(weight, Tensor):
            total.addcmul_(value, weight)
        else:
            total.add_(value, alpha=weight)
    return total


def _capsule(p: Points, start: Center, end: Center, radius: Tensor | float) -> Tensor:
    """Distance to a segment between two points, less ``radius``."""
    length = [end[i] - start[i] for i in range(3)]
    along, offsets = torch.zeros(()), [p.x, p.y - start[1], p.z - start[2]]
    if isinstance(start[0], Tensor) or start[0] != 0.0:
        offsets[0] = p.x - start[0]
    square = torch.zeros(())
    moved = [i for i in range(3) if isinstance(length[i], Tensor) or length[i] != 0.0]
    for i in moved:
        along = along + offsets[i] * length[i]
        square = square + length[i] * length[i]
    along = (along / square).clamp_(0, 1)
    for i in moved:
        offsets[i] = offsets[i] - along * length[i]
    x, y, z = (offset.square() for offset in offsets)
    return x.add_(y).add_(z).sqrt_().sub_(radius)


def distances(p: Points, who: People) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances to the skin, hair, clothes and glasses, in the order of the constants above."""
    mirrored = Points(p.x.abs(), p.y, p.z)
    body = _body(p, who)
    skin = smooth_min(_head(p, mirrored, who), body, 0.04)
    return skin, _hair(p, mirrored, who), _clothes(p, mirrored, body, who), _glasses(mirrored, who)


def nearest(p: Points, who: People) -> Tensor:
    """Distance to the nearest of the four surfaces."""
    skin, hair, cloth, glasses = distances(p, who)
    return torch.minimum(torch.minimum(skin, hair), torch.minimum(cloth, glasses))


def mouth_height(who: People) -> Tensor:
    """Height of the line between the lips."""
    return -0.083 * who.face_length


def _head(p: Points, m: Points, who: People) -> Tensor:
    length = who.face_length
    skull = _ellipsoid(p, (0.0, 0.085, -0.025), (0.148 * who.head_width, 0.165, 0.18))
    face = _ellipsoid(p, (0.0, -0.02 * length, 0.045), (0.112 * who.head_width, 0.15 * length, 0.122))
    head = smooth_min(skull, face, 0.05)
    jaw = _sphere(m, (0.062 * who.jaw_width, -0.088 * length, 0.028), 0.04)
    head = smooth_min(head, jaw, 0.05)
    chin = _sphere(p, (0.0, -0.148 * length, 0.108), 0.036 * who.chin)
    head = smooth_min(head, chin, 0.045)
    cheek = _sphere(m, (0.062, -0.012, 0.1), 0.05 * who.cheeks)
    head = smooth_min(head, cheek, 0.04)
    brow = _capsule(m, (0.012, 0.072, 0.142), (0.07, 0.07, 0.115), 0.021)
    head = smooth_min(head, brow, 0.03)
    return _features(head, p, m, who)


def _features(head: Tensor, p: Points, m: Points, who: People) -> Tensor:
    """Eyes, nose, mouth, ears and beard on the bare head."""
    eye_at = (who.eye_spread, who.eye_height, EYE_DEPTH)
    socket = _sphere(m, (who.eye_spread, who.eye_height, 0.202), 0.045)
    head = smooth_max(head, -socket, 0.025)
    head = smooth_min(head, _sphere(m, eye_at, EYE_RADIUS), 0.006)
    tip_y, tip_z = who.eye_height - 0.066 * who.nose_length, 0.165 + 0.026 * who.nose_depth
    bridge = _capsule(p, (0.0, who.eye_height + 0.008, 0.143), (0.0, tip_y, tip_z), 0.0145 * who.nose_width)
    tip = _sphere(p, (0.0, tip_y - 0.003, tip_z - 0.002), 0.0195)
    wing = _sphere(m, (0.019 * who.nose_width, tip_y - 0.008, tip_z - 0.022), 0.0145)
    head = smooth_min(head, smooth_min(smooth_min(bridge, tip, 0.015), wing, 0.015), 0.02)
    line, gap = mouth_height(who), 0.016 * who.mouth_open
    muzzle = _ellipsoid(p, (0.0, line, 0.128), (0.05, 0.042, 0.036))
    head = smooth_min(head, muzzle, 0.03)
    lip_radii = (who.mouth_width * 0.8, 0.0105 * who.lips, 0.013)
    lips = torch.minimum(
        _ellipsoid(p, (0.0, line + 0.008 + gap * 0.4, 0.156), lip_radii),
        _ellipsoid(p, (0.0, line - 0.009 - gap, 0.154), lip_radii),
    )
    head = smooth_min(head, lips, 0.012)
    opening = _ellipsoid(p, (0.0, line - 0.3 * gap, 0.168), (who.mouth_width * 0.85, 0.003 + gap, 0.022))
    head = smooth_max(head, -opening, 0.006)
    # The ear's plate is turned outwards at its back by shearing x with z.
    turned = Points(torch.add(m.x, m.z, alpha=0.35).add_(0.007), m.y, m.z)
    ear_at = (0.147 * who.head_width, 0.02, -0.025)
    ear = _ellipsoid(turned, ear_at, (0.016, 0.052 * who.ear_size, 0.034 * who.ear_size)) * 0.85
    head = smooth_min(head, ear, 0.012)
    full = ((who.beard - 0.5) * 2).clamp(min=0)
    beard = _ellipsoid(p, (0.0, -0.115, 0.07), (0.098, 0.062 + 0.03 * full, 0.08 + 0.012 * full))
    return smooth_min(head, beard + _FAR * (full <= 0), 0.02)


def _body(p: Points, who: People) -> Tensor:
    width = who.neck_width
    neck = _capsule(p, (0.0, -0.1, -0.045), (0.0, -0.4, -0.055), 0.082 * width)
    height = who.shoulder_height
    shoulders = _ellipsoid(p, (0.0, height - 0.15, -0.05), (0.3 * who.shoulder_width, 0.15, 0.13))
    body = smooth_min(neck, shoulders, 0.09)
    return smooth_max(body, -0.46 - p.y, 0.02)


def neckline_offset(p: Points, m: Points, who: People) -> Tensor:
    """Height above the line where the clothes begin; it rises towards the back of the neck."""
    v = who.v_depth * (1 - m.x * 16).clamp(min=0) * (p.z > 0)
    return p.y - (who.neckline - 0.16 * p.z - v)


def _clothes(p: Points, m: Points, body: Tensor, who: People) -> Tensor:
    return torch.maximum(body - 0.011, neckline_offset(p, m, who) * 0.9)


def _hair(p: Points, m: Points, who: People) -> Tensor:
    thick = who.hair_thickness
    shell = _ellipsoid(p, (0.0, 0.085, -0.03), (0.148 * who.head_width + thick, 0.167 + thick, 0.18 + thick))
    quiff = _ellipsoid(p, (0.045 * who.parting, 0.195, 0.02), (0.1, 0.06 + 0.03 * who.hair_volume, 0.14))
    shell = smooth_min(shell, quiff + _FAR * (who.hair_volume <= 0), 0.04)
    hat = who.style == STYLES.index("beanie")
    nape = torch.where(hat, 0.075 - 0.1 * p.z.clamp(min=0), who.nape + 0.35 * (p.z + 0.15).clamp(min=0))
    shell = smooth_max(shell, nape - p.y, 0.01)
    hair = smooth_min(shell, _tails(p, who), 0.03)
    hair = smooth_min(hair, _curtain(p, who), 0.03)
    hair = smooth_max(hair, -_face_opening(p, who), 0.012)
    ears = _sphere(m, (0.165, 0.0, -0.012), who.ear_gap)
    hair = smooth_max(hair, -ears, 0.01)
    waves = torch.sin(p.x * 75) * torch.sin(p.y * 62 + 1) * torch.sin(p.z * 70 + 2)
    hair = (hair - who.curl * waves) * torch.where(who.curl > 0.008, 0.7, 1.0)
    return hair + _FAR * (who.style == STYLES.index("bald"))


def _tails(p: Points, who: People) -> Tensor:
    """The bun, or the ponytail."""
    bun = who.style == STYLES.index("bun")
    tail = who.style == STYLES.index("ponytail")
    end_y = torch.where(bun, 0.215, -0.17)
    end_z = torch.where(bun, -0.185, -0.245)
    start_y = torch.where(bun, 0.2, 0.14)
    radius = torch.where(bun, 0.06, 0.042)
    return _capsule(p, (0.0, start_y, -0.2), (0.0, end_y, end_z), radius) + _FAR * ~(bun | tail)


def _curtain(p: Points, who: People) -> Tensor:
    """Hair that falls beside and behind the neck, down to ``-hair_length``."""
    radii = (0.158 * who.head_width + 0.6 * who.hair_thickness, 0.36, 0.125)
    curtain = _ellipsoid(p, (0.0, -0.06, -0.075), radii)
    curtain = smooth_max(curtain, -who.hair_length - p.y, 0.03)
    return curtain + _FAR * (who.hair_length <= 0)


def _face_opening(p: Points, who: People) -> Tensor:
    """What the hair leaves free: an ellipsoid around the face, its top at the hairline."""
    fringe = who.hairline < 0.12
    height = (who.hairline + 0.11) * 0.98
    center_x = -0.012 * who.parting * (who.hair_volume > 0.5)
    radii = (torch.where(fringe, 0.15, 0.158), height + 0.03, 0.2)
    return _ellipsoid(p, (center_x, -0.14, 0.145), radii)


def _glasses(m: Points, who: People) -> Tensor:
    radius = who.glasses_radius
    x, y, z = m.x - who.eye_spread - 0.003, m.y - who.eye_height + 0.004, m.z - 0.183 + 0.25 * (m.x - 0.05)
    ring = (x * x).addcmul_(y, y).sqrt_() - radius
    lens = torch.maximum(ring, z.abs() - 0.002) + _FAR * (who.dark_lenses <= 0)
    frame = ((ring * ring).addcmul_(z, z)).sqrt_() - 0.0052
    bridge = _capsule(m, (0.0, who.eye_height, 0.196), (who.eye_spread - radius, who.eye_height, 0.194), 0.004)
    outer = who.eye_spread + radius
    temple = _capsule(m, (outer, who.eye_height, 0.173), (0.152, 0.045, -0.02), 0.0042)
    parts = torch.minimum(torch.minimum(frame, lens), torch.minimum(bridge, temple))
    return parts * 0.95 + _FAR * (who.glasses <= 0)
