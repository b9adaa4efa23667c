// Runs a CUDA kernel on one CPU thread: a fiber per CUDA thread, the blocks of a grid one after another. What would
// hang a GPU or be undefined there (threads at different barriers, lanes of a mask that do not all come, a thread that
// ends while others wait for it) ends the launch with a message instead.
#pragma once

#include <stdint.h>

#include <source_location>
#include <string>

#include "vector_types.h"

namespace rz::emulation {

// Points where threads meet.
enum class Meeting : uint8_t {
    SYNC_THREADS,
    SYNC_THREADS_COUNT,
    SYNC_THREADS_OR,
    SYNC_THREADS_AND,
    SYNC_WARP,
    SHUFFLE,
    SHUFFLE_XOR,
    SHUFFLE_UP,
    SHUFFLE_DOWN,
    BALLOT,
    ANY,
    ALL,
};

// Which of the threads that could run, runs: the lowest, the highest, or any. Blocks follow the same order.
enum class Order : int { FORWARD = 0, REVERSE = 1, RANDOM = 2 };

struct Shape {
    uint32_t grid_x;
    uint32_t grid_y;
    uint32_t block;  // a multiple of 32, at most 1024
};

extern const uint3* thread_index;  // of the thread that runs now
extern uint3 block_index;
extern dim3 block_size;
extern dim3 grid_size;

// A warp-wide meeting of the lanes in `mask`. The result is this lane's.
uint64_t meet_warp(Meeting kind, unsigned mask, uint64_t value, int parameter, int width,
                   std::source_location where);

// A block-wide barrier. The result is the number of threads with predicate != 0, or its or/and.
int meet_block(Meeting kind, int predicate, std::source_location where);

void set_order(Order order, uint64_t seed);

// From now on threads pass the block-wide barriers on this line of a file ("blend.cuh") as if they were not there, to
// test that somebody notices. Line 0: none.
void skip_barriers(const char* file, uint32_t line);

// Runs `body` once for every thread of the grid. Returns false with one line in `error` when the kernel breaks a rule;
// what it wrote until then stays. One launch at a time: callers wait for each other.
bool run(const char* kernel, const Shape& shape, void (*body)(const void*), const void* context, std::string& error);

template <class Body>
bool run(const char* kernel, const Shape& shape, const Body& body, std::string& error) {
    return run(kernel, shape, [](const void* context) { (*static_cast<const Body*>(context))(); }, &body, error);
}

}  // namespace rz::emulation
