// Executes launches by the CUDA driver, whose library is opened at run time: building needs no CUDA toolkit, and the
// compiled core loads where there is no driver. The declarations are those of the CUDA driver API, from its public
// documentation.
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "launch_shape.h"

#if defined(_WIN32)
#define RZ_DRIVER_CALL __stdcall
#else
#define RZ_DRIVER_CALL
#endif

namespace {

#if defined(_WIN32)
constexpr const char* DRIVER_LIBRARY = "nvcuda.dll";
#else
constexpr const char* DRIVER_LIBRARY = "libcuda.so.1";
#endif

using Result = int;  // CUresult; 0 is success
using Context = void*;
using Function = void*;
using Image = void*;  // CUmodule
using Stream = void*;

struct Driver {
    Result(RZ_DRIVER_CALL* cuInit)(unsigned flags);
    Result(RZ_DRIVER_CALL* cuDriverGetVersion)(int* version);
    Result(RZ_DRIVER_CALL* cuGetErrorName)(Result error, const char** name);
    Result(RZ_DRIVER_CALL* cuGetErrorString)(Result error, const char** words);
    Result(RZ_DRIVER_CALL* cuCtxGetCurrent)(Context* context);
    Result(RZ_DRIVER_CALL* cuCtxSetCurrent)(Context context);
    Result(RZ_DRIVER_CALL* cuModuleLoadData)(Image* image, const void* data);
    Result(RZ_DRIVER_CALL* cuModuleUnload)(Image image);
    Result(RZ_DRIVER_CALL* cuModuleGetFunction)(Function* function, Image image, const char* name);
    Result(RZ_DRIVER_CALL* cuLaunchKernel)(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                           unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                           Stream stream, void** arguments, void** extra);
};

// What rz_cuda_load hands out. Never freed: one per device and set of options, used until the process ends.
struct Module {
    Context context;
    Image image;
    Function kernels[RZ_STAGE_COUNT];
};

std::mutex opening;
std::string opened_path;                      // guarded by `opening`
std::atomic<const Driver*> opened{nullptr};  // set once, never freed

#if defined(_WIN32)
using Library = HMODULE;
Library open_library(const char* path) { return LoadLibraryA(path); }
void* find_symbol(Library library, const char* name) { return (void*)GetProcAddress(library, name); }
void close_library(Library library) { FreeLibrary(library); }
std::string open_error() { return "Windows error " + std::to_string(GetLastError()); }
#else
using Library = void*;
Library open_library(const char* path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
void* find_symbol(Library library, const char* name) { return dlsym(library, name); }
void close_library(Library library) { dlclose(library); }
std::string open_error() {
    const char* words = dlerror();
    return words ? words : "unknown error";
}
#endif

// A message that names the call, the error and what the driver supports: most failures to load are a mismatch.
int call_failed(const Driver& driver, const char* call, Result result, char* message, int64_t capacity) {
    const char *name = nullptr, *words = nullptr;
    driver.cuGetErrorName(result, &name);
    driver.cuGetErrorString(result, &words);
    int version = 0;
    driver.cuDriverGetVersion(&version);
    return rz::fail_with(message, capacity, RZ_CUDA_ERROR_DRIVER_CALL,
                         "%s failed: %s (%d), %s; the driver supports CUDA %d.%d", call, name ? name : "unknown error",
                         result, words ? words : "no description", version / 1000, version % 1000 / 10);
}

template <class Pointer>
bool find(Library library, const char* name, Pointer& pointer, const char*& missing) {
    pointer = reinterpret_cast<Pointer>(find_symbol(library, name));
    if (!pointer) missing = name;
    return pointer;
}

bool find_all(Library library, Driver& d, const char*& missing) {
#define RZ_FIND(name) find(library, #name, d.name, missing)
    return RZ_FIND(cuInit) && RZ_FIND(cuDriverGetVersion) && RZ_FIND(cuGetErrorName) && RZ_FIND(cuGetErrorString) &&
           RZ_FIND(cuCtxGetCurrent) && RZ_FIND(cuCtxSetCurrent) && RZ_FIND(cuModuleLoadData) &&
           RZ_FIND(cuModuleUnload) && RZ_FIND(cuModuleGetFunction) && RZ_FIND(cuLaunchKernel);
#undef RZ_FIND
}

// A failure leaves nothing behind, so that a later call may succeed.
int open_driver(const char* path, char* message, int64_t capacity) {
    const std::lock_guard<std::mutex> lock(opening);
    const std::string wanted = path ? path : DRIVER_LIBRARY;
    if (opened.load()) {
        if (wanted == opened_path) return RZ_CUDA_OK;
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT, "the driver is already open, from %s",
                             opened_path.c_str());
    }
    const Library library = open_library(wanted.c_str());
    if (!library)
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_NO_DRIVER, "cannot open %s: %s", wanted.c_str(),
                             open_error().c_str());
    auto driver = std::make_unique<Driver>();
    const char* missing = nullptr;
    if (!find_all(library, *driver, missing)) {
        close_library(library);
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_OLD_DRIVER, "%s has no %s", wanted.c_str(), missing);
    }
    if (const Result result = driver->cuInit(0)) {
        const int code = call_failed(*driver, "cuInit", result, message, capacity);
        close_library(library);
        return code;
    }
    opened_path = wanted;
    opened.store(driver.release());
    return RZ_CUDA_OK;
}

