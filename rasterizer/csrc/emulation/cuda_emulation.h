// CUDA for g++, as far as the kernels use it: what device.cuh includes instead of the real thing when RZ_EMULATION is
// defined. Kernels run thread for thread on the CPU (scheduler.h). Stricter than a GPU on purpose:
// - every thread of a block comes to every __syncthreads, also the ones with nothing to do, and all to the same line;
// - every lane named in a mask comes to the same line with the same mask, and a shuffle reads lanes of the mask only;
// - shuffles and votes order no memory (as the CUDA guide says; seen by the thread sanitizer): use __syncwarp.
// - __shared__ variables stand in plain functions, not in templates or inline functions (build.py checks it).
// Less strict in one point: blocks run one after the other, so what they do to each other through global memory shows
// only as results that depend on the order of blocks.
#pragma once

// All of the standard library that kernels may want, before the macros below: its headers use some of these names.
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <source_location>
#include <type_traits>

#include "scheduler.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
// One section holds all shared memory, so that it can be poisoned. "used": the compiler must expect that somebody
// else writes it, or it could take a variable that is never written for zero.
#define __shared__ static __attribute__((used, section("rz_shared")))
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

#define threadIdx (*::rz::emulation::thread_index)
#define blockIdx (::rz::emulation::block_index)
#define blockDim (::rz::emulation::block_size)
#define gridDim (::rz::emulation::grid_size)

namespace rz::emulation {

constexpr int WARP = 32;

template <class T>
inline __attribute__((always_inline)) T shuffle(Meeting kind, unsigned mask, T value, int parameter, int width,
                                                std::source_location where) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 4 or 8 bytes");
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    const uint64_t result = meet_warp(kind, mask, std::bit_cast<Bits>(value), parameter, width, where);
    return std::bit_cast<T>(static_cast<Bits>(result));
}

}  // namespace rz::emulation

// Default arguments stand for the place of the call, for messages.
#define RZ_WHERE std::source_location where = std::source_location::current()

inline void __syncthreads(RZ_WHERE) { rz::emulation::meet_block(rz::emulation::Meeting::SYNC_THREADS, 0, where); }
inline int __syncthreads_count(int predicate, RZ_WHERE) {
    return rz::emulation::meet_block(rz::emulation::Meeting::SYNC_THREADS_COUNT, predicate, where);
}
inline int __syncthreads_or(int predicate, RZ_WHERE) {
    return rz::emulation::meet_block(rz::emulation::Meeting::SYNC_THREADS_OR, predicate, where);
}
inline int __syncthreads_and(int predicate, RZ_WHERE) {
    return rz::emulation::meet_block(rz::emulation::Meeting::SYNC_THREADS_AND, predicate, where);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, RZ_WHERE) {
    rz::emulation::meet_warp(rz::emulation::Meeting::SYNC_WARP, mask, 0, 0, rz::emulation::WARP, where);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = rz::emulation::WARP, RZ_WHERE) {
    return rz::emulation::shuffle(rz::emulation::Meeting::SHUFFLE, mask, value, lane, width, where);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = rz::emulation::WARP, RZ_WHERE) {
    return rz::emulation::shuffle(rz::emulation::Meeting::SHUFFLE_XOR, mask, value, lane_mask, width, where);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = rz::emulation::WARP, RZ_WHERE) {
    return rz::emulation::shuffle(rz::emulation::Meeting::SHUFFLE_UP, mask, value, int(delta), width, where);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = rz::emulation::WARP, RZ_WHERE) {
    return rz::emulation::shuffle(rz::emulation::Meeting::SHUFFLE_DOWN, mask, value, int(delta), width, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, RZ_WHERE) {
    return unsigned(rz::emulation::meet_warp(rz::emulation::Meeting::BALLOT, mask, predicate != 0, 0,
                                             rz::emulation::WARP, where));
}
inline int __any_sync(unsigned mask, int predicate, RZ_WHERE) {
    return int(
        rz::emulation::meet_warp(rz::emulation::Meeting::ANY, mask, predicate != 0, 0, rz::emulation::WARP, where));
}
inline int __all_sync(unsigned mask, int predicate, RZ_WHERE) {
    return int(
        rz::emulation::meet_warp(rz::emulation::Meeting::ALL, mask, predicate != 0, 0, rz::emulation::WARP, where));
}

#undef RZ_WHERE

// Atomics return the old value and order nothing else, as on the device.
#define RZ_ATOMICS(T)                                                                                       \
    inline T atomicAdd(T* address, T value) {                                                               \
        return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);                    \
    }                                                                                                       \
    inline T atomicExch(T* address, T value) {                                                              \
        return std::atomic_ref<T>(*address).exchange(value, std::memory_order_relaxed);                     \
    }                                                                                                       \
    inline T atomicMax(T* address, T value) {                                                               \
        T old = std::atomic_ref<T>(*address).load(std::memory_order_relaxed);                               \
        while (old < value && !std::atomic_ref<T>(*address).compare_exchange_weak(old, value)) continue;    \
        return old;                                                                                         \
    }                                                                                                       \
    inline T atomicMin(T* address, T value) {                                                               \
        T old = std::atomic_ref<T>(*address).load(std::memory_order_relaxed);                               \
        while (value < old && !std::atomic_ref<T>(*address).compare_exchange_weak(old, value)) continue;    \
        return old;                                                                                         \
    }
#define RZ_BIT_ATOMICS(T)                                                                \
    inline T atomicOr(T* address, T value) {                                             \
        return std::atomic_ref<T>(*address).fetch_or(value, std::memory_order_relaxed);  \
    }                                                                                    \
    inline T atomicAnd(T* address, T value) {                                            \
        return std::atomic_ref<T>(*address).fetch_and(value, std::memory_order_relaxed); \
    }
RZ_ATOMICS(int)
RZ_ATOMICS(unsigned)
RZ_ATOMICS(unsigned long)
RZ_ATOMICS(unsigned long long)
RZ_BIT_ATOMICS(int)
RZ_BIT_ATOMICS(unsigned)
RZ_BIT_ATOMICS(unsigned long)
RZ_BIT_ATOMICS(unsigned long long)
#undef RZ_ATOMICS
#undef RZ_BIT_ATOMICS
inline float atomicAdd(float* address, float value) {
    return std::atomic_ref<float>(*address).fetch_add(value, std::memory_order_relaxed);
}

template <class T>
inline T __ldg(const T* address) {
    return *address;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }

// Rounded once each, never fused: the emulation is compiled with -ffp-contract=off.
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fdividef(float a, float b) { return a / b; }
namespace rz::emulation {
inline float reciprocal_sqrt(float a) { return 1.0f / __builtin_sqrtf(a); }
}  // namespace rz::emulation
// A macro: newer C libraries declare a function of this name.
#define rsqrtf(x) (::rz::emulation::reciprocal_sqrt(x))

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }

// CUDA's min and max: of two unlike integers the unsigned or the wider type; of floats the one that is not NaN.
template <class T, class U>
inline auto min(T a, U b) {
    static_assert(std::is_arithmetic_v<T> && std::is_arithmetic_v<U>);
    using Common = std::common_type_t<T, U>;
    const Common x = a, y = b;
    return y < x || x != x ? y : x;
}
template <class T, class U>
inline auto max(T a, U b) {
    static_assert(std::is_arithmetic_v<T> && std::is_arithmetic_v<U>);
    using Common = std::common_type_t<T, U>;
    const Common x = a, y = b;
    return x < y || x != x ? y : x;
}
