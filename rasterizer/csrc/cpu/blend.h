// Second stage: each tile sorts its list by depth and blends it front to back.
#pragma once

#include "tile.h"

namespace RZ_NAMESPACE {

// Channel count known to the compiler, or 0: read at run time.
template <int known>
RZ_FN int channel_count(const Frame& f) {
    return known > 0 ? known : f.blended;
}

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

// Writes the pixels of a tile; `sums` is [BLOCKS][channels] or null for a tile without Gaussians.
RZ_FN void write_tile(const Frame& f, const Tile& t, const VFloat* transmittance, const VFloat* sums) {
    const RzParams& p = *f.p;
    const int64_t channels = p.channels;
    const float* background = p.backgrounds ? p.backgrounds + t.image * channels : nullptr;
    for (int block = 0; block < BLOCKS; ++block) {
        const int x0 = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y0 = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
        if (x0 >= p.width || y0 >= p.height) continue;
        alignas(64) float left[LANES];
        store(left, sums ? absolute(transmittance[block]) : VFloat(1.0f));
        const float* sum = sums ? (const float*)(sums + block * f.blended) : nullptr;
        for (int lane = 0; lane < LANES; ++lane) {
            const int x = x0 + lane % BLOCK_WIDTH, y = y0 + lane / BLOCK_WIDTH;
            if (x >= p.width || y >= p.height) continue;
            const int64_t pixel = t.image * f.pixels + (int64_t)y * p.width + x;
            for (int64_t c = 0; c < channels; ++c)
                p.out_colors[pixel * channels + c] =
                    (sum ? sum[c * LANES + lane] : 0.0f) + (background ? left[lane] * background[c] : 0.0f);
            p.out_alphas[pixel] = 1.0f - left[lane];
            if (p.depth) p.out_depths[pixel] = sum ? sum[channels * LANES + lane] : 0.0f;
        }
    }
}

template <int known>
RZ_FN void blend_tile(const Frame& f, int64_t task, int worker) {
    const Tile t = make_tile(f, task);
    const int64_t start = f.tile_starts[task], count = f.tile_starts[task + 1] - start;
    Entry* entries = f.entries + start;
    if (count == 0) {
        f.tile_ends[task] = (uint32_t)start;
        write_tile(f, t, nullptr, nullptr);
        return;
    }
    char* scratch = f.scratch + worker * f.scratch_bytes;
    sort_entries(entries, (Entry*)scratch, count);

    const int channels = channel_count<known>(f);
    const int64_t scene = t.image / f.p->views;
    const float* records = f.records + t.image * f.p->gaussians * RZ_RECORD_FLOATS;
    VFloat transmittance[BLOCKS];
    VFloat fixed_sums[known > 0 ? BLOCKS * known : 1];
    VFloat* sums = known > 0 ? fixed_sums : (VFloat*)scratch;
    float* room = (float*)(sums + (int64_t)BLOCKS * channels);
    for (int block = 0; block < BLOCKS; ++block)
        transmittance[block] = select(in_image(f, t, block), VFloat(1.0f), VFloat(-1.0f));
    for (int i = 0; i < BLOCKS * channels; ++i) sums[i] = VFloat(0.0f);

    BlockMask alive = t.inside;
    int64_t i = 0;
    for (; i < count && alive; ++i) {
        prefetch_record(records, entries + i, entries + count);
        const uint32_t gaussian = entries[i].gaussian;
        const float* record = records + (int64_t)gaussian * RZ_RECORD_FLOATS;
        const float* features = features_of<known>(f, record, scene, gaussian, room);
        BlockMask reached = 0;
        for (BlockMask left = touched_blocks(t, record) & alive; left; left &= left - 1) {
            const int block = __builtin_ctzll(left);
            const VFloat dx = t.columns[block % BLOCK_COLUMNS] - record[PIXEL_X];
            const VFloat dy = t.rows[block / BLOCK_COLUMNS] - record[PIXEL_Y];
            const VFloat e = exponent(record, dx, dy);
            const VMask candidate = candidates(record, e, transmittance[block]);
            if (!any(candidate)) continue;
            const BlockMask bit = (BlockMask)((BlockMask)1 << block);
            reached |= bit;
            const Step s = advance(record, e, candidate, transmittance[block]);
            transmittance[block] = s.after;
            const VFloat weight = select(s.drawn, s.alpha * s.before, VFloat(0.0f));
            for (int c = 0; c < channels; ++c) sums[block * channels + c] += weight * features[c];
            if (any(s.finished) && !any(s.after > VFloat(0.0f))) alive &= (BlockMask)~bit;
        }
        f.masks[start + i] = reached;
        if (reached) f.contributes[entries[i].slot] = 1;
    }
    f.tile_ends[task] = (uint32_t)(start + i);
    write_tile(f, t, transmittance, sums);
}

}  // namespace RZ_NAMESPACE
