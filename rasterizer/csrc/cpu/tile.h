// A tile as blending sees it: blocks of pixels, one vector each.
#pragma once

#include "binning.h"

namespace RZ_NAMESPACE {

struct Tile {
    int64_t image;
    int x, y;  // first pixel
    VFloat columns[BLOCK_COLUMNS];  // pixel centers
    VFloat rows[BLOCK_ROWS];
    BlockMask inside;  // blocks with a pixel in the image
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
    t.inside = 0;
    for (int block = 0; block < BLOCKS; ++block)
        if (any(in_image(f, t, block))) t.inside |= (BlockMask)((BlockMask)1 << block);
    return t;
}

// Blocks that the bounding box of a Gaussian's ellipse meets.
RZ_FN BlockMask touched_blocks(const Tile& t, const float* record) {
    const float half_x = record[EXTENT_X] + slack(record[EXTENT_X]);
    const float half_y = record[EXTENT_Y] + slack(record[EXTENT_Y]);
    const float x = record[PIXEL_X] - (float)t.x - 0.5f, y = record[PIXEL_Y] - (float)t.y - 0.5f;
    const float last = (float)(TILE_SIZE - 1);
    if (!(x + half_x >= 0.0f) || !(y + half_y >= 0.0f) || !(x - half_x <= last) || !(y - half_y <= last)) return 0;
    const int left = (int)(maximum(x - half_x, 0.0f) + 0.99f) / BLOCK_WIDTH;
    const int right = (int)minimum(x + half_x, last) / BLOCK_WIDTH;
    const int top = (int)(maximum(y - half_y, 0.0f) + 0.99f) / BLOCK_HEIGHT;
    const int bottom = (int)minimum(y + half_y, last) / BLOCK_HEIGHT;
    if (left > right || top > bottom) return 0;
    const uint64_t row = (2ull << right) - (1ull << left);
    const uint64_t every_row = 0x1111111111111111ull;
    const uint64_t above = bottom == 15 ? ~0ull : (1ull << (4 * (bottom + 1))) - 1;
    return (BlockMask)(row * every_row & (above & (~0ull << (4 * top))));
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

RZ_FN void prefetch_records(const Frame& f, const Entry* entries, int64_t i, int64_t count, int64_t image,
                            const uint32_t* owners) {
    constexpr int64_t AHEAD = 8;
    if (i + AHEAD < count) {
        const uint32_t g = owners ? owners[entries[i + AHEAD].slot] : entries[i + AHEAD].key;
        __builtin_prefetch(f.records + (image * f.p->gaussians + g) * RZ_RECORD_FLOATS);
    }
}

}  // namespace RZ_NAMESPACE
