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

// Reads the tile's incoming gradients: v_features [BLOCKS][channels], v_alpha, and the starting values of `behind`.
RZ_FN void read_gradients(const Frame& f, const Tile& t, VFloat* v_features, VFloat* v_alpha, VFloat* behind) {
    const RzParams& p = *f.p;
    const int64_t channels = p.channels;
    for (int block = 0; block < BLOCKS; ++block) {
        alignas(64) float rest[LANES], alpha[LANES];
        float* v = (float*)(v_features + (int64_t)block * f.blended);
        const int x0 = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y0 = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
        for (int lane = 0; lane < LANES; ++lane) {
            const int x = x0 + lane % BLOCK_WIDTH, y = y0 + lane / BLOCK_WIDTH;
            const bool inside = x < p.width && y < p.height;
            const int64_t pixel = t.image * f.pixels + (int64_t)y * p.width + x;
            alpha[lane] = inside && p.v_alphas ? p.v_alphas[pixel] : 0.0f;
            rest[lane] = inside ? alpha[lane] * p.out_alphas[pixel] : 0.0f;
            for (int64_t c = 0; c < channels; ++c) {
                const float value = inside && p.v_colors ? p.v_colors[pixel * channels + c] : 0.0f;
                v[c * LANES + lane] = value;
                if (inside) rest[lane] += value * p.out_colors[pixel * channels + c];
            }
            if (p.depth) {
                const float value = inside && p.v_depths ? p.v_depths[pixel] : 0.0f;
                v[channels * LANES + lane] = value;
                if (inside) rest[lane] += value * p.out_depths[pixel];
            }
        }
        v_alpha[block] = load(alpha);
        behind[block] = load(rest);
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

// Sums over lanes of moments and channel gradients, to an instance's record.
template <int known>
RZ_FN void write_instance(const Frame& f, VFloat* moments, VFloat* v_channels, float* out) {
    if constexpr (known > 0) {
        VFloat all[MOMENTS + known];
        for (int k = 0; k < MOMENTS; ++k) all[k] = moments[k];
        for (int c = 0; c < known; ++c) all[MOMENTS + c] = v_channels[c];
        fold_all<LANES / 2, MOMENTS + known>(all);
        for (int k = 0; k < (MOMENTS + known + LANES - 1) / LANES; ++k) stream(out + k * LANES, all[k]);
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
    }
}

template <int known>
RZ_FN void blend_tile_backward(const Frame& f, int64_t task, int worker) {
    const Tile t = make_tile(f, task);
    if (f.p->v_backgrounds) background_tile(f, t, task);
    const int64_t start = f.tile_starts[task], end = f.tile_ends[task];
    if (end == start) return;

    const int channels = channel_count<known>(f);
    const int64_t scene = t.image / f.p->views;
    const float* records = f.records + t.image * f.p->gaussians * RZ_RECORD_FLOATS;
    VFloat transmittance[BLOCKS], behind[BLOCKS], v_alphas[BLOCKS];
    VFloat fixed_v[known > 0 ? (BLOCKS + 1) * known : 1];
    VFloat* v_features = known > 0 ? fixed_v : (VFloat*)(f.gradient_scratch + worker * f.gradient_scratch_bytes);
    VFloat fixed_sums[known > 0 ? known : 1];
    VFloat* v_channels = known > 0 ? fixed_sums : v_features + (int64_t)BLOCKS * channels;
    float* room = (float*)(v_channels + channels);
    for (int block = 0; block < BLOCKS; ++block)
        transmittance[block] = select(in_image(f, t, block), VFloat(1.0f), VFloat(-1.0f));
    read_gradients(f, t, v_features, v_alphas, behind);

    const Entry* entries = f.entries;
    for (int64_t i = start; i < end; ++i) {
        prefetch_record(records, entries + i, entries + end);
        BlockMask left = f.masks[i];
        if (!left) continue;
        const uint32_t gaussian = entries[i].gaussian;
        const float* record = records + (int64_t)gaussian * RZ_RECORD_FLOATS;
        const float* features = features_of<known>(f, record, scene, gaussian, room);
        VFloat moments[MOMENTS];
        for (int k = 0; k < MOMENTS; ++k) moments[k] = VFloat(0.0f);
        for (int c = 0; c < channels; ++c) v_channels[c] = VFloat(0.0f);
        for (; left; left &= left - 1) {
            const int block = __builtin_ctzll(left);
            const VFloat dx = t.columns[block % BLOCK_COLUMNS] - record[PIXEL_X];
            const VFloat dy = t.rows[block / BLOCK_COLUMNS] - record[PIXEL_Y];
            const VFloat e = exponent(record, dx, dy);
            const Step s = advance(record, e, candidates(record, e, transmittance[block]), transmittance[block]);
            transmittance[block] = s.after;
            const VFloat weight = select(s.drawn, s.alpha * s.before, VFloat(0.0f));
            const VFloat* v = v_features + block * channels;
            VFloat u = v_alphas[block];
            for (int c = 0; c < channels; ++c) u += v[c] * features[c];
            const VFloat rest = behind[block] - weight * u;
            behind[block] = rest;
            const VFloat v_alpha = s.before * u - rest / (VFloat(1.0f) - s.alpha);
            const VMask free = s.drawn & (s.unclamped <= VFloat((float)ALPHA_MAX));
            const VFloat d = select(free, s.unclamped * v_alpha, VFloat(0.0f));
            const VFloat d_x = d * dx, d_y = d * dy;
            moments[SUM] += d;
            moments[SUM_X] += d_x;
            moments[SUM_Y] += d_y;
            moments[SUM_XX] += d_x * dx;
            moments[SUM_XY] += d_x * dy;
            moments[SUM_YY] += d_y * dy;
            for (int c = 0; c < channels; ++c) v_channels[c] += weight * v[c];
        }
        write_instance<known>(f, moments, v_channels, f.gradients + (int64_t)entries[i].slot * f.gradient_stride);
    }
    fence_streams();
}

}  // namespace RZ_NAMESPACE
