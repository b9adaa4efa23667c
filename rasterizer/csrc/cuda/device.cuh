// CUDA itself under NVRTC and nvcc, its emulation under g++; and what every stage shares. Kernels are compiled for one
// number of image channels, RZ_CHANNELS, and with or without depth, RZ_DEPTH.
#pragma once

#if defined(RZ_EMULATION)
#include "../emulation/cuda_emulation.h"
#define RZ_UNROLL
#else
#define RZ_UNROLL _Pragma("unroll")
#endif

#include "../config.h"
#include "params.h"
#include "shapes.h"

#if !defined(RZ_CHANNELS) || !defined(RZ_DEPTH)
#error "define RZ_CHANNELS (1 to 32) and RZ_DEPTH (0 or 1)"
#endif

#define RZ_DEVICE __device__ __forceinline__

namespace RZ_NAMESPACE {

constexpr int CHANNELS = RZ_CHANNELS;
constexpr bool WITH_DEPTH = RZ_DEPTH != 0;
constexpr int FEATURES = CHANNELS + (WITH_DEPTH ? 1 : 0);  // blended numbers: channels, then depth
static_assert(CHANNELS >= 1 && CHANNELS <= 32, "channels of an image");

constexpr int WARP = 32;
constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int SUBTILES = (TILE_SIZE / SUBTILE_WIDTH) * (TILE_SIZE / SUBTILE_HEIGHT);
static_assert(SUBTILE_WIDTH * SUBTILE_HEIGHT == WARP && SUBTILES == 8, "a mask is a byte, a sub-tile a warp");

constexpr double LOG2_E = 1.4426950408889634;
// log2(ALPHA_THRESHOLD): a Gaussian is seen where its exponent reaches it.
constexpr float LEAST_EXPONENT = -7.9943534368588579f;

// A record is three float4. The conic is scaled so that alpha = 2^(dx * (A * dx + B * dy) + C * dy * dy + L).
enum Field {
    PIXEL_X,
    PIXEL_Y,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    LOG_OPACITY,  // L, base 2
    COLOR,        // up to PACKED_CHANNELS
    DEPTH = RZ_CUDA_RECORD_FLOATS - 1,
};
constexpr int PACKED_CHANNELS = DEPTH - COLOR;
// Beyond that colors are read from the user's array while blending.
constexpr bool COLORS_PACKED = CHANNELS <= PACKED_CHANNELS;

// Moments of an instance, in front of the gradients of its features.
enum Moment { SUM, SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY, MOMENTS };
static_assert(MOMENTS == RZ_CUDA_MOMENTS, "the caller allocates by it");
constexpr int GRADIENT_FLOATS = MOMENTS + FEATURES;

RZ_DEVICE float infinity() { return __int_as_float(0x7f800000); }

// The same value in a register: what has passed through a shuffle is not computed anew in an inner loop, as compilers
// like to do with what is cheap. Whole warps come here.
template <class T>
RZ_DEVICE T keep(T value) {
    return __shfl_sync(FULL_WARP, value, threadIdx.x % WARP);
}

// False for NaN and infinity.
RZ_DEVICE bool finite(float x) { return x - x == 0.0f; }

}  // namespace RZ_NAMESPACE
