// Second stage of the gradient: each Gaussian gathers its instances' records in slot order and passes them on to its
// parameters, view after view, so that every output is written once and in one order.
#pragma once

#include "gaussian.cuh"
#include "reduce.cuh"

namespace RZ_NAMESPACE {

constexpr int CAMERA_FLOATS = RZ_CUDA_CAMERA_FLOATS;
constexpr int BACKWARD_WARPS = PROJECT_BACKWARD_BLOCK / WARP;
// Records of a pair are summed by the whole warp where there are more: the other lanes would wait for one.
constexpr int WIDE_GATHER = 32;

struct ProjectBackwardShared {
    Camera<float> cameras[STAGED_CAMERAS];
    float partials[2][BACKWARD_WARPS][CAMERA_FLOATS];
};

// Totals of a Gaussian over its views.
struct GaussianGradient {
    float mean[3];
    float axes[9];
    float opacity;
    float colors[CHANNELS];
};

// Reads the record before it is known to have been written, so that the loads do not wait for each other.
RZ_DEVICE bool add_record(const RzCudaParams& p, int64_t target, float* sums) {
    const float* record = p.gradients + target * GRADIENT_FLOATS;
    const bool touched = __ldg(p.touched + target) != 0;
    RZ_UNROLL
    for (int k = 0; k < GRADIENT_FLOATS; ++k) {
        const float value = __ldg(record + k);
        sums[k] += touched ? value : 0.0f;
    }
    return touched;
}

// Lanes whose pair has many slots are served one after another by all.
RZ_DEVICE bool gather_wide(const RzCudaParams& p, bool wide, uint32_t first, int count, float* sums) {
    const int lane = threadIdx.x % WARP;
    bool seen = false;
    for (unsigned waiting = __ballot_sync(FULL_WARP, wide); waiting; waiting &= waiting - 1) {
        const int source = __ffs((int)waiting) - 1;
        const uint32_t its_first = __shfl_sync(FULL_WARP, first, source);
        const int its_count = __shfl_sync(FULL_WARP, count, source);
        float parts[GRADIENT_FLOATS] = {};
        bool found = false;
        for (int i = lane; i < its_count; i += WARP) found |= add_record(p, (int64_t)its_first + i, parts);
        RZ_UNROLL
        for (int k = 0; k < GRADIENT_FLOATS; ++k) {
            RZ_UNROLL
            for (int offset = 1; offset < WARP; offset *= 2)
                parts[k] += __shfl_xor_sync(FULL_WARP, parts[k], offset);
            if (lane == source) sums[k] = parts[k];
        }
        const bool any = __any_sync(FULL_WARP, found);
        if (lane == source) seen = any;
    }
    return seen;
}

// Sum of a pair's records; false where no pixel saw it. Whole warps come here; pair is negative where there is none.
RZ_DEVICE bool gather_records(const RzCudaParams& p, int64_t pair, float* sums) {
    RZ_UNROLL
    for (int k = 0; k < GRADIENT_FLOATS; ++k) sums[k] = 0.0f;
    int count = pair >= 0 ? p.counts[pair] : 0;
    if (p.atomics) return count > 0 && add_record(p, pair, sums);
    const uint32_t first = count > 0 ? p.first_slots[pair] : 0;
    // The last instances may have found no room.
    count = (int)min((int64_t)count, p.instances - first);
    bool seen = gather_wide(p, count > WIDE_GATHER, first, count, sums);
    if (count <= WIDE_GATHER)
        for (int i = 0; i < count; ++i) seen |= add_record(p, (int64_t)first + i, sums);
    return seen;
}

// Adds to the gradient of the coefficients, which this thread alone touches, and to that of the direction.
RZ_DEVICE void harmonic_color_backward(const RzCudaParams& p, int64_t pair, int64_t row, const Gaussian& g,
                                       const Camera<float>& camera, const float* v_colors, ViewGradient<float>& out) {
    float direction[3], inverse_length, values[MAX_COEFFICIENTS], v_rgb[3], v_direction[3];
    view_direction(g.mean, camera, direction, inverse_length);
    harmonics(p.sh_degree, direction, values);
    const float* record = p.records + pair * RZ_CUDA_RECORD_FLOATS;
    // Colors are clamped at 0, without gradient below.
    RZ_UNROLL
    for (int c = 0; c < 3; ++c) v_rgb[c] = record[COLOR + c] > 0.0f ? v_colors[c] : 0.0f;
    const float* coefficients = p.colors + row * 3 * p.sh_coefficients;
    float* v_coefficients = p.v_features ? p.v_features + row * 3 * p.sh_coefficients : nullptr;
    const int count = sh_count(p);
    RZ_UNROLL
    for (int k = 0; k < MAX_COEFFICIENTS; ++k) {
        if (k >= count) continue;
        const float value = values[k];
        values[k] = dot3(v_rgb, coefficients + 3 * k);
        if (!v_coefficients) continue;
        RZ_UNROLL
        for (int c = 0; c < 3; ++c) v_coefficients[3 * k + c] += v_rgb[c] * value;
    }
    harmonics_backward(p.sh_degree, direction, values, v_direction);
    view_direction_backward(direction, inverse_length, v_direction, camera, out);
}

// One view of one Gaussian that was seen; `v_camera` receives the camera's gradient.
RZ_DEVICE void view_backward(const RzCudaParams& p, int64_t pair, int64_t row, const Gaussian& g,
                             const Camera<float>& camera, const float* sums, GaussianGradient& total,
                             float* v_camera) {
    Projection<float> s;
    project(g.mean, g.axes, camera, p.eps2d, p.antialiased != 0, s);
    ProjectionGradient<float> v;
    v.pixel_x = s.conic_a * sums[SUM_X] + s.conic_b * sums[SUM_Y];
    v.pixel_y = s.conic_b * sums[SUM_X] + s.conic_c * sums[SUM_Y];
    v.conic_a = sums[SUM_XX] * -0.5f;
    v.conic_b = -sums[SUM_XY];
    v.conic_c = sums[SUM_YY] * -0.5f;
    v.z = WITH_DEPTH ? sums[MOMENTS + CHANNELS] : 0.0f;
    // The moment is opacity * compensation times the gradient of that product.
    v.compensation = sums[SUM] / s.compensation;
    total.opacity += sums[SUM] / g.opacity;
    ViewGradient<float> out;
    project_backward(g.mean, g.axes, camera, p.antialiased != 0, s, v, out);
    if (CHANNELS == 3 && p.sh_coefficients > 0) {
        harmonic_color_backward(p, pair, row, g, camera, sums + MOMENTS, out);
    } else {
        RZ_UNROLL
        for (int c = 0; c < CHANNELS; ++c) total.colors[c] += sums[MOMENTS + c];
    }
    RZ_UNROLL
    for (int k = 0; k < 3; ++k) total.mean[k] += out.mean[k];
    RZ_UNROLL
    for (int k = 0; k < 9; ++k) total.axes[k] += out.axes[k];
    RZ_UNROLL
    for (int k = 0; k < CAMERA_FLOATS; ++k) v_camera[k] = out.camera[k];
}

// Sum over the block in an order that is always the same; every thread comes here. `partials` must not be those of the
// last call, which may still be read.
RZ_DEVICE void reduce_camera(float* v_camera, float (*partials)[CAMERA_FLOATS], float* out) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    fold_lanes<CAMERA_FLOATS, 1, WARP>(v_camera, lane);
    const int held = held_value<CAMERA_FLOATS, 1, WARP>(lane, 0);
    if (held >= 0) partials[warp][held] = v_camera[0];
    __syncthreads();
    if (threadIdx.x >= CAMERA_FLOATS) return;
    float sum = 0.0f;
    RZ_UNROLL
    for (int i = 0; i < BACKWARD_WARPS; ++i) sum += partials[i][threadIdx.x];
    out[threadIdx.x] = sum;
}

