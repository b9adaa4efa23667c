// Second stage: each tile sorts its list by depth and blends it front to back.
#pragma once

#include "tile.h"

namespace RZ_NAMESPACE {

// Channel count known to the compiler, or 0: read at run time.
template <int known>
RZ_FN int channel_count(const Frame& f) {
    return known > 0 ? known : f.blended;
}

// What a Gaussian adds to the pixels of a block, for any number of channels, then depth.
RZ_FN void add_channels(const Frame& f, const Tile& t, const float* record, uint32_t gaussian, VFloat weight,
                        VFloat* sums) {
    const int64_t channels = f.p->channels;
    const float* colors = f.p->colors + (t.image / f.p->views * f.p->gaussians + gaussian) * channels;
    for (int64_t c = 0; c < channels; ++c) sums[c] += weight * colors[c];
    if (f.p->depth) sums[channels] += weight * record[DEPTH];
}

// Writes the colors of a block for any number of channels; `sums` is [channels] or null for nothing drawn.
RZ_FN void write_channels(const Frame& f, const Tile& t, int block, VFloat left, const VFloat* sums) {
    const RzParams& p = *f.p;
    const float* background = p.backgrounds ? p.backgrounds + t.image * p.channels : nullptr;
    const int x0 = t.x + block % BLOCK_COLUMNS * BLOCK_WIDTH, y0 = t.y + block / BLOCK_COLUMNS * BLOCK_HEIGHT;
    for (int64_t c = 0; c < p.channels; ++c) {
        alignas(64) float value[LANES];
        store(value, (sums ? sums[c] : VFloat(0.0f)) + (background ? left * background[c] : VFloat(0.0f)));
        for (int lane = 0; lane < LANES; ++lane) {
            const int x = x0 + lane % BLOCK_WIDTH, y = y0 + lane / BLOCK_WIDTH;
            if (x >= p.width || y >= p.height) continue;
            p.out_colors[(t.image * f.pixels + (int64_t)y * p.width + x) * p.channels + c] = value[lane];
        }
    }
}

// Writes the pixels of a tile; `sums` is [BLOCKS][channels] or null for a tile without Gaussians.
RZ_FN void write_tile(const Frame& f, const Tile& t, const VFloat* transmittance, const VFloat* sums) {
    const RzParams& p = *f.p;
    const VFloat zero = 0.0f;
    const float* background = p.backgrounds ? p.backgrounds + t.image * p.channels : nullptr;
    for (BlockMask blocks = t.inside; blocks; blocks &= blocks - 1) {
        const int block = __builtin_ctzll(blocks);
        const VFloat* sum = sums ? sums + (int64_t)block * f.blended : nullptr;
        const VFloat left = sums ? absolute(transmittance[block]) : VFloat(1.0f);
        const VFloat alpha = VFloat(1.0f) - left;
        store_pixels<1>(f, t, block, &alpha, p.out_alphas);
        if (p.depth) store_pixels<1>(f, t, block, sum ? sum + p.channels : &zero, p.out_depths);
        if (!f.packed_colors) {
            write_channels(f, t, block, left, sum);
            continue;
        }
        VFloat color[3];
        for (int c = 0; c < 3; ++c)
            color[c] = (sum ? sum[c] : zero) + (background ? left * background[c] : zero);
        store_pixels<3>(f, t, block, color, p.out_colors);
    }
}

// Blends one batch into one block, two Gaussians at a time. `state` is its transmittance, negative where a pixel is
// finished.
template <int known, bool training, bool clamps>
RZ_FN void blend_block(const Frame& f, const Tile& t, Batch& batch, const Entry* entries, int block, VFloat& state,
                       VFloat* sums) {
    const VFloat x = t.columns[block % BLOCK_COLUMNS], y = t.rows[block / BLOCK_COLUMNS], zero = 0.0f;
    VFloat transmittance = absolute(state);  // a finished pixel keeps its last one
    VMask alive = state > zero;
    VFloat colors[known > 0 ? known : 1];
    for (int c = 0; c < known; ++c) colors[c] = sums[c];
    const auto blend = [&](int i, VFloat unclamped, VMask counted) __attribute__((always_inline)) {
        const float* record = batch.records[i];
        const Step s = advance<clamps>(t, unclamped, transmittance, alive);
        if constexpr (training) batch.reached[i] |= (BlockMask)((BlockMask)any(counted & alive) << block);
        transmittance = select(s.goes_on, s.next, transmittance);
        alive = s.goes_on;
        if constexpr (known > 0)
            for (int c = 0; c < known; ++c) colors[c] += s.weight * record[COLOR + c];
        else
            add_channels(f, t, record, entries[i].gaussian, s.weight, sums);
    };
    for (uint64_t left = batch.touching[block]; left; left &= left - 1) {
        const int i = __builtin_ctzll(left);
        left &= left - 1;
        if (!left) {
            const Alphas alone = alphas_at(batch.records[i], batch.records[i], x, y);
            blend(i, alone.a, alone.counted_a);
            break;
        }
        const int j = __builtin_ctzll(left);
        const Alphas alphas = alphas_at(batch.records[i], batch.records[j], x, y);
        blend(i, alphas.a, alphas.counted_a);
        blend(j, alphas.b, alphas.counted_b);
        if (!any(alive)) break;
    }
    for (int c = 0; c < known; ++c) sums[c] = colors[c];
    state = select(alive, transmittance, -transmittance);
}

// Keeps for the backward pass which blocks each entry of a batch changed; entries without any are written over by
// those behind them. Returns where the next one goes.
RZ_FN Entry* keep_reached(const Frame& f, const Batch& batch, const Entry* entries, Entry* kept) {
    for (int i = 0; i < batch.count; ++i) {
        *kept = entries[i];
        f.masks[kept - f.entries] = batch.reached[i];
        kept += batch.reached[i] != 0;
    }
    return kept;
}

template <int known, bool training>
RZ_FN void blend_tile(const Frame& f, int64_t task, int worker) {
    const Tile t = make_tile(f, task);
    const int64_t count = f.tile_starts[task + 1] - f.tile_starts[task];
    f.tile_ends[task] = f.tile_starts[task];
    if (count == 0) {
        write_tile(f, t, nullptr, nullptr);
        return;
    }
    Entry *entries = f.entries + f.tile_starts[task], *kept = entries;
    const Entry* end = entries + count;
    char* scratch = f.scratch + worker * f.scratch_bytes;
    const float* records = f.records + t.image * f.p->gaussians * RZ_RECORD_FLOATS;
    sort_entries(entries, (Entry*)scratch, count, records);

    const int channels = channel_count<known>(f);
    VFloat transmittance[BLOCKS];
    VFloat fixed_sums[known > 0 ? BLOCKS * known : 1];
    VFloat* sums = known > 0 ? fixed_sums : (VFloat*)scratch;
    for (int block = 0; block < BLOCKS; ++block)
        transmittance[block] = select(in_image(f, t, block), VFloat(1.0f), VFloat(-1.0f));
    for (int i = 0; i < BLOCKS * channels; ++i) sums[i] = VFloat(0.0f);

    Batch batch;
    for (BlockMask alive = t.inside; entries < end && alive; entries += batch.count) {
        start_batch(t, alive, records, entries, end, batch);
        for (BlockMask left = alive; left; left &= left - 1) {
            const int block = __builtin_ctzll(left);
            if (!batch.touching[block]) continue;
            VFloat& state = transmittance[block];
            if (batch.touching[block] & batch.clamped)
                blend_block<known, training, true>(f, t, batch, entries, block, state, sums + block * channels);
            else
                blend_block<known, training, false>(f, t, batch, entries, block, state, sums + block * channels);
            if (!any(transmittance[block] > VFloat(0.0f))) alive &= (BlockMask) ~((BlockMask)1 << block);
        }
        if constexpr (training) kept = keep_reached(f, batch, entries, kept);
    }
    f.tile_ends[task] = (uint32_t)(kept - f.entries);
    write_tile(f, t, transmittance, sums);
}

}  // namespace RZ_NAMESPACE
