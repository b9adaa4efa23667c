// What is wrong with a kernel, in words.
#include <string.h>

#include "fibers.h"

namespace rz::emulation {
namespace {

const char* name(Meeting meeting) {
    static const char* const names[] = {
        "__syncthreads", "__syncthreads_count", "__syncthreads_or", "__syncthreads_and", "__syncwarp",   "__shfl_sync",
        "__shfl_xor_sync", "__shfl_up_sync",    "__shfl_down_sync", "__ballot_sync",     "__any_sync",   "__all_sync"};
    return names[static_cast<int>(meeting)];
}

std::string place(Meeting meeting, std::source_location where) {
    return std::string(name(meeting)) + " (" + file_name(where.file_name()) + ":" + std::to_string(where.line()) + ")";
}

bool meet(const Fiber& a, const Fiber& b) {
    const Warp& warp = warp_of(a);
    return waits_in_warp(a) && waits_in_warp(b) && warp.mask[lane_of(a)] == warp.mask[lane_of(b)];
}

}  // namespace

const char* file_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string describe(const Fiber& fiber, const char* before_place) {
    const std::string thread = "thread " + std::to_string(number(fiber));
    if (has_ended(fiber)) return thread + ", which has ended";
    return thread + before_place + place(fiber.meeting, fiber.where);
}

void fail(const std::string& what) {
    const uint3 b = block_index;
    scheduler.error = std::string(scheduler.kernel) + ", block (" + std::to_string(b.x) + "," + std::to_string(b.y) +
                      "): " + what;
    scheduler.broken = true;
    release(scheduler.block_end);  // of the message
    switch_to(scheduler.main);
    __builtin_unreachable();
}

void fail_waiting(const Fiber& waiting, const Fiber& missing) {
    fail(describe(waiting) + " waits for " + describe(missing, ", which is at "));
}

// Names somebody who waits and somebody who does not come.
void fail_stuck() {
    const Scheduler& s = scheduler;
    const Fiber* stopped = nullptr;  // at the barrier of the block
    for (uint32_t i = 0; i < s.threads; ++i) {
        const Fiber& waiting = s.fibers[i];
        if (!waits_in_warp(waiting)) {
            if (!has_ended(waiting)) stopped = &waiting;
            continue;
        }
        for (uint32_t rest = warp_of(waiting).mask[lane_of(waiting)]; rest; rest &= rest - 1) {
            const Fiber& missing = neighbour(waiting, lowest(rest));
            if (!meet(waiting, missing)) fail_waiting(waiting, missing);
        }
    }
    uint32_t missing = 0;
    while (!has_ended(s.fibers[missing])) ++missing;
    fail_waiting(*stopped, s.fibers[missing]);
}

}  // namespace rz::emulation
