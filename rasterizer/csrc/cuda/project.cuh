// First stage: every Gaussian of every view becomes a record, and is counted at the tiles it meets.
#pragma once

#include "footprint.cuh"
#include "gaussian.cuh"

namespace RZ_NAMESPACE {

struct ProjectShared {
    Camera<float> cameras[STAGED_CAMERAS];
    int totals[2];
};

RZ_DEVICE void harmonic_color(const RzCudaParams& p, int64_t row, const Gaussian& g, const Camera<float>& camera,
                              float* rgb) {
    float direction[3], inverse_length, values[MAX_COEFFICIENTS];
    view_direction(g.mean, camera, direction, inverse_length);
    harmonics(p.sh_degree, direction, values);
    const float* coefficients = p.colors + row * 3 * p.sh_coefficients;
    RZ_UNROLL
    for (int c = 0; c < 3; ++c) rgb[c] = (float)SH_OFFSET;
    const int count = sh_count(p);
    RZ_UNROLL
    for (int k = 0; k < MAX_COEFFICIENTS; ++k) {
        if (k >= count) continue;
        RZ_UNROLL
        for (int c = 0; c < 3; ++c) rgb[c] += coefficients[3 * k + c] * values[k];
    }
    RZ_UNROLL
    for (int c = 0; c < 3; ++c) rgb[c] = maximum(rgb[c], 0.0f);
}

RZ_DEVICE void write_record(const RzCudaParams& p, int64_t pair, int64_t row, const Gaussian& g,
                            const Camera<float>& camera, const Projection<float>& s, float opacity) {
    float colors[PACKED_CHANNELS] = {};
    if (CHANNELS == 3 && p.sh_coefficients > 0) {
        harmonic_color(p, row, g, camera, colors);
    } else if (COLORS_PACKED) {
        RZ_UNROLL
        for (int c = 0; c < PACKED_CHANNELS; ++c)
            if (c < CHANNELS) colors[c] = p.colors[row * CHANNELS + c];
    }
    float4* record = (float4*)(p.records + pair * RZ_CUDA_RECORD_FLOATS);
    record[0] = make_float4(s.pixel_x, s.pixel_y, s.conic_a * (float)(-0.5 * LOG2_E), s.conic_b * (float)-LOG2_E);
    record[1] = make_float4(s.conic_c * (float)(-0.5 * LOG2_E), log2f(opacity), colors[0], colors[1]);
    record[2] = make_float4(colors[2], colors[3], colors[4], s.view[2]);
}

RZ_DEVICE Footprint make_footprint(const Projection<float>& s, float opacity, bool square) {
    if (square) {
        const float radius = square_radius(s);
        return {s.pixel_x, s.pixel_y, radius, radius, 0.0f, 0.0f};
    }
    // ln(opacity / threshold) >= half the quadratic form is where a Gaussian is seen.
    const float reach = 2.0f * logf(fmaxf(opacity * (float)(1.0 / ALPHA_THRESHOLD), 1.0f));
    const float extent_x = sqrtf(reach * s.cov_a), extent_y = sqrtf(reach * s.cov_c);
    return {s.pixel_x, s.pixel_y, extent_x + slack(extent_x), extent_y + slack(extent_y), s.cov_b / s.cov_c,
            sqrtf(s.determinant) / s.cov_c};
}

struct Tally {
    int nonfinite;
    int drawn;
};

// Whether a projection can be drawn; one that NaN or infinity forbids is counted.
RZ_DEVICE bool drawable(const RzCudaParams& p, const Projection<float>& s, float opacity, Tally& tally) {
    const float z = s.view[2];
    // A NaN in place of z lies neither inside nor outside and counts as not finite.
    if (z < p.near_plane || z > p.far_plane) return false;
    const bool fine = finite(z) && finite(s.pixel_x) && finite(s.pixel_y) && finite(s.conic_a) && finite(s.conic_b) &&
                      finite(s.conic_c) && finite(s.cov_a) && finite(s.cov_c) && finite(s.determinant) &&
                      finite(opacity);
    const bool flat = s.determinant <= 0.0f;
    if (!fine && !flat) ++tally.nonfinite;
    return fine && s.determinant > 0.0f && (p.inria || opacity >= (float)ALPHA_THRESHOLD);
}

RZ_DEVICE void project_view(const RzCudaParams& p, int64_t pair, int64_t row, const Gaussian& g,
                            const Camera<float>& camera, Tally& tally) {
    int count = 0;
    float depth = infinity();
    Projection<float> s;
    project(g.mean, g.axes, camera, p.eps2d, p.antialiased != 0, s);
    const float opacity = g.opacity * s.compensation;
    if (!g.usable) {
        ++tally.nonfinite;
    } else if (drawable(p, s, opacity, tally)) {
        const Footprint f = make_footprint(s, opacity, p.inria != 0);
        count = count_tiles(p, f);
        if (count > 0) {
            ++tally.drawn;
            depth = s.view[2];
            write_record(p, pair, row, g, camera, s, opacity);
            ((float4*)p.footprints)[pair] = make_float4(f.half_x, f.half_y, f.shear, f.chord);
        }
    }
    p.counts[pair] = count;
    p.sort_depths[pair] = depth;
}

RZ_DEVICE void add_totals(const RzCudaParams& p, Tally tally, ProjectShared& shared) {
    if (threadIdx.x < 2) shared.totals[threadIdx.x] = 0;
    __syncthreads();
    RZ_UNROLL
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        tally.nonfinite += __shfl_xor_sync(FULL_WARP, tally.nonfinite, offset);
        tally.drawn += __shfl_xor_sync(FULL_WARP, tally.drawn, offset);
    }
    if (threadIdx.x % WARP == 0) {
        atomicAdd(&shared.totals[0], tally.nonfinite);
        atomicAdd(&shared.totals[1], tally.drawn);
    }
    __syncthreads();
    if (threadIdx.x < 2 && shared.totals[threadIdx.x] > 0)
        atomicAdd((unsigned long long*)p.totals + threadIdx.x, (unsigned long long)shared.totals[threadIdx.x]);
}

RZ_DEVICE void project_gaussians(const RzCudaParams& p, ProjectShared& shared) {
    const int64_t scene = blockIdx.y, index = (int64_t)blockIdx.x * PROJECT_BLOCK + threadIdx.x;
    const int64_t row = scene * p.gaussians + index;
    const bool active = index < p.gaussians;
    Tally tally{0, 0};
    Gaussian g{};
    if (active) {
        g = load_gaussian(p, row);
        g.usable = g.usable && finite_colors(p, row);
    }
    for (int64_t first = 0; first < p.views; first += STAGED_CAMERAS) {
        const int count = (int)min((int64_t)STAGED_CAMERAS, p.views - first);
        const int64_t image = scene * p.views + first;
        stage_cameras(p, image, count, shared.cameras);
        if (!active) continue;
        for (int view = 0; view < count; ++view)
            project_view(p, (image + view) * p.gaussians + index, row, g, shared.cameras[view], tally);
    }
    add_totals(p, tally, shared);
}

}  // namespace RZ_NAMESPACE
