// Which tiles and sub-tiles a projected Gaussian meets. Counting and emission must agree to the last tile, but
// the compiler may inline what both call, and contract it differently in each. So in the functions that decide on tiles
// every product is rounded as written: no product is left whose sum could become a multiply-add or not.
#pragma once

#include "device.cuh"

namespace RZ_NAMESPACE {

// Tiles, or rows of tiles, one after another.
struct Span {
    int first;
    int count;
};

// Where a Gaussian lies on the image. Half width and height are those of the ellipse outside of which alpha is below
// its threshold, plus the slack that keeps rounding from dropping a pixel which blending would draw. In its rows the
// ellipse is centered at x + shear * dy, and half as long as chord * sqrt(half_y^2 - dy^2). compat="inria": half sides
// of a square, in whole pixels.
struct Footprint {
    float x, y;
    float half_x, half_y;
    float shear, chord;
};

RZ_DEVICE float slack(float extent) { return __fmaf_rn(extent, 1e-5f, 0.01f); }

// Tiles along one axis with pixel centers in [low, high].
RZ_DEVICE Span tile_span(float low, float high, int pixels) {
    low = low - 0.5f;
    high = high - 0.5f;
    if (!(high >= 0.0f) || !(low <= (float)(pixels - 1))) return {0, 0};
    // 0.99 instead of a true ceil errs to the side of one pixel too many.
    const int first = low > 0.0f ? (int)(low + 0.99f) : 0;
    const int last = high < (float)(pixels - 1) ? (int)high : pixels - 1;
    if (first > last) return {0, 0};
    return {first / TILE_SIZE, last / TILE_SIZE - first / TILE_SIZE + 1};
}

// Tiles along one axis that the square of compat="inria" reaches, by the published rounding.
RZ_DEVICE Span square_span(float center, float radius, int tiles) {
    const float middle = center - 0.5f;  // there, pixel centers are at integers
    const float low = floorf(__fmul_rn(middle - radius, 1.0f / TILE_SIZE));
    const float high = floorf(__fmul_rn(middle + radius + (float)(TILE_SIZE - 1), 1.0f / TILE_SIZE));
    const int first = (int)fminf(fmaxf(low, 0.0f), (float)tiles);
    const int end = (int)fminf(fmaxf(high, 0.0f), (float)tiles);
    return {first, end > first ? end - first : 0};
}

__device__ __noinline__ Span tile_rows(float y, float half_y, int height, bool square) {
    if (square) return square_span(y, half_y, (height + TILE_SIZE - 1) / TILE_SIZE);
    return tile_span(y - half_y, y + half_y, height);
}

// Tiles of a row that hold a pixel center inside the ellipse, but for its corners of pixel size (the row intervals of
// Speedy-Splat, Hanson et al. 2025, on pixel centers).
__device__ __noinline__ Span tile_columns(Footprint f, int row, int width, bool square) {
    if (square) return square_span(f.x, f.half_x, (width + TILE_SIZE - 1) / TILE_SIZE);
    const float top = (float)(row * TILE_SIZE) + 0.5f - f.y, bottom = top + (float)(TILE_SIZE - 1);
    const float squared = __fmul_rn(f.half_y, f.half_y), extra = slack(f.half_x);
    const float widest = __fmul_rn(f.shear, squared) / f.half_x;  // dy at which the ellipse reaches furthest right
    const float low = fminf(fmaxf(top, -f.half_y), f.half_y), high = fmaxf(fminf(bottom, f.half_y), -f.half_y);
    const float dy_right = fminf(fmaxf(widest, low), high), dy_left = fminf(fmaxf(-widest, low), high);
    const float right_chord = __fmul_rn(f.chord, sqrtf(fmaxf(__fmaf_rn(-dy_right, dy_right, squared), 0.0f)));
    const float left_chord = __fmul_rn(f.chord, sqrtf(fmaxf(__fmaf_rn(-dy_left, dy_left, squared), 0.0f)));
    const float right = __fmaf_rn(f.shear, dy_right, right_chord), left = __fmaf_rn(f.shear, dy_left, -left_chord);
    return tile_span(__fadd_rn(f.x, left) - extra, __fadd_rn(f.x, right) + extra, width);
}

RZ_DEVICE int count_tiles(const RzCudaParams& p, const Footprint& f) {
    const bool square = p.inria != 0;
    const Span rows = tile_rows(f.y, f.half_y, p.height, square);
    int count = 0;
    for (int i = 0; i < rows.count; ++i) count += tile_columns(f, rows.first + i, p.width, square).count;
    return count;
}

// The conic of a Gaussian and what the test of sub-tiles derives from it, once per Gaussian.
struct Reach {
    float x, y;
    float a, b, c;  // as in its record
    float slope_x, slope_y;
    float least;  // exponent, without that of the opacity
};

RZ_DEVICE Reach make_reach(float4 first, float4 second, float half_x, float half_y) {
    Reach r;
    r.x = first.x;
    r.y = first.y;
    r.a = first.z;
    r.b = first.w;
    r.c = second.x;
    r.slope_x = -0.5f * r.b / r.a;
    r.slope_y = -0.5f * r.b / r.c;
    // Rounding of the exponent inside the ellipse grows with its length over its width.
    r.least = LEAST_EXPONENT - second.y - 0.01f + 1e-6f * (r.a * half_x * half_x + r.c * half_y * half_y);
    return r;
}

// Sub-tiles in whose rectangle of pixel centers the exponent reaches the least one, as bits. The greatest exponent over
// a rectangle lies on the edges that face the center, where one coordinate is known and the other has a closed form
// (StopThePop, Radl et al. 2024).
RZ_DEVICE unsigned subtile_mask(const Reach& r, int tile_x, int tile_y) {
    constexpr int COLUMNS = TILE_SIZE / SUBTILE_WIDTH;
    unsigned mask = 0;
    RZ_UNROLL
    for (int column = 0; column < COLUMNS; ++column) {
        const float low_x = (float)(tile_x * TILE_SIZE + column * SUBTILE_WIDTH) + 0.5f - r.x;
        const float high_x = low_x + (float)(SUBTILE_WIDTH - 1);
        const float near_x = fminf(fmaxf(0.0f, low_x), high_x);
        const float steep_y = near_x * r.slope_y;  // dy of the greatest exponent on the edge dx = near_x
        RZ_UNROLL
        for (int row = 0; row < SUBTILES / COLUMNS; ++row) {
            const float low_y = (float)(tile_y * TILE_SIZE + row * SUBTILE_HEIGHT) + 0.5f - r.y;
            const float high_y = low_y + (float)(SUBTILE_HEIGHT - 1);
            const float near_y = fminf(fmaxf(0.0f, low_y), high_y);
            const float best_y = fminf(fmaxf(steep_y, low_y), high_y);
            const float best_x = fminf(fmaxf(near_y * r.slope_x, low_x), high_x);
            const float one = near_x * (near_x * r.a + best_y * r.b) + best_y * best_y * r.c;
            const float two = best_x * (best_x * r.a + near_y * r.b) + near_y * near_y * r.c;
            // Written so that a NaN counts as met.
            if (!(fmaxf(one, two) < r.least)) mask |= 1u << (row * COLUMNS + column);
        }
    }
    return mask;
}

}  // namespace RZ_NAMESPACE
