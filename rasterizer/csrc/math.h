// Projection, covariance, conic and spherical harmonics with their derivatives, one Gaussian and one view at a
// time. Shared by the CPU core (T = a SIMD vector, one Gaussian per lane), the CUDA kernels (T = float) and tests
// (T = double). Free of branches on data, so that any T with select() works; S is the scalar type of a camera.
//
// Formulas: EWA splatting (Zwicker et al. 2001) as in 3D Gaussian Splatting (Kerbl et al. 2023); antialiasing as in
// Mip-Splatting (Yu et al. 2024). Gradients v_name are those of the loss by name.
#pragma once

#include "config.h"

#if defined(__CUDACC__)
#define RZ_FN __host__ __device__ __forceinline__
#else
#define RZ_FN inline __attribute__((always_inline))
#endif

namespace RZ_NAMESPACE {

RZ_FN float select(bool mask, float yes, float no) { return mask ? yes : no; }
RZ_FN double select(bool mask, double yes, double no) { return mask ? yes : no; }
#if defined(__CUDACC__)
RZ_FN float square_root(float x) { return sqrtf(x); }
RZ_FN double square_root(double x) { return sqrt(x); }
RZ_FN float ceiling(float x) { return ceilf(x); }
RZ_FN double ceiling(double x) { return ceil(x); }
#else
RZ_FN float square_root(float x) { return __builtin_sqrtf(x); }
RZ_FN double square_root(double x) { return __builtin_sqrt(x); }
RZ_FN float ceiling(float x) { return __builtin_ceilf(x); }
RZ_FN double ceiling(double x) { return __builtin_ceil(x); }
#endif

template <class T>
RZ_FN T maximum(T a, T b) {
    return select(a > b, a, b);
}
template <class T>
RZ_FN T minimum(T a, T b) {
    return select(a < b, a, b);
}
template <class T, class U>
RZ_FN T dot3(const T* a, const U* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class S>
struct Camera {
    S rotation[9];  // world to camera, row-major
    S translation[3];
    S fx, fy, cx, cy;
    S x_low, x_high, y_low, y_high;  // bounds of x/z and y/z in the Jacobian
    S inverse[9];                    // of rotation
    S center[3];                     // of projection, world
};

template <class S>
RZ_FN Camera<S> load_camera(const S* viewmat, const S* intrinsics, S width, S height) {
    Camera<S> camera;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) camera.rotation[3 * i + j] = viewmat[4 * i + j];
        camera.translation[i] = viewmat[4 * i + 3];
    }
    camera.fx = intrinsics[0];
    camera.cx = intrinsics[2];
    camera.fy = intrinsics[4];
    camera.cy = intrinsics[5];
    const S margin_x = S(JACOBIAN_MARGIN * 0.5) * width;
    const S margin_y = S(JACOBIAN_MARGIN * 0.5) * height;
    camera.x_low = -(camera.cx + margin_x) / camera.fx;
    camera.x_high = (width - camera.cx + margin_x) / camera.fx;
    camera.y_low = -(camera.cy + margin_y) / camera.fy;
    camera.y_high = (height - camera.cy + margin_y) / camera.fy;
    const S* r = camera.rotation;
    // The inverse by cofactors: viewmats need not be orthonormal, and their gradients are those of the inverse.
    S* n = camera.inverse;
    n[0] = r[4] * r[8] - r[5] * r[7];
    n[1] = r[2] * r[7] - r[1] * r[8];
    n[2] = r[1] * r[5] - r[2] * r[4];
    n[3] = r[5] * r[6] - r[3] * r[8];
    n[4] = r[0] * r[8] - r[2] * r[6];
    n[5] = r[2] * r[3] - r[0] * r[5];
    n[6] = r[3] * r[7] - r[4] * r[6];
    n[7] = r[1] * r[6] - r[0] * r[7];
    n[8] = r[0] * r[4] - r[1] * r[3];
    const S determinant = r[0] * n[0] + r[1] * n[3] + r[2] * n[6];
    for (int i = 0; i < 9; ++i) n[i] = n[i] / determinant;
    for (int i = 0; i < 3; ++i) camera.center[i] = -dot3(n + 3 * i, camera.translation);
    return camera;
}

