// The state of the emulated GPU and how its threads take turns: shared by scheduler.cpp, meetings.cpp and faults.cpp.
#pragma once

#include <bit>
#include <string>

#include "context.h"
#include "sanitizers.h"
#include "scheduler.h"

namespace rz::emulation {

constexpr uint32_t MAX_THREADS = 1024;
constexpr uint32_t LANES = 32;
constexpr uint32_t WARPS = MAX_THREADS / LANES;

struct alignas(64) Fiber {
    uint3 index;
    Meeting meeting;  // the last one it came to
    std::source_location where;
    Context context;
    char* stack;
    SanitizerFiber sanitizer;
};

// What the lanes of a warp bring to a meeting and take away; sets of lanes are bits.
struct Warp {
    uint32_t runnable;  // without the one that runs
    uint32_t waiting;   // at a meeting of the warp
    uint32_t ended;
    uint32_t mask[LANES];
    uint64_t site[LANES];
    int parameter[LANES];
    uint64_t value[LANES];
    uint64_t result[LANES];
    SyncToken tokens[LANES][2];
    uint32_t meetings[LANES];  // finished ones, by the lowest lane
};

struct Barrier {
    uint32_t arrived;
    uint32_t count;  // of threads with a predicate
    uint32_t result;
    uint32_t finished;
    const Fiber* first;  // that came
    SyncToken tokens[2];
};

struct Random {
    uint64_t state;
    uint64_t next() {  // splitmix64
        uint64_t x = state += 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        return x ^ x >> 31;
    }
    uint32_t below(uint32_t bound) { return uint32_t((next() >> 32) * bound >> 32); }
};

// Plain arrays, no containers: a sanitizer would see those of their functions that kernels happen to share.
struct Scheduler {
    Fiber fibers[MAX_THREADS];
    Fiber main;
    Warp warps[WARPS];
    Barrier barrier;
    uint32_t runnable_warps;  // bit per warp with any
    uint32_t threads;
    uint32_t ended;
    uint32_t prepared;  // stacks there are
    uint64_t switches_left;
    Fiber* running;
    Order order;
    Random random;
    bool broken;  // the launch failed: fibers were left in the middle
    SyncToken block_start, block_end;
    const char* kernel;
    void (*body)(const void*);
    const void* body_context;
    std::string error;
    std::string skipped_file;
    uint32_t skipped_line;
};

extern Scheduler scheduler;

// Ends the launch with a line of text; what was a thread is never continued (faults.cpp).
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_waiting(const Fiber& waiting, const Fiber& missing);
[[noreturn]] void fail_stuck();  // nobody can run
std::string describe(const Fiber& fiber, const char* before_place = " at ");

// Of a path.
const char* file_name(const char* path);

// The lowest member of a set that is not empty.
inline uint32_t lowest(uint32_t set) { return uint32_t(std::countr_zero(set)) & 31; }

inline uint32_t number(const Fiber& fiber) { return fiber.index.x; }
inline uint32_t lane_of(const Fiber& fiber) { return number(fiber) % LANES; }
inline uint32_t bit_of(const Fiber& fiber) { return 1u << lane_of(fiber); }
inline Warp& warp_of(const Fiber& fiber) { return scheduler.warps[number(fiber) / LANES]; }
inline Fiber& neighbour(const Fiber& fiber, uint32_t lane) {
    return scheduler.fibers[number(fiber) - lane_of(fiber) + lane];
}
inline bool has_ended(const Fiber& fiber) { return warp_of(fiber).ended & bit_of(fiber); }
inline bool waits_in_warp(const Fiber& fiber) { return warp_of(fiber).waiting & bit_of(fiber); }

inline void make_runnable(uint32_t warp, uint32_t lanes) {
    scheduler.warps[warp].runnable |= lanes;
    scheduler.runnable_warps |= 1u << warp;
}

// The bits of `set` from `start` up, or all where there are none.
inline uint32_t from(uint32_t set, uint32_t start) {
    const uint32_t upper = set & ~0u << start;
    return upper ? upper : set;
}

// Takes the next thread to run out of the runnable ones; there must be one.
inline Fiber& take_next() {
    Scheduler& s = scheduler;
    uint32_t warp, lane;
    if (s.order == Order::FORWARD) {
        warp = lowest(s.runnable_warps);
        lane = lowest(s.warps[warp].runnable);
    } else if (s.order == Order::REVERSE) {
        warp = 31 - std::countl_zero(s.runnable_warps);
        lane = 31 - std::countl_zero(s.warps[warp].runnable);
    } else {
        const uint64_t bits = s.random.next();
        warp = lowest(from(s.runnable_warps, bits & 31));
        lane = lowest(from(s.warps[warp].runnable, bits >> 5 & 31));
    }
    s.warps[warp].runnable &= ~(1u << lane);
    if (s.warps[warp].runnable == 0) s.runnable_warps &= ~(1u << warp);
    return s.fibers[warp * LANES + lane];
}

inline __attribute__((always_inline)) void switch_to(Fiber& next, bool ends = false) {
    Fiber& self = *scheduler.running;
    scheduler.running = &next;
    thread_index = &next.index;
    before_switch(self.sanitizer, next.sanitizer, ends);
    switch_context(self.context, next.context);
    after_switch(self.sanitizer);
}

inline __attribute__((always_inline)) void run_others(bool ends = false) {
    if (scheduler.runnable_warps == 0) fail_stuck();
    if (--scheduler.switches_left == 0) fail("does not end: " + describe(*scheduler.running));
    switch_to(take_next(), ends);
}

// Whoever comes last to a meeting does not stop, except in random order.
inline __attribute__((always_inline)) void go_on(Fiber& self) {
    if (scheduler.order != Order::RANDOM) return;
    make_runnable(number(self) / LANES, bit_of(self));
    Fiber& next = take_next();
    if (&next != &self) switch_to(next);
}

}  // namespace rz::emulation
