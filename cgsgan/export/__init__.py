"""Scenes and pictures -> files that other programs open."""

from cgsgan.export.color_fit import ColorFit, fit_colors
from cgsgan.export.formats import FORMATS, convert_splats, describe_splats, read_splats, write_splats
from cgsgan.export.html import read_splat_page, save_splat_page
from cgsgan.export.images import make_grid, save_grid, save_image, to_uint8
from cgsgan.export.ply import describe_ply, read_ply, read_sh_rest, write_ply
from cgsgan.export.ply_header import PlyError
from cgsgan.export.scene import ExportOptions, SplatFileError, ViewDependentColorWarning
from cgsgan.export.video import save_video

__all__ = [
    "FORMATS",
    "ColorFit",
    "ExportOptions",
    "PlyError",
    "SplatFileError",
    "ViewDependentColorWarning",
    "convert_splats",
    "describe_ply",
    "describe_splats",
    "fit_colors",
    "make_grid",
    "read_ply",
    "read_sh_rest",
    "read_splat_page",
    "read_splats",
    "save_grid",
    "save_image",
    "save_splat_page",
    "save_video",
    "to_uint8",
    "write_ply",
    "write_splats",
]
