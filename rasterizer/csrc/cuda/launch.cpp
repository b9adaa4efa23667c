// What every launch needs, whoever executes it: the arguments of a stage checked, its grid and block.
#include <exception>
#include <initializer_list>

#include "../config.h"
#include "launch_shape.h"
#include "shapes.h"

namespace {

constexpr int64_t INT32_LIMIT = 2147483647;
constexpr int64_t GRID_Y_LIMIT = 65535;
constexpr int64_t SIDE_LIMIT = 65536;    // pixels
constexpr int64_t CHANNEL_LIMIT = 32;    // RZ_CHANNELS of the kernels
constexpr int64_t SHORT_KEY_LIMIT = 65535;  // 16 bits, RZ_CUDA_SHORT_KEY_BIAS

int64_t quotient_up(int64_t items, int64_t size) { return (items + size - 1) / size; }

struct Counts {
    int64_t scene;   // Gaussians of all scenes
    int64_t images;
    int64_t pairs;
    int64_t tiles;  // of all images
};

// The products stay within 64 bits where each size is within its range.
Counts count(const RzCudaParams& p) {
    const int64_t images = p.batch * p.views;
    return {p.batch * p.gaussians, images, images * p.gaussians, images * p.tiles_x * p.tiles_y};
}

struct Report {
    char* message;
    int64_t capacity;
};

int check_range(const Report& to, const char* name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return RZ_CUDA_OK;
    return rz::fail_with(to.message, to.capacity, RZ_CUDA_ERROR_ARGUMENT, "%s is %lld: expected %lld to %lld", name,
                         (long long)value, (long long)low, (long long)high);
}

struct Range {
    const char* name;
    int64_t value;
    int64_t low;
    int64_t high;
};

int check_ranges(const Report& to, std::initializer_list<Range> ranges) {
    for (const Range& range : ranges)
        if (const int code = check_range(to, range.name, range.value, range.low, range.high)) return code;
    return RZ_CUDA_OK;
}

int check_sizes(const Report& to, const RzCudaParams& p) {
    if (const int code = check_ranges(to, {
            {"batch", p.batch, 0, GRID_Y_LIMIT},
            {"views", p.views, 0, INT32_LIMIT},
            {"gaussians", p.gaussians, 0, RZ_CUDA_MAX_GAUSSIANS},
            {"channels", p.channels, 1, CHANNEL_LIMIT},
            {"instances", p.instances, 0, INT32_LIMIT},
            {"width", p.width, 1, SIDE_LIMIT},
            {"height", p.height, 1, SIDE_LIMIT},
            {"sh_coefficients", p.sh_coefficients, 0, INT32_LIMIT},
        }))
        return code;
    const int64_t columns = quotient_up(p.width, rz::TILE_SIZE), rows = quotient_up(p.height, rz::TILE_SIZE);
    if (const int code = check_ranges(to, {
            {"tiles_x", p.tiles_x, columns, columns},
            {"tiles_y", p.tiles_y, rows, rows},
            {"images", p.batch * p.views, 0, INT32_LIMIT},
        }))
        return code;
    if (const int code = check_range(to, "tiles of all images", count(p).tiles, 0, INT32_LIMIT)) return code;
    if (p.sh_coefficients == 0) return RZ_CUDA_OK;
    if (const int code = check_ranges(to, {{"sh_degree", p.sh_degree, 0, rz::MAX_SH_DEGREE},
                                           {"channels with spherical harmonics", p.channels, 3, 3}}))
        return code;
    const int64_t needed = (int64_t)(p.sh_degree + 1) * (p.sh_degree + 1);
    return check_range(to, "sh_coefficients", p.sh_coefficients, needed, INT32_LIMIT);
}

int check_keys(const Report& to, const RzCudaParams& p) {
    if (p.key_bytes != 2 && p.key_bytes != 4)
        return rz::fail_with(to.message, to.capacity, RZ_CUDA_ERROR_ARGUMENT, "key_bytes is %d: expected 2 or 4",
                             (int)p.key_bytes);
    // The number of tiles is a key too: of slots that no instance fills.
    return check_range(to, p.key_bytes == 2 ? "tiles of all images with 2-byte keys" : "tiles of all images",
                       count(p).tiles, 0, p.key_bytes == 2 ? SHORT_KEY_LIMIT : INT32_LIMIT);
}

struct Pointer {
    const char* name;
    const void* value;
    bool needed;         // an array without elements may be null
    uintptr_t alignment;  // bytes: of the widest load from it
};

int check_pointers(const Report& to, std::initializer_list<Pointer> pointers) {
    for (const Pointer& pointer : pointers) {
        if (!pointer.value && pointer.needed)
            return rz::fail_with(to.message, to.capacity, RZ_CUDA_ERROR_ARGUMENT, "%s is null", pointer.name);
        if ((uintptr_t)pointer.value % pointer.alignment)
            return rz::fail_with(to.message, to.capacity, RZ_CUDA_ERROR_ARGUMENT, "%s is not aligned to %d bytes",
                                 pointer.name, (int)pointer.alignment);
    }
    return RZ_CUDA_OK;
}

int check_scene(const Report& to, const RzCudaParams& p) {
    const Counts n = count(p);
    return check_pointers(to, {
        {"means", p.means, n.scene > 0, 4},
        {"quats", p.quats, n.scene > 0, 4},
        {"scales", p.scales, n.scene > 0, 4},
        {"opacities", p.opacities, n.scene > 0, 4},
        {"colors", p.colors, n.scene > 0, 4},
        {"viewmats", p.viewmats, n.images > 0, 4},
        {"intrinsics", p.intrinsics, n.images > 0, 4},
    });
}

int check_project(const Report& to, const RzCudaParams& p) {
    if (const int code = check_scene(to, p)) return code;
    const bool pairs = count(p).pairs > 0;
    return check_pointers(to, {
        {"records", p.records, pairs, 16},
        {"footprints", p.footprints, pairs, 16},
        {"sort_depths", p.sort_depths, pairs, 4},
        {"counts", p.counts, pairs, 4},
        {"totals", p.totals, true, 8},
    });
}

int check_emit(const Report& to, const RzCudaParams& p) {
    if (const int code = check_keys(to, p)) return code;
    const bool pairs = count(p).pairs > 0, instances = p.instances > 0;
    return check_pointers(to, {
        {"records", p.records, pairs, 16},
        {"footprints", p.footprints, pairs, 16},
        {"counts", p.counts, pairs, 4},
        {"order", p.order, pairs, 8},
        {"ends", p.ends, pairs, 8},
        {"first_slots", p.first_slots, pairs, 4},
        {"keys", p.keys, instances, (uintptr_t)p.key_bytes},
        {"payloads", p.payloads, instances, 4},
    });
}

int check_list(const Report& to, const RzCudaParams& p) {
    if (const int code = check_keys(to, p)) return code;
    const bool instances = p.instances > 0;
    return check_pointers(to, {
        {"payloads", p.payloads, instances, 4},
        {"sorted_keys", p.sorted_keys, instances, (uintptr_t)p.key_bytes},
        {"sorted_slots", p.sorted_slots, instances, 8},
        {"entries", p.entries, instances, 8},
        {"tile_ranges", p.tile_ranges, count(p).tiles > 0, 8},
    });
}

// Both directions of blending walk the same lists and meet the same pixels.
int check_lists(const Report& to, const RzCudaParams& p) {
    const bool images = count(p).images > 0, instances = p.instances > 0;
    return check_pointers(to, {
        {"records", p.records, instances, 16},
        {"colors", p.colors, instances, 4},
        {"entries", p.entries, instances, 8},
        {"tile_ranges", p.tile_ranges, images, 8},
        {"out_colors", p.out_colors, images, 4},
        {"out_alphas", p.out_alphas, images, 4},
        {"out_depths", p.out_depths, images && p.depth, 4},
        {"last_ids", p.last_ids, images, 4},
        {"backgrounds", p.backgrounds, false, 4},
    });
}

int check_gradients(const Report& to, const RzCudaParams& p) {
    const bool needed = p.instances > 0;
    return check_pointers(to, {
        {"touched", p.touched, needed, 1},
        {"gradients", p.gradients, needed, 4},
    });
}

int check_blend_backward(const Report& to, const RzCudaParams& p) {
    if (const int code = check_lists(to, p)) return code;
    if (const int code = check_gradients(to, p)) return code;
    return check_pointers(to, {
        {"v_colors", p.v_colors, false, 4},
        {"v_alphas", p.v_alphas, false, 4},
        {"v_depths", p.v_depths, false, 4},
    });
}

int check_project_backward(const Report& to, const RzCudaParams& p) {
    if (const int code = check_scene(to, p)) return code;
    if (const int code = check_gradients(to, p)) return code;
    const bool pairs = count(p).pairs > 0;
    return check_pointers(to, {
        {"counts", p.counts, pairs, 4},
        {"records", p.records, pairs, 16},
        {"first_slots", p.first_slots, pairs && !p.atomics, 4},
        {"v_means", p.v_means, false, 4},
        {"v_quats", p.v_quats, false, 4},
        {"v_scales", p.v_scales, false, 4},
        {"v_opacities", p.v_opacities, false, 4},
        {"v_features", p.v_features, false, 4},
        {"camera_partials", p.camera_partials, false, 4},
    });
}

// How the work of a stage falls into blocks, and how its arguments are checked.
struct Stage {
    int block;
    bool scenes;  // the grid has a row per scene
    int64_t (*blocks)(const RzCudaParams&);  // along x
    int (*check)(const Report&, const RzCudaParams&);
};

template <int BLOCK>
int64_t gaussian_blocks(const RzCudaParams& p) {
    return quotient_up(p.gaussians, BLOCK);
}
int64_t pair_blocks(const RzCudaParams& p) { return quotient_up(count(p).pairs, rz::EMIT_BLOCK); }
int64_t instance_blocks(const RzCudaParams& p) { return quotient_up(p.instances, rz::LIST_BLOCK); }
int64_t tile_blocks(const RzCudaParams& p) { return count(p).tiles; }

const Stage STAGES[RZ_STAGE_COUNT] = {
    {rz::PROJECT_BLOCK, true, gaussian_blocks<rz::PROJECT_BLOCK>, check_project},
    {rz::EMIT_BLOCK, false, pair_blocks, check_emit},
    {rz::LIST_BLOCK, false, instance_blocks, check_list},
    {rz::BLEND_BLOCK, false, tile_blocks, check_lists},
    {rz::BLEND_BACKWARD_BLOCK, false, tile_blocks, check_blend_backward},
    {rz::PROJECT_BACKWARD_BLOCK, true, gaussian_blocks<rz::PROJECT_BACKWARD_BLOCK>, check_project_backward},
};

int launch(void* module, int stage, const RzCudaParams& p, void* stream, const Report& to) {
    if (const int code = check_range(to, "stage", stage, 0, RZ_STAGE_COUNT - 1)) return code;
    if (const int code = check_sizes(to, p)) return code;
    const Stage& work = STAGES[stage];
    if (const int code = work.check(to, p)) return code;
    const int64_t blocks = work.blocks(p);
    const int64_t rows = work.scenes ? p.batch : 1;
    if (const int code = check_range(to, "blocks", blocks, 0, INT32_LIMIT)) return code;
    if (blocks == 0 || rows == 0) return RZ_CUDA_OK;
    const rz::LaunchShape shape{(uint32_t)blocks, (uint32_t)rows, (uint32_t)work.block, 0};
    return rz::launch_kernel(module, stage, shape, p, stream, to.message, to.capacity);
}

}  // namespace

extern "C" {

int rz_cuda_abi(void) { return RZ_CUDA_ABI_VERSION; }

int64_t rz_cuda_params_bytes(void) { return (int64_t)sizeof(RzCudaParams); }

int rz_cuda_launch(void* module, int stage, const RzCudaParams* params, void* stream, char* message,
                   int64_t capacity) {
    if (!params) return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT, "params is null");
    try {
        return launch(module, stage, *params, stream, {message, capacity});
    } catch (const std::exception& error) {
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_INTERNAL, "%s", error.what());
    } catch (...) {
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_INTERNAL, "unknown exception");
    }
}

int64_t rz_cuda_camera_blocks(const RzCudaParams* params) {
    return params && params->gaussians > 0 ? quotient_up(params->gaussians, rz::PROJECT_BACKWARD_BLOCK) : 0;
}

}  // extern "C"
