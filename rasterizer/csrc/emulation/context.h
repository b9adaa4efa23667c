// Switching stacks. On x86-64 and aarch64 by hand, a few nanoseconds; elsewhere (or with RZ_EMULATION_UCONTEXT) by
// ucontext, which makes a system call per switch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(RZ_EMULATION_UCONTEXT)
#define RZ_EMULATION_UCONTEXT
#endif
#if defined(RZ_EMULATION_UCONTEXT)
#include <ucontext.h>
#endif

namespace rz::emulation {

#if defined(RZ_EMULATION_UCONTEXT)

// Must not be moved: a ucontext_t holds pointers into itself.
struct Context {
    ucontext_t state;
};

// After this a switch to `context` calls entry() on the given stack. entry must not return.
inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}

inline void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#else

struct Context {
    void* stack_pointer;
};

#if defined(__x86_64__)

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15};
    auto* slots = reinterpret_cast<uintptr_t*>(top) - 2;
    slots[0] = reinterpret_cast<uintptr_t>(entry);
    // Where a return address would be: entry finds the stack 8 mod 16, as after a call, and unwinders find an end.
    slots[1] = 0;
    context.stack_pointer = slots;
}

// Inline, and left by a jump: calls and returns stay paired on every stack, so the processor predicts the returns of
// threads in lockstep. The compiler saves what it needs of the clobbered registers; rbp may be its frame pointer.
inline __attribute__((always_inline)) void switch_context(Context& from, Context& to) {
    void** save = &from.stack_pointer;
    void* load = to.stack_pointer;
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\t"  // step over the red zone
        "pushq %%rbp\n\t"
        "leaq 1f(%%rip), %%rax\n\t"
        "pushq %%rax\n\t"
        "movq %%rsp, (%%rdi)\n\t"
        "movq %%rsi, %%rsp\n\t"
        "popq %%rax\n\t"
        "jmpq *%%rax\n"
        "1:\n\t"
        "popq %%rbp\n\t"
        "leaq 128(%%rsp), %%rsp\n\t"
        : "+D"(save), "+S"(load)
        :
        : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
          "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
          "memory", "cc");
}

#else

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15};
    auto* slots = reinterpret_cast<uintptr_t*>(top) - 4;
    slots[2] = reinterpret_cast<uintptr_t>(entry);
    context.stack_pointer = slots;
}

inline __attribute__((always_inline)) void switch_context(Context& from, Context& to) {
    register void** save asm("x0") = &from.stack_pointer;
    register void* load asm("x1") = to.stack_pointer;
    asm volatile(
        "stp x29, x30, [sp, #-32]!\n\t"
        "adr x9, 1f\n\t"
        "str x9, [sp, #16]\n\t"
        "mov x9, sp\n\t"
        "str x9, [x0]\n\t"
        "mov sp, x1\n\t"
        "ldr x9, [sp, #16]\n\t"
        "br x9\n"
        "1:\n\t"
        "ldp x29, x30, [sp], #32\n\t"
        : "+r"(save), "+r"(load)
        :
        : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18",
          "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "v0", "v1", "v2", "v3", "v4", "v5",
          "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
          "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "memory", "cc");
}

#endif
#endif

}  // namespace rz::emulation
