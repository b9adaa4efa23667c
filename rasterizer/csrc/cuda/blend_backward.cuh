// First stage of the gradient: each tile replays its list front to back and leaves one record per instance, or adds to
// one per pair.
//
// With u = v_color . color + v_depth z + v_alpha of a Gaussian, the loss is a sum of weight_i u_i over a pixel's list
// plus T_end (v_color . background), as alpha is the sum of the weights. Of all that lies behind the current Gaussian
// one number is needed, `behind`: it starts as the sum over everything, known from the outputs, and loses weight_i u_i
// at each step. Then d loss / d alpha_i = T_i u_i - behind / (1 - alpha_i), with the alphas of the forward pass to the
// last bit. A pixel gives only d = alpha * d loss / d alpha and the weight; the gradients of mean, conic and opacity
// are the moments of d, put together once per Gaussian in project_backward.cuh.
//
// A block is a tile, a warp a strip of 16 x 4 pixels: two sub-tiles side by side, so a thread has two pixels of one row
// and a warp sums both at once. Warps leave their sums in shared memory; at the end of a batch they are added up in the
// order of warps.
#pragma once

#include "reduce.cuh"
#include "tile.cuh"

namespace RZ_NAMESPACE {

constexpr int STRIPS = BLEND_BACKWARD_BLOCK / WARP;
constexpr int STRIP_SUBTILES = SUBTILES / STRIPS;
static_assert(STRIP_SUBTILES * SUBTILE_WIDTH == TILE_SIZE, "a strip is as wide as the tile");
// Few enough for the sums to leave room for other blocks.
constexpr int BACKWARD_BATCH = GRADIENT_FLOATS <= 12 ? 64 : 32;
constexpr int BACKWARD_WORDS = BACKWARD_BATCH / WARP;

struct BlendBackwardShared {
    float4 records[BACKWARD_BATCH][3];
    float sums[STRIPS][BACKWARD_BATCH * GRADIENT_FLOATS];
    unsigned hits[BACKWARD_WORDS][SUBTILES];
    uint4 summed[BACKWARD_WORDS];  // a word per strip: entries whose sums it has left
    unsigned targets[2][BACKWARD_BATCH];
    unsigned ids[COLORS_PACKED ? 1 : BACKWARD_BATCH];
    int lasts[STRIPS];
};
static_assert(STRIPS == 4, "summed has four words");

struct GradientPixel {
    float x;
    float transmittance;
    float behind;
    float v_alpha;
    float v_features[FEATURES];
    int last;  // entries beyond were not blended
};

RZ_DEVICE GradientPixel read_gradients(const RzCudaParams& p, const Tile& tile, int x, int y) {
    GradientPixel pixel{(float)x + 0.5f, 1.0f, 0.0f, 0.0f, {}, 0};
    if (!in_image(p, x, y)) return pixel;
    const int64_t index = pixel_index(p, tile, x, y);
    pixel.last = p.last_ids[index];
    if (pixel.last == 0) return pixel;
    if (p.v_alphas) pixel.v_alpha = p.v_alphas[index];
    pixel.behind = pixel.v_alpha * p.out_alphas[index];
    if (p.v_colors) {
        RZ_UNROLL
        for (int c = 0; c < CHANNELS; ++c) {
            pixel.v_features[c] = p.v_colors[index * CHANNELS + c];
            pixel.behind += pixel.v_features[c] * p.out_colors[index * CHANNELS + c];
        }
    }
    if (WITH_DEPTH && p.v_depths) {
        pixel.v_features[FEATURES - 1] = p.v_depths[index];
        pixel.behind += pixel.v_features[FEATURES - 1] * p.out_depths[index];
    }
    return pixel;
}

// What an entry does at a pixel.
struct Replay {
    float weight;
    float d;
};

// `met` if the pixel blended it. Selections instead of branches, so that the two pixels of a thread are computed side
// by side.
RZ_DEVICE Replay replay_entry(float e, bool met, const float* features, float bound, GradientPixel& pixel) {
    const float unclamped = exp2f(e);
    const float alpha = fminf(unclamped, (float)ALPHA_MAX);
    const float weight = met ? take(pixel.transmittance, alpha) : 0.0f;
    float u = pixel.v_alpha;
    RZ_UNROLL
    for (int c = 0; c < FEATURES; ++c) u += pixel.v_features[c] * features[c];
    pixel.behind -= weight * u;
    const float v_alpha = pixel.transmittance * u - __fdividef(pixel.behind, 1.0f - alpha);
    pixel.transmittance = leave(pixel.transmittance, weight);
    return {weight, met && unclamped <= bound ? unclamped * v_alpha : 0.0f};
}

// What a thread knows of its strip for the whole list.
struct Strip {
    GradientPixel left, right;
    float y;
    float bound;  // of alpha, above which it has no gradient
    int last;     // of all pixels of the warp
    int lane;
    int output[STRIP_HELD];  // where in the block's sums a lane leaves its own of the first entry; negative: nowhere
    const float* colors;
};

// Of a group of 32 entries, those that a pixel may have blended: they meet its sub-tile and stand in front of its end.
RZ_DEVICE unsigned select_entries(unsigned hits, int count) {
    return count >= WARP ? hits : count > 0 ? hits & ((1u << count) - 1) : 0;
}

// Replays the entries of a group of 32 that meet either sub-tile, whose first is at `index` in the list, and leaves
// their sums in `sums`. A pixel replays only what meets its own sub-tile, as it has blended nothing else. Returns the
// word of those that a pixel has blended.
RZ_DEVICE unsigned replay_group(const float4* records, const unsigned* ids, unsigned left_hits, unsigned right_hits,
                                int index, Strip& strip, float* sums) {
    const unsigned hits = left_hits | right_hits;
    const unsigned lefts = select_entries(left_hits, strip.left.last - index);
    const unsigned rights = select_entries(right_hits, strip.right.last - index);
    unsigned summed = hits;
    for (unsigned waiting = hits, later; waiting; waiting = later) {
        const unsigned only = lowest_bit(waiting);
        const int bit = bit_place(only);
        later = waiting ^ only;
        const float4* record = records + 3 * bit;
        const float4 first = record[0], second = record[1];
        const float dy = strip.y - first.y, left_dx = strip.left.x - first.x, right_dx = strip.right.x - first.x;
        const RowExponent row = row_exponent(first, second, dy);
        const float left_e = exponent(first, second, row, left_dx), right_e = exponent(first, second, row, right_dx);
        const bool left_met = (lefts & only) != 0 && left_e >= LEAST_EXPONENT;
        const bool right_met = (rights & only) != 0 && right_e >= LEAST_EXPONENT;
        if (!__any_sync(FULL_WARP, left_met || right_met)) {
            summed &= ~only;
            continue;
        }
        float features[FEATURES], values[ROW_VALUES > STRIP_VALUES ? ROW_VALUES : STRIP_VALUES];
        load_features(record, second, strip.colors, ids + (COLORS_PACKED ? 0 : bit), features);
        const Replay left = replay_entry(left_e, left_met, features, strip.bound, strip.left);
        const Replay right = replay_entry(right_e, right_met, features, strip.bound, strip.right);
        const float left_x = left.d * left_dx, right_x = right.d * right_dx;
        values[ROW_SUM] = left.d + right.d;
        values[ROW_SUM_X] = left_x + right_x;
        values[ROW_SUM_XX] = left_x * left_dx + right_x * right_dx;
        RZ_UNROLL
        for (int c = 0; c < FEATURES; ++c)
            values[row_place(c)] =
                left.weight * strip.left.v_features[c] + right.weight * strip.right.v_features[c];
        fold_strip(values, dy, strip.lane);
        RZ_UNROLL
        for (int i = 0; i < STRIP_HELD; ++i)
            if (strip.output[i] >= 0) sums[bit * GRADIENT_FLOATS + strip.output[i]] = values[i];
    }
    return summed;
}

// The warp's share of a batch that starts at `base` in the list.
RZ_DEVICE void replay_batch(BlendBackwardShared& shared, Strip& strip, int base) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int group = 0; group < BACKWARD_WORDS; ++group) {
        const int first = group * WARP;
        const unsigned* hits = &shared.hits[group][2 * warp];
        unsigned summed = 0;
        if (base + first < strip.last)
            summed = replay_group(shared.records[first], shared.ids + (COLORS_PACKED ? 0 : first), hits[0], hits[1],
                                  base + first, strip, shared.sums[0] + first * GRADIENT_FLOATS);
        if (lane == 0) ((unsigned*)&shared.summed[group])[warp] = summed;
    }
}

