"""Scenes + cameras + background -> images."""

from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.robust_settings import RobustConfig
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer

__all__ = [
    "Renderer",
    "RobustConfig",
    "RobustRenderer",
    "SplattingConfig",
    "SplattingRenderer",
    "VolumeConfig",
    "VolumeRenderer",
]
