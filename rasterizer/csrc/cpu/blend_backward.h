// First stage of the gradient: each tile replays its list front to back and leaves one record per instance.
//
// With u = v_color . color + v_depth z + v_alpha of a Gaussian, the loss is a sum of weight_i u_i over a pixel's list
// plus T_end (v_color . background), as alpha is the sum of the weights. Of all that lies behind the current Gaussian
// one number is needed, `behind`: it starts as the sum over everything, known from the outputs, and loses weight_i u_i
// at each step. Then d loss / d alpha_i = T_i u_i - behind / (1 - alpha_i), with the alphas of the forward pass to the
// last bit. (Counting v_alpha by T_end instead would cancel badly where an expected depth divides by a small alpha.)
//
// A block gives only d = alpha * d loss / d alpha and the weight per pixel; the gradients of mean, conic and
// opacity are the moments of d, put together once per Gaussian in projection_backward.h.
#pragma once

#include "blend.h"

namespace RZ_NAMESPACE {

// What a Gaussian adds per unit of weight: colors, then depth. Other than 3 channels are fetched from the user's
// array into `room`.
template <int known>
RZ_FN const float* features_of(const Frame& f, const float* record, int64_t scene, uint32_t gaussian, float* room) {
    if constexpr (known > 0) return record + COLOR;
    const int64_t channels = f.p->channels;
    const float* colors = f.p->colors + (scene * f.p->gaussians + gaussian) * channels;
    if (!f.p->depth) return colors;
    for (int64_t c = 0; c < channels; ++c) room[c] = colors[c];
    room[channels] = record[DEPTH];
    return room;
}

// Adds a block's incoming gradients of the colors for any number of channels.
RZ_FN void read_channels(const Frame& f, const Tile& t, int block, VFloat* v_features, VFloat& rest) {
    const RzParams& p = *f.p;
    const int x0 = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y0 = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
    for (int64_t c = 0; c < p.channels; ++c) {
        alignas(64) float v[LANES], color[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const int x = x0 + lane % BLOCK_WIDTH, y = y0 + lane / BLOCK_WIDTH;
            const bool inside = x < p.width && y < p.height;
            const int64_t at = (t.image * f.pixels + (int64_t)y * p.width + x) * p.channels + c;
            v[lane] = inside ? p.v_colors[at] : 0.0f;
            color[lane] = inside ? p.out_colors[at] : 0.0f;
        }
        v_features[c] = load(v);
        rest += load(v) * load(color);
    }
}

// Reads the tile's incoming gradients: v_features [BLOCKS][channels], v_alpha, and the starting values of `behind`.
RZ_FN void read_gradients(const Frame& f, const Tile& t, VFloat* v_features, VFloat* v_alpha, VFloat* behind) {
    const RzParams& p = *f.p;
    for (int i = 0; i < BLOCKS * f.blended; ++i) v_features[i] = VFloat(0.0f);
    for (int block = 0; block < BLOCKS; ++block) v_alpha[block] = behind[block] = VFloat(0.0f);
    for (BlockMask blocks = t.inside; blocks; blocks &= blocks - 1) {
        const int block = __builtin_ctzll(blocks);
        VFloat* v = v_features + (int64_t)block * f.blended;
        VFloat rest = 0.0f, value;
        if (p.v_alphas) {
            load_pixels<1>(f, t, block, p.v_alphas, v_alpha + block);
            load_pixels<1>(f, t, block, p.out_alphas, &value);
            rest = v_alpha[block] * value;
        }
        if (p.v_colors && f.packed_colors) {
            VFloat color[3];
            load_pixels<3>(f, t, block, p.v_colors, v);
            load_pixels<3>(f, t, block, p.out_colors, color);
            for (int c = 0; c < 3; ++c) rest += v[c] * color[c];
        } else if (p.v_colors) {
            read_channels(f, t, block, v, rest);
        }
        if (p.v_depths) {
            load_pixels<1>(f, t, block, p.v_depths, v + p.channels);
            load_pixels<1>(f, t, block, p.out_depths, &value);
            rest += v[p.channels] * value;
        }
        behind[block] = rest;
    }
}

// The gradient of the background is the sum over pixels of v_color times the final transmittance.
RZ_FN void background_tile(const Frame& f, const Tile& t, int64_t task) {
    const RzParams& p = *f.p;
    float* out = f.background_partial + task * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) out[c] = 0.0f;
    if (!p.v_colors) return;
    const int bottom = minimum((float)(t.y + TILE_SIZE), (float)p.height);
    const int right = minimum((float)(t.x + TILE_SIZE), (float)p.width);
    for (int y = t.y; y < bottom; ++y)
        for (int x = t.x; x < right; ++x) {
            const int64_t pixel = t.image * f.pixels + (int64_t)y * p.width + x;
            for (int64_t c = 0; c < p.channels; ++c)
                out[c] += p.v_colors[pixel * p.channels + c] * (1.0f - p.out_alphas[pixel]);
        }
}

