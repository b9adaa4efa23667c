// A tile as blending sees it: blocks of pixels, one vector each.
#pragma once

#include "binning.h"

namespace RZ_NAMESPACE {

struct Tile {
    int64_t image;
    int x, y;  // first pixel
    VFloat columns[BLOCK_COLUMNS];  // pixel centers
    VFloat rows[BLOCK_ROWS];
    VFloat lefts, tops[BLOCK_GROUPS];  // first pixel centers of the blocks, a lane each
    BlockMask inside;                  // blocks with a pixel in the image
};

RZ_FN VMask in_image(const Frame& f, const Tile& t, int block) {
    return (t.columns[block % BLOCK_COLUMNS] < VFloat((float)f.p->width)) &
           (t.rows[block / BLOCK_COLUMNS] < VFloat((float)f.p->height));
}

RZ_FN Tile make_tile(const Frame& f, int64_t task) {
    Tile t;
    t.image = task / f.tiles;
    const int tile = (int)(task % f.tiles);
    t.x = tile % f.tiles_x * TILE_SIZE;
    t.y = tile / f.tiles_x * TILE_SIZE;
    alignas(64) float lane_x[LANES], lane_y[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        lane_x[lane] = (float)(lane % BLOCK_WIDTH) + 0.5f;
        lane_y[lane] = (float)(lane / BLOCK_WIDTH) + 0.5f;
    }
    for (int i = 0; i < BLOCK_COLUMNS; ++i) t.columns[i] = load(lane_x) + (float)(t.x + i * BLOCK_WIDTH);
    for (int i = 0; i < BLOCK_ROWS; ++i) t.rows[i] = load(lane_y) + (float)(t.y + i * BLOCK_HEIGHT);
    for (int lane = 0; lane < LANES; ++lane) lane_x[lane] = (float)(lane % BLOCK_COLUMNS * BLOCK_WIDTH + t.x) + 0.5f;
    t.lefts = load(lane_x);
    for (int group = 0; group < BLOCK_GROUPS; ++group) {
        for (int lane = 0; lane < LANES; ++lane)
            lane_y[lane] = (float)((group * LANES + lane) / BLOCK_COLUMNS * BLOCK_HEIGHT + t.y) + 0.5f;
        t.tops[group] = load(lane_y);
    }
    t.inside = 0;
    for (int block = 0; block < BLOCKS; ++block)
        if (any(in_image(f, t, block))) t.inside |= (BlockMask)((BlockMask)1 << block);
    return t;
}

// Blocks with a pixel center in the ellipse, up to rounding: those in whose rectangle of pixel centers the exponent
// reaches LEAST. All blocks of a group at once, a lane each. The greatest exponent over a rectangle lies on the edges
// that face the center, where one coordinate is known and the other one has a closed form (StopThePop, Radl et al.
// 2024). Testing here spares most of the blocks of the bounding box, and the branches that would discard them.
RZ_FN BlockMask touched_blocks(const Tile& t, const float* record) {
    const float a = record[CONIC_A], b = record[CONIC_B], c = record[CONIC_C];
    const float half_x = record[EXTENT_X], half_y = record[EXTENT_Y];
    // Rounding of the exponent inside the ellipse grows with its length over its width.
    const float least = record[LEAST] - 0.01f + 1e-6f * (a * half_x * half_x + c * half_y * half_y);
    const VFloat zero = 0.0f;
    const VFloat low_x = t.lefts - record[PIXEL_X], high_x = low_x + (float)(BLOCK_WIDTH - 1);
    const VFloat near_x = minimum(maximum(zero, low_x), high_x);
    const VFloat slope_y = near_x * (-0.5f * b / c);  // dy of the greatest exponent on the edge dx = near_x
    const float slope_x = -0.5f * b / a;
    uint64_t out = 0;
    for (int group = 0; group < BLOCK_GROUPS; ++group) {
        const VFloat low_y = t.tops[group] - record[PIXEL_Y], high_y = low_y + (float)(BLOCK_HEIGHT - 1);
        const VFloat near_y = minimum(maximum(zero, low_y), high_y);
        const VFloat best_y = minimum(maximum(slope_y, low_y), high_y);
        const VFloat best_x = minimum(maximum(near_y * slope_x, low_x), high_x);
        const VFloat first = near_x * (near_x * a + best_y * b) + best_y * best_y * c;
        const VFloat second = best_x * (best_x * a + near_y * b) + near_y * near_y * c;
        out |= (uint64_t)bits(maximum(first, second) >= VFloat(least)) << (group * LANES);
    }
    return (BlockMask)out;
}

// The exponent of 2 in alpha = opacity * 2^exponent, the same in both passes to the last bit.
RZ_FN VFloat exponent(const float* record, VFloat dx, VFloat dy) {
    return dx * (dx * record[CONIC_A] + dy * record[CONIC_B]) + dy * (dy * record[CONIC_C]);
}

// Transmittance of a finished pixel is kept with a minus sign, so that one number says both.
struct Step {
    VMask drawn;     // lanes that this Gaussian adds to
    VMask finished;  // lanes that it finishes
    VFloat alpha;    // clamped
    VFloat unclamped;
    VFloat before;  // transmittance
    VFloat after;   // to be kept
};

RZ_FN VMask candidates(const float* record, VFloat exponent, VFloat transmittance) {
    return (exponent >= VFloat(record[LEAST])) & (exponent <= VFloat(0.0f)) & (transmittance > VFloat(0.0f));
}

RZ_FN Step advance(const float* record, VFloat exponent, VMask candidate, VFloat transmittance) {
    Step s;
    s.before = transmittance;
    s.unclamped = exp2_unchecked(exponent) * record[OPACITY];
    s.alpha = minimum(s.unclamped, VFloat((float)ALPHA_MAX));
    const VFloat next = transmittance * (VFloat(1.0f) - s.alpha);
    const VMask goes_on = next > VFloat((float)TRANSMITTANCE_STOP);
    s.drawn = candidate & goes_on;
    s.finished = and_not(candidate, goes_on);
    s.after = select(s.finished, -transmittance, select(s.drawn, next, transmittance));
    return s;
}

RZ_FN VFloat absolute(VFloat x) { return maximum(x, -x); }

RZ_FN void prefetch_record(const float* records, const Entry* entry, const Entry* end) {
    constexpr int AHEAD = 12;
    if (entry + AHEAD < end) __builtin_prefetch(records + (int64_t)entry[AHEAD].gaussian * RZ_RECORD_FLOATS);
}

}  // namespace RZ_NAMESPACE