RZ_DEVICE void put(float* out, float value, bool add) { *out = add ? *out + value : value; }

// Scales and rotation are read again: kept over the loop of views they would take registers from it.
RZ_DEVICE void write_gradient(const RzCudaParams& p, int64_t row, const GaussianGradient& total, bool seen) {
    const bool add = p.accumulate != 0;
    if (add && !seen) return;
    float quat[4];
    load_quat(p, row, quat);
    const Rotation<float> rotation = rotate(quat, p.inria != 0);
    if (p.v_opacities) put(p.v_opacities + row, total.opacity, add);
    RZ_UNROLL
    for (int k = 0; k < 3; ++k)
        if (p.v_means) put(p.v_means + row * 3 + k, total.mean[k], add);
    // What nobody has seen may hold numbers that would turn zero into NaN.
    if (p.v_scales) {
        const float* m = rotation.matrix;
        RZ_UNROLL
        for (int k = 0; k < 3; ++k) {
            const float v = total.axes[k] * m[k] + total.axes[3 + k] * m[3 + k] + total.axes[6 + k] * m[6 + k];
            put(p.v_scales + row * 3 + k, seen ? v : 0.0f, add);
        }
    }
    if (p.v_quats) {
        float v_matrix[9], v[4];
        RZ_UNROLL
        for (int k = 0; k < 9; ++k) v_matrix[k] = total.axes[k] * __ldg(p.scales + row * 3 + k % 3);
        rotate_backward(rotation, v_matrix, v, p.inria != 0);
        RZ_UNROLL
        for (int k = 0; k < 4; ++k) put(p.v_quats + row * 4 + k, seen ? v[k] : 0.0f, add);
    }
    if (!p.v_features || p.sh_coefficients > 0) return;
    RZ_UNROLL
    for (int c = 0; c < CHANNELS; ++c) put(p.v_features + row * CHANNELS + c, total.colors[c], add);
}

