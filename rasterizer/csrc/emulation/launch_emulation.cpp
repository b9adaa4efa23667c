// The seam of launch_shape.h served by the emulation, for one RZ_CHANNELS and RZ_DEPTH, and the knobs of tests.
#include <stdio.h>

#include <string>

#include "../cuda/launch_shape.h"
#include "scheduler.h"

extern "C" {

void rz_project(const RzCudaParams);
void rz_emit(const RzCudaParams);
void rz_list(const RzCudaParams);
void rz_blend(const RzCudaParams);
void rz_blend_backward(const RzCudaParams);
void rz_project_backward(const RzCudaParams);

// 0 forward, 1 reverse, 2 random: in which order threads and blocks run (scheduler.h). Any other value is an error.
RZ_EXPORT int rz_emulation_set_order(int kind, uint64_t seed);

// Threads pass the barriers on this line as if they were not there (scheduler.h); line 0: none.
RZ_EXPORT void rz_emulation_skip_barriers(const char* file, uint32_t line);

// The whole message of the last failed launch of the process.
RZ_EXPORT const char* rz_emulation_last_error(void);
}

namespace {

struct Kernel {
    const char* name;
    void (*run)(const RzCudaParams);
};

const Kernel kernels[RZ_STAGE_COUNT] = {
    {"rz_project", rz_project},
    {"rz_emit", rz_emit},
    {"rz_list", rz_list},
    {"rz_blend", rz_blend},
    {"rz_blend_backward", rz_blend_backward},
    {"rz_project_backward", rz_project_backward},
};

std::string last_error;

int fail(int code, const std::string& what, char* message, int64_t capacity) {
    last_error = what;
    if (message != nullptr && capacity > 0) snprintf(message, size_t(capacity), "%s", what.c_str());
    return code;
}

}  // namespace

int rz_emulation_set_order(int kind, uint64_t seed) {
    if (kind < 0 || kind > 2) return RZ_CUDA_ERROR_ARGUMENT;
    rz::emulation::set_order(rz::emulation::Order(kind), seed);
    return RZ_CUDA_OK;
}

void rz_emulation_skip_barriers(const char* file, uint32_t line) { rz::emulation::skip_barriers(file, line); }

const char* rz_emulation_last_error(void) { return last_error.c_str(); }

int rz_cuda_open(const char*, char*, int64_t) { return RZ_CUDA_OK; }

int rz_cuda_load(const void*, int64_t, void** module, char*, int64_t) {
    // Like a handle of the driver: not null, and the same one comes back to launch_kernel.
    *module = const_cast<Kernel*>(kernels);
    return RZ_CUDA_OK;
}

namespace rz {

int launch_kernel(void* module, int stage, const LaunchShape& shape, const RzCudaParams& params, void*, char* message,
                  int64_t capacity) {
    const Kernel& kernel = kernels[stage];
    if (module != kernels) return fail(RZ_CUDA_ERROR_DRIVER_CALL, "not a module of rz_cuda_load", message, capacity);
    if (params.channels != RZ_CHANNELS || params.depth != RZ_DEPTH) {
        return fail(RZ_CUDA_ERROR_ARGUMENT,
                    std::string(kernel.name) + ": this library was built for other channels or depth", message,
                    capacity);
    }
    if (shape.shared_bytes != 0) {
        return fail(RZ_CUDA_ERROR_INTERNAL, std::string(kernel.name) + ": no dynamic shared memory here", message,
                    capacity);
    }
    std::string error;
    const emulation::Shape grid = {shape.grid_x, shape.grid_y, shape.block};
    if (emulation::run(kernel.name, grid, [&] { kernel.run(params); }, error)) return RZ_CUDA_OK;
    return fail(RZ_CUDA_ERROR_DRIVER_CALL, error, message, capacity);
}

}  // namespace rz
