"""A generator and its renderer as one function: styles and cameras to pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import RenderOutput


@dataclass(frozen=True)
class SceneSource:
    """What an inversion looks at.

    Attributes:
        network: takes ``ws=``; any backend.
        renderer: draws its scenes.
    """

    network: nn.Module
    renderer: Renderer

    @property
    def device(self) -> torch.device:
        """Where the network is; everything else is to be there too."""
        return next(self.network.parameters()).device

    def draw(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        cameras: Cameras,
        backgrounds: Float[Tensor, "view 3"],
        *,
        size: int,
    ) -> RenderOutput:
        """Every scene from the same cameras ``[1, view]`` on the same backgrounds; not clamped."""
        scenes = self.network(ws=ws).scenes
        batch = len(ws)
        shared = cameras.map(lambda t: t.expand(batch, *t.shape[1:]))
        return self.renderer(scenes, shared, size=size, backgrounds=backgrounds.expand(batch, -1, -1))

    def render(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        cameras: Cameras,
        backgrounds: Float[Tensor, "view 3"],
        *,
        size: int,
    ) -> Float[Tensor, "batch view 3 size size"]:
        """The pictures of :meth:`draw`."""
        return self.draw(ws, cameras, backgrounds, size=size).images