RZ_DEVICE void project_gaussians_backward(const RzCudaParams& p, ProjectBackwardShared& shared) {
    const int64_t scene = blockIdx.y, index = (int64_t)blockIdx.x * PROJECT_BACKWARD_BLOCK + threadIdx.x;
    const int64_t row = scene * p.gaussians + index;
    const bool active = index < p.gaussians;
    Gaussian g{};
    if (active) g = load_gaussian(p, row);
    // Gradients of coefficients are summed where they are put, too many for registers.
    if (active && p.sh_coefficients > 0 && p.v_features && !p.accumulate)
        for (int64_t k = 0; k < 3 * p.sh_coefficients; ++k) p.v_features[row * 3 * p.sh_coefficients + k] = 0.0f;
    GaussianGradient total{};
    bool seen_ever = false;
    for (int64_t first = 0; first < p.views; first += STAGED_CAMERAS) {
        const int count = (int)min((int64_t)STAGED_CAMERAS, p.views - first);
        stage_cameras(p, scene * p.views + first, count, shared.cameras);
        for (int view = 0; view < count; ++view) {
            const int64_t pair = active ? (scene * p.views + first + view) * p.gaussians + index : -1;
            float sums[GRADIENT_FLOATS], v_camera[CAMERA_FLOATS] = {};
            const bool seen = gather_records(p, pair, sums);
            if (seen) view_backward(p, pair, row, g, shared.cameras[view], sums, total, v_camera);
            seen_ever |= seen;
            if (!p.camera_partials) continue;
            const int64_t block = scene * gridDim.x + blockIdx.x;
            reduce_camera(v_camera, shared.partials[view % 2],
                          p.camera_partials + (block * p.views + first + view) * CAMERA_FLOATS);
        }
    }
    if (active) write_gradient(p, row, total, seen_ever);
}

}  // namespace RZ_NAMESPACE
