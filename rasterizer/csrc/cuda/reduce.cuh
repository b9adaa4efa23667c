// Sums over the lanes of a warp, many at once. At each step a lane hands half of its values to its partner and keeps
// the other half, so that n values take about n shuffles instead of n per step. The order of every sum is fixed.
#pragma once

#include "device.cuh"

namespace RZ_NAMESPACE {

// How many values a lane holds after folding n of them at the distances first, 2 first, ... below end.
template <int n, int first, int end>
constexpr int FOLDED = FOLDED<(n + 1) / 2, first * 2, end>;
template <int n, int end>
constexpr int FOLDED<n, end, end> = n;

// Folds `values` in place; lane l ends with the sums of those that held_value names.
template <int n, int first, int end>
RZ_DEVICE void fold_lanes(float* values, int lane) {
    if constexpr (first < end) {
        constexpr int HALF = (n + 1) / 2;
        const bool upper = (lane & first) != 0;
        RZ_UNROLL
        for (int i = 0; i < HALF; ++i) {
            float kept = values[i], given = values[i];
            if (i + HALF < n) {
                kept = upper ? values[i + HALF] : values[i];
                given = upper ? values[i] : values[i + HALF];
            }
            values[i] = kept + __shfl_xor_sync(FULL_WARP, given, first);
        }
        fold_lanes<HALF, first * 2, end>(values, lane);
    }
}

// Which of the n values stands in place i of a lane after fold_lanes; negative where another lane holds the same.
template <int n, int first, int end>
RZ_DEVICE int held_value(int lane, int i) {
    if constexpr (first < end) {
        constexpr int HALF = (n + 1) / 2;
        const int before = held_value<HALF, first * 2, end>(lane, i);
        if (before < 0 || (lane & first) == 0) return before;
        return before + HALF < n ? before + HALF : -1;
    } else {
        return i;
    }
}

// Gradient of one Gaussian in a warp's strip of the tile, 4 rows of lanes with 8 lanes each. In a row, dy is one
// number: first d, d dx, d dx^2 and the features are summed along the row, and only then multiplied by dy and dy^2 and
// summed over the rows. That takes 9 shuffles for 3 channels, where nine sums over all lanes would take 12.
constexpr int ROW_VALUES = 3 + FEATURES;
constexpr int ROW_LANES = SUBTILE_WIDTH;
constexpr int ROW_HELD = FOLDED<ROW_VALUES, 1, ROW_LANES>;
constexpr int STRIP_VALUES = ROW_HELD + 2;  // and the first one's products with dy and dy^2
constexpr int STRIP_HELD = FOLDED<STRIP_VALUES, ROW_LANES, WARP>;

// Places before folding a row, such that both sums which need a product with dy end up first in their lanes.
constexpr int ROW_SUM = 0;
constexpr int ROW_SUM_X = ROW_HELD;
constexpr int ROW_SUM_XX = ROW_HELD == 1 ? 2 : 1;
__host__ __device__ constexpr int row_place(int feature) { return feature + (feature + 2 >= ROW_HELD ? 3 : 2); }
static_assert(row_place(FEATURES - 1) == ROW_VALUES - 1, "places are a permutation");

// Which moment or feature the strip's sum at place i of a lane is; negative: none.
RZ_DEVICE int strip_output(int lane, int i) {
    const int strip = held_value<STRIP_VALUES, ROW_LANES, WARP>(lane, i);
    if (strip < 0) return -1;
    const int power = strip < ROW_HELD ? 0 : strip - ROW_HELD + 1;  // of dy
    const int row = held_value<ROW_VALUES, 1, ROW_LANES>(lane, power > 0 ? 0 : strip);
    if (row == ROW_SUM) return power == 0 ? SUM : power == 1 ? SUM_Y : SUM_YY;
    if (row == ROW_SUM_X) return power == 0 ? SUM_X : power == 1 ? SUM_XY : -1;
    if (power > 0) return -1;
    if (row == ROW_SUM_XX) return SUM_XX;
    for (int c = 0; c < FEATURES; ++c)
        if (row == row_place(c)) return MOMENTS + c;
    return -1;
}

// Sums `values` (ROW_VALUES of them, room for STRIP_VALUES) over the warp; place i then holds strip_output(lane, i).
RZ_DEVICE void fold_strip(float* values, float dy, int lane) {
    fold_lanes<ROW_VALUES, 1, ROW_LANES>(values, lane);
    values[ROW_HELD] = values[0] * dy;
    values[ROW_HELD + 1] = values[ROW_HELD] * dy;
    fold_lanes<STRIP_VALUES, ROW_LANES, WARP>(values, lane);
}

}  // namespace RZ_NAMESPACE
