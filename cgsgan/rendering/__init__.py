"""Scenes + cameras + background -> images."""

from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer

__all__ = ["Renderer", "SplattingConfig", "SplattingRenderer", "VolumeConfig", "VolumeRenderer"]
