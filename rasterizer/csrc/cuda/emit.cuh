// Second stage: in order of depth, every drawn Gaussian of every view writes one instance for each tile it meets, with
// the mask of the tile's sub-tiles that it meets.
#pragma once

#include "footprint.cuh"

namespace RZ_NAMESPACE {

// A Gaussian that meets more tiles is written by its whole warp, as the other lanes would wait for it.
constexpr int WIDE_COUNT = 16;

struct Emission {
    Footprint footprint;
    Reach reach;
    unsigned gaussian;
    int64_t image;
    int64_t slot;  // next to be written
    int64_t end;   // one past the last that may be written
};

RZ_DEVICE Emission load_emission(const RzCudaParams& p, int64_t image, int64_t gaussian, int64_t slot, int64_t end) {
    const int64_t pair = image * p.gaussians + gaussian;
    const float4* record = (const float4*)(p.records + pair * RZ_CUDA_RECORD_FLOATS);
    const float4 first = record[0], second = record[1], shape = ((const float4*)p.footprints)[pair];
    Emission e;
    e.footprint = {first.x, first.y, shape.x, shape.y, shape.z, shape.w};
    e.reach = make_reach(first, second, shape.x, shape.y);
    e.gaussian = (unsigned)gaussian;
    e.image = image;
    e.slot = slot;
    e.end = min(end, p.instances);
    return e;
}

RZ_DEVICE void write_instance(const RzCudaParams& p, const Emission& e, int64_t slot, int row, int column) {
    if (slot >= e.end) return;
    const unsigned mask = p.inria ? 0xffu : subtile_mask(e.reach, column, row);
    const int key = (int)(e.image * ((int64_t)p.tiles_x * p.tiles_y) + (int64_t)row * p.tiles_x + column);
    if (p.key_bytes == 2)
        ((int16_t*)p.keys)[slot] = (int16_t)(key - RZ_CUDA_SHORT_KEY_BIAS);
    else
        ((int32_t*)p.keys)[slot] = key;
    p.payloads[slot] = e.gaussian | mask << 24;
}

// Writes the instances of one Gaussian, `lanes` threads taking turns: one alone, or a warp whose lanes all come here.
RZ_DEVICE void write_instances(const RzCudaParams& p, Emission e, int lane, int lanes) {
    const bool square = p.inria != 0;
    const Span rows = tile_rows(e.footprint.y, e.footprint.half_y, p.height, square);
    for (int i = 0; i < rows.count && e.slot < e.end; ++i) {
        const int row = rows.first + i;
        const Span columns = tile_columns(e.footprint, row, p.width, square);
        for (int k = lane; k < columns.count; k += lanes)
            write_instance(p, e, e.slot + k, row, columns.first + k);
        e.slot += columns.count;
    }
}

RZ_DEVICE void emit_instances(const RzCudaParams& p) {
    const int64_t rank = (int64_t)blockIdx.x * EMIT_BLOCK + threadIdx.x;
    const int lane = threadIdx.x % WARP;
    int count = 0;
    int64_t image = 0, gaussian = 0, end = 0;
    if (rank < p.batch * p.views * p.gaussians) {
        image = rank / p.gaussians;
        gaussian = p.order[rank];
        end = p.ends[rank];
        const int64_t pair = image * p.gaussians + gaussian;
        count = p.counts[pair];
        // Where there is not room for all, instances beyond are left out; so are their gradients.
        p.first_slots[pair] = (uint32_t)min(end - count, p.instances);
    }
    const bool wide = count > WIDE_COUNT;
    if (count > 0 && !wide) write_instances(p, load_emission(p, image, gaussian, end - count, end), 0, 1);
    for (unsigned waiting = __ballot_sync(FULL_WARP, wide); waiting; waiting &= waiting - 1) {
        const int source = __ffs((int)waiting) - 1;
        const int64_t its_image = __shfl_sync(FULL_WARP, image, source);
        const int64_t its_gaussian = __shfl_sync(FULL_WARP, gaussian, source);
        const int64_t its_end = __shfl_sync(FULL_WARP, end, source);
        const int its_count = __shfl_sync(FULL_WARP, count, source);
        write_instances(p, load_emission(p, its_image, its_gaussian, its_end - its_count, its_end), lane, WARP);
    }
}

}  // namespace RZ_NAMESPACE
