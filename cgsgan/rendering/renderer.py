"""What a renderer is: the one joint between scenes and images, shared by every backend."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.types import RenderOutput, Scenes


@runtime_checkable
class Renderer(Protocol):
    """Renders B scenes from V cameras each."""

    def __call__(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int,
        backgrounds: Float[Tensor, "batch view 3"],
        depth: bool = False,
    ) -> RenderOutput:
        """Render square images.

        Args:
            scenes: ``[B, ...]``.
            cameras: ``[B, V]``.
            size: width and height in pixels.
            backgrounds: solid colours, always explicit.
            depth: also give expected depth.

        Raises:
            ValueError: for scenes of a kind that this renderer does not draw.
        """
        ...
