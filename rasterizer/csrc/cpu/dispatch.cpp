// The C ABI: checks arguments and passes a call on to the kernels of the instruction set in use.
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <atomic>

#include "kernels.h"

namespace rz_baseline {
extern const RzKernels kernels;
}
#if defined(RZ_WITH_X86)
namespace rz_avx2 {
extern const RzKernels kernels;
}
namespace rz_avx512 {
extern const RzKernels kernels;
}
#endif

namespace {

struct Isa {
    const char* name;
    const RzKernels* kernels;
    bool (*runs)();
};

// The tests name each extension that the flags in CMakeLists.txt allow the compiler to use.
const Isa ISAS[] = {
#if defined(RZ_WITH_X86)
    {"avx512", &rz_avx512::kernels,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
     }},
    {"avx2", &rz_avx2::kernels,
     [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
     }},
#endif
    {"baseline", &rz_baseline::kernels, [] { return true; }},
};

const Isa* best() {
    for (const Isa& isa : ISAS)
        if (isa.runs()) return &isa;
    return &ISAS[sizeof(ISAS) / sizeof(ISAS[0]) - 1];
}

std::atomic<const Isa*> selected{nullptr};

const Isa& current() {
    const Isa* isa = selected.load();
    if (!isa) selected.store(isa = best());
    return *isa;
}

bool valid(const RzParams* p) {
    return p && p->batch >= 0 && p->views > 0 && p->gaussians >= 0 && p->channels > 0 && p->width > 0 &&
           p->height > 0 && p->width <= 65536 && p->height <= 65536 && p->threads > 0 &&
           p->gaussians <= (int64_t)UINT32_MAX && p->sh_coefficients >= 0 &&
           (p->sh_coefficients == 0 ||
            (p->channels == 3 && p->sh_degree >= 0 && p->sh_degree <= 3 &&
             (int64_t)(p->sh_degree + 1) * (p->sh_degree + 1) <= p->sh_coefficients));
}

// The lists and masks that a pass leaves in memory fit the instruction set that wrote them.
bool planned(const RzParams* p) {
    return valid(p) && p->view_memory && p->isa >= 0 && p->isa < (int32_t)(sizeof(ISAS) / sizeof(ISAS[0]));
}

}  // namespace

extern "C" {

int rz_abi(void) { return RZ_ABI_VERSION; }

int64_t rz_params_bytes(void) { return (int64_t)sizeof(RzParams); }

const char* rz_isas(void) {
    static char names[64];
    static const bool filled = [] {
        for (const Isa& isa : ISAS)
            if (isa.runs()) {
                if (names[0]) strcat(names, ",");
                strcat(names, isa.name);
            }
        return true;
    }();
    (void)filled;
    return names;
}

const char* rz_isa(void) { return current().name; }

int rz_select_isa(const char* name) {
    if (!name || !name[0]) {
        selected.store(best());
        return RZ_OK;
    }
    for (const Isa& isa : ISAS)
        if (strcmp(isa.name, name) == 0 && isa.runs()) {
            selected.store(&isa);
            return RZ_OK;
        }
    return RZ_ERROR_UNKNOWN_ISA;
}

void rz_advise(void* memory, int64_t bytes) {
#if defined(__linux__)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)memory + (uintptr_t)bytes) / page * page;
    if (end > first) madvise((void*)first, end - first, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

int64_t rz_view_bytes(const RzParams* p) { return valid(p) ? current().kernels->view_bytes(p) : -1; }
int64_t rz_instance_bytes(const RzParams* p) { return planned(p) ? ISAS[p->isa].kernels->instance_bytes(p) : -1; }
int64_t rz_gradient_bytes(const RzParams* p) { return planned(p) ? ISAS[p->isa].kernels->gradient_bytes(p) : -1; }

int rz_plan(RzParams* p) {
    if (!valid(p) || !p->view_memory) return RZ_ERROR_ARGUMENT;
    const Isa& isa = current();
    p->isa = (int32_t)(&isa - ISAS);
    return isa.kernels->plan(p);
}

int rz_render(RzParams* p) {
    if (!planned(p) || !p->instance_memory || !p->out_colors || !p->out_alphas || (p->depth && !p->out_depths))
        return RZ_ERROR_ARGUMENT;
    return ISAS[p->isa].kernels->render(p);
}

int rz_count_visits(const RzParams* p, int64_t* entries, int64_t* pixels) {
    if (!planned(p) || p->forward_only || !p->instance_memory) return RZ_ERROR_ARGUMENT;
    ISAS[p->isa].kernels->count_visits(p, entries, pixels);
    return RZ_OK;
}

int rz_backward(RzParams* p) {
    if (!planned(p) || p->forward_only || !p->instance_memory || !p->gradient_memory) return RZ_ERROR_ARGUMENT;
    return ISAS[p->isa].kernels->backward(p);
}

}  // extern "C"
