"""Scenes and pictures -> files that other programs open."""

from cgsgan.export.images import make_grid, save_grid, save_image, to_uint8
from cgsgan.export.ply import describe_ply, read_ply, read_sh_rest, write_ply
from cgsgan.export.ply_header import PlyError
from cgsgan.export.video import save_video

__all__ = [
    "PlyError",
    "describe_ply",
    "make_grid",
    "read_ply",
    "read_sh_rest",
    "save_grid",
    "save_image",
    "save_video",
    "to_uint8",
    "write_ply",
]
