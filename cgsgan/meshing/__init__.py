"""Scenes -> coloured meshes: tri-planes by density or signed distance, any scene by fusing views of it."""

from cgsgan.meshing.density import mesh_density
from cgsgan.meshing.fusion import FusionSettings, fuse_views, surrounding_views
from cgsgan.meshing.surface import SurfaceError
from cgsgan.meshing.zero_level import mesh_zero_level

__all__ = [
    "FusionSettings",
    "SurfaceError",
    "fuse_views",
    "mesh_density",
    "mesh_zero_level",
    "surrounding_views",
]
