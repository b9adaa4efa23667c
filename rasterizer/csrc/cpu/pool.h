// Threads of the CPU core. No floating point and no templates: compiled once, for the baseline instruction set.
#pragma once

#include <stdint.h>

namespace rz_pool {

typedef void (*Task)(void* context, int64_t task, int worker);

// Calls task(context, i, worker) once for every 0 <= i < count, on at most `threads` threads including the caller;
// worker < threads is unique among the calls running at one time. Returns when all have returned. Which worker
// runs which task is not fixed: a task must write only what belongs to its index. Safe from several threads at
// once (the later caller then works alone) and after fork. Never throws: with no threads to be had the caller does
// all the work.
void run(int64_t count, int threads, Task task, void* context);

}  // namespace rz_pool
