// Moves numbers between the lanes of vectors: sums over lanes, and rows of memory to vectors and back.
#pragma once

#include "simd.h"

namespace RZ_NAMESPACE {

// Adds the halves of each group of 2 * width lanes; the groups of a come first, then those of b.
template <int width>
RZ_FN NativeFloat fold(NativeFloat a, NativeFloat b);

#if RZ_LANES == 16
template <>
RZ_FN NativeFloat fold<8>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
template <>
RZ_FN NativeFloat fold<4>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
template <>
RZ_FN NativeFloat fold<2>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}
template <>
RZ_FN NativeFloat fold<1>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
#elif RZ_LANES == 8
template <>
RZ_FN NativeFloat fold<4>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
template <>
RZ_FN NativeFloat fold<2>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15);
}
template <>
RZ_FN NativeFloat fold<1>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
#else
template <>
RZ_FN NativeFloat fold<2>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
}
template <>
RZ_FN NativeFloat fold<1>(NativeFloat a, NativeFloat b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
#endif

// Sums of the lanes of `count` vectors, in place: afterwards sum i stands in lane i % LANES of x[i / LANES].
// Transposing while adding costs about 11 additions for 10 vectors of 16 lanes, one reduction each would cost 40.
template <int width, int count>
RZ_FN void fold_all(VFloat* x) {
    constexpr int half = (count + 1) / 2;
    for (int i = 0; i < half; ++i) x[i] = fold<width>(x[2 * i].v, x[2 * i + 1 < count ? 2 * i + 1 : 2 * i].v);
    if constexpr (width > 1) fold_all<width / 2, half>(x);
}

// Lists the places of the bits of a mask, and `value` as often; returns their number. Whole vectors are written.
// Without branches where the machine can: the number of bits is anyone's guess.
template <class Mask>
RZ_FN int list_bits(Mask mask, uint32_t value, uint32_t* places, uint32_t* values) {
    int count = 0;
#if RZ_LANES == 16 && defined(__AVX512F__)
    static_assert(sizeof(mask) == 2);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_storeu_si512(places, _mm512_maskz_compress_epi32((__mmask16)mask, lanes));
    _mm512_storeu_si512(values, _mm512_set1_epi32((int)value));
    count = __builtin_popcount(mask);
#else
    for (; mask; mask &= mask - 1, ++count) {
        places[count] = (uint32_t)__builtin_ctzll(mask);
        values[count] = value;
    }
#endif
    return count;
}

template <int... lanes>
struct Lanes {};
template <int count, int... lanes>
struct CountLanes : CountLanes<count - 1, count - 1, lanes...> {};
template <int... lanes>
struct CountLanes<0, lanes...> {
    typedef Lanes<lanes...> type;
};

// Of each lane, the sum of the lanes up to it.
template <int step, int... lanes>
RZ_FN VInt sum_steps(VInt x, Lanes<lanes...> all) {
    x += __builtin_shufflevector(VInt{}, x, (lanes < step ? lanes : LANES + lanes - step)...);
    if constexpr (2 * step < LANES)
        return sum_steps<2 * step>(x, all);
    else
        return x;
}
RZ_FN VInt sums_to_lane(VInt x) { return sum_steps<1>(x, typename CountLanes<LANES>::type{}); }

template <int... lanes>
RZ_FN VInt spread_last(VInt x, Lanes<lanes...>) {
    return __builtin_shufflevector(x, x, (lanes - lanes + LANES - 1)...);
}
RZ_FN VInt last_lane(VInt x) { return spread_last(x, typename CountLanes<LANES>::type{}); }

template <int step, int... lanes>
RZ_FN void exchange(VFloat& a, VFloat& b, Lanes<lanes...>) {
    const NativeFloat low = __builtin_shufflevector(a.v, b.v, ((lanes & step) ? LANES + lanes - step : lanes)...);
    b.v = __builtin_shufflevector(a.v, b.v, ((lanes & step) ? LANES + lanes : lanes + step)...);
    a.v = low;
}

// Rows to columns, `count` of each, in registers; of more lanes, each `count` by themselves.
template <int step = LANES / 2, int count = LANES>
RZ_FN void transpose(VFloat* rows) {
    for (int i = 0; i < count; ++i)
        if (!(i & step)) exchange<step>(rows[i], rows[i | step], typename CountLanes<LANES>::type{});
    if constexpr (step > 1) transpose<step / 2, count>(rows);
}

// The first n floats of LANES rows to n vectors. Reads whole vectors of a row, or halves where that is enough.
template <int n>
RZ_FN void load_columns(const float* const* rows, VFloat (&out)[n]) {
#if RZ_LANES == 16
    if constexpr (n <= LANES / 2) {  // the second half of a vector holds the row LANES / 2 further on
        VFloat square[LANES / 2];
        for (int lane = 0; lane < LANES / 2; ++lane) square[lane] = load_halves(rows[lane], rows[lane + LANES / 2]);
        transpose<LANES / 4, LANES / 2>(square);
        for (int k = 0; k < n; ++k) out[k] = square[k];
        return;
    }
#endif
    for (int part = 0; part < n; part += LANES) {
        VFloat square[LANES];
        for (int lane = 0; lane < LANES; ++lane) square[lane] = load(rows[lane] + part);
        transpose(square);
        for (int k = part; k < n && k < part + LANES; ++k) out[k] = square[k - part];
    }
}

// n vectors to as many rows of n floats as are valid, n a multiple of LANES.
template <int n>
RZ_FN void store_columns(const VFloat (&columns)[n], int valid, float* rows) {
    static_assert(n % LANES == 0);
    for (int part = 0; part < n; part += LANES) {
        VFloat square[LANES];
        for (int k = 0; k < LANES; ++k) square[k] = columns[part + k];
        transpose(square);
        if (valid == LANES)
            for (int lane = 0; lane < LANES; ++lane) store(rows + lane * n + part, square[lane]);
        else
            for (int lane = 0; lane < valid; ++lane) store(rows + lane * n + part, square[lane]);
    }
}

// Where number i of n packed vectors comes from, when LANES rows of n numbers become n vectors, and back.
template <int n>
struct RowsToColumns {
    static constexpr int source(int i) { return i % LANES * n + i / LANES; }
};
template <int n>
struct ColumnsToRows {
    static constexpr int source(int i) { return i % n * LANES + i / n; }
};

// Of vector `out` of the result, the lanes that come from `next`, which is vector `from` of the source; the others
// from `chosen`, which holds them in place already or, at the first step, is vector 0 of the source.
template <class Map, int out, int from, int... lanes>
RZ_FN NativeFloat choose(NativeFloat chosen, NativeFloat next, Lanes<lanes...>) {
    return __builtin_shufflevector(
        chosen, next,
        (Map::source(out * LANES + lanes) / LANES == from ? LANES + Map::source(out * LANES + lanes) % LANES
         : from == 1 && Map::source(out * LANES + lanes) < LANES ? Map::source(out * LANES + lanes)
                                                                 : lanes)...);
}

template <class Map, int n, int out = 0, int from = 1>
RZ_FN void permute(const VFloat* in, VFloat* result) {
    if constexpr (n == 1) {
        result[0] = in[0];
    } else if constexpr (out < n) {
        const NativeFloat chosen = from == 1 ? in[0].v : result[out].v;
        result[out].v = choose<Map, out, from>(chosen, in[from].v, typename CountLanes<LANES>::type{});
        if constexpr (from + 1 < n)
            permute<Map, n, out, from + 1>(in, result);
        else
            permute<Map, n, out + 1, 1>(in, result);
    }
}

// Rows of n floats, one per lane, to n vectors. Lanes from `valid` on repeat the last row.
template <int n>
RZ_FN void load_rows(const float* rows, int64_t stride, int valid, VFloat* out) {
    if (valid == LANES && stride == n) {
        VFloat packed[n];
        for (int k = 0; k < n; ++k) packed[k] = load(rows + k * LANES);
        permute<RowsToColumns<n>, n>(packed, out);
        return;
    }
    alignas(64) float columns[n][LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        const float* row = rows + (lane < valid ? lane : valid - 1) * stride;
        for (int k = 0; k < n; ++k) columns[k][lane] = row[k];
    }
    for (int k = 0; k < n; ++k) out[k] = load(columns[k]);
}

template <int n>
RZ_FN void store_rows(float* rows, int64_t stride, int valid, const VFloat* in) {
    if (valid == LANES && stride == n) {
        VFloat packed[n];
        permute<ColumnsToRows<n>, n>(in, packed);
        for (int k = 0; k < n; ++k) store(rows + k * LANES, packed[k]);
        return;
    }
    alignas(64) float columns[n][LANES];
    for (int k = 0; k < n; ++k) store(columns[k], in[k]);
    for (int lane = 0; lane < valid; ++lane)
        for (int k = 0; k < n; ++k) rows[lane * stride + k] = columns[k][lane];
}

// The same for rows that follow each other and that nobody reads soon; fence_streams() before others may.
template <int n>
RZ_FN void stream_rows(float* rows, int valid, const VFloat* in) {
    if (valid < LANES || (uintptr_t)rows % sizeof(VFloat)) {
        store_rows<n>(rows, n, valid, in);
        return;
    }
    VFloat packed[n];
    permute<ColumnsToRows<n>, n>(in, packed);
    for (int k = 0; k < n; ++k) stream(rows + k * LANES, packed[k]);
}

}  // namespace RZ_NAMESPACE