int find_kernels(const Driver& driver, Module& module, char* message, int64_t capacity) {
    for (int stage = 0; stage < RZ_STAGE_COUNT; ++stage) {
        const char* name = rz::KERNEL_NAMES[stage];
        if (const Result result = driver.cuModuleGetFunction(&module.kernels[stage], module.image, name))
            return call_failed(driver, (std::string("cuModuleGetFunction of ") + name).c_str(), result, message,
                               capacity);
    }
    return RZ_CUDA_OK;
}

int load_module(const void* data, void** handle, char* message, int64_t capacity) {
    const Driver* driver = opened.load();
    if (!driver)
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT, "the driver is not open: call rz_cuda_open");
    auto module = std::make_unique<Module>();
    if (const Result result = driver->cuCtxGetCurrent(&module->context))
        return call_failed(*driver, "cuCtxGetCurrent", result, message, capacity);
    if (!module->context)
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT,
                             "this thread has no CUDA context: create a tensor on the device first");
    if (const Result result = driver->cuModuleLoadData(&module->image, data))
        return call_failed(*driver, "cuModuleLoadData", result, message, capacity);
    if (const int code = find_kernels(*driver, *module, message, capacity)) {
        driver->cuModuleUnload(module->image);
        return code;
    }
    *handle = module.release();
    return RZ_CUDA_OK;
}

// A thread that has not used CUDA yet (autograd starts its own) has no context: it gets that of the module.
int enter_context(const Driver& driver, const Module& module, char* message, int64_t capacity) {
    Context current = nullptr;
    if (const Result result = driver.cuCtxGetCurrent(&current))
        return call_failed(driver, "cuCtxGetCurrent", result, message, capacity);
    if (current == module.context) return RZ_CUDA_OK;
    if (current)
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT,
                             "the kernels were loaded for another device than the current one");
    if (const Result result = driver.cuCtxSetCurrent(module.context))
        return call_failed(driver, "cuCtxSetCurrent", result, message, capacity);
    return RZ_CUDA_OK;
}

}  // namespace

int rz::launch_kernel(void* handle, int stage, const LaunchShape& shape, const RzCudaParams& params, void* stream,
                      char* message, int64_t capacity) {
    const Driver* driver = opened.load();
    const Module* module = static_cast<const Module*>(handle);
    if (!driver || !module)
        return fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT, "module is null: call rz_cuda_load");
    if (const int code = enter_context(*driver, *module, message, capacity)) return code;
    void* arguments[] = {const_cast<RzCudaParams*>(&params)};  // copied by the driver before it returns
    const Result result =
        driver->cuLaunchKernel(module->kernels[stage], shape.grid_x, shape.grid_y, 1, shape.block, 1, 1,
                               shape.shared_bytes, stream, arguments, nullptr);
    if (result == 0) return RZ_CUDA_OK;
    return call_failed(*driver, (std::string("cuLaunchKernel of ") + KERNEL_NAMES[stage]).c_str(), result, message,
                       capacity);
}

extern "C" {

int rz_cuda_open(const char* path, char* message, int64_t capacity) {
    try {
        return open_driver(path, message, capacity);
    } catch (const std::exception& error) {
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_INTERNAL, "%s", error.what());
    }
}

int rz_cuda_load(const void* image, int64_t bytes, void** module, char* message, int64_t capacity) {
    if (!image || bytes <= 0 || !module)
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_ARGUMENT, "image or module is null, or image is empty");
    try {
        return load_module(image, module, message, capacity);
    } catch (const std::exception& error) {
        return rz::fail_with(message, capacity, RZ_CUDA_ERROR_INTERNAL, "%s", error.what());
    }
}

}  // extern "C"
