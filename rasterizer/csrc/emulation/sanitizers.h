// What the sanitizers must be told about fibers; nothing in a plain build. The emulation itself is compiled without
// them: RZ_EMULATION_ASAN or RZ_EMULATION_TSAN says which one the kernels have. Thread Tn of a report of the thread
// sanitizer is CUDA thread n - 1 of its block.
#pragma once

#include <stddef.h>

#if defined(RZ_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(RZ_EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace rz::emulation {

#if defined(RZ_EMULATION_ASAN)

constexpr bool SANITIZED = true;
struct SanitizerFiber {
    const void* stack = nullptr;
    size_t bytes = 0;
    void* fake_stack = nullptr;
};
inline void create(SanitizerFiber& fiber, const void* stack, size_t bytes) {
    fiber.stack = stack;
    fiber.bytes = bytes;
}
inline void create_main(SanitizerFiber& main) { main = {}; }
inline void recreate(SanitizerFiber& fiber) { __asan_unpoison_memory_region(fiber.stack, fiber.bytes); }
inline void before_switch(SanitizerFiber& self, SanitizerFiber& next, bool ends) {
    __sanitizer_start_switch_fiber(ends ? nullptr : &self.fake_stack, next.stack, next.bytes);
}
inline void after_switch(SanitizerFiber& self) {
    __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
}
// The first fiber of a launch comes from the main stack, and only here its bounds can be had.
inline void after_first_switch(SanitizerFiber& main) {
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (main.stack == nullptr) create(main, stack, bytes);
}

#else

struct SanitizerFiber {
#if defined(RZ_EMULATION_TSAN)
    void* fiber = nullptr;
#endif
};
inline void after_first_switch(SanitizerFiber&) {}
inline void after_switch(SanitizerFiber&) {}

#if defined(RZ_EMULATION_TSAN)
constexpr bool SANITIZED = true;
inline void create_main(SanitizerFiber& main) { main.fiber = __tsan_get_current_fiber(); }
inline void create(SanitizerFiber& self, const void*, size_t) { self.fiber = __tsan_create_fiber(0); }
inline void recreate(SanitizerFiber& self) {
    __tsan_destroy_fiber(self.fiber);
    self.fiber = __tsan_create_fiber(0);
}
inline void before_switch(SanitizerFiber&, SanitizerFiber& next, bool) {
    // Running one after the other orders nothing: only barriers do.
    __tsan_switch_to_fiber(next.fiber, __tsan_switch_to_fiber_no_sync);
}
#else
constexpr bool SANITIZED = false;
inline void create_main(SanitizerFiber&) {}
inline void create(SanitizerFiber&, const void*, size_t) {}
inline void recreate(SanitizerFiber&) {}
inline void before_switch(SanitizerFiber&, SanitizerFiber&, bool) {}
#endif

#endif

// What a barrier orders: release before waiting, acquire after.
struct SyncToken {
#if defined(RZ_EMULATION_TSAN)
    char address;
#endif
};
inline void release([[maybe_unused]] SyncToken& token) {
#if defined(RZ_EMULATION_TSAN)
    __tsan_release(&token.address);
#endif
}
inline void acquire([[maybe_unused]] SyncToken& token) {
#if defined(RZ_EMULATION_TSAN)
    __tsan_acquire(&token.address);
#endif
}

}  // namespace rz::emulation
