"""Numbers of the image formation: the Python mirror of ``csrc/config.h``; a test holds the two equal."""

from __future__ import annotations

TILE_SIZE = 16  # pixels along each side of the square tiles in which splats are binned and blended

ALPHA_THRESHOLD = 1.0 / 255.0  # a splat adds nothing to a pixel where its alpha is below (3DGS, section 6)
ALPHA_MAX = 0.99  # a single splat never hides what is behind it completely; no gradient above
TRANSMITTANCE_STOP = 1e-4  # the splat that would bring the transmittance to this or below ends the pixel, unblended

JACOBIAN_MARGIN = 0.3  # the affine projection is linearised at most this many tan(fov / 2) outside the image
ANTIALIAS_FLOOR = 0.005  # smallest factor by which the antialiased mode dims a splat (Mip-Splatting, equation 9)

# compat="inria": the tiles of a splat are those that its square of this many standard deviations touches, where
SQUARE_SIGMAS = 3.0
SQUARE_FLOOR = 0.1  # pixels^4, is the least spread whose root is added to the mean variance to give the greatest

MAX_SH_DEGREE = 3

DEFAULT_NEAR_PLANE = 0.01  # world units
INRIA_NEAR_PLANE = 0.2  # world units, the default of compat="inria"
DEFAULT_FAR_PLANE = 1e10  # world units
DEFAULT_EPS2D = 0.3  # square pixels added to both variances of the projected splat: the low-pass filter of 3DGS