// A vector whose last numbers are the stamp.
RZ_FN VFloat stamp_vector(uint64_t stamp) {
    static_assert(sizeof(stamp) == STAMP_FLOATS * sizeof(float));
    alignas(64) float lanes[LANES] = {};
    __builtin_memcpy(lanes + LANES - STAMP_FLOATS, &stamp, sizeof(stamp));
    return load(lanes);
}

// Sums over lanes of moments and channel gradients, to an instance's record.
template <int known>
RZ_FN void write_instance(const Frame& f, VFloat stamp, VFloat* moments, VFloat* v_channels, float* out) {
    if constexpr (known > 0) {
        constexpr int VECTORS = (MOMENTS + known + STAMP_FLOATS + LANES - 1) / LANES;
        constexpr uint32_t STAMPED = ((1u << STAMP_FLOATS) - 1) << (LANES - STAMP_FLOATS);
        VFloat all[MOMENTS + known];
        for (int k = 0; k < MOMENTS; ++k) all[k] = moments[k];
        for (int c = 0; c < known; ++c) all[MOMENTS + c] = v_channels[c];
        fold_all<LANES / 2, MOMENTS + known>(all);
        static_assert(VECTORS == (MOMENTS + known + LANES - 1) / LANES);
        all[VECTORS - 1] = select(from_bits(STAMPED), stamp, all[VECTORS - 1]);
        for (int k = 0; k < VECTORS; ++k) stream(out + k * LANES, all[k]);
    } else {
        float sums[2 * LANES];
        fold_all<LANES / 2, MOMENTS>(moments);
        for (int k = 0; k < (MOMENTS + LANES - 1) / LANES; ++k) store(sums + k * LANES, moments[k]);
        for (int k = 0; k < MOMENTS; ++k) out[k] = sums[k];
        for (int c = 0; c < f.blended; ++c) {
            VFloat one = v_channels[c];
            fold_all<LANES / 2, 1>(&one);
            out[MOMENTS + c] = one[0];
        }
        __builtin_memcpy(out + f.gradient_stride - STAMP_FLOATS, &f.stamp, sizeof(f.stamp));
    }
}

// Visits to blocks by a run of entries. Their alphas depend on nothing before them: computed ahead, all at once, they
// do not lengthen the chain of operations from one Gaussian to the next.
struct Replay {
    static constexpr int CAPACITY = 64;
    VFloat alphas[CAPACITY];  // before the clamp
    uint32_t gaussians[CAPACITY + LANES];
    uint32_t blocks[CAPACITY + LANES];
};

// Fills it with the visits of the entries from `next` on, as far as they fit; returns the first entry left out.
RZ_FN int64_t fill_replay(const Frame& f, const Tile& t, const float* records, int64_t next, int64_t end,
                          Replay& replay) {
    static_assert(Replay::CAPACITY >= BLOCKS);
    int count = 0;
    for (; next < end; ++next) {
        const BlockMask left = f.masks[next];
        if (count + __builtin_popcountll(left) > Replay::CAPACITY) break;
        count += list_bits(left, f.entries[next].gaussian, replay.blocks + count, replay.gaussians + count);
    }
    for (int i = 0; i < count; ++i) {
        const uint32_t block = replay.blocks[i];
        const float* record = records + (int64_t)replay.gaussians[i] * RZ_RECORD_FLOATS;
        replay.alphas[i] = alpha_at(record, t.columns[block % BLOCK_COLUMNS], t.rows[block / BLOCK_COLUMNS]);
    }
    return next;
}

// Pixels of a tile while its list is replayed, a vector per block.
struct Pixels {
    VFloat transmittance[BLOCKS], behind[BLOCKS], v_alphas[BLOCKS];
    VFloat* v_features;  // [BLOCKS][channels]
};