// Rotation of a quaternion (w, x, y, z) of any length, and what its gradient needs. `raw`, the convention of
// compat="inria", puts the quaternion into the formula as it is: of another length than 1, no rotation results.
template <class T>
struct Rotation {
    T unit[4];
    T inverse_norm;
    T matrix[9];
};

template <class T>
RZ_FN Rotation<T> rotate(const T quat[4], bool raw = false) {
    Rotation<T> out;
    out.inverse_norm = T(1);
    if (!raw) {
        const T squared = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
        out.inverse_norm = T(1) / square_root(squared);
    }
    for (int i = 0; i < 4; ++i) out.unit[i] = quat[i] * out.inverse_norm;
    const T w = out.unit[0], x = out.unit[1], y = out.unit[2], z = out.unit[3];
    T* m = out.matrix;
    m[0] = T(1) - T(2) * (y * y + z * z);
    m[1] = T(2) * (x * y - w * z);
    m[2] = T(2) * (x * z + w * y);
    m[3] = T(2) * (x * y + w * z);
    m[4] = T(1) - T(2) * (x * x + z * z);
    m[5] = T(2) * (y * z - w * x);
    m[6] = T(2) * (x * z - w * y);
    m[7] = T(2) * (y * z + w * x);
    m[8] = T(1) - T(2) * (x * x + y * y);
    return out;
}

template <class T>
RZ_FN void rotate_backward(const Rotation<T>& rotation, const T v[9], T v_quat[4], bool raw = false) {
    const T w = rotation.unit[0], x = rotation.unit[1], y = rotation.unit[2], z = rotation.unit[3];
    T u[4];
    u[0] = T(2) * (x * (v[7] - v[5]) + y * (v[2] - v[6]) + z * (v[3] - v[1]));
    u[1] = T(2) * (w * (v[7] - v[5]) + y * (v[1] + v[3]) + z * (v[2] + v[6]) - T(2) * x * (v[4] + v[8]));
    u[2] = T(2) * (w * (v[2] - v[6]) + x * (v[1] + v[3]) + z * (v[5] + v[7]) - T(2) * y * (v[0] + v[8]));
    u[3] = T(2) * (w * (v[3] - v[1]) + x * (v[2] + v[6]) + y * (v[5] + v[7]) - T(2) * z * (v[0] + v[4]));
    // Length changes nothing of a normalised quaternion, so its gradient has no part along it.
    const T along = raw ? T(0) : u[0] * w + u[1] * x + u[2] * y + u[3] * z;
    for (int i = 0; i < 4; ++i) v_quat[i] = (u[i] - rotation.unit[i] * along) * rotation.inverse_norm;
}

// A Gaussian seen by a camera. With axes = rotation * diag(scales), its covariance in camera space is W W^T where
// W = camera.rotation * axes, and on the image P P^T where P = J W (rows p0, p1): never indefinite by rounding.
template <class T>
struct Projection {
    T view[3];         // mean in camera space
    T inverse_z;
    T slope_x, slope_y;  // x/z and y/z, clamped
    T pixel_x, pixel_y;
    T w[9];
    T p0[3], p1[3];
    T cov_a, cov_b, cov_c;  // dilated covariance on the image, square pixels
    T determinant;          // of it
    T ratio;                // determinant before dilation / after
    T compensation;         // factor of opacity
    T conic_a, conic_b, conic_c;
};

