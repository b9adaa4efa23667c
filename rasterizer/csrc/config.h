// Every constant of the rasterizer, with unit and reason. constants.py mirrors this file; a test holds them equal.
#pragma once

#ifndef RZ_NAMESPACE
#define RZ_NAMESPACE rz
#endif

namespace RZ_NAMESPACE {

// Edge of a square tile, pixels. One tile is one task of blending and one list of Gaussians.
constexpr int TILE_SIZE = 16;

// A contribution below this alpha is skipped: half a level of an 8-bit image would not show it.
constexpr double ALPHA_THRESHOLD = 1.0 / 255.0;

// Upper bound of alpha, so that 1 - alpha never vanishes. No gradient to mean, conic and opacity above it.
constexpr double ALPHA_MAX = 0.99;

// A pixel is finished when the next Gaussian would bring its transmittance to this value or below;
// that Gaussian is excluded.
constexpr double TRANSMITTANCE_STOP = 1e-4;

// Least square root of det(cov) / det(cov + eps2d I) by which antialiasing scales the opacity.
constexpr double ANTIALIAS_FLOOR = 0.005;

// The slopes x/z and y/z at which the projection is linearised stay within the image border plus this
// fraction of half the image (in tangent units), as beyond it the first-order expansion explodes.
constexpr double JACOBIAN_MARGIN = 0.3;

// compat="inria": a Gaussian may be drawn in the tiles that the square of this many standard deviations around it
// touches. The greatest variance is the mean of both plus the root of their spread; the spread, pixels^4, is at least
// the second number.
constexpr double SQUARE_SIGMAS = 3.0;
constexpr double SQUARE_FLOOR = 0.1;

// Highest degree of spherical harmonics; degree d has (d + 1)^2 coefficients per channel.
constexpr int MAX_SH_DEGREE = 3;

}  // namespace RZ_NAMESPACE
