// C ABI of the CUDA launcher. Functions return RZ_CUDA_OK or a code below and never throw; `message` receives one line
// of detail (zero-terminated, cut to `capacity`). Implemented twice over the same launch.cpp: by the driver, opened at
// run time (driver.cpp), and by the emulation, in a test-only library (emulation/).
#pragma once

#include "params.h"

#if defined(_WIN32)
#define RZ_EXPORT __declspec(dllexport)
#else
#define RZ_EXPORT __attribute__((visibility("default")))
#endif

enum {
    RZ_CUDA_OK = 0,
    RZ_CUDA_ERROR_ARGUMENT = 1,      // a size is out of range or a pointer is missing; nothing was launched
    RZ_CUDA_ERROR_NO_DRIVER = 2,     // the driver's library is not there
    RZ_CUDA_ERROR_OLD_DRIVER = 3,    // it lacks a function that is needed
    RZ_CUDA_ERROR_DRIVER_CALL = 4,   // a driver call failed; message holds its name and the driver's words
    RZ_CUDA_ERROR_INTERNAL = 5,
};

#ifdef __cplusplus
extern "C" {
#endif

RZ_EXPORT int rz_cuda_abi(void);
RZ_EXPORT int64_t rz_cuda_params_bytes(void);

// Opens the driver: `path` names its library, null means the system's. Once per process; later calls with the same
// path do nothing.
RZ_EXPORT int rz_cuda_open(const char* path, char* message, int64_t capacity);

// Loads a compiled image (cubin) into the current context and finds the kernels in it. The emulation has the kernels
// built in and ignores the image.
RZ_EXPORT int rz_cuda_load(const void* image, int64_t bytes, void** module, char* message, int64_t capacity);

// Launches one stage on a stream (CUstream as a pointer, null = default stream), asynchronously.
RZ_EXPORT int rz_cuda_launch(void* module, int stage, const RzCudaParams* params, void* stream, char* message,
                             int64_t capacity);

// Blocks along the Gaussians of RZ_STAGE_PROJECT_BACKWARD: the size of camera_partials.
RZ_EXPORT int64_t rz_cuda_camera_blocks(const RzCudaParams* params);

#ifdef __cplusplus
}
#endif
