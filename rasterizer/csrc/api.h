// C ABI of the compiled core. A call returns RZ_OK or one of the codes below and never throws.
//
// A pass is: view_memory of rz_view_bytes -> rz_plan -> instance_memory of rz_instance_bytes -> rz_render;
// then, any number of times, gradient_memory of rz_gradient_bytes -> rz_backward.
#pragma once

#include "params.h"

#if defined(_WIN32)
#define RZ_EXPORT __declspec(dllexport)
#else
#define RZ_EXPORT __attribute__((visibility("default")))
#endif

enum {
    RZ_OK = 0,
    RZ_ERROR_ARGUMENT = 1,      // a size is negative, a pointer is missing
    RZ_ERROR_TOO_MANY = 2,      // more than 2^32 - 1 instances: the lists index with 32 bits
    RZ_ERROR_UNKNOWN_ISA = 3,   // rz_select_isa: no such name, or not on this machine
    RZ_ERROR_INTERNAL = 4,      // out of memory, a thread could not start
};

#ifdef __cplusplus
extern "C" {
#endif

RZ_EXPORT int rz_abi(void);
RZ_EXPORT int64_t rz_params_bytes(void);

// Names of the instruction sets this machine can run, best first, separated by commas.
RZ_EXPORT const char* rz_isas(void);
RZ_EXPORT const char* rz_isa(void);
// Takes effect for passes that start afterwards; null or "" selects the best.
RZ_EXPORT int rz_select_isa(const char* name);

// Asks the system for large pages for memory that is not written yet, where it has them: less time goes to first
// touches and to looking up addresses. Without effect elsewhere.
RZ_EXPORT void rz_advise(void* memory, int64_t bytes);

RZ_EXPORT int64_t rz_view_bytes(const RzParams* params);
RZ_EXPORT int64_t rz_instance_bytes(const RzParams* params);
RZ_EXPORT int64_t rz_gradient_bytes(const RzParams* params);

RZ_EXPORT int rz_plan(RzParams* params);
RZ_EXPORT int rz_render(RzParams* params);
RZ_EXPORT int rz_backward(RzParams* params);

// For reports, after rz_render: entries of tiles' lists that changed a pixel, and pixels of the blocks that they changed.
RZ_EXPORT int rz_count_visits(const RzParams* params, int64_t* entries, int64_t* pixels);

#ifdef __cplusplus
}
#endif
