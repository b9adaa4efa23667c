"""What a page of splats shows before anything is unpacked: where its camera stands, and pictures from there."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS, orbit
from cgsgan.export.images import to_uint8
from cgsgan.types import Gaussians

LOWPASS = 0.3
"""Square pixels: the variance of the page's low-pass filter, of which the dilation is a part."""
NEAR_PLANE = 0.01
"""World units, at the distance of heads."""
HEAD_BOX = 0.5
"""Heads lie within this much of the origin on every axis."""
SMALLEST_HEAD = 0.1
"""World units from the middle: what is smaller is looked at from closer by."""
FILLING = 0.3
"""World units from the middle to the rim of a head; other scenes are brought to this size before the camera."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where the camera of a page turns.

    Attributes:
        target: what it looks at, world units.
        radius: distance from there.
        focal: focal length over the smaller side of the picture.
        near: what is closer is not drawn.
        trained: the picture from there is what the training saw, and there is nothing of use beyond its rim.
    """

    target: tuple[float, float, float]
    radius: float
    focal: float
    near: float
    trained: bool


def frame_scene(means: Float[Tensor, "gaussian 3"], *, generated: bool) -> Framing:
    """The camera of the training data for what was generated, and for what is a head by its place and size; for other
    scenes the same one, moved and scaled so that all but the outermost 2 % fill the picture.
    """
    inner = torch.quantile(means[:: -(-len(means) // 100_000)].double(), torch.tensor([0.02, 0.98]).double(), dim=0)
    half = max(((inner[1] - inner[0]) / 2).max().item(), 1e-6)
    x, y, z, scale = *inner.mean(dim=0).tolist(), half / FILLING
    if generated or (inner.abs().max() <= HEAD_BOX and half >= SMALLEST_HEAD):
        x = y = z = 0.0
        scale = 1.0
    radius, near = scale * ORBIT_RADIUS, scale * NEAR_PLANE
    return Framing(target=(x, y, z), radius=radius, focal=FOCAL_NORMALIZED, near=near, trained=generated)


@torch.no_grad()
def draw_front(scene: Gaussians, framing: Framing, *, dilation: float, size: int) -> Float[Tensor, "4 size size"]:
    """A scene from the front, as the page shows it first; RGB in [0, 1] and straight alpha."""
    from rasterizer import rasterize  # the compiled core loads when the first picture is drawn

    scale = framing.radius / ORBIT_RADIUS
    scene = scene.map(lambda tensor: tensor.float()[None])
    scales = torch.hypot(scene.scales, torch.tensor(dilation)) / scale
    scene = replace(scene, means=(scene.means - torch.tensor(framing.target)) / scale, scales=scales)
    camera = orbit(torch.zeros(1, 1), torch.zeros(1, 1))
    pixels = framing.focal * size / framing.radius
    render = rasterize(
        *(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors),
        *(camera.viewmats, camera.Ks(size, size), size, size),
        near_plane=NEAR_PLANE,
        eps2d=max(0.0, LOWPASS - (dilation * pixels) ** 2),
        antialiased=True,
    )
    alphas = render.alphas[0, 0].movedim(-1, 0)
    return torch.cat([render.colors[0, 0].movedim(-1, 0) / alphas.clamp_min(1e-6), alphas])


def embed_picture(image: Float[Tensor, "4 height width"]) -> str:
    """A picture as a ``data:`` address (WebP, quality 85)."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