template <class T, class S>
RZ_FN void project(const T mean[3], const T axes[9], const Camera<S>& camera, S eps2d, bool antialiased,
                   Projection<T>& out) {
    for (int i = 0; i < 3; ++i) out.view[i] = dot3(mean, camera.rotation + 3 * i) + T(camera.translation[i]);
    out.inverse_z = T(1) / out.view[2];
    const T raw_x = out.view[0] * out.inverse_z, raw_y = out.view[1] * out.inverse_z;
    out.slope_x = minimum(maximum(raw_x, T(camera.x_low)), T(camera.x_high));
    out.slope_y = minimum(maximum(raw_y, T(camera.y_low)), T(camera.y_high));
    out.pixel_x = raw_x * camera.fx + T(camera.cx);
    out.pixel_y = raw_y * camera.fy + T(camera.cy);
    const S* r = camera.rotation;
    for (int i = 0; i < 3; ++i)
        for (int k = 0; k < 3; ++k)
            out.w[3 * i + k] = axes[k] * r[3 * i] + axes[3 + k] * r[3 * i + 1] + axes[6 + k] * r[3 * i + 2];
    const T scale_x = out.inverse_z * camera.fx, scale_y = out.inverse_z * camera.fy;
    for (int k = 0; k < 3; ++k) {
        out.p0[k] = scale_x * (out.w[k] - out.slope_x * out.w[6 + k]);
        out.p1[k] = scale_y * (out.w[3 + k] - out.slope_y * out.w[6 + k]);
    }
    const T a = dot3(out.p0, out.p0), b = dot3(out.p0, out.p1), c = dot3(out.p1, out.p1);
    // |p0 x p1|^2 = a c - b^2 without its cancellation, which would ruin thin Gaussians in float32.
    const T n0 = out.p0[1] * out.p1[2] - out.p0[2] * out.p1[1];
    const T n1 = out.p0[2] * out.p1[0] - out.p0[0] * out.p1[2];
    const T n2 = out.p0[0] * out.p1[1] - out.p0[1] * out.p1[0];
    const T sharp = n0 * n0 + n1 * n1 + n2 * n2;
    out.cov_a = a + T(eps2d);
    out.cov_b = b;
    out.cov_c = c + T(eps2d);
    out.determinant = sharp + (a + c) * eps2d + T(eps2d * eps2d);
    const T inverse = T(1) / out.determinant;
    out.conic_a = out.cov_c * inverse;
    out.conic_b = -b * inverse;
    out.conic_c = out.cov_a * inverse;
    out.ratio = sharp * inverse;
    out.compensation =
        antialiased ? square_root(maximum(out.ratio, T(S(ANTIALIAS_FLOOR * ANTIALIAS_FLOOR)))) : T(1);
}

// compat="inria": half the side of the square whose tiles a Gaussian may be drawn in, whole pixels: three standard
// deviations along the longest axis of its ellipse. mid^2 - determinant of the published formula is written without
// its cancellation, which in float32 moves the radius of large round Gaussians by pixels.
template <class T>
RZ_FN T square_radius(const Projection<T>& p) {
    const T mid = (p.cov_a + p.cov_c) * T(0.5), half = (p.cov_a - p.cov_c) * T(0.5);
    const T spread = square_root(maximum(half * half + p.cov_b * p.cov_b, T(SQUARE_FLOOR)));
    return ceiling(square_root(mid + spread) * T(SQUARE_SIGMAS));
}

// Gradients that reach one projection.
template <class T>
struct ProjectionGradient {
    T pixel_x, pixel_y, z;
    T conic_a, conic_b, conic_c;  // of exp(-(a x^2 / 2 + b x y + c y^2 / 2))
    T compensation;
};

// Gradients that leave it; camera as in RZ_CAMERA_FLOATS.
template <class T>
struct ViewGradient {
    T mean[3];
    T axes[9];
    T camera[16];
};

