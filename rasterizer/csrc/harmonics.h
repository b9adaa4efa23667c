// Real spherical harmonics up to degree 3 with their derivatives, in the order and sign of 3D Gaussian Splatting.
#pragma once

#include "math.h"

namespace RZ_NAMESPACE {

// Coefficients encode color - SH_OFFSET, so that zero coefficients give mid grey.
constexpr double SH_OFFSET = 0.5;

// Values of the basis at the unit vector d; `values` has (degree + 1)^2 entries.
template <class T>
RZ_FN void harmonics(int degree, const T d[3], T* values) {
    const T x = d[0], y = d[1], z = d[2];
    values[0] = T(0.28209479177387814);
    if (degree < 1) return;
    const T c1 = T(0.4886025119029199);
    values[1] = -(c1 * y);
    values[2] = c1 * z;
    values[3] = -(c1 * x);
    if (degree < 2) return;
    const T xx = x * x, yy = y * y, zz = z * z;
    const T c2 = T(1.0925484305920792);
    values[4] = c2 * x * y;
    values[5] = -(c2 * y * z);
    values[6] = T(0.31539156525252005) * (zz + zz - xx - yy);
    values[7] = -(c2 * x * z);
    values[8] = T(0.5462742152960396) * (xx - yy);
    if (degree < 3) return;
    values[9] = T(-0.5900435899266435) * y * (T(3) * xx - yy);
    values[10] = T(2.890611442640554) * x * y * z;
    values[11] = T(-0.4570457994644658) * y * (T(4) * zz - xx - yy);
    values[12] = T(0.3731763325901154) * z * (zz + zz - T(3) * (xx + yy));
    values[13] = T(-0.4570457994644658) * x * (T(4) * zz - xx - yy);
    values[14] = T(1.445305721320277) * z * (xx - yy);
    values[15] = T(-0.5900435899266435) * x * (xx - T(3) * yy);
}

// Gradient to d of sum_k v[k] * values[k]. The basis as polynomials in d; the part along d has no meaning and is
// removed by the gradient of the normalisation.
template <class T>
RZ_FN void harmonics_backward(int degree, const T d[3], const T* v, T v_d[3]) {
    const T x = d[0], y = d[1], z = d[2];
    v_d[0] = v_d[1] = v_d[2] = T(0);
    if (degree < 1) return;
    const T c1 = T(0.4886025119029199);
    v_d[0] = -(c1 * v[3]);
    v_d[1] = -(c1 * v[1]);
    v_d[2] = c1 * v[2];
    if (degree < 2) return;
    const T c2 = T(1.0925484305920792);
    const T f4 = c2 * v[4], f5 = -(c2 * v[5]), f7 = -(c2 * v[7]);
    const T f6 = T(2 * 0.31539156525252005) * v[6], f8 = T(2 * 0.5462742152960396) * v[8];
    v_d[0] = v_d[0] + f4 * y - f6 * x + f7 * z + f8 * x;
    v_d[1] = v_d[1] + f4 * x + f5 * z - f6 * y - f8 * y;
    v_d[2] = v_d[2] + f5 * y + T(2) * f6 * z + f7 * x;
    if (degree < 3) return;
    const T xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z;
    const T f9 = T(-0.5900435899266435) * v[9], f10 = T(2.890611442640554) * v[10];
    const T f11 = T(-0.4570457994644658) * v[11], f12 = T(0.3731763325901154) * v[12];
    const T f13 = T(-0.4570457994644658) * v[13], f14 = T(1.445305721320277) * v[14];
    const T f15 = T(-0.5900435899266435) * v[15];
    v_d[0] = v_d[0] + T(6) * xy * f9 + yz * f10 - T(2) * xy * f11 - T(6) * xz * f12 +
             (T(4) * zz - T(3) * xx - yy) * f13 + T(2) * xz * f14 + T(3) * (xx - yy) * f15;
    v_d[1] = v_d[1] + T(3) * (xx - yy) * f9 + xz * f10 + (T(4) * zz - xx - T(3) * yy) * f11 - T(6) * yz * f12 -
             T(2) * xy * f13 - T(2) * yz * f14 - T(6) * xy * f15;
    v_d[2] = v_d[2] + xy * f10 + T(8) * yz * f11 + (T(6) * zz - T(3) * (xx + yy)) * f12 + T(8) * xz * f13 +
             (xx - yy) * f14;
}

// Unit vector from the camera's center to a mean.
template <class T, class S>
RZ_FN void view_direction(const T mean[3], const Camera<S>& camera, T direction[3], T& inverse_length) {
    for (int i = 0; i < 3; ++i) direction[i] = mean[i] - T(camera.center[i]);
    inverse_length = T(1) / square_root(dot3(direction, direction));
    for (int i = 0; i < 3; ++i) direction[i] = direction[i] * inverse_length;
}

// Adds the gradient of a direction to those of the mean and of the camera, center = -inverse(rotation) translation.
template <class T, class S>
RZ_FN void view_direction_backward(const T direction[3], T inverse_length, const T v_direction[3],
                                   const Camera<S>& camera, ViewGradient<T>& out) {
    const T along = dot3(direction, v_direction);
    T v[3];
    for (int i = 0; i < 3; ++i) {
        v[i] = (v_direction[i] - direction[i] * along) * inverse_length;
        out.mean[i] = out.mean[i] + v[i];
    }
    const S* n = camera.inverse;
    for (int i = 0; i < 3; ++i) {
        const T turned = v[0] * n[i] + v[1] * n[3 + i] + v[2] * n[6 + i];
        out.camera[9 + i] = out.camera[9 + i] + turned;
        for (int j = 0; j < 3; ++j) out.camera[3 * i + j] = out.camera[3 * i + j] + turned * camera.center[j];
    }
}

}  // namespace RZ_NAMESPACE