// Adds up what the strips have left of a batch, and hands it out.
RZ_DEVICE void flush_batch(const RzCudaParams& p, const BlendBackwardShared& shared, int64_t first_target,
                           const unsigned* targets) {
    for (int i = threadIdx.x; i < BACKWARD_BATCH * GRADIENT_FLOATS; i += BLEND_BACKWARD_BLOCK) {
        const int entry = i / GRADIENT_FLOATS, k = i % GRADIENT_FLOATS;
        const uint4 summed = shared.summed[entry / WARP];
        const unsigned bit = 1u << entry % WARP;
        if (((summed.x | summed.y | summed.z | summed.w) & bit) == 0) continue;
        float sum = 0.0f;
        if (summed.x & bit) sum += shared.sums[0][i];
        if (summed.y & bit) sum += shared.sums[1][i];
        if (summed.z & bit) sum += shared.sums[2][i];
        if (summed.w & bit) sum += shared.sums[3][i];
        const int64_t target = first_target + targets[entry];
        float* out = p.gradients + target * GRADIENT_FLOATS + k;
        if (p.atomics)
            atomicAdd(out, sum);
        else
            *out = sum;
        if (k == 0) p.touched[target] = 1;
    }
}

// Brings entries [base, base + BACKWARD_BATCH) of the list to shared memory. Whole warps come here.
RZ_DEVICE void stage_batch(const RzCudaParams& p, const Tile& tile, uint2 entry, bool valid,
                           BlendBackwardShared& shared, unsigned* targets) {
    const int thread = threadIdx.x, lane = thread % WARP;
    const unsigned payload = valid ? entry.x : 0;
    if (valid) {
        put_record(fetch_record(records_of(p, tile), payload), shared.records[thread]);
        targets[thread] = p.atomics ? gaussian_of(payload) : entry.y;
        if (!COLORS_PACKED) shared.ids[thread] = gaussian_of(payload);
    }
    const unsigned word = transpose_masks(payload, lane);
    if (lane < SUBTILES) shared.hits[thread / WARP][lane] = word;
}

