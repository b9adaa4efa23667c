// Third stage: the sorted keys become the tiles' lists, and where each begins and ends.
#pragma once

#include "device.cuh"

namespace RZ_NAMESPACE {

RZ_DEVICE int64_t sorted_key(const RzCudaParams& p, int64_t i) {
    if (p.key_bytes == 2) return (int64_t)((const int16_t*)p.sorted_keys)[i] + RZ_CUDA_SHORT_KEY_BIAS;
    return ((const int32_t*)p.sorted_keys)[i];
}

RZ_DEVICE void list_instances(const RzCudaParams& p) {
    const int64_t i = (int64_t)blockIdx.x * LIST_BLOCK + threadIdx.x;
    if (i >= p.instances) return;
    const int64_t key = sorted_key(p, i), tiles = p.batch * p.views * p.tiles_x * p.tiles_y;
    // Slots that no instance fills sort behind all tiles.
    if (key < 0 || key >= tiles) return;
    const int64_t slot = p.sorted_slots[i];
    ((uint2*)p.entries)[i] = make_uint2(p.payloads[slot], (unsigned)slot);
    if (i == 0 || sorted_key(p, i - 1) != key) p.tile_ranges[2 * key] = (int32_t)i;
    if (i + 1 == p.instances || sorted_key(p, i + 1) != key) p.tile_ranges[2 * key + 1] = (int32_t)(i + 1);
}

}  // namespace RZ_NAMESPACE
