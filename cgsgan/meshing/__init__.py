"""Scenes -> coloured meshes: tri-planes by their density, any scene by fusing views of it."""

from cgsgan.meshing.density import mesh_density
from cgsgan.meshing.fusion import FusionSettings, fuse_views, surrounding_views
from cgsgan.meshing.surface import SurfaceError

__all__ = ["FusionSettings", "SurfaceError", "fuse_views", "mesh_density", "surrounding_views"]
