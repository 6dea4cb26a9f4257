// Threads and scratch memory, shared by all kernels.
//
// A kernel is told its thread count; without OpenMP (Theano's own switch) that count is ignored and the loop is serial.
// Scratch memory belongs to the thread that asks for it and is kept between calls, so that a training step allocates
// nothing once it is warm, and two Theano functions on two threads never meet.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#ifdef _OPENMP
#include <omp.h>
#include <pthread.h>
#endif

#include "placement.h"

namespace c01b {

inline int max_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// Whether this is a forked child of a process that had threads at work: OpenMP's did not come along, and it would wait for
// them for ever (a data loader's workers, say).
inline bool& threads_lost() {
    static bool lost = false;
    return lost;
}

inline bool have_threads() {
#ifdef _OPENMP
    static const int watched = pthread_atfork(nullptr, nullptr, [] { threads_lost() = true; });
    return watched == 0 && !threads_lost();
#else
    return false;
#endif
}

// The items that threads have before them: a contiguous run each, of equal length, since neighbours share data and the same
// thread had the same ones in the call before. Cores are seldom equally fast (other programs, other guests, cores of two kinds,
// a thread that has to wake up first), so one that is done takes items from the end of the longest run that is left.
class Shares {
public:
    Shares(int64_t count, int threads) : runs(std::min(threads, most)) {
        for (int64_t r = 0; r < runs; ++r) run[r].bounds = bounds(count * r / runs, count * (r + 1) / runs);
    }

    // The next item of this thread, or -1 when none is left.
    int64_t take(int thread) {
        int64_t item = take_from(thread % runs, true);
        for (int r; item < 0 && (r = longest()) >= 0;) item = take_from(r, false);
        return item;
    }

    static constexpr int64_t most_items = UINT32_MAX;

private:
    static constexpr int most = 64;
    struct alignas(64) Run {
        std::atomic<uint64_t> bounds{0};  // the first item, and in the lower half where the run ends
    };
    const int runs;
    Run run[most];

    static uint64_t bounds(uint64_t begin, uint64_t end) { return begin << 32 | end; }

    int64_t take_from(int r, bool first) {
        uint64_t known = run[r].bounds.load(std::memory_order_relaxed), begin, end;
        do {
            begin = known >> 32, end = known & UINT32_MAX;
            if (begin == end) return -1;
        } while (!run[r].bounds.compare_exchange_weak(known, first ? bounds(begin + 1, end) : bounds(begin, end - 1),
                                                      std::memory_order_relaxed));
        return static_cast<int64_t>(first ? begin : end - 1);
    }

    int longest() const {
        int found = -1;
        uint64_t most_left = 0;
        for (int r = 0; r < runs; ++r) {
            const uint64_t known = run[r].bounds.load(std::memory_order_relaxed), left = (known & UINT32_MAX) - (known >> 32);
            if (left > most_left) most_left = left, found = r;
        }
        return found;
    }
};

// How long threads wait for the last one in the end, in items of its: with prices that count what the busiest thread has to do,
// this is for finer cuts where they cost little, as cores that are not equally fast share those out better.
constexpr double waiting = 0.05;

// Calls body(index, thread) for every index in [0, count). Which thread computes what may differ from call to call, so no
// result may depend on it: what a body works with is the item's, or scratch memory.
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
#ifdef _OPENMP
    if (threads > 1 && count > 1 && count <= Shares::most_items && have_threads()) {
        wake_elsewhere(threads);
        bool out_of_memory = false;  // no exception may leave a region
        Shares shares(count, threads);
#pragma omp parallel num_threads(threads) reduction(|| : out_of_memory)
        {
            const int thread = omp_get_thread_num();
            for (int64_t i; (i = shares.take(thread)) >= 0;) {
                try {
                    body(i, thread);
                } catch (const std::bad_alloc&) {
                    out_of_memory = true;
                }
            }
        }
        if (out_of_memory) throw std::bad_alloc();
        return;
    }
#endif
    (void)threads;
    for (int64_t i = 0; i < count; ++i) body(i, 0);
}

// A thread's scratch buffer: grows to the largest request, 64-byte aligned, contents undefined. `Purpose` (any type) tells
// buffers apart that are in use at the same time. All ops share them: each is a library of its own, compiled with hidden
// symbols, so the buffers' visibility is said here. Under AddressSanitizer (make sanitize) a buffer is NaN all over: whoever
// uses what nobody has written shows.
struct ScratchBuffer {
    float* data = nullptr;
    size_t size = 0;
    ~ScratchBuffer() { std::free(data); }
};
template <class Purpose>
[[gnu::visibility("default")]] inline ScratchBuffer& scratch_buffer() {
    static thread_local ScratchBuffer buffer;
    return buffer;
}

template <class Purpose>
float* scratch(size_t floats) {
    ScratchBuffer& buffer = scratch_buffer<Purpose>();
    if (buffer.size < floats) {
        std::free(buffer.data);
        buffer.data = nullptr, buffer.size = 0;
        const size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
        buffer.data = static_cast<float*>(std::aligned_alloc(64, bytes));
        if (!buffer.data) throw std::bad_alloc();
        buffer.size = bytes / sizeof(float);
    }
#ifdef __SANITIZE_ADDRESS__
    std::fill_n(buffer.data, buffer.size, std::numeric_limits<float>::quiet_NaN());
#endif
    return buffer.data;
}

// What the large buffers are for. No kernel needs two of a kind at a time.
struct [[gnu::visibility("default")]] Prepared {};  // for all threads: filters as products read them, sums of weights
struct [[gnu::visibility("default")]] Working {};   // a share for each thread: panels of pixels, sums that wait

}  // namespace c01b
