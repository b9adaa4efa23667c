// What a machine can do at most, measured where its rasterizer is measured: fused multiply-adds and copies per second.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int CHAINS = 12;  // more than latency times throughput anywhere, fewer than there are registers
typedef float Vector __attribute__((vector_size(LANES * 4)));

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Independent chains, so many that latency does not show. The factor keeps the numbers normal.
void multiply_add(int64_t rounds) {
    Vector chains[CHAINS];
    for (int i = 0; i < CHAINS; ++i) chains[i] = Vector{} + (float)(i + 1);
    const Vector factor = Vector{} + 0.999f, term = Vector{} + 1e-3f;
    for (int64_t round = 0; round < rounds; ++round)
        for (int i = 0; i < CHAINS; ++i) chains[i] = chains[i] * factor + term;
    for (int i = 0; i < CHAINS; ++i) __asm__ volatile("" ::"x"(chains[i]));
}

template <class Work>
double time_threads(int threads, Work work) {
    std::vector<std::thread> pool;
    const double start = seconds();
    for (int i = 1; i < threads; ++i) pool.emplace_back(work, i);
    work(0);
    for (std::thread& thread : pool) thread.join();
    return seconds() - start;
}

}  // namespace

extern "C" {

// Best of `repeats`, 10^9 operations (a multiply-add is two) per second of all threads.
double measure_multiply_adds(int threads, int repeats) {
    constexpr int64_t ROUNDS = 2000000;
    double best = 1e30;
    for (int i = 0; i < repeats; ++i) best = std::min(best, time_threads(threads, [](int) { multiply_add(ROUNDS); }));
    return 2.0 * ROUNDS * CHAINS * LANES * threads / best * 1e-9;
}

// Best of `repeats`, 10^9 bytes read and written per second of all threads, of blocks that no cache holds.
double measure_copy(int threads, int repeats) {
    constexpr size_t BYTES = (size_t)128 << 20;
    std::vector<char> from((size_t)threads * BYTES, 1), to((size_t)threads * BYTES, 2);
    double best = 1e30;
    for (int i = 0; i < repeats; ++i)
        best = std::min(best, time_threads(threads, [&](int worker) {
                            std::memcpy(to.data() + worker * BYTES, from.data() + worker * BYTES, BYTES);
                        }));
    return 2.0 * BYTES * threads / best * 1e-9;
}

}  // extern "C"
