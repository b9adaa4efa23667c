// A CUDA driver without a GPU, for the tests of the launcher: it has the driver's functions, writes down what it is
// asked to launch, and fails where a test says so. RZ_WITHOUT_LAUNCH leaves a function out, as an old driver does.
#include <mutex>
#include <string>
#include <vector>

#include "params.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Launch {
    char kernel[32];
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    void* stream;
    void* context;
    RzCudaParams params;
};

namespace {

struct Kernel {
    char name[32];
};

std::mutex guard;
std::vector<Launch> launches;
std::string failing;
int failure = 0;
int starts = 0;
int unloads = 0;
thread_local void* context = nullptr;

int fails(const char* call) { return failing == call ? failure : 0; }

}  // namespace

EXPORT void fake_fail(const char* call, int code) {
    failing = call;
    failure = code;
}
EXPORT void fake_enter(void* value) { context = value; }
EXPORT int fake_starts() { return starts; }
EXPORT int fake_unloads() { return unloads; }
EXPORT int fake_launches() { return (int)launches.size(); }
EXPORT const Launch* fake_launch(int index) { return &launches[(size_t)index]; }

EXPORT int cuInit(unsigned) {
    const std::lock_guard<std::mutex> lock(guard);
    ++starts;
    return fails("cuInit");
}
EXPORT int cuDriverGetVersion(int* version) {
    *version = 12080;
    return 0;
}
EXPORT int cuGetErrorName(int, const char** name) {
    *name = "CUDA_ERROR_OF_THE_TEST";
    return 0;
}
EXPORT int cuGetErrorString(int code, const char** words) {
    if (code == 999) return 1;  // leaves words as they are, as for a code the driver does not know
    *words = "as the test wished";
    return 0;
}
EXPORT int cuCtxGetCurrent(void** value) {
    *value = context;
    return fails("cuCtxGetCurrent");
}
EXPORT int cuCtxSetCurrent(void* value) {
    context = value;
    return fails("cuCtxSetCurrent");
}
EXPORT int cuModuleLoadData(void** image, const void* data) {
    if (std::string((const char*)data) != "an image") return 200;
    *image = &launches;
    return fails("cuModuleLoadData");
}
EXPORT int cuModuleUnload(void*) {
    ++unloads;
    return 0;
}
EXPORT int cuModuleGetFunction(void** function, void* image, const char* name) {
    if (image != &launches) return 400;
    Kernel* kernel = new Kernel{};
    std::string(name).copy(kernel->name, sizeof(kernel->name) - 1);
    *function = kernel;
    return fails("cuModuleGetFunction");
}
#if !defined(RZ_WITHOUT_LAUNCH)
EXPORT int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** arguments,
                          void** extra) {
    if (const int code = fails("cuLaunchKernel")) return code;
    if (extra) return 1;
    const std::lock_guard<std::mutex> lock(guard);
    Launch launch{{}, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, context,
                  *(const RzCudaParams*)arguments[0]};
    std::string(((Kernel*)function)->name).copy(launch.kernel, sizeof(launch.kernel) - 1);
    launches.push_back(launch);
    return 0;
}
#endif
