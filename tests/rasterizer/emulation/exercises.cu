// Small kernels for the tests of the emulation: right ones, and ones with the faults that it must find.
#include "emulation/cuda_emulation.h"

#include <stdio.h>

#include <string>

namespace {

constexpr int BLOCK = 128;
constexpr int BLOCKS = 3;
constexpr int COUNT = BLOCK * BLOCKS;
constexpr unsigned FULL = 0xFFFFFFFFu;

struct Data {
    const float* input;  // [COUNT]
    float* output;       // [COUNT]
    int* integers;       // [COUNT], zeroed
};

__device__ int global_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Right ones.

__global__ void reduce_block(Data d) {
    __shared__ float sums[BLOCK];
    const int i = threadIdx.x;
    sums[i] = d.input[global_index()];
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (i < half) sums[i] += sums[i + half];
    }
    __syncthreads();
    d.output[global_index()] = sums[0];
}

__global__ void reduce_warp(Data d) {
    float value = d.input[global_index()];
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(FULL, value, offset);
    d.output[global_index()] = value;
}

__global__ void scan_warp(Data d) {
    const int lane = threadIdx.x % 32;
    float value = d.input[global_index()];
    for (int delta = 1; delta < 32; delta *= 2) {
        const float other = __shfl_up_sync(FULL, value, delta);
        if (lane >= delta) value += other;
    }
    d.output[global_index()] = value;
}

// Every kind of shuffle with segments of eight lanes; lanes beyond a segment give their own value.
__global__ void shuffle_segments(Data d) {
    const float value = d.input[global_index()];
    const float rotated = __shfl_sync(FULL, value, threadIdx.x + 9, 8);
    const float down = __shfl_down_sync(FULL, value, 3, 8);
    const float up = __shfl_up_sync(FULL, value, 3, 8);
    const float across = __shfl_xor_sync(FULL, value, 5, 8);
    d.output[global_index()] = rotated + 2 * down + 4 * up + 8 * across;
}

__global__ void vote(Data d) {
    const int positive = d.input[global_index()] > 0;
    const unsigned ballot = __ballot_sync(FULL, positive);
    const int any = __any_sync(FULL, positive), all = __all_sync(FULL, positive);
    d.integers[global_index()] = __popc(ballot) + 100 * any + 1000 * all + 10000 * (__ffs(ballot) + __clz(ballot));
}

// Two halves of a warp on their own ways, then together.
__global__ void split_warp(Data d) {
    const int lane = threadIdx.x % 32;
    float value = d.input[global_index()];
    if (lane < 16) {
        for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(0x0000FFFFu, value, offset);
    } else {
        value = __shfl_sync(0xFFFF0000u, value, 31);
    }
    d.output[global_index()] = value + __shfl_sync(FULL, value, 0);
}

__global__ void count_atomically(Data d) {
    __shared__ int counts[4];
    if (threadIdx.x < 4) counts[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&counts[threadIdx.x % 3], 1);
    atomicMax(&counts[3], int(threadIdx.x));
    __syncthreads();
    if (threadIdx.x < 4) atomicAdd(&d.integers[threadIdx.x], counts[threadIdx.x]);
    atomicAdd(&d.output[0], 1.0f);
    atomicOr(&d.integers[4], 1 << threadIdx.x % 8);
}

// Blocks that leave their loop early, together, when all their threads are done.
__global__ void leave_early(Data d) {
    int rounds = 0;
    while (__syncthreads_count(rounds > int(blockIdx.x)) < BLOCK) ++rounds;
    const int any = __syncthreads_or(threadIdx.x == 5), all = __syncthreads_and(threadIdx.x != 5);
    d.integers[global_index()] = rounds + 10 * any + 100 * all;
}

// Warps pass values through shared memory on their own.
__global__ void turn_warp(Data d) {
    __shared__ float rows[BLOCK];
    rows[threadIdx.x] = d.input[global_index()];
    __syncwarp();
    d.output[global_index()] = rows[threadIdx.x ^ 31];
    __syncwarp();
    rows[threadIdx.x] = 0.0f;
}

// Faulty ones.

__global__ void barriers_in_branches(Data d) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    d.output[global_index()] = 1.0f;
}

__global__ void barrier_for_some(Data d) {
    if (threadIdx.x < 64) __syncthreads();
    d.output[global_index()] = 1.0f;
}

__global__ void warp_at_barrier(Data d) {
    if (threadIdx.x == 7) __syncthreads();
    d.output[global_index()] = __shfl_sync(FULL, d.input[global_index()], 0);
}

__global__ void lane_ends_in_mask(Data d) {
    if (threadIdx.x == 40) return;
    d.output[global_index()] = __shfl_sync(FULL, d.input[global_index()], 0);
}

__global__ void masks_differ(Data d) {
    const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000FFFFu : FULL;
    d.output[global_index()] = __shfl_sync(mask, d.input[global_index()], 0);
}

__global__ void collectives_differ(Data d) {
    if (threadIdx.x % 32 < 16) {
        d.integers[global_index()] = __any_sync(FULL, 1);
    } else {
        d.integers[global_index()] = __all_sync(FULL, 1);
    }
}

__global__ void lane_outside_mask(Data d) {
    if (threadIdx.x % 32 < 16) d.output[global_index()] = __shfl_sync(0x0000FFFFu, d.input[global_index()], 16);
}

