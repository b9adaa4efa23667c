"""Our own picture of a scene from the view that the clients are asked for, and how near theirs come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians

VIEWER_DILATION = 0.3
"""Square pixels that viewers add to every projected Gaussian, whatever the size of the picture."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera that looks at the origin, +y up.

    Attributes:
        name: for files and tables.
        yaw: degrees; positive moves the camera towards +x.
        pitch: degrees; positive moves it up.
        radius: world units from the origin.
        fov: degrees from the left edge to the right one, and from the top to the bottom.
    """

    name: str
    yaw: float
    pitch: float
    radius: float = 1.8
    fov: float = 45.0

    @property
    def cameras(self) -> Cameras:
        """The same camera as ``[1, 1]``."""
        focal = 0.5 / math.tan(math.radians(self.fov) / 2)
        yaw, pitch = (torch.tensor([[math.radians(angle)]]) for angle in (self.yaw, self.pitch))
        return orbit(yaw, pitch, radius=self.radius, focal=focal)

    @property
    def eye(self) -> tuple[float, float, float]:
        """Where it stands, world units."""
        x, y, z = self.cameras.cam_to_world[0, 0, :3, 3].tolist()
        return x, y, z


THREE_QUARTER = View(name="three-quarter", yaw=35.0, pitch=20.0)
FRONT = View(name="front", yaw=0.0, pitch=0.0)


def draw(scene: Gaussians, view: View, size: int, *, antialiased: bool) -> Float[Tensor, "3 size size"]:
    """One scene on black, [0, 1].

    Args:
        scene: without a batch axis.
        view: from where.
        size: pixels.
        antialiased: opacities compensated for the dilation (Mip-Splatting); viewers differ in this.
    """
    config = SplattingConfig(eps2d=VIEWER_DILATION, antialiased=antialiased)
    renderer = SplattingRenderer(config, training_size=size)
    batch = scene.map(lambda tensor: tensor[None])
    return renderer(batch, view.cameras, size=size, backgrounds=torch.zeros(1, 1, 3)).images[0, 0].clamp(0, 1)


def psnr(image: Float[Tensor, "3 height width"], truth: Float[Tensor, "3 height width"]) -> float:
    """Peak signal-to-noise ratio over the whole picture, decibels."""
    return -10 * math.log10(max(torch.nn.functional.mse_loss(image, truth).item(), 1e-10))


def ssim(image: Float[Tensor, "3 height width"], truth: Float[Tensor, "3 height width"]) -> float:
    """Structural similarity (Wang et al. 2004), a Gaussian window of 11 pixels with a deviation of 1.5, mean."""
    offsets = torch.arange(11) - 5.0
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def blur(values: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(values[None], window, groups=3)[0]

    mean_a, mean_b = blur(image), blur(truth)
    var_a, var_b = blur(image * image) - mean_a**2, blur(truth * truth) - mean_b**2
    both = blur(image * truth) - mean_a * mean_b
    bright = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return (bright * (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)).mean().item()
