// The kernels, one translation unit for NVRTC, nvcc and the emulation alike. Stages in the order of a pass; params.h
// says what each reads and writes.
#include "blend.cuh"
#include "blend_backward.cuh"
#include "emit.cuh"
#include "list.cuh"
#include "project.cuh"
#include "project_backward.cuh"

using namespace RZ_NAMESPACE;

// Blocks of a multiprocessor that registers are to leave room for: as many as spill none. Turing holds 1024 threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int MOST_RESIDENT = 1024 / BLEND_BLOCK;
#else
constexpr int MOST_RESIDENT = 5;
#endif
constexpr int BLEND_RESIDENT = FEATURES <= 5 ? MOST_RESIDENT : FEATURES <= 9 ? 4 : 2;
constexpr int BLEND_BACKWARD_RESIDENT = FEATURES <= 5 ? 8 : FEATURES <= 9 ? 5 : 2;
constexpr int PROJECT_BACKWARD_RESIDENT = FEATURES <= 9 ? 4 : 2;

extern "C" __global__ void __launch_bounds__(PROJECT_BLOCK, 2) rz_project(const RzCudaParams p) {
    __shared__ ProjectShared shared;
    project_gaussians(p, shared);
}

extern "C" __global__ void __launch_bounds__(EMIT_BLOCK, 4) rz_emit(const RzCudaParams p) { emit_instances(p); }

extern "C" __global__ void __launch_bounds__(LIST_BLOCK) rz_list(const RzCudaParams p) { list_instances(p); }

extern "C" __global__ void __launch_bounds__(BLEND_BLOCK, BLEND_RESIDENT) rz_blend(const RzCudaParams p) {
    __shared__ BlendShared shared;
    blend_tile(p, shared);
}

extern "C" __global__ void
    __launch_bounds__(BLEND_BACKWARD_BLOCK, BLEND_BACKWARD_RESIDENT) rz_blend_backward(const RzCudaParams p) {
    __shared__ BlendBackwardShared shared;
    blend_tile_backward(p, shared);
}

extern "C" __global__ void
    __launch_bounds__(PROJECT_BACKWARD_BLOCK, PROJECT_BACKWARD_RESIDENT) rz_project_backward(const RzCudaParams p) {
    __shared__ ProjectBackwardShared shared;
    project_gaussians_backward(p, shared);
}
