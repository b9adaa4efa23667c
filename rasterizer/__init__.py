"""Differentiable Gaussian splatting: ``rasterize`` turns scenes and cameras into images.

Importing this package loads no compiled code; the first call that needs a core loads it.
"""

from rasterizer.api import Render, rasterize
from rasterizer.backend import available_backends
from rasterizer.gsplat_api import rasterization
from rasterizer.reference import rasterize_reference

__all__ = ["Render", "available_backends", "rasterization", "rasterize", "rasterize_reference"]
