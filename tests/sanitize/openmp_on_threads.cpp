// GNU OpenMP's entry points on std::thread, for ThreadSanitizer builds alone.
//
// libgomp synchronizes by raw futex calls, which ThreadSanitizer does not see: every parallel region would be reported.
// Here a team is made of threads that are created and joined, and a barrier and a critical section are what the standard
// library offers, so that the sanitizer sees the order that OpenMP promises. It must not see more: chunks of a loop are
// handed out by relaxed atomics, which order nothing, as OpenMP orders nothing there.
//
// Entry points that are missing are found by run.py. Loops must run over long (not unsigned long long).

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int kConstructs = 1 << 14;  // loops and singles that one thread may meet in one parallel region

struct Team {
    explicit Team(int threads) : size(threads), taken(new std::atomic<long>[kConstructs]) {
        for (int i = 0; i < kConstructs; ++i) taken[i].store(0, std::memory_order_relaxed);
    }

    void barrier() {
        std::unique_lock<std::mutex> lock(mutex);
        const long generation = passed;
        if (++waiting == size) {
            waiting = 0;
            ++passed;
            everybody.notify_all();
        } else {
            everybody.wait(lock, [&] { return passed != generation; });
        }
    }

    const int size;
    std::unique_ptr<std::atomic<long>[]> taken;
    std::mutex mutex;
    std::condition_variable everybody;
    int waiting = 0;
    long passed = 0;
};

struct Loop {
    long start, end, step, chunk;
    std::atomic<long>* taken;
};

thread_local Team* team = nullptr;
thread_local int number = 0;
thread_local int met = 0;
thread_local Loop loop{};

std::mutex unnamed;

std::atomic<long>& construct() {
    static thread_local std::atomic<long> alone;  // outside a parallel region
    if (team == nullptr) {
        alone.store(0, std::memory_order_relaxed);
        return alone;
    }
    if (met == kConstructs) {
        std::fputs("openmp_on_threads: too many loops in one parallel region; raise kConstructs\n", stderr);
        std::abort();
    }
    return team->taken[met++];
}

int default_threads() {
    const char* variable = std::getenv("OMP_NUM_THREADS");
    const int threads = variable ? std::atoi(variable) : 0;
    return threads > 0 ? threads : 4;
}

bool next_chunk(long* first, long* last) {
    const long begun = loop.taken->fetch_add(1, std::memory_order_relaxed) * loop.chunk * loop.step + loop.start;
    const bool up = loop.step > 0;
    if (up ? begun >= loop.end : begun <= loop.end) return false;
    const long stop = begun + loop.chunk * loop.step;
    *first = begun;
    *last = (up ? stop > loop.end : stop < loop.end) ? loop.end : stop;
    return true;
}

bool begin_loop(long start, long end, long step, long chunk, long* first, long* last) {
    loop = Loop{start, end, step, chunk > 0 ? chunk : 1, &construct()};
    return next_chunk(first, last);
}

void parallel(void (*body)(void*), void* data, unsigned threads, const Loop* shared) {
    // A region inside a region runs on one thread, as by default.
    const int size = team != nullptr ? 1 : threads != 0 ? static_cast<int>(threads) : default_threads();
    Team members(size);
    const auto run = [&](int id) {
        Team* const outer_team = team;
        const int outer_number = number, outer_met = met;
        const Loop outer_loop = loop;
        team = &members, number = id, met = 0;
        if (shared != nullptr) {
            loop = *shared;
            loop.taken = &construct();
        }
        body(data);
        team = outer_team, number = outer_number, met = outer_met, loop = outer_loop;
    };
    std::vector<std::thread> others;
    for (int id = 1; id < size; ++id) others.emplace_back(run, id);
    run(0);
    for (std::thread& other : others) other.join();
}

}  // namespace

extern "C" {

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
    parallel(body, data, threads, nullptr);
}

#define POOLWRIGHT_LOOP(kind)                                                                                      \
    bool GOMP_loop_##kind##_start(long start, long end, long step, long chunk, long* first, long* last) {           \
        return begin_loop(start, end, step, chunk, first, last);                                                    \
    }                                                                                                               \
    bool GOMP_loop_##kind##_next(long* first, long* last) { return next_chunk(first, last); }                       \
    void GOMP_parallel_loop_##kind(void (*body)(void*), void* data, unsigned threads, long start, long end,         \
                                   long step, long chunk, unsigned) {                                               \
        const Loop shared{start, end, step, chunk > 0 ? chunk : 1, nullptr};                                        \
        parallel(body, data, threads, &shared);                                                                     \
    }

POOLWRIGHT_LOOP(dynamic)
POOLWRIGHT_LOOP(nonmonotonic_dynamic)
POOLWRIGHT_LOOP(guided)
POOLWRIGHT_LOOP(nonmonotonic_guided)

void GOMP_barrier() {
    if (team != nullptr) team->barrier();
}
void GOMP_loop_end() { GOMP_barrier(); }
void GOMP_loop_end_nowait() {}
bool GOMP_single_start() { return construct().exchange(1, std::memory_order_relaxed) == 0; }

void GOMP_critical_start() { unnamed.lock(); }
void GOMP_critical_end() { unnamed.unlock(); }
void GOMP_atomic_start() { unnamed.lock(); }
void GOMP_atomic_end() { unnamed.unlock(); }

// The compiler gives each name of a critical section one pointer, which is null at first.
void GOMP_critical_name_start(void** name) {
    auto& slot = *reinterpret_cast<std::atomic<std::mutex*>*>(name);
    std::mutex* mutex = slot.load(std::memory_order_acquire);
    if (mutex == nullptr) {
        auto* fresh = new std::mutex;
        if (slot.compare_exchange_strong(mutex, fresh, std::memory_order_acq_rel))
            mutex = fresh;
        else
            delete fresh;
    }
    mutex->lock();
}
void GOMP_critical_name_end(void** name) {
    reinterpret_cast<std::atomic<std::mutex*>*>(name)->load(std::memory_order_acquire)->unlock();
}

int omp_get_thread_num() { return number; }
int omp_get_num_threads() { return team != nullptr ? team->size : 1; }
int omp_get_max_threads() { return default_threads(); }
int omp_in_parallel() { return team != nullptr && team->size > 1; }

}  // extern "C"
