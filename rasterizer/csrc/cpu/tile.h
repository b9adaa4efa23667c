// A tile as blending sees it: blocks of pixels, one vector each.
#pragma once

#include "binning.h"

namespace RZ_NAMESPACE {

struct Tile {
    int64_t image;
    int x, y;  // first pixel
    VFloat columns[BLOCK_COLUMNS];  // pixel centers
    VFloat rows[BLOCK_ROWS];
    BlockMask inside;                  // blocks with a pixel in the image
    float stop;                        // a pixel whose transmittance would not stay above ends
    float free_below;                  // alphas up to this one have a gradient, before the clamp
};

RZ_FN VMask in_image(const Frame& f, const Tile& t, int block) {
    return (t.columns[block % BLOCK_COLUMNS] < VFloat((float)f.p->width)) &
           (t.rows[block / BLOCK_COLUMNS] < VFloat((float)f.p->height));
}

// Pixels of a block, n numbers each, of an image [H,W,n]; zero outside of it.
template <int n>
RZ_FN void load_pixels(const Frame& f, const Tile& t, int block, const float* image, VFloat* out) {
    const int x = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
    const int width = f.p->width - x, height = f.p->height - y;
    const float* first = image + (t.image * f.pixels + (int64_t)y * f.p->width + x) * n;
    alignas(64) float rows[LANES * n];
    if (width >= BLOCK_WIDTH && height >= BLOCK_HEIGHT) {
        for (int row = 0; row < BLOCK_HEIGHT; ++row)
            __builtin_memcpy(rows + row * BLOCK_WIDTH * n, first + (int64_t)row * f.p->width * n, BLOCK_WIDTH * n * 4);
    } else {
        __builtin_memset(rows, 0, sizeof(rows));
        for (int row = 0; row < BLOCK_HEIGHT && row < height; ++row)
            for (int i = 0; i < BLOCK_WIDTH * n && i < width * n; ++i)
                rows[row * BLOCK_WIDTH * n + i] = first[(int64_t)row * f.p->width * n + i];
    }
    load_rows<n>(rows, n, LANES, out);
}

template <int n>
RZ_FN void store_pixels(const Frame& f, const Tile& t, int block, const VFloat* in, float* image) {
    const int x = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
    const int width = f.p->width - x, height = f.p->height - y;
    float* first = image + (t.image * f.pixels + (int64_t)y * f.p->width + x) * n;
    alignas(64) float rows[LANES * n];
    store_rows<n>(rows, n, LANES, in);
    if (width >= BLOCK_WIDTH && height >= BLOCK_HEIGHT) {
        for (int row = 0; row < BLOCK_HEIGHT; ++row)
            __builtin_memcpy(first + (int64_t)row * f.p->width * n, rows + row * BLOCK_WIDTH * n, BLOCK_WIDTH * n * 4);
        return;
    }
    for (int row = 0; row < BLOCK_HEIGHT && row < height; ++row)
        for (int i = 0; i < BLOCK_WIDTH * n && i < width * n; ++i)
            first[(int64_t)row * f.p->width * n + i] = rows[row * BLOCK_WIDTH * n + i];
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
    // inria: at TRANSMITTANCE_STOP itself a pixel goes on, so the bound is the number below; no alpha lacks a gradient.
    const bool inria = f.p->inria != 0;
    t.stop = inria ? __builtin_nextafterf((float)TRANSMITTANCE_STOP, 0.0f) : (float)TRANSMITTANCE_STOP;
    t.free_below = inria ? __builtin_huge_valf() : (float)ALPHA_MAX;
    t.inside = 0;
    for (int block = 0; block < BLOCKS; ++block)
        if (any(in_image(f, t, block))) t.inside |= (BlockMask)((BlockMask)1 << block);
    return t;
}

// Entries of a tile's list that are blended together, block by block: a block then keeps its state in registers, and
// no branch depends on how many blocks a Gaussian meets.
struct Batch {
    static constexpr int SIZE = 64;
    int count;
    const float* records[SIZE];
    uint64_t touching[BLOCKS];  // of each block: the entries, a bit each, with a pixel center of it in the ellipse
    BlockMask reached[SIZE];    // of each entry: the blocks that it changes
    uint64_t clamped;           // entries that may_clamp
};

// One axis of touching blocks: the pixel centers of a column or row of them, relative to the Gaussians.
struct Span {
    VFloat low, high;
    VFloat best;  // the other coordinate, of the least exponent on the edge that faces the center
    VFloat square, linear;
};

RZ_FN Span make_span(float first, int pixels, VFloat center, VFloat slope, VFloat own, VFloat mixed) {
    Span s;
    s.low = VFloat(first) - center;
    s.high = s.low + (float)(pixels - 1);
    const VFloat near = minimum(maximum(VFloat(0.0f), s.low), s.high);
    s.best = near * slope;
    s.square = near * near * own;
    s.linear = near * mixed;
    return s;
}

// Least exponent on the edge of a block that `edge` stands for, along `other`.
RZ_FN VFloat least_exponent(const Span& edge, const Span& other, VFloat own) {
    const VFloat best = minimum(maximum(edge.best, other.low), other.high);
    return edge.square + best * (edge.linear + best * own);
}

// Which blocks have a pixel center in the ellipse, up to rounding: those in whose rectangle of pixel centers the
// exponent falls to REACH. A lane each for as many entries. The least exponent over a rectangle lies on the edges
// that face the center, where one coordinate is known and the other one has a closed form (StopThePop, Radl et al.
// 2024). Testing here spares most of the blocks of the bounding box.
RZ_FN void find_touching(const Tile& t, BlockMask alive, Batch& batch, int first) {
    VFloat fields[OPACITY + 1];
    load_columns(batch.records + first, fields);
    batch.clamped |= (uint64_t)bits(fields[OPACITY] > VFloat((float)ALPHA_MAX)) << first;
    const VFloat a = fields[CONIC_A], b = fields[CONIC_B], c = fields[CONIC_C];
    // Rounding of the exponent inside the ellipse grows with its length over its width.
    const VFloat reach = fields[REACH] + 0.01f + a * fields[EXTENT_X] * fields[EXTENT_X] * 2e-6f;
    const VFloat slope_x = b * -0.5f / a, slope_y = b * -0.5f / c;
    Span columns[BLOCK_COLUMNS];
    for (int i = 0; i < BLOCK_COLUMNS; ++i)
        columns[i] = make_span((float)(t.x + i * BLOCK_WIDTH) + 0.5f, BLOCK_WIDTH, fields[PIXEL_X], slope_y, a, b);
    for (int j = 0; j < BLOCK_ROWS; ++j) {
        if (!(alive >> (j * BLOCK_COLUMNS) & ((1 << BLOCK_COLUMNS) - 1))) continue;
        const Span row =
            make_span((float)(t.y + j * BLOCK_HEIGHT) + 0.5f, BLOCK_HEIGHT, fields[PIXEL_Y], slope_x, c, b);
        for (int i = 0; i < BLOCK_COLUMNS; ++i) {
            const VFloat least = minimum(least_exponent(columns[i], row, c), least_exponent(row, columns[i], a));
            batch.touching[j * BLOCK_COLUMNS + i] |= (uint64_t)bits(least <= reach) << first;
        }
    }
}

RZ_FN void start_batch(const Tile& t, BlockMask alive, const float* records, const Entry* entries, const Entry* end,
                       Batch& batch) {
    batch.count = end - entries < Batch::SIZE ? (int)(end - entries) : Batch::SIZE;
    batch.clamped = 0;
    for (int i = 0; i < batch.count; ++i) {
        batch.records[i] = records + (int64_t)entries[i].gaussian * RZ_RECORD_FLOATS;
        batch.reached[i] = 0;
        if (entries + i + Batch::SIZE < end)
            __builtin_prefetch(records + (int64_t)entries[i + Batch::SIZE].gaussian * RZ_RECORD_FLOATS);
    }
    for (int i = batch.count; i % LANES; ++i) batch.records[i] = batch.records[0];
    for (int block = 0; block < BLOCKS; ++block) batch.touching[block] = 0;
    for (int i = 0; i < batch.count; i += LANES) find_touching(t, alive, batch, i);
    const uint64_t used = ~(uint64_t)0 >> (Batch::SIZE - batch.count);
    for (int block = 0; block < BLOCKS; ++block) batch.touching[block] &= used;
}

// The exponent in alpha = opacity * 2^-exponent, the same in both passes to the last bit.
template <class T>
RZ_FN T exponent(T a, T b, T c, T dx, T dy) {
    return dx * (dx * a + dy * b) + dy * (dy * c);
}

// Where alpha counts: neither too small, nor, by rounding, above the opacity.
RZ_FN VMask counted(const float* record, VFloat exponent) { return from_zero_to(exponent, record[REACH]); }

// Alpha before the clamp of a Gaussian at the pixels (x, y), 0 where it does not count.
RZ_FN VFloat alpha_at(const float* record, VFloat x, VFloat y) {
    const VFloat dx = x - record[PIXEL_X], dy = y - record[PIXEL_Y];
    const VFloat e = exponent<VFloat>(record[CONIC_A], record[CONIC_B], record[CONIC_C], dx, dy);
    return select(counted(record, e), exp2_of_negative(e) * record[OPACITY], VFloat(0.0f));
}

// The same of two Gaussians, and where they count.
struct Alphas {
    VFloat a, b;
    VMask counted_a, counted_b;
};

RZ_FN Alphas alphas_at(const float* first, const float* second, VFloat x, VFloat y) {
    const auto field = [&](Field k) { return Twice(VFloat(first[k]), VFloat(second[k])); };
    const Twice dx = Twice(x, x) - field(PIXEL_X), dy = Twice(y, y) - field(PIXEL_Y);
    const Twice e = exponent(field(CONIC_A), field(CONIC_B), field(CONIC_C), dx, dy);
    const Twice alpha = exp2_of_negative(e) * field(OPACITY);
    const VMask a = counted(first, e.a), b = counted(second, e.b);
    return {select(a, alpha.a, VFloat(0.0f)), select(b, alpha.b, VFloat(0.0f)), a, b};
}

// Whether alpha may exceed its bound: it never exceeds the opacity, as the power of two is at most one.
RZ_FN bool may_clamp(const float* record) { return record[OPACITY] > (float)ALPHA_MAX; }

// One Gaussian of a list at some pixels, of which those count that are alive: not finished before.
struct Step {
    VFloat alpha;   // clamped
    VFloat weight;  // of its color
    VFloat next;    // transmittance behind it where the pixel goes on
    VMask goes_on;  // lanes that are not finished, by it or before
};

template <bool clamps>
RZ_FN Step advance(const Tile& t, VFloat unclamped, VFloat transmittance, VMask alive) {
    Step s;
    s.alpha = clamps ? minimum(unclamped, VFloat((float)ALPHA_MAX)) : unclamped;
    s.next = transmittance * (VFloat(1.0f) - s.alpha);
    s.goes_on = (s.next > VFloat(t.stop)) & alive;
    s.weight = select(s.goes_on, s.alpha * transmittance, VFloat(0.0f));
    return s;
}

RZ_FN void prefetch_record(const float* records, const Entry& entry) {
    __builtin_prefetch(records + (int64_t)entry.gaussian * RZ_RECORD_FLOATS);
}

}  // namespace RZ_NAMESPACE