// The last entry that any pixel of the block has blended.
RZ_DEVICE int find_last(int strip_last, BlendBackwardShared& shared) {
    if (threadIdx.x % WARP == 0) shared.lasts[threadIdx.x / WARP] = strip_last;
    __syncthreads();
    int last = 0;
    RZ_UNROLL
    for (int i = 0; i < STRIPS; ++i) last = max(last, shared.lasts[i]);
    return last;
}

RZ_DEVICE Strip make_strip(const RzCudaParams& p, const Tile& tile) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int x = tile.x + lane % SUBTILE_WIDTH, y = tile.y + warp * SUBTILE_HEIGHT + lane / SUBTILE_WIDTH;
    Strip strip;
    strip.left = read_gradients(p, tile, x, y);
    strip.right = read_gradients(p, tile, x + SUBTILE_WIDTH, y);
    strip.y = (float)y + 0.5f;
    strip.bound = keep(p.inria ? infinity() : (float)ALPHA_MAX);
    strip.lane = keep(lane);
    strip.last = max(strip.left.last, strip.right.last);
    RZ_UNROLL
    for (int offset = 1; offset < WARP; offset *= 2)
        strip.last = max(strip.last, __shfl_xor_sync(FULL_WARP, strip.last, offset));
    RZ_UNROLL
    for (int i = 0; i < STRIP_HELD; ++i) {
        const int output = strip_output(lane, i);
        strip.output[i] = keep(output < 0 ? -1 : warp * BACKWARD_BATCH * GRADIENT_FLOATS + output);
    }
    strip.colors = COLORS_PACKED ? nullptr : colors_of(p, tile);
    return strip;
}

RZ_DEVICE void blend_tile_backward(const RzCudaParams& p, BlendBackwardShared& shared) {
    const Tile tile = locate_tile(p, blockIdx.x);
    if (tile.count <= 0) return;
    const int thread = threadIdx.x;
    Strip strip = make_strip(p, tile);
    const int last = find_last(strip.last, shared);
    const uint2* entries = (const uint2*)p.entries + tile.first_entry;
    const int64_t first_target = p.atomics ? tile.image * p.gaussians : 0;
    const bool stages = thread < BACKWARD_BATCH;  // whole warps

    if (stages) {
        const bool valid = thread < last;
        stage_batch(p, tile, valid ? __ldg(entries + thread) : make_uint2(0, 0), valid, shared, shared.targets[0]);
    }
    int turn = 0;
    for (int base = 0; base < last; base += BACKWARD_BATCH) {
        __syncthreads();
        const int next = base + BACKWARD_BATCH + thread;
        const bool valid = stages && next < last;
        const uint2 ahead = valid ? __ldg(entries + next) : make_uint2(0, 0);
        replay_batch(shared, strip, base);
        __syncthreads();
        // Records and hits of the batch are done with, its targets are not.
        if (stages) stage_batch(p, tile, ahead, valid, shared, shared.targets[turn ^ 1]);
        flush_batch(p, shared, first_target, shared.targets[turn]);
        turn ^= 1;
    }
}

}  // namespace RZ_NAMESPACE
