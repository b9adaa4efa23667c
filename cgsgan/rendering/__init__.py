"""Scenes + cameras + background -> images."""

from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer

__all__ = ["Renderer", "SplattingConfig", "SplattingRenderer"]
