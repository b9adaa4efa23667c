// A vector of RZ_LANES floats and its masks, on GCC/Clang vector extensions. The few intrinsics below stand where
// the extensions have no word (square root, masks in registers) or both compilers write poor code.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../math.h"

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#if RZ_LANES == 16 && defined(__AVX512F__)
#define RZ_MASK_REGISTERS 1
#else
#define RZ_MASK_REGISTERS 0
#endif

namespace RZ_NAMESPACE {

constexpr int LANES = RZ_LANES;

typedef float NativeFloat __attribute__((vector_size(LANES * 4)));
typedef int32_t NativeInt __attribute__((vector_size(LANES * 4)));
typedef uint32_t NativeBits __attribute__((vector_size(LANES * 4)));

struct VMask {
#if RZ_MASK_REGISTERS
    __mmask16 v;
#else
    NativeInt v;
#endif
};

struct VFloat {
    NativeFloat v;
    VFloat() = default;
    RZ_FN VFloat(NativeFloat x) : v(x) {}
    // x - 0 is x for every x, which lets the compiler see a plain broadcast; x + 0 is not for x = -0.
    RZ_FN VFloat(float x) : v(x - NativeFloat{}) {}
    RZ_FN float operator[](int lane) const { return v[lane]; }
};

RZ_FN VFloat operator+(VFloat a, VFloat b) { return a.v + b.v; }
RZ_FN VFloat operator-(VFloat a, VFloat b) { return a.v - b.v; }
RZ_FN VFloat operator*(VFloat a, VFloat b) { return a.v * b.v; }
RZ_FN VFloat operator/(VFloat a, VFloat b) { return a.v / b.v; }
RZ_FN VFloat operator-(VFloat a) { return -a.v; }
RZ_FN VFloat& operator+=(VFloat& a, VFloat b) { return a = a + b; }

RZ_FN VFloat load(const float* p) {
    VFloat out;
    __builtin_memcpy(&out.v, p, sizeof(out.v));
    return out;
}
#if RZ_LANES == 16
RZ_FN VFloat load_halves(const float* low, const float* high) {
    typedef float Half __attribute__((vector_size(LANES * 2)));
    Half a, b;
    __builtin_memcpy(&a, low, sizeof(a));
    __builtin_memcpy(&b, high, sizeof(b));
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#endif
RZ_FN void store(float* p, VFloat x) { __builtin_memcpy(p, &x.v, sizeof(x.v)); }

// A store past the caches, for whole cache lines that nobody reads soon; fence_streams() before others may read.
RZ_FN void stream(float* p, VFloat x) {
#if RZ_LANES == 16 && defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)x.v);
#else
    store(p, x);
#endif
}
RZ_FN void fence_streams() {
#if RZ_LANES == 16 && defined(__AVX512F__)
    _mm_sfence();
#endif
}

#if RZ_MASK_REGISTERS
RZ_FN VMask operator<(VFloat a, VFloat b) { return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LT_OQ)}; }
RZ_FN VMask operator<=(VFloat a, VFloat b) { return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LE_OQ)}; }
RZ_FN VMask operator==(VFloat a, VFloat b) { return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_EQ_OQ)}; }
RZ_FN VMask operator&(VMask a, VMask b) { return {(__mmask16)(a.v & b.v)}; }
RZ_FN VMask operator|(VMask a, VMask b) { return {(__mmask16)(a.v | b.v)}; }
RZ_FN VMask and_not(VMask a, VMask b) { return {(__mmask16)(a.v & ~b.v)}; }
RZ_FN VFloat select(VMask m, VFloat yes, VFloat no) {
    return (NativeFloat)_mm512_mask_blend_ps(m.v, (__m512)no.v, (__m512)yes.v);
}
RZ_FN bool any(VMask m) { return m.v != 0; }
RZ_FN uint32_t bits(VMask m) { return m.v; }
RZ_FN VMask from_bits(uint32_t b) { return {(__mmask16)b}; }
#else
RZ_FN VMask operator<(VFloat a, VFloat b) { return {(NativeInt)(a.v < b.v)}; }
RZ_FN VMask operator<=(VFloat a, VFloat b) { return {(NativeInt)(a.v <= b.v)}; }
RZ_FN VMask operator==(VFloat a, VFloat b) { return {(NativeInt)(a.v == b.v)}; }
RZ_FN VMask operator&(VMask a, VMask b) { return {a.v & b.v}; }
RZ_FN VMask operator|(VMask a, VMask b) { return {a.v | b.v}; }
RZ_FN VMask and_not(VMask a, VMask b) { return {a.v & ~b.v}; }
RZ_FN uint32_t bits(VMask m) {
#if RZ_LANES == 8 && defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)m.v);
#elif RZ_LANES == 4 && defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)m.v);
#else
    uint32_t out = 0;
    for (int i = 0; i < LANES; ++i) out |= (uint32_t)(m.v[i] & 1) << i;
    return out;
#endif
}
RZ_FN bool any(VMask m) { return bits(m) != 0; }
RZ_FN VMask from_bits(uint32_t b) {
    VMask out;
    for (int i = 0; i < LANES; ++i) out.v[i] = -(int32_t)((b >> i) & 1);
    return out;
}
RZ_FN VFloat select(VMask m, VFloat yes, VFloat no) {
    return (NativeFloat)(((NativeInt)yes.v & m.v) | ((NativeInt)no.v & ~m.v));
}
#endif
RZ_FN VMask operator>(VFloat a, VFloat b) { return b < a; }
RZ_FN VMask operator>=(VFloat a, VFloat b) { return b <= a; }

