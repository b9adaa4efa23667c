// The one struct that crosses the C ABI. Plain C types only: ctypes mirrors it field by field in backend.py.
#pragma once

#include <stdint.h>

// Raise when a field or the meaning of a call changes; backend.py refuses a library with another number.
#define RZ_ABI_VERSION 2

// Floats of one projected Gaussian of one view: a cache line.
#define RZ_RECORD_FLOATS 16

// Gradients of one view's camera: 9 of the rotation (row-major), 3 of the translation, fx, fy, cx, cy.
#define RZ_CAMERA_FLOATS 16

typedef struct RzParams {
    // Sizes. B scenes, V views of each, N Gaussians in a scene, C channels of the image.
    int64_t batch;
    int64_t views;
    int64_t gaussians;
    int64_t channels;
    int64_t sh_coefficients;  // K of colors [B,N,K,3]; 0: colors are [B,N,C]
    int32_t sh_degree;        // 0..MAX_SH_DEGREE, read only where sh_coefficients > 0
    int32_t width;            // pixels
    int32_t height;           // pixels
    int32_t antialiased;
    int32_t depth;    // also accumulate sum of weight * z
    int32_t inria;    // the conventions of the first 3DGS implementation, see compat="inria" of rasterize()
    int32_t forward_only;  // rz_backward will not be called: what only it reads is neither kept nor written
    int32_t threads;  // the result does not depend on it
    float near_plane;
    float far_plane;
    float eps2d;  // square pixels added to both diagonal entries of the projected covariance
    int32_t isa;  // set by rz_plan: the instruction set that this pass stays with

    // Inputs, float32, contiguous.
    const float* means;        // [B,N,3]
    const float* quats;        // [B,N,4] w,x,y,z, any length but zero
    const float* scales;       // [B,N,3] standard deviations
    const float* opacities;    // [B,N]
    const float* colors;       // [B,N,C] or [B,N,K,3]
    const float* viewmats;     // [B,V,4,4] world to camera, OpenCV
    const float* intrinsics;   // [B,V,3,3] pixels
    const float* backgrounds;  // [B,V,C] or null (black)

    // Outputs of rz_render; inputs of rz_backward.
    float* out_colors;  // [B,V,H,W,C]
    float* out_alphas;  // [B,V,H,W]
    float* out_depths;  // [B,V,H,W] sum of weight * z, or null

    // Memory of the caller, 64-byte aligned; sizes from rz_view_bytes, rz_instance_bytes, rz_gradient_bytes.
    // What the first two hold is read again by rz_backward.
    void* view_memory;
    void* instance_memory;
    void* gradient_memory;

    // Results of rz_plan.
    int64_t instances;  // pairs (tile, Gaussian) over all views
    int64_t longest;    // of the tiles' lists
    int64_t drawn;      // Gaussian-view pairs that meet at least one tile
    int64_t nonfinite;  // Gaussian-view pairs dropped for NaN, infinity or a zero quaternion

    // Incoming gradients, null where there is none.
    const float* v_colors;
    const float* v_alphas;
    const float* v_depths;

    // Outgoing gradients, of the shapes of the inputs; null where not wanted.
    float* v_means;
    float* v_quats;
    float* v_scales;
    float* v_opacities;
    float* v_features;     // of `colors`
    float* v_viewmats;     // the last row gets zero
    float* v_intrinsics;   // entries other than fx, fy, cx, cy get zero
    float* v_backgrounds;
} RzParams;
