// Fourth stage: each tile blends its list front to back. A block is a tile, a warp a sub-tile of 8 x 4 pixels, a thread
// a pixel. The list passes through shared memory in batches; of each, a warp visits only the entries whose mask says
// that they meet its sub-tile.
#pragma once

#include "tile.cuh"

namespace RZ_NAMESPACE {

constexpr int BLEND_BATCH = BLEND_BLOCK;
constexpr int BLEND_WORDS = BLEND_BATCH / WARP;

struct BlendShared {
    float4 records[BLEND_BATCH][3];
    unsigned ids[COLORS_PACKED ? 1 : BLEND_BATCH];
    unsigned hits[SUBTILES][BLEND_WORDS];
};

struct Pixel {
    float x, y;           // center
    float transmittance;
    float least;          // exponent that the next Gaussian must reach; infinite for a finished pixel
    float sums[FEATURES];
    int last;             // one past the last entry blended
};

// The first transmittance that does not finish a pixel lies above this: exclusive, or inclusive for compat="inria".
RZ_DEVICE float stop_transmittance(const RzCudaParams& p) {
    return __int_as_float(__float_as_int((float)TRANSMITTANCE_STOP) - (p.inria != 0));
}

// `index` is the entry's place in the list. Selections instead of branches: of a warp that meets the Gaussian some
// pixel nearly always does.
RZ_DEVICE void blend_entry(const float4* record, const float* colors, const unsigned* id, int index, float stop,
                           Pixel& pixel) {
    const float4 first = record[0], second = record[1];
    const float e = exponent(first, second, row_exponent(first, second, pixel.y - first.y), pixel.x - first.x);
    const float alpha = fminf(exp2f(e), (float)ALPHA_MAX);
    const float share = take(pixel.transmittance, alpha), next = leave(pixel.transmittance, share);
    const bool met = e >= pixel.least, goes_on = next > stop;
    const bool drawn = met && goes_on;
    const float weight = drawn ? share : 0.0f;
    float features[FEATURES];
    load_features(record, second, colors, id, features);
    RZ_UNROLL
    for (int c = 0; c < FEATURES; ++c) pixel.sums[c] += weight * features[c];
    pixel.transmittance = drawn ? next : pixel.transmittance;
    pixel.last = drawn ? index + 1 : pixel.last;
    pixel.least = met && !goes_on ? infinity() : pixel.least;
}

// Batches of the list; every thread of the block comes here.
RZ_DEVICE void blend_list(const RzCudaParams& p, const Tile& tile, BlendShared& shared, Pixel& pixel) {
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const uint2* entries = (const uint2*)p.entries + tile.first_entry;
    const float4* records = records_of(p, tile);
    const float* colors = COLORS_PACKED ? nullptr : colors_of(p, tile);
    const float stop = stop_transmittance(p);
    // Records are fetched one batch ahead, the entries that name them two.
    unsigned payload = thread < tile.count ? __ldg(&entries[thread].x) : 0;
    Staged staged{};
    if (thread < tile.count) staged = fetch_record(records, payload);
    unsigned ahead = thread + BLEND_BATCH < tile.count ? __ldg(&entries[thread + BLEND_BATCH].x) : 0;

    for (int base = 0; base < tile.count; base += BLEND_BATCH) {
        // Also says that all warps are done with the last batch.
        if (__syncthreads_and(pixel.least == infinity())) break;
        put_record(staged, shared.records[thread]);
        if (!COLORS_PACKED) shared.ids[thread] = gaussian_of(payload);
        const unsigned word = transpose_masks(payload, lane);
        if (lane < SUBTILES) shared.hits[lane][warp] = word;
        const unsigned next = (unsigned)base + BLEND_BATCH + thread;
        payload = ahead;
        if (next < (unsigned)tile.count) staged = fetch_record(records, payload);
        ahead = next + BLEND_BATCH < (unsigned)tile.count ? __ldg(&entries[next + BLEND_BATCH].x) : 0;
        __syncthreads();
        for (int group = 0; group < BLEND_WORDS; ++group) {
            unsigned left = shared.hits[warp][group];
            if (left == 0) continue;
            if (!__any_sync(FULL_WARP, pixel.least < infinity())) break;
            const int first = group * WARP;
            for (unsigned only; left; left ^= only) {
                only = lowest_bit(left);
                const int bit = bit_place(only);
                blend_entry(shared.records[first] + 3 * bit, colors, shared.ids + (COLORS_PACKED ? 0 : first + bit),
                            base + first + bit, stop, pixel);
            }
        }
    }
}

RZ_DEVICE void blend_tile(const RzCudaParams& p, BlendShared& shared) {
    const Tile tile = locate_tile(p, blockIdx.x);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    constexpr int COLUMNS = TILE_SIZE / SUBTILE_WIDTH;
    const int x = tile.x + warp % COLUMNS * SUBTILE_WIDTH + lane % SUBTILE_WIDTH;
    const int y = tile.y + warp / COLUMNS * SUBTILE_HEIGHT + lane / SUBTILE_WIDTH;
    const bool inside = in_image(p, x, y);
    Pixel pixel{(float)x + 0.5f, (float)y + 0.5f, 1.0f, inside ? LEAST_EXPONENT : infinity(), {}, 0};
    if (tile.count > 0) blend_list(p, tile, shared, pixel);
    if (!inside) return;

    const int64_t index = pixel_index(p, tile, x, y);
    const float* background = p.backgrounds ? p.backgrounds + tile.image * CHANNELS : nullptr;
    RZ_UNROLL
    for (int c = 0; c < CHANNELS; ++c)
        p.out_colors[index * CHANNELS + c] =
            pixel.sums[c] + (background ? pixel.transmittance * __ldg(background + c) : 0.0f);
    p.out_alphas[index] = 1.0f - pixel.transmittance;
    if (WITH_DEPTH) p.out_depths[index] = pixel.sums[FEATURES - 1];
    p.last_ids[index] = pixel.last;
}

}  // namespace RZ_NAMESPACE
