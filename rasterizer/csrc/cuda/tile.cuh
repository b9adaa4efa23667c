// What both directions of blending share: where a block's tile lies, the exponent of a Gaussian at a pixel, and the
// records of a list staged in shared memory.
#pragma once

#include "device.cuh"

namespace RZ_NAMESPACE {

struct Tile {
    int64_t image;
    int64_t first_entry;
    int count;  // entries
    int x, y;   // first pixel
};

RZ_DEVICE Tile locate_tile(const RzCudaParams& p, unsigned index) {
    const int per_image = p.tiles_x * p.tiles_y;
    const int image = (int)(index / (unsigned)per_image), tile = (int)(index % (unsigned)per_image);
    const int2 range = ((const int2*)p.tile_ranges)[index];
    return {image, range.x, range.y - range.x, tile % p.tiles_x * TILE_SIZE, tile / p.tiles_x * TILE_SIZE};
}

RZ_DEVICE bool in_image(const RzCudaParams& p, int x, int y) { return x < p.width && y < p.height; }

RZ_DEVICE int64_t pixel_index(const RzCudaParams& p, const Tile& tile, int x, int y) {
    return (tile.image * p.height + y) * p.width + x;
}

// log2 of alpha, without its upper bound; the same in both directions to the last bit, hence no contraction left to the
// compiler. Rounding near the center must not raise alpha above the opacity. The parts that pixels of a row share stand
// apart.
struct RowExponent {
    float slope;  // of dx
    float rest;
};

RZ_DEVICE RowExponent row_exponent(float4 first, float4 second, float dy) {
    return {__fmul_rn(first.w, dy), __fmaf_rn(__fmul_rn(second.x, dy), dy, second.y)};
}

RZ_DEVICE float exponent(float4 first, float4 second, RowExponent row, float dx) {
    return fminf(__fmaf_rn(dx, __fmaf_rn(first.z, dx, row.slope), row.rest), second.y);
}

// What a Gaussian of this alpha takes of the transmittance: its weight in the pixel. Both directions agree on the rest.
RZ_DEVICE float take(float transmittance, float alpha) { return __fmul_rn(alpha, transmittance); }
RZ_DEVICE float leave(float transmittance, float weight) { return __fadd_rn(transmittance, -weight); }

// An entry's record on its way from global to shared memory: of the third part only what these kernels read.
constexpr int LAST_CHANNELS = COLORS_PACKED && CHANNELS > 2 ? CHANNELS - 2 : 0;
struct Staged {
    float4 first, second;
    float channels[LAST_CHANNELS > 0 ? LAST_CHANNELS : 1];
    float depth;
};

RZ_DEVICE unsigned gaussian_of(unsigned payload) { return payload & 0xffffffu; }

// `records` of the tile's image.
RZ_DEVICE Staged fetch_record(const float4* records, unsigned payload) {
    const float4* record = records + (int64_t)gaussian_of(payload) * 3;
    Staged staged;
    staged.first = __ldg(record);
    staged.second = __ldg(record + 1);
    RZ_UNROLL
    for (int c = 0; c < LAST_CHANNELS; ++c) staged.channels[c] = __ldg((const float*)(record + 2) + c);
    if (WITH_DEPTH) staged.depth = __ldg((const float*)record + DEPTH);
    return staged;
}

RZ_DEVICE void put_record(const Staged& staged, float4* record) {
    record[0] = staged.first;
    record[1] = staged.second;
    RZ_UNROLL
    for (int c = 0; c < LAST_CHANNELS; ++c) ((float*)(record + 2))[c] = staged.channels[c];
    if (WITH_DEPTH) ((float*)record)[DEPTH] = staged.depth;
}

RZ_DEVICE const float4* records_of(const RzCudaParams& p, const Tile& tile) {
    return (const float4*)p.records + tile.image * p.gaussians * 3;
}

// Colors [N, CHANNELS] of the tile's scene.
RZ_DEVICE const float* colors_of(const RzCudaParams& p, const Tile& tile) {
    return p.colors + tile.image / p.views * p.gaussians * CHANNELS;
}

// What an entry adds per unit of weight: channels, then depth. `id` is read only where colors are not packed.
RZ_DEVICE void load_features(const float4* record, float4 second, const float* colors, const unsigned* id,
                             float* features) {
    if (COLORS_PACKED) {
        features[0] = second.z;
        if (CHANNELS > 1) features[1] = second.w;
        RZ_UNROLL
        for (int c = 0; c < LAST_CHANNELS; ++c) features[2 + c] = ((const float*)(record + 2))[c];
    } else {
        const float* color = colors + (int64_t)*id * CHANNELS;
        RZ_UNROLL
        for (int c = 0; c < CHANNELS; ++c) features[c] = __ldg(color + c);
    }
    if (WITH_DEPTH) features[FEATURES - 1] = ((const float*)record)[DEPTH];
}

// The lowest bit of a word, and its place. __ffs would reverse the word before it looks for the highest bit, and both
// are slow: a quarter of the rate of an addition, or less.
RZ_DEVICE unsigned lowest_bit(unsigned word) { return word & (0 - word); }
RZ_DEVICE int bit_place(unsigned only) { return WARP - 1 - __clz((int)only); }

// A warp turns the masks of its 32 entries into one word per sub-tile: bit i says that entry i meets it. Lane s returns
// the word of sub-tile s.
RZ_DEVICE unsigned transpose_masks(unsigned payload, int lane) {
    unsigned word = 0;
    RZ_UNROLL
    for (int s = 0; s < SUBTILES; ++s) {
        const unsigned votes = __ballot_sync(FULL_WARP, payload >> (24 + s) & 1);
        if (lane == s) word = votes;
    }
    return word;
}

}  // namespace RZ_NAMESPACE
