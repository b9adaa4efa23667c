"""Gaussian splatting through the project's rasterizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from cgsgan.cameras import Cameras
from cgsgan.types import Gaussians, RenderOutput, Scenes

if TYPE_CHECKING:
    from rasterizer import Render

CORES = ("cpu", "cuda")
"""Devices that the rasterizer has a compiled core for."""


@dataclass(frozen=True, kw_only=True)
class SplattingConfig:
    """How scenes are splatted.

    Attributes:
        kind: what makes it this one, in a config file.
        eps2d: variance in square pixels that is added to every projected Gaussian at the training size. A generator
            learns around it, so it is a property of that size: at another, it is scaled to stay the same in the scene.
        near_plane: Gaussians with a smaller z-depth are not drawn, world units.
        far_plane: nor are those beyond this depth.
        antialiased: compensate opacities for the dilation (Mip-Splatting). Published CGS-GANs were trained without.
        backend: which rasterizer: ``auto`` is the core for the device of the scenes, ``reference`` plain torch.
    """

    kind: Literal["splatting"] = "splatting"
    eps2d: float = 0.3
    near_plane: float = 0.01
    far_plane: float = 10.0
    antialiased: bool = False
    backend: Literal["auto", "cpu", "cuda", "reference"] = "auto"


class SplattingRenderer:
    """A :class:`~cgsgan.rendering.renderer.Renderer` of Gaussians.

    Args:
        config: see :class:`SplattingConfig`.
        training_size: image size in pixels at which the generator was trained. Rendering at ``size`` pixels uses
            ``eps2d * (size / training_size)^2``: the dilation keeps its size in the scene, and a head looks the same
            at every zoom.
    """

    def __init__(self, config: SplattingConfig, training_size: int) -> None:
        self.config = config
        self.training_size = training_size

    def __call__(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Float[Tensor, "batch view 3"],
        depth: bool = False,
    ) -> RenderOutput:
        """See :class:`~cgsgan.rendering.renderer.Renderer`."""
        render = self._splat(scenes, cameras, size=size, backgrounds=backgrounds, depth=depth)
        device = scenes.tensors()[0].device
        depths = None if render.depths is None else render.depths.to(device)
        images = render.colors.movedim(-1, -3).to(device)
        return RenderOutput(images=images, alphas=render.alphas.to(device), depths=depths)

    def normals(self, scenes: Scenes, cameras: Cameras, *, size: int) -> Float[Tensor, "batch view height width 3"]:
        """Unit normals, world axes: the Gaussians' shortest axes, each turned to the camera's side, blended; 0 where
        nothing is hit.

        Args:
            scenes: ``[B, ...]``.
            cameras: ``[B, V]``.
            size: width and height in pixels.

        Raises:
            ValueError: for scenes that are no Gaussians.
        """
        blended = self._splat(scenes, cameras, size=size, normals=True).normals
        assert blended is not None
        return normalize(blended.to(scenes.tensors()[0].device), dim=-1, eps=1e-20)

    def _splat(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Tensor | None = None,
        depth: bool = False,
        normals: bool = False,
    ) -> Render:
        if not isinstance(scenes, Gaussians):
            raise ValueError(f"SplattingRenderer: expected scenes of Gaussians, got {type(scenes).__name__}")
        from rasterizer import rasterize  # the compiled core loads when the first picture is drawn

        config, device = self.config, scenes.means.device
        without_core = config.backend == "auto" and device.type not in CORES
        if without_core or (config.backend == "cpu" and device.type != "cpu"):
            # There is no compiled core for this device: networks stay on it, scenes go to the CPU core and back.
            scenes, cameras = scenes.map(Tensor.cpu), cameras.map(Tensor.cpu)
        return rasterize(
            scenes.means,
            scenes.quats,
            scenes.scales,
            scenes.opacities,
            scenes.colors,
            cameras.viewmats,
            cameras.Ks(size, size),
            size,
            size,
            backgrounds=None if backgrounds is None else backgrounds.to(scenes.means.device),
            near_plane=config.near_plane,
            far_plane=config.far_plane,
            eps2d=config.eps2d * (size / self.training_size) ** 2,
            antialiased=config.antialiased,
            depth=depth,
            normals=normals,
            backend=config.backend,
        )