template <class T, class S>
RZ_FN void project_backward(const T mean[3], const T axes[9], const Camera<S>& camera, bool antialiased,
                            const Projection<T>& p, const ProjectionGradient<T>& v, ViewGradient<T>& out) {
    // Conic = inverse of the dilated covariance X: v_X = -conic v_conic conic.
    const T half_b = v.conic_b * S(0.5);
    const T g00 = v.conic_a * p.conic_a + half_b * p.conic_b, g01 = v.conic_a * p.conic_b + half_b * p.conic_c;
    const T g10 = half_b * p.conic_a + v.conic_c * p.conic_b, g11 = half_b * p.conic_b + v.conic_c * p.conic_c;
    T v_a = -(p.conic_a * g00 + p.conic_b * g10);
    T v_b = T(-2) * (p.conic_a * g01 + p.conic_b * g11);
    T v_c = -(p.conic_b * g01 + p.conic_c * g11);
    if (antialiased) {
        // ratio = det0 / det1 with det0 = a c - b^2 before, det1 after dilation; no gradient where the floor binds.
        const T v_ratio =
            select(p.ratio > T(S(ANTIALIAS_FLOOR * ANTIALIAS_FLOOR)), v.compensation * S(0.5) / p.compensation, T(0));
        const T inverse = v_ratio / p.determinant;
        const T a = dot3(p.p0, p.p0), c = dot3(p.p1, p.p1);
        v_a = v_a + (c - p.ratio * p.cov_c) * inverse;
        v_b = v_b - T(2) * p.cov_b * (T(1) - p.ratio) * inverse;
        v_c = v_c + (a - p.ratio * p.cov_a) * inverse;
    }
    T v_p0[3], v_p1[3], v_w[9];
    const T scale_x = p.inverse_z * camera.fx, scale_y = p.inverse_z * camera.fy;
    for (int k = 0; k < 3; ++k) {
        v_p0[k] = T(2) * v_a * p.p0[k] + v_b * p.p1[k];
        v_p1[k] = v_b * p.p0[k] + T(2) * v_c * p.p1[k];
        v_w[k] = scale_x * v_p0[k];
        v_w[3 + k] = scale_y * v_p1[k];
        v_w[6 + k] = -(p.slope_x * v_w[k] + p.slope_y * v_w[3 + k]);
    }
    const T v_slope_x = -scale_x * dot3(v_p0, p.w + 6), v_slope_y = -scale_y * dot3(v_p1, p.w + 6);
    const T along_x = dot3(v_p0, p.p0), along_y = dot3(v_p1, p.p1);
    const T raw_x = p.view[0] * p.inverse_z, raw_y = p.view[1] * p.inverse_z;
    const T free_x = select(raw_x == p.slope_x, v_slope_x, T(0));
    const T free_y = select(raw_y == p.slope_y, v_slope_y, T(0));
    const T v_raw_x = free_x + v.pixel_x * camera.fx, v_raw_y = free_y + v.pixel_y * camera.fy;
    T v_view[3];
    v_view[0] = v_raw_x * p.inverse_z;
    v_view[1] = v_raw_y * p.inverse_z;
    v_view[2] = v.z - p.inverse_z * (along_x + along_y + v_raw_x * raw_x + v_raw_y * raw_y);
    const S* r = camera.rotation;
    for (int j = 0; j < 3; ++j) {
        out.mean[j] = v_view[0] * r[j] + v_view[1] * r[3 + j] + v_view[2] * r[6 + j];
        for (int k = 0; k < 3; ++k)
            out.axes[3 * j + k] = v_w[k] * r[j] + v_w[3 + k] * r[3 + j] + v_w[6 + k] * r[6 + j];
    }
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) out.camera[3 * i + j] = v_view[i] * mean[j] + dot3(v_w + 3 * i, axes + 3 * j);
        out.camera[9 + i] = v_view[i];
    }
    // Where a slope is clamped it equals a bound, (constant - cx) / fx: gradient to the intrinsics.
    const S inverse_fx = S(1) / camera.fx, inverse_fy = S(1) / camera.fy;
    const T bound_x = (v_slope_x - free_x) * inverse_fx, bound_y = (v_slope_y - free_y) * inverse_fy;
    out.camera[12] = along_x * inverse_fx + v.pixel_x * raw_x - bound_x * p.slope_x;
    out.camera[13] = along_y * inverse_fy + v.pixel_y * raw_y - bound_y * p.slope_y;
    out.camera[14] = v.pixel_x - bound_x;
    out.camera[15] = v.pixel_y - bound_y;
}

}  // namespace RZ_NAMESPACE
