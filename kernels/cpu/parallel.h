// Threads and scratch memory, shared by all kernels.
//
// A kernel is told its thread count; without OpenMP (Theano's own switch) that count is ignored and the loop is serial.
// Scratch memory belongs to the thread that asks for it and is kept between calls, so that a training step allocates
// nothing once it is warm, and two Theano functions on two threads never meet.
#pragma once
#include <algorithm>
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

// Calls body(index, thread) for every index in [0, count), indices dealt in contiguous runs of equal length: which
// thread computes what depends on the count of threads alone, so results are the same in every run.
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
#ifdef _OPENMP
    if (threads > 1 && count > 1 && have_threads()) {
        wake_elsewhere(threads);
        bool out_of_memory = false;  // no exception may leave a region
#pragma omp parallel for schedule(static) num_threads(threads) reduction(|| : out_of_memory)
        for (int64_t i = 0; i < count; ++i) {
            try {
                body(i, omp_get_thread_num());
            } catch (const std::bad_alloc&) {
                out_of_memory = true;
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
