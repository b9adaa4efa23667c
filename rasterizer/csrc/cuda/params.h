// What a CUDA stage reads and writes: one struct, passed by value to every kernel. Plain C types only: ctypes mirrors
// it field by field in cuda_abi.py. All pointers are device memory that the caller owns; the caller zeroes or fills
// what is marked so, everything else arrives undefined.
//
// A call works on one chunk: `batch` whole scenes with all their views, or one scene with some of its views, so that
// the images of a chunk are consecutive. image = scene * views + view; pair = image * gaussians + gaussian.
#pragma once

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

// Raise when a field or the meaning of a stage changes; cuda_abi.py refuses a library with another number.
#define RZ_CUDA_ABI_VERSION 2

#define RZ_CUDA_RECORD_FLOATS 12     // of a projected Gaussian of one view, three 16-byte loads
#define RZ_CUDA_FOOTPRINT_FLOATS 4   // of its ellipse on the image; needed by RZ_STAGE_EMIT only
#define RZ_CUDA_CAMERA_FLOATS 16     // gradients of a camera: rotation (9, row-major), translation, fx, fy, cx, cy
#define RZ_CUDA_MOMENTS 6            // of an instance's gradient record, before its features
#define RZ_CUDA_MAX_GAUSSIANS 16777216  // per scene: a payload holds 24 bits of Gaussian and 8 of mask
#define RZ_CUDA_SHORT_KEY_BIAS 32768    // subtracted from a key that is stored as int16, whose whole range is used

// Stages in the order of a pass. Between them the caller sorts and scans (see cuda_pipeline.py).
enum {
    RZ_STAGE_PROJECT = 0,
    RZ_STAGE_EMIT = 1,
    RZ_STAGE_LIST = 2,
    RZ_STAGE_BLEND = 3,
    RZ_STAGE_BLEND_BACKWARD = 4,
    RZ_STAGE_PROJECT_BACKWARD = 5,
    RZ_STAGE_COUNT = 6,
};

typedef struct RzCudaParams {
    int64_t batch;
    int64_t views;
    int64_t gaussians;
    int64_t channels;         // C of the image; kernels are compiled for one number (RZ_CHANNELS)
    int64_t sh_coefficients;  // K of colors [B,N,K,3]; 0: colors are [B,N,C]
    int64_t instances;        // slots there is room for; emission never writes past them
    int32_t sh_degree;        // 0..MAX_SH_DEGREE, read only where sh_coefficients > 0
    int32_t width;            // pixels
    int32_t height;           // pixels
    int32_t tiles_x;
    int32_t tiles_y;
    int32_t antialiased;
    int32_t depth;       // also accumulate sum of weight * z; kernels are compiled for one value (RZ_DEPTH)
    int32_t inria;       // compat="inria": 3-sigma square extent, raw quaternions, gradient through the clamp
    int32_t atomics;     // RZ_STAGE_BLEND_BACKWARD adds to one record per pair instead of writing one per instance
    int32_t accumulate;  // RZ_STAGE_PROJECT_BACKWARD adds to the outgoing gradients of Gaussians (later view chunks)
    int32_t key_bytes;   // 2 or 4: of a tile key; 2 where images * tiles <= 65535
    float near_plane;
    float far_plane;
    float eps2d;

    // Inputs, float32, contiguous.
    const float* means;        // [B,N,3]
    const float* quats;        // [B,N,4] w,x,y,z
    const float* scales;       // [B,N,3]
    const float* opacities;    // [B,N]
    const float* colors;       // [B,N,C] or [B,N,K,3]
    const float* viewmats;     // [B,V,4,4]
    const float* intrinsics;   // [B,V,3,3]
    const float* backgrounds;  // [B,V,C] or null (black)

    // RZ_STAGE_PROJECT writes, per pair [B*V,N].
    float* records;      // [pairs,12]; undefined where counts is 0
    float* footprints;   // [pairs,4]; undefined where counts is 0
    float* sort_depths;  // camera-space z; +infinity where the pair is not drawn
    int32_t* counts;     // instances of the pair
    int64_t* totals;     // [2], zeroed by the caller: pairs dropped for not being finite, pairs drawn

    // The caller sorts each image's row of sort_depths, stably, and scans the counts in that order.
    const int64_t* order;  // [images,N] Gaussian at each rank
    const int64_t* ends;   // [pairs] running sum of counts over all ranks of all images, inclusive

    // RZ_STAGE_EMIT writes. Slots of a pair are consecutive.
    uint32_t* first_slots;  // [pairs], by pair (not rank)
    void* keys;             // [instances] int32, or int16 less a bias: image * tiles + tile; filled with images * tiles
    uint32_t* payloads;     // [instances] Gaussian | mask of its eight 8x4 sub-tiles << 24

    // The caller sorts the keys, stably: sorted_keys ascending, sorted_slots where each came from.
    const void* sorted_keys;
    const int64_t* sorted_slots;

    // RZ_STAGE_LIST writes.
    uint32_t* entries;     // [instances,2] payload and slot, in tile order, front to back within a tile
    int32_t* tile_ranges;  // [images*tiles,2] first entry and one past the last; zeroed by the caller

    // RZ_STAGE_BLEND writes.
    float* out_colors;  // [images,H,W,C]
    float* out_alphas;  // [images,H,W]
    float* out_depths;  // [images,H,W] sum of weight * z, or null
    int32_t* last_ids;  // [images,H,W] entries of the tile that the pixel looked at: one past the last it blended

    // Incoming gradients, null where there is none.
    const float* v_colors;
    const float* v_alphas;
    const float* v_depths;

    // RZ_STAGE_BLEND_BACKWARD writes records of RZ_CUDA_MOMENTS + C + depth floats.
    uint8_t* touched;  // [instances], or [pairs] with atomics; zeroed by the caller: 1 where a record was written
    float* gradients;  // [instances, record], or with atomics [pairs, record] zeroed by the caller

    // RZ_STAGE_PROJECT_BACKWARD writes; null where not wanted. The gradient of backgrounds is the caller's.
    float* v_means;
    float* v_quats;
    float* v_scales;
    float* v_opacities;
    float* v_features;       // of `colors`
    float* camera_partials;  // [B, blocks of RZ_PROJECT_BACKWARD, V, 16]; the caller sums over blocks
} RzCudaParams;
