// One vector of Gaussians: a lane each, loaded from the user's arrays.
#pragma once

#include "../harmonics.h"
#include "frame.h"

namespace RZ_NAMESPACE {

constexpr int MAX_COEFFICIENTS = (MAX_SH_DEGREE + 1) * (MAX_SH_DEGREE + 1);

struct Group {
    int64_t first;  // index of lane 0's Gaussian within its scene
    int valid;      // lanes in use
    VFloat mean[3];
    VFloat scale[3];
    VFloat opacity;
    Rotation<VFloat> rotation;
    VFloat axes[9];  // rotation * diag(scale)
    VMask usable;    // finite, and so is the squared length of the quaternion, which is not zero
};

RZ_FN int sh_count(const RzParams& p) { return (p.sh_degree + 1) * (p.sh_degree + 1); }

RZ_FN void load_harmonics(const RzParams& p, int64_t row, int valid, VFloat* coefficients) {
    const int count = sh_count(p);
    const float* base = p.colors + row * p.sh_coefficients * 3;
    for (int k = 0; k < count; ++k) load_rows<3>(base + 3 * k, p.sh_coefficients * 3, valid, coefficients + 3 * k);
}

RZ_FN Group load_group(const RzParams& p, int64_t scene, int64_t first, int valid) {
    Group g;
    g.first = first;
    g.valid = valid;
    const int64_t row = scene * p.gaussians + first;
    VFloat quat[4];
    load_rows<3>(p.means + row * 3, 3, valid, g.mean);
    load_rows<4>(p.quats + row * 4, 4, valid, quat);
    load_rows<3>(p.scales + row * 3, 3, valid, g.scale);
    load_rows<1>(p.opacities + row, 1, valid, &g.opacity);
    // 0 * x is 0 for finite x and NaN otherwise.
    const VFloat zero = 0.0f;
    VFloat check = zero * g.opacity;
    for (int k = 0; k < 3; ++k) check += zero * g.mean[k] + zero * g.scale[k];
    for (int k = 0; k < 4; ++k) check += zero * quat[k];
    const VFloat norm = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
    g.usable = (check + zero * norm == zero) & (norm > zero);
    g.rotation = rotate(quat, p.inria != 0);
    if (p.inria) {  // raw quaternions may overflow in the matrix
        VFloat finite = zero;
        for (int k = 0; k < 9; ++k) finite += zero * g.rotation.matrix[k];
        g.usable = g.usable & (finite == zero);
    }
    for (int j = 0; j < 3; ++j)
        for (int k = 0; k < 3; ++k) g.axes[3 * j + k] = g.rotation.matrix[3 * j + k] * g.scale[k];
    return g;
}

// Lanes all of whose color numbers are finite.
RZ_FN VMask finite_colors(const RzParams& p, int64_t row, int valid) {
    const int64_t stride = p.sh_coefficients > 0 ? p.sh_coefficients * 3 : p.channels;
    const int64_t count = p.sh_coefficients > 0 ? 3 * sh_count(p) : p.channels;
    uint32_t out = 0;
    for (int lane = 0; lane < valid; ++lane) {
        const float* color = p.colors + (row + lane) * stride;
        float check = 0.0f;
        for (int64_t k = 0; k < count; ++k) check += 0.0f * color[k];
        out |= (uint32_t)(check == 0.0f) << lane;
    }
    return from_bits(out);
}

RZ_FN Camera<float> camera_of(const RzParams& p, int64_t image) {
    return load_camera(p.viewmats + image * 16, p.intrinsics + image * 9, (float)p.width, (float)p.height);
}

}  // namespace RZ_NAMESPACE