// As the templates of math.h, whose comparison and selection the compilers do not see through.
#if RZ_LANES == 16 && defined(__AVX512F__)
RZ_FN VFloat maximum(VFloat a, VFloat b) {
    return (NativeFloat)_mm512_maskz_max_ps((__mmask16)-1, (__m512)a.v, (__m512)b.v);
}
RZ_FN VFloat minimum(VFloat a, VFloat b) {
    return (NativeFloat)_mm512_maskz_min_ps((__mmask16)-1, (__m512)a.v, (__m512)b.v);
}
#elif RZ_LANES == 8 && defined(__AVX2__)
RZ_FN VFloat maximum(VFloat a, VFloat b) { return (NativeFloat)_mm256_max_ps((__m256)a.v, (__m256)b.v); }
RZ_FN VFloat minimum(VFloat a, VFloat b) { return (NativeFloat)_mm256_min_ps((__m256)a.v, (__m256)b.v); }
#elif RZ_LANES == 4 && defined(__SSE2__)
RZ_FN VFloat maximum(VFloat a, VFloat b) { return (NativeFloat)_mm_max_ps((__m128)a.v, (__m128)b.v); }
RZ_FN VFloat minimum(VFloat a, VFloat b) { return (NativeFloat)_mm_min_ps((__m128)a.v, (__m128)b.v); }
#endif

RZ_FN VFloat absolute(VFloat x) { return maximum(x, -x); }

typedef NativeInt VInt;
RZ_FN VInt to_int(VFloat x) { return __builtin_convertvector(x.v, NativeInt); }
RZ_FN VFloat to_float(VInt x) { return __builtin_convertvector(x, NativeFloat); }
RZ_FN VInt least_int(VInt a, VInt b) { return (a & (a < b)) | (b & (a >= b)); }
RZ_FN VInt greatest_int(VInt a, VInt b) { return (a & (a > b)) | (b & (a <= b)); }
RZ_FN VFloat as_float(VInt x) { return (NativeFloat)x; }
RZ_FN VInt select_int(VMask m, VInt yes, VInt no) { return (VInt)select(m, as_float(yes), as_float(no)).v; }
RZ_FN VInt lane_numbers() {
    VInt out;
    for (int i = 0; i < LANES; ++i) out[i] = i;
    return out;
}
RZ_FN void store_int(int32_t* p, VInt x) { __builtin_memcpy(p, &x, sizeof(x)); }

RZ_FN VMask every_lane() { return VFloat(0.0f) == VFloat(0.0f); }

// 0 <= x <= limit, for a limit that is not negative and x other than -0: as numbers without sign, the bits of negative
// floats are greater than those of all others.
RZ_FN VMask from_zero_to(VFloat x, VFloat limit) {
#if RZ_MASK_REGISTERS
    return {_mm512_cmp_epu32_mask((__m512i)x.v, (__m512i)limit.v, _MM_CMPINT_LE)};
#else
    return (x >= VFloat(0.0f)) & (x <= limit);
#endif
}

