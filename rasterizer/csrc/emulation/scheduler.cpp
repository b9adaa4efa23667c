// Stacks, blocks and launches.
#include "scheduler.h"

#include <sys/mman.h>

#include <mutex>
#include <vector>

#include "fibers.h"

// All memory that kernels declare __shared__; the linker makes these names. Absent where no kernel has any.
extern "C" {
extern __attribute__((weak, visibility("hidden"))) volatile unsigned char __start_rz_shared[];
extern __attribute__((weak, visibility("hidden"))) volatile unsigned char __stop_rz_shared[];
}

namespace rz::emulation {

const uint3* thread_index = nullptr;
uint3 block_index = {};
dim3 block_size;
dim3 grid_size;

Scheduler scheduler;

namespace {

constexpr size_t GUARD_BYTES = 65536;  // at least a page on every system
constexpr size_t STACK_BYTES = SANITIZED ? 512 * 1024 : 128 * 1024;
// A block that switches more often than this (1 to 2 s of nothing else) never ends.
constexpr uint64_t SWITCHES_PER_BLOCK = 100'000'000;

std::mutex one_launch;

void end_thread(Fiber& self) {
    Scheduler& s = scheduler;
    Warp& warp = warp_of(self);
    release(s.block_end);
    warp.ended |= bit_of(self);
    for (uint32_t rest = warp.waiting; rest; rest &= rest - 1) {
        const uint32_t lane = lowest(rest);
        if (warp.mask[lane] & bit_of(self)) fail_waiting(neighbour(self, lane), self);
    }
    if (++s.ended == s.threads) switch_to(s.main, true);
    run_others(true);
}

// Where every fiber starts, once per block.
void enter_thread() {
    after_first_switch(scheduler.main.sanitizer);
    acquire(scheduler.block_start);
    scheduler.body(scheduler.body_context);
    end_thread(*scheduler.running);
    __builtin_unreachable();
}

bool prepare_stacks(uint32_t threads) {
    for (Scheduler& s = scheduler; s.prepared < threads; ++s.prepared) {
        void* memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
            s.error = "no memory for the stacks of the emulated threads";
            return false;
        }
        Fiber& fiber = s.fibers[s.prepared];
        fiber.stack = static_cast<char*>(memory) + GUARD_BYTES;
        fiber.index = {s.prepared, 0, 0};
        create(fiber.sanitizer, fiber.stack, STACK_BYTES);
    }
    return true;
}

void poison_shared() {
    // Not memset: the address sanitizer would find its own red zones in the range.
    for (volatile unsigned char* byte = __start_rz_shared; byte != __stop_rz_shared;) {
        if (reinterpret_cast<uintptr_t>(byte) % 8 == 0 && __stop_rz_shared - byte >= 8) {
            *reinterpret_cast<volatile uint64_t*>(byte) = ~uint64_t{0};
            byte += 8;
        } else {
            *byte++ = 0xFF;
        }
    }
}

void start_threads() {
    Scheduler& s = scheduler;
    s.ended = 0;
    s.barrier.arrived = 0;
    s.barrier.count = 0;
    s.switches_left = SWITCHES_PER_BLOCK;
    for (uint32_t i = 0; i < s.threads; ++i) {
        Fiber& fiber = s.fibers[i];
        // Tops of stacks are spread over the cache's sets: they are all in use at once.
        const size_t spread = i % LANES * 448 % 8192;
        prepare(fiber.context, fiber.stack, STACK_BYTES - spread, enter_thread);
    }
    for (uint32_t warp = 0; warp < s.threads / LANES; ++warp) {
        s.warps[warp].waiting = s.warps[warp].ended = 0;
        make_runnable(warp, ~0u);
    }
}

bool run_block(uint32_t x, uint32_t y) {
    Scheduler& s = scheduler;
    block_index = {x, y, 0};
    poison_shared();
    start_threads();
    release(s.block_start);
    switch_to(take_next());
    acquire(s.block_end);
    return !s.broken;
}

// Fibers were left in the middle: their stacks and what sanitizers know of them is worthless.
void forget_threads() {
    for (uint32_t warp = 0; warp < WARPS; ++warp) scheduler.warps[warp].runnable = 0;
    scheduler.runnable_warps = 0;
    for (uint32_t i = 0; i < scheduler.prepared; ++i) recreate(scheduler.fibers[i].sanitizer);
    scheduler.broken = false;
}

bool run_blocks(const Shape& shape) {
    Scheduler& s = scheduler;
    const uint64_t blocks = uint64_t{shape.grid_x} * shape.grid_y;
    std::vector<uint32_t> permutation;
    if (s.order == Order::RANDOM) {
        permutation.resize(blocks);
        for (uint32_t i = 0; i < blocks; ++i) {
            const uint32_t j = s.random.below(i + 1);
            permutation[i] = permutation[j];
            permutation[j] = i;
        }
    }
    for (uint64_t i = 0; i < blocks; ++i) {
        uint64_t block = s.order == Order::REVERSE ? blocks - 1 - i : i;
        if (s.order == Order::RANDOM) block = permutation[i];
        if (!run_block(uint32_t(block % shape.grid_x), uint32_t(block / shape.grid_x))) {
            forget_threads();
            return false;
        }
    }
    return true;
}

}  // namespace

void set_order(Order order, uint64_t seed) {
    std::lock_guard lock(one_launch);
    scheduler.order = order;
    scheduler.random.state = seed;
}

void skip_barriers(const char* file, uint32_t line) {
    std::lock_guard lock(one_launch);
    scheduler.skipped_file = file;
    scheduler.skipped_line = line;
}

bool run(const char* kernel, const Shape& shape, void (*body)(const void*), const void* context, std::string& error) {
    std::lock_guard lock(one_launch);
    Scheduler& s = scheduler;
    if (shape.block == 0 || shape.block > MAX_THREADS || shape.block % LANES != 0) {
        error = std::string(kernel) + ": the emulation runs blocks of 32 to 1024 threads in whole warps, got " +
                std::to_string(shape.block);
        return false;
    }
    s.kernel = kernel;
    s.body = body;
    s.body_context = context;
    s.threads = shape.block;
    s.running = &s.main;
    create_main(s.main.sanitizer);
    block_size = {shape.block, 1, 1};
    grid_size = {shape.grid_x, shape.grid_y, 1};
    const bool done = prepare_stacks(shape.block) && run_blocks(shape);
    if (!done) error = s.error;
    return done;
}

}  // namespace rz::emulation
