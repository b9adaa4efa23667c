// One Gaussian of the user's arrays, and the cameras of its views: what both projection stages read.
#pragma once

#include "device.cuh"

#include "../harmonics.h"

namespace RZ_NAMESPACE {

constexpr int MAX_COEFFICIENTS = (MAX_SH_DEGREE + 1) * (MAX_SH_DEGREE + 1);

struct Gaussian {
    float mean[3];
    float opacity;
    float axes[9];  // rotation * diag(scale)
    bool usable;    // finite, and so is the squared length of the quaternion, which is not zero
};

RZ_DEVICE int sh_count(const RzCudaParams& p) { return (p.sh_degree + 1) * (p.sh_degree + 1); }

RZ_DEVICE bool finite_colors(const RzCudaParams& p, int64_t row) {
    const bool harmonic = p.sh_coefficients > 0;
    const float* color = p.colors + row * (harmonic ? 3 * p.sh_coefficients : CHANNELS);
    const int count = harmonic ? 3 * sh_count(p) : CHANNELS;
    bool out = true;
    for (int k = 0; k < count; ++k) out = out && finite(color[k]);
    return out;
}

RZ_DEVICE void load_quat(const RzCudaParams& p, int64_t row, float* quat) {
    RZ_UNROLL
    for (int k = 0; k < 4; ++k) quat[k] = __ldg(p.quats + row * 4 + k);
}

// `row` counts over all scenes.
RZ_DEVICE Gaussian load_gaussian(const RzCudaParams& p, int64_t row) {
    Gaussian g;
    float quat[4], scale[3];
    load_quat(p, row, quat);
    g.opacity = __ldg(p.opacities + row);
    bool fine = finite(g.opacity);
    RZ_UNROLL
    for (int k = 0; k < 3; ++k) {
        g.mean[k] = __ldg(p.means + row * 3 + k);
        scale[k] = __ldg(p.scales + row * 3 + k);
        fine = fine && finite(g.mean[k]) && finite(scale[k]);
    }
    // Not finite where a number is not.
    const float norm = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
    g.usable = fine && finite(norm) && norm > 0.0f;
    const Rotation<float> rotation = rotate(quat, p.inria != 0);
    RZ_UNROLL
    for (int k = 0; k < 9; ++k) g.axes[k] = rotation.matrix[k] * scale[k % 3];
    return g;
}

// Cameras are prepared once per block, so many at a time.
constexpr int STAGED_CAMERAS = 32;

// Every thread of the block comes here, and is done with the cameras of the last call.
RZ_DEVICE void stage_cameras(const RzCudaParams& p, int64_t first_image, int count, Camera<float>* cameras) {
    __syncthreads();
    if ((int)threadIdx.x < count) {
        const int64_t image = first_image + threadIdx.x;
        cameras[threadIdx.x] =
            load_camera(p.viewmats + image * 16, p.intrinsics + image * 9, (float)p.width, (float)p.height);
    }
    __syncthreads();
}

}  // namespace RZ_NAMESPACE
