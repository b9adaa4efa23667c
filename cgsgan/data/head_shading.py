"""The colours of the procedural heads: painted features, materials and one soft light per person."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.data.active_points import ActivePoints
from cgsgan.data.head_people import STYLES, People
from cgsgan.data.head_shapes import (
    CLOTH,
    GLASSES,
    HAIR,
    SKIN,
    Points,
    mouth_height,
    neckline_offset,
    normalize,
)

Color = Float[Tensor, "person 3 point"]
_FACE_FROM = 0.045
"""Features of the face are painted in front of this z only."""


def shade(
    p: Points,
    surfaces: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    normals: Color,
    rays: Color,
    who: People,
) -> Color:
    """Colours, sRGB in [0, 1], of surface points.

    Args:
        p: the points.
        surfaces: their distances to skin, hair, clothes and glasses.
        normals: outward unit normals.
        rays: unit directions from the camera.
        who: the persons.
    """
    best, *others = surfaces
    material = torch.full_like(best, SKIN, dtype=torch.uint8)
    for other, distance in zip((HAIR, CLOTH, GLASSES), others, strict=True):
        material.masked_fill_(distance < best, other)
        best = torch.minimum(best, distance)
    m = Points(p.x.abs(), p.y, p.z)
    color = _painted_skin(p, m, material == SKIN, who)
    color = torch.where((material == HAIR)[:, None], _hair(p, who), color)
    color = torch.where((material == CLOTH)[:, None], _cloth(p, m, who), color)
    color = torch.where((material == GLASSES)[:, None], who.glasses_color.expand_as(color), color)
    return _light(color, material, p, normals=normals, rays=rays, who=who).clamp(0, 1)


def _painted_skin(p: Points, m: Points, is_skin: Tensor, who: People) -> Tensor:
    """Skin colours where there is skin: painting is slow, so each part is painted only where it can be."""
    color = torch.zeros(len(is_skin), 3, is_skin.shape[1])
    skin = ActivePoints(is_skin)
    chosen, mirrored = (Points(*(skin.take(axis) for axis in points)) for points in (p, m))
    skin.put(color, _bare_skin(chosen, mirrored, who))
    face = ActivePoints(is_skin & (p.z > _FACE_FROM))
    chosen, mirrored = (Points(*(face.take(axis) for axis in points)) for points in (p, m))
    face.put(color, _face(face.take(color), chosen, mirrored, who))
    return color


def _mix(base: Tensor, paint: Tensor, amount: Tensor) -> Tensor:
    return base + (paint - base) * amount[:, None]


def _rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([[red], [green], [blue]])


def _step(value: Tensor, edge: float | Tensor, width: float) -> Tensor:
    """0 below ``edge``, 1 above, a smooth ramp of ``width`` around it."""
    t = ((value - edge) / width + 0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _bare_skin(p: Points, m: Points, who: People) -> Tensor:
    color = who.skin_color.expand(-1, -1, p.x.shape[1])
    inner_ear = torch.exp(-((p.y - 0.02) ** 2 / 0.0009 + (p.z + 0.018) ** 2 / 0.0003)) * _step(m.x, 0.145, 0.01)
    color = _mix(color, who.skin_color * _rgb(0.77, 0.6, 0.59), inner_ear * 0.8)
    scalp = _scalp(p, who)
    color = _mix(color, who.hair_color * 0.8 + who.skin_color * 0.2, scalp)
    return _mix(color, who.hair_color * 0.85, _beard(p, m, who))


def _face(color: Tensor, p: Points, m: Points, who: People) -> Tensor:
    front = _step(p.z, _FACE_FROM + 0.015, 0.03)
    blush = torch.exp(-((m.x - 0.066) ** 2 + (p.y + 0.015) ** 2) / 0.0012)
    nose = torch.exp(-(p.x**2 + (p.y + 0.022) ** 2) / 0.0006)
    rosy = color * _rgb(1.02, 0.8, 0.78)
    color = _mix(color, rosy, (blush * 0.5 + nose * 0.35) * front)
    color = _mix(color, color * 0.62, _nostrils(p, m, who) * front)
    color = _mouth(color, p, who, front)
    return _eyes(color, p, m, who, front)


def _nostrils(p: Points, m: Points, who: People) -> Tensor:
    y = who.eye_height - 0.066 * who.nose_length - 0.02
    return torch.exp(-(((m.x - 0.011) / 0.007) ** 2 + ((p.y - y) / 0.005) ** 2)) * 0.9


def _scalp(p: Points, who: People) -> Tensor:
    """Stubble on the scalp under short hair: hides the edge of the hair shell."""
    short = (who.style == STYLES.index("buzz")) | (who.style == STYLES.index("short"))
    height = p.y - 0.02 - 1.1 * (p.z - 0.03)
    return _step(height, 0.03, 0.03) * _step(p.y, -0.08, 0.03) * short * (p.y > 0.0) * 0.7


def _beard(p: Points, m: Points, who: People) -> Tensor:
    line = mouth_height(who)
    jaw = _step(-p.y, 0.055 - 0.35 * (m.x - 0.05).clamp(min=0), 0.03) * _step(p.z, 0.015, 0.06)
    jaw = jaw * _step(p.y, -0.2, 0.03)
    upper_lip = _step(p.y, line + 0.004, 0.006) * _step(-p.y, -(line + 0.03), 0.008)
    moustache = upper_lip * _step(-m.x, -0.048, 0.015) * _step(p.z, 0.1, 0.02)
    sides = _step(m.x, 0.1, 0.015) * _step(-p.y, -0.02, 0.03) * _step(p.z, 0.015, 0.04) * _step(-p.z, -0.09, 0.06)
    amount = torch.maximum(torch.maximum(jaw, moustache), sides * _step(p.y, -0.2, 0.03))
    strength = (0.25 + 0.75 * who.beard) * (who.beard > 0)
    return amount * strength


def _mouth(color: Tensor, p: Points, who: People, front: Tensor) -> Tensor:
    u = p.x / who.mouth_width
    inside = (1 - u * u).clamp(min=0)
    line = mouth_height(who) + 0.014 * who.smile * (u * u - 0.4)
    gap = 0.019 * who.mouth_open * inside
    v = p.y - line
    bow = 0.0022 * torch.exp(-((p.x / 0.007) ** 2))
    full = inside.sqrt() * inside.sqrt().sqrt()
    upper = (0.0125 * who.lips) * full - bow + gap * 0.4
    lower = (0.0145 * who.lips) * full + gap
    on_lips = _step(upper - v, 0.0, 0.003) * _step(v + lower, 0.0, 0.003) * (inside > 0) * front
    color = _mix(color, who.lip_color, on_lips)
    shadow = torch.exp(-(((v + lower + 0.007) / 0.005) ** 2)) * inside * front
    color = _mix(color, color * 0.8, shadow)
    seam = torch.exp(-((v / 0.0028) ** 2)) * _step(inside, 0.1, 0.1) * front
    color = _mix(color, who.lip_color * 0.35, seam * (who.mouth_open <= 0))
    mouth_in = _step(gap * 0.55 - v, 0.0, 0.002) * _step(v + gap, 0.0, 0.002) * (gap > 0.001) * front
    color = _mix(color, _rgb(0.25, 0.07, 0.08), mouth_in)
    teeth = mouth_in * _step(v, -0.1 * gap, 0.003)
    color = _mix(color, _rgb(0.93, 0.91, 0.86), teeth)
    tongue = mouth_in * _step(-v, 0.6 * gap, 0.004)
    return _mix(color, _rgb(0.72, 0.34, 0.36), tongue * 0.8)


def _eyes(color: Tensor, p: Points, m: Points, who: People, front: Tensor) -> Tensor:
    half = 0.031 * who.eye_size
    u = (m.x - who.eye_spread) / half
    v = p.y - who.eye_height - 0.0025 * u
    inside = (1 - u * u).clamp(min=0)
    round_corner = inside.sqrt() * inside.sqrt().sqrt()
    opening = 0.0150 * who.eye_size * who.eye_open
    upper, lower = opening * round_corner, 0.62 * opening * round_corner
    lid = torch.exp(-(u * 0.9).square().square()) * _step(0.03 - (v - 0.006).abs(), 0.0, 0.012) * front
    color = _mix(color, color * _rgb(0.88, 0.82, 0.82), lid * 0.8)
    open_eye = _step(upper - v, 0.0, 0.002) * _step(v + lower, 0.0, 0.002) * (inside > 0) * front
    color = _mix(color, _rgb(0.95, 0.95, 0.94), open_eye)
    # Both eyes look the same way, so the gaze turns with the side in mirrored coordinates.
    side = torch.where(p.x < 0, -1.0, 1.0)
    center = half * 0.3 * who.gaze_x * side
    du, dv = u * half - center, v - 0.002 - 0.006 * who.gaze_y
    radius = (du * du + dv * dv).sqrt()
    color = _mix(color, who.iris_color, open_eye * _step(-radius, -0.0125, 0.002))
    color = _mix(color, _rgb(0.02, 0.02, 0.02), open_eye * _step(-radius, -0.0062, 0.002))
    glint = ((du * side - 0.004) ** 2 + (dv - 0.004) ** 2).sqrt()
    color = _mix(color, _rgb(1.0, 1.0, 1.0), open_eye * _step(-glint, -0.0028, 0.002))
    lash = torch.exp(-(((v - upper) / 0.0032) ** 2)) * _step(1.08 - u.abs(), 0.0, 0.15) * front
    color = _mix(color, who.brow_color * 0.4, lash * 0.9)
    under = torch.exp(-(((v + lower) / 0.0024) ** 2)) * _step(1.0 - u.abs(), 0.0, 0.2) * front
    color = _mix(color, who.brow_color * 0.6, under * 0.45)
    return _brows(color, u, p, who, front)


def _brows(color: Tensor, u: Tensor, p: Points, who: People, front: Tensor) -> Tensor:
    arch = 0.0385 + who.brow_raise + 0.010 * who.brow_tilt * u * 2 - 0.006 * (u - 0.35) ** 2
    thickness = 0.0068 * who.brow_thickness * (1.15 - 0.35 * u)
    v = p.y - who.eye_height - arch
    brow = _step(thickness - v.abs(), 0.0, 0.004) * _step(u, -0.95, 0.2) * _step(-u, -1.3, 0.3) * front
    return _mix(color, who.brow_color, brow * 0.9)


def _hair(p: Points, who: People) -> Tensor:
    angle = torch.atan2(p.x, p.z + 0.35)
    strands = torch.sin(angle * 90 + 6 * torch.sin(p.y * 14)) * 0.5 + torch.sin(angle * 41 + p.y * 25) * 0.5
    shine = torch.exp(-(((p.y - 0.185) / 0.03) ** 2)) * 0.25
    color = who.hair_color * (1 + 0.22 * strands + shine)[:, None] + 0.02 * shine[:, None]
    hat = (who.style == STYLES.index("beanie"))[:, None]
    ribs = 0.9 + 0.1 * torch.sin(torch.atan2(p.x, p.z) * 40)
    band = _step(-p.y, -0.125, 0.01)
    return torch.where(hat, _mix(who.hat_color * ribs[:, None], who.trim_color, band * 0.6), color)


def _cloth(p: Points, m: Points, who: People) -> Tensor:
    scale = who.pattern_scale
    stripes = _step(torch.sin(p.y * 260 * scale), 0.0, 0.4)
    vertical = _step(torch.sin(p.x * 190 * scale + 1.5708), 0.0, 0.5)
    pattern = torch.where(who.pattern == 1, stripes, torch.zeros_like(stripes))
    pattern = torch.where(who.pattern == 2, vertical, pattern)
    pattern = torch.where(who.pattern == 3, stripes * vertical, pattern)
    color = _mix(who.cloth_color.expand(-1, -1, p.x.shape[1]), who.trim_color, pattern)
    collar = _step(neckline_offset(p, m, who), -0.018, 0.004)
    return _mix(color, who.trim_color * 0.9, collar)


def _light(color: Tensor, material: Tensor, p: Points, *, normals: Tensor, rays: Tensor, who: People) -> Tensor:
    light = normalize(torch.stack([who.light_x, who.light_y, who.light_z], dim=1))
    lambert = (normals * light).sum(1)
    diffuse = (lambert * 0.65 + 0.35).clamp(min=0)
    sky = 0.5 + 0.5 * normals[:, 1]
    # Darkness under the chin and in the hair around the neck, which a light without shadows would leave out.
    neck = torch.exp(-(((p.y + 0.2) / 0.06) ** 2)) * _step(-(p.x**2 + (p.z + 0.04) ** 2), -0.012, 0.008)
    shadow = 1 - 0.35 * neck * (material != CLOTH)
    half = normalize(light - rays)
    shine = (normals * half).sum(1).clamp(min=0).square().square().square()
    shine = shine * shine * shine  # the 24th power; pow() would take longer than all the rest
    strength = torch.where(material == HAIR, 0.1, 0.09) * (material != CLOTH)
    brightness = (who.ambient * (0.72 + 0.28 * sky) + (1.12 - who.ambient) * diffuse) * shadow
    return color * brightness[:, None] + (shine * strength * shadow)[:, None]