// One entry: its moments and the gradients of its channels over the blocks that it changed.
template <int known, bool clamps>
RZ_FN void replay_entry(const Frame& f, const Tile& t, const float* record, const float* features, BlockMask blocks,
                        const VFloat* alphas, Pixels& pixels, VFloat* moments, VFloat* v_channels) {
    const int channels = channel_count<known>(f);
    const VFloat zero = 0.0f;
    for (int k = 0; k < MOMENTS; ++k) moments[k] = zero;
    for (int c = 0; c < channels; ++c) v_channels[c] = zero;
    for (; blocks; blocks &= blocks - 1) {
        const int block = __builtin_ctzll(blocks);
        const VFloat dx = t.columns[block % BLOCK_COLUMNS] - record[PIXEL_X];
        const VFloat dy = t.rows[block / BLOCK_COLUMNS] - record[PIXEL_Y];
        const VFloat before = pixels.transmittance[block], unclamped = *alphas++;
        const Step s = advance<clamps>(t, unclamped, before, every_lane());
        pixels.transmittance[block] = select(s.goes_on, s.next, zero);
        const VFloat* v = pixels.v_features + block * channels;
        VFloat u = pixels.v_alphas[block];
        for (int c = 0; c < channels; ++c) u += v[c] * features[c];
        const VFloat rest = pixels.behind[block] - s.weight * u;
        pixels.behind[block] = rest;
        const VFloat v_alpha = before * u - rest * inverse(VFloat(1.0f) - s.alpha);
        const VMask free = clamps ? s.goes_on & (unclamped <= VFloat(t.free_below)) : s.goes_on;
        const VFloat d = select(free, unclamped * v_alpha, zero);
        const VFloat d_x = d * dx, d_y = d * dy;
        moments[SUM] += d;
        moments[SUM_X] += d_x;
        moments[SUM_Y] += d_y;
        moments[SUM_XX] += d_x * dx;
        moments[SUM_XY] += d_x * dy;
        moments[SUM_YY] += d_y * dy;
        for (int c = 0; c < channels; ++c) v_channels[c] += s.weight * v[c];
    }
}

// More than a run of the replay holds, so that records arrive while the run before is blended.
constexpr int RECORDS_AHEAD = 72;

template <int known>
RZ_FN void blend_tile_backward(const Frame& f, int64_t task, int worker) {
    const Tile t = make_tile(f, task);
    if (f.p->v_backgrounds) background_tile(f, t, task);
    const int64_t start = f.tile_starts[task], end = f.tile_ends[task];
    if (end == start) return;

    const int channels = channel_count<known>(f);
    const int64_t scene = t.image / f.p->views;
    const float* records = f.records + t.image * f.p->gaussians * RZ_RECORD_FLOATS;
    for (int64_t i = start; i < end && i < start + RECORDS_AHEAD; ++i) prefetch_record(records, f.entries[i]);
    Pixels pixels;
    VFloat fixed_v[known > 0 ? BLOCKS * known : 1], fixed_sums[known > 0 ? known : 1];
    pixels.v_features = known > 0 ? fixed_v : (VFloat*)(f.gradient_scratch + worker * f.gradient_scratch_bytes);
    VFloat* v_channels = known > 0 ? fixed_sums : pixels.v_features + (int64_t)BLOCKS * channels;
    float* room = (float*)(v_channels + channels);
    for (int block = 0; block < BLOCKS; ++block)
        pixels.transmittance[block] = select(in_image(f, t, block), VFloat(1.0f), VFloat(0.0f));
    read_gradients(f, t, pixels.v_features, pixels.v_alphas, pixels.behind);

    const VFloat stamp = stamp_vector(f.stamp);
    Replay replay;
    for (int64_t next = start; next < end;) {
        const int64_t first = next;
        next = fill_replay(f, t, records, first, end, replay);
        const VFloat* alphas = replay.alphas;
        for (int64_t i = first; i < next; ++i) {
            if (i + RECORDS_AHEAD < end) prefetch_record(records, f.entries[i + RECORDS_AHEAD]);
            const Entry& entry = f.entries[i];
            const float* record = records + (int64_t)entry.gaussian * RZ_RECORD_FLOATS;
            const float* features = features_of<known>(f, record, scene, entry.gaussian, room);
            VFloat moments[MOMENTS];
            if (may_clamp(record))
                replay_entry<known, true>(f, t, record, features, f.masks[i], alphas, pixels, moments, v_channels);
            else
                replay_entry<known, false>(f, t, record, features, f.masks[i], alphas, pixels, moments, v_channels);
            alphas += __builtin_popcountll(f.masks[i]);
            write_instance<known>(f, stamp, moments, v_channels, gradient_record(f, entry.slot));
        }
    }
    fence_streams();
}

}  // namespace RZ_NAMESPACE
