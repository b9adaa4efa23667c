#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#if defined(_WIN32)
#include <process.h>
#define RZ_PROCESS_ID _getpid
#else
#include <unistd.h>
#define RZ_PROCESS_ID getpid
#endif

namespace rz_pool {
namespace {

// A pass has several phases within a millisecond: a worker that sleeps between them wakes too late to help.
constexpr auto SPIN_TIME = std::chrono::microseconds(60);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

class Pool {
   public:
    const long process = (long)RZ_PROCESS_ID();
    std::mutex busy;  // held by the caller whose job runs

    void run(int64_t count, int threads, Task task, void* context) {
        grow(threads - 1);
        {
            std::lock_guard<std::mutex> hold(state_);
            task_ = task;
            context_ = context;
            count_ = count;
            places_ = threads - 1;
            next_.store(0, std::memory_order_relaxed);
            open_ = true;
            job_.fetch_add(1, std::memory_order_release);
        }
        if (sleepers_.load() > 0) wake_.notify_all();
        work(task, context, count, 0);
        // Workers that have not entered by now are not waited for: there is nothing left for them.
        {
            std::lock_guard<std::mutex> hold(state_);
            open_ = false;
        }
        for (int spins = 0; inside_.load(std::memory_order_acquire) > 0; ++spins)
            if (spins < 2000)
                pause();
            else
                std::this_thread::yield();
    }

   private:
    std::mutex state_;
    std::condition_variable wake_;
    std::atomic<uint64_t> job_{0};
    std::atomic<int64_t> next_{0};
    std::atomic<int> inside_{0};
    std::atomic<int> sleepers_{0};
    bool open_ = false;
    int places_ = 0;
    int workers_ = 0;
    Task task_ = nullptr;
    void* context_ = nullptr;
    int64_t count_ = 0;

    void work(Task task, void* context, int64_t count, int worker) {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) task(context, i, worker);
    }

    void grow(int wanted) {
        while (workers_ < wanted) {
            try {
                std::thread(&Pool::serve, this, workers_ + 1).detach();
            } catch (...) {
                return;
            }
            ++workers_;
        }
    }

    void serve(int worker) {
        uint64_t seen = 0;
        for (;;) {
            wait(seen);
            Task task;
            void* context;
            int64_t count;
            {
                std::lock_guard<std::mutex> hold(state_);
                seen = job_.load(std::memory_order_relaxed);
                if (!open_ || worker > places_) continue;
                inside_.fetch_add(1, std::memory_order_relaxed);
                task = task_;
                context = context_;
                count = count_;
            }
            work(task, context, count, worker);
            inside_.fetch_sub(1, std::memory_order_release);
        }
    }

    void wait(uint64_t seen) {
        const auto end = std::chrono::steady_clock::now() + SPIN_TIME;
        while (std::chrono::steady_clock::now() < end)
            for (int i = 0; i < 64; ++i) {
                if (job_.load(std::memory_order_acquire) != seen) return;
                pause();
            }
        std::unique_lock<std::mutex> hold(state_);
        sleepers_.fetch_add(1);
        wake_.wait(hold, [&] { return job_.load(std::memory_order_acquire) != seen; });
        sleepers_.fetch_sub(1);
    }
};

std::atomic<Pool*> current{nullptr};

// Never destroyed: its threads may outlive static objects at exit. A forked child has none of its parent's threads,
// so it starts anew and leaves the parent's pool alone.
Pool* pool() {
    Pool* mine = current.load(std::memory_order_acquire);
    if (mine && mine->process == (long)RZ_PROCESS_ID()) return mine;
    Pool* fresh = new (std::nothrow) Pool();
    if (!fresh || current.compare_exchange_strong(mine, fresh)) return fresh;
    delete fresh;
    return current.load();
}

}  // namespace

void run(int64_t count, int threads, Task task, void* context) {
    if (count < threads) threads = (int)count;
    Pool* mine = threads > 1 ? pool() : nullptr;
    if (mine && mine->busy.try_lock()) {
        mine->run(count, threads, task, context);
        mine->busy.unlock();
        return;
    }
    for (int64_t i = 0; i < count; ++i) task(context, i, 0);
}

}  // namespace rz_pool
