// The seam between what every launch needs (launch.cpp: checks, grid and block of a stage) and what executes it: the
// driver (driver.cpp) or the emulation (../emulation/). Whoever implements launch_kernel also implements rz_cuda_open
// and rz_cuda_load of launch.h; the rest of that ABI is launch.cpp, linked with either.
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include "launch.h"

namespace rz {

struct LaunchShape {
    uint32_t grid_x;        // at most 2^31 - 1
    uint32_t grid_y;        // at most 65535
    uint32_t block;         // threads, along x
    uint32_t shared_bytes;  // dynamic shared memory: 0, all of it is static
};

// By stage.
inline constexpr const char* KERNEL_NAMES[RZ_STAGE_COUNT] = {
    "rz_project", "rz_emit", "rz_list", "rz_blend", "rz_blend_backward", "rz_project_backward",
};

// Runs the kernel of `stage` with a checked, non-empty shape. `module` is what rz_cuda_load returned. `params` need not
// outlive the call. Returns a code of launch.h; may throw (rz_cuda_launch catches).
int launch_kernel(void* module, int stage, const LaunchShape& shape, const RzCudaParams& params, void* stream,
                  char* message, int64_t capacity);

// Writes one line of detail and returns the code, for `return fail_with(...)`.
#if defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
inline int fail_with(char* message, int64_t capacity, int code, const char* format, ...) {
    if (message && capacity > 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, (size_t)capacity, format, arguments);
        va_end(arguments);
    }
    return code;
}

}  // namespace rz