// Out of sight of the compiler, which knows the size of `rows`.
__device__ __noinline__ void store(float* rows, int i, float value) { rows[i] = value; }

__global__ void past_end_of_shared(Data d) {
    __shared__ float rows[BLOCK];
    store(rows, threadIdx.x + 1, d.input[global_index()]);
    __syncthreads();
    d.output[global_index()] = rows[threadIdx.x];
}

__global__ void past_end_of_local(Data d) {
    volatile float values[4] = {};
    d.output[global_index()] = values[threadIdx.x % 5];
}

__global__ void past_end_of_buffer(Data d) { d.output[global_index() + 1] = 1.0f; }

__global__ void shift_too_far(Data d) { d.integers[global_index()] = 1 << threadIdx.x; }

__global__ void missing_barrier(Data d) {
    __shared__ float rows[BLOCK];
    rows[threadIdx.x] = d.input[global_index()];
    d.output[global_index()] = rows[BLOCK - 1 - threadIdx.x];
}

// The second barrier of the loop is missing: a fast thread overwrites what a slow one still reads.
__global__ void missing_second_barrier(Data d) {
    __shared__ float row[1];
    float sum = 0.0f;
    for (int round = 0; round < 3; ++round) {
        if (threadIdx.x == 0) row[0] = d.input[round];
        __syncthreads();
        sum += row[0];
    }
    d.output[global_index()] = sum;
}

// A vote brings lanes together but orders no memory.
__global__ void vote_for_barrier(Data d) {
    __shared__ float rows[BLOCK];
    rows[threadIdx.x] = d.input[global_index()];
    __any_sync(FULL, 1);
    d.output[global_index()] = rows[threadIdx.x ^ 1];
}

__global__ void uninitialised_shared(Data d) {
    __shared__ float rows[BLOCK];
    if (threadIdx.x % 2 == 0) rows[threadIdx.x] = d.input[global_index()];
    __syncthreads();
    d.output[global_index()] = rows[threadIdx.x];
}

__global__ void shared_of_last_block(Data d) {
    __shared__ float row[1];
    if (blockIdx.x == 0 && threadIdx.x == 0) row[0] = 1.0f;
    __syncthreads();
    d.output[global_index()] = row[0];
}

__global__ void endless(Data d) {
    while (__syncthreads_or(1)) d.output[global_index()] += 1.0f;
}

struct Exercise {
    const char* name;
    void (*run)(Data);
};
#define RZ_EXERCISE(name) {#name, name}
const Exercise exercises[] = {
    RZ_EXERCISE(reduce_block),          RZ_EXERCISE(reduce_warp),        RZ_EXERCISE(scan_warp),
    RZ_EXERCISE(shuffle_segments),      RZ_EXERCISE(vote),               RZ_EXERCISE(split_warp),
    RZ_EXERCISE(count_atomically),      RZ_EXERCISE(leave_early),        RZ_EXERCISE(turn_warp),
    RZ_EXERCISE(barriers_in_branches),  RZ_EXERCISE(barrier_for_some),   RZ_EXERCISE(warp_at_barrier),
    RZ_EXERCISE(lane_ends_in_mask),     RZ_EXERCISE(masks_differ),       RZ_EXERCISE(collectives_differ),
    RZ_EXERCISE(lane_outside_mask),     RZ_EXERCISE(past_end_of_shared), RZ_EXERCISE(past_end_of_local),
    RZ_EXERCISE(past_end_of_buffer),    RZ_EXERCISE(shift_too_far),      RZ_EXERCISE(missing_barrier),
    RZ_EXERCISE(missing_second_barrier), RZ_EXERCISE(vote_for_barrier),  RZ_EXERCISE(uninitialised_shared),
    RZ_EXERCISE(shared_of_last_block),  RZ_EXERCISE(endless),
};

}  // namespace

// Runs one exercise; returns 0, 1 when the emulation finds a fault (one line in `message`), 2 for an unknown name.
extern "C" __attribute__((visibility("default"))) int run_exercise(const char* name, int order, uint64_t seed,
                                                                  const float* input, float* output, int* integers,
                                                                  char* message, int64_t capacity) {
    for (const Exercise& exercise : exercises) {
        if (std::string(name) != exercise.name) continue;
        rz::emulation::set_order(rz::emulation::Order(order), seed);
        const Data data = {input, output, integers};
        std::string error;
        if (rz::emulation::run(name, {BLOCKS, 1, BLOCK}, [&] { exercise.run(data); }, error)) return 0;
        snprintf(message, size_t(capacity), "%s", error.c_str());
        return 1;
    }
    return 2;
}

// For the sanitizers, whose reports end the program: exact allocations, so that one past an end shows.
int main(int count, char** arguments) {
    if (count != 2) return 2;
    float* input = new float[COUNT];
    float* output = new float[COUNT]();
    int* integers = new int[COUNT]();
    for (int i = 0; i < COUNT; ++i) input[i] = float(i);
    char message[512] = "";
    int code = 0;
    for (int order = 0; order < 3 && code == 0; ++order) {
        code = run_exercise(arguments[1], order, 1, input, output, integers, message, sizeof(message));
    }
    fprintf(stderr, "%s\n", message);
    delete[] input;
    delete[] output;
    delete[] integers;
    return code;
}