RZ_FN VFloat square_root(VFloat x) {
#if RZ_LANES == 16 && defined(__AVX512F__)
    // The plain intrinsic passes an uninitialised vector, of which GCC warns.
    return (NativeFloat)_mm512_mask_sqrt_ps((__m512)x.v, (__mmask16)-1, (__m512)x.v);
#elif RZ_LANES == 8 && defined(__AVX2__)
    return (NativeFloat)_mm256_sqrt_ps((__m256)x.v);
#elif RZ_LANES == 4 && defined(__SSE2__)
    return (NativeFloat)_mm_sqrt_ps((__m128)x.v);
#else
    for (int i = 0; i < LANES; ++i) x.v[i] = __builtin_sqrtf(x.v[i]);
    return x;
#endif
}

// 1 / x of a normal number, to about 2e-7: a guess and one step of Newton's method, at a third of a division's time.
RZ_FN VFloat inverse(VFloat x) {
#if RZ_LANES == 16 && defined(__AVX512F__)
    const VFloat guess = (NativeFloat)_mm512_maskz_rcp14_ps((__mmask16)-1, (__m512)x.v);
    return guess * (VFloat(2.0f) - x * guess);
#elif RZ_LANES == 8 && defined(__AVX2__)
    const VFloat guess = (NativeFloat)_mm256_rcp_ps((__m256)x.v);
    return guess * (VFloat(2.0f) - x * guess);
#else
    return VFloat(1.0f) / x;
#endif
}

// The least whole number that is not less. From 2^23 on every float is whole, and may not fit an integer.
RZ_FN VFloat ceiling(VFloat x) {
    const VMask small = absolute(x) < VFloat(8388608.0f);
    const VFloat whole = to_float(to_int(select(small, x, VFloat(0.0f))));
    return select(small, select(whole < x, whole + 1.0f, whole), x);
}

// Two vectors side by side: written alternately, the long chains of operations on them overlap in time.
struct Twice {
    VFloat a, b;
    RZ_FN Twice(VFloat first, VFloat second) : a(first), b(second) {}
    RZ_FN Twice(float x) : a(x), b(x) {}
};
RZ_FN Twice operator+(Twice x, Twice y) { return {x.a + y.a, x.b + y.b}; }
RZ_FN Twice operator-(Twice x, Twice y) { return {x.a - y.a, x.b - y.b}; }
RZ_FN Twice operator*(Twice x, Twice y) { return {x.a * y.a, x.b * y.b}; }

// x * 2^n, where the low bits of `shifted` hold n.
RZ_FN VFloat scale(VFloat x, VFloat shifted) {
    return (NativeFloat)((NativeBits)x.v + ((NativeBits)shifted.v << 23));
}
RZ_FN Twice scale(Twice x, Twice shifted) { return {scale(x.a, shifted.a), scale(x.b, shifted.b)}; }

// 2^-x for -126 <= x <= 126, relative error below 2e-7; any value outside.
template <class T>
RZ_FN T exp2_of_negative(T x) {
    const T magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const T shifted = magic - x;
    const T r = (magic - shifted) - x;
    T p = 1.3276472e-3f;  // minimax of the relative error on [-1/2, 1/2]
    p = p * r + T(9.6755415e-3f);
    p = p * r + T(5.5507133e-2f);
    p = p * r + T(2.4022120e-1f);
    p = p * r + T(6.9314697e-1f);
    p = p * r + T(1.0f);
    return scale(p, shifted);
}

// log2(x) of a positive normal number, absolute error below 1e-6.
RZ_FN VFloat log2_positive(VFloat x) {
    // Mantissa in [sqrt(1/2), sqrt(2)), so that log2 of numbers near 1 keeps its relative precision.
    const NativeInt offset = (NativeInt)(VFloat(0.70710678f).v);
    const NativeInt exponent = ((NativeInt)x.v - offset) >> 23;
    const VFloat mantissa = (NativeFloat)((NativeInt)x.v - (exponent << 23));
    // log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716.
    const VFloat s = (mantissa - 1.0f) / (mantissa + 1.0f);
    const VFloat q = s * s;
    VFloat p = 0.3205988979f;       // 2 / (9 ln 2)
    p = p * q + 0.4121985832f;      // 2 / (7 ln 2)
    p = p * q + 0.5770780164f;      // 2 / (5 ln 2)
    p = p * q + 0.9617966940f;      // 2 / (3 ln 2)
    p = p * q + 2.8853900818f;      // 2 / ln 2
    return VFloat(__builtin_convertvector(exponent, NativeFloat)) + p * s;
}

}  // namespace RZ_NAMESPACE
