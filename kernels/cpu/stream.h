// Stores that a memory-bound kernel shares with the others: one output pixel along the batch, with or without a detour
// around the caches.
//
// An ordinary store first fetches the line it will overwrite, so an output that no cache can hold costs its bytes
// twice. A non-temporal store does not. It pays from some size on, below which the next op still finds the output in
// the cache. x86 wants such stores aligned: 16-byte pieces, four to a line, are aligned wherever numpy puts an array,
// and the processor combines them into whole lines as long as they arrive in order.
#pragma once
#include <algorithm>

#include "simd.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace c01b {

// Half of a common last-level cache: a smaller output is still there when its reader comes.
constexpr int64_t stream_bytes = int64_t{16} << 20;
// Work below this many bytes is done before a second thread has woken up.
constexpr int64_t threading_bytes = int64_t{128} << 10;

inline int threads_for(int64_t bytes, int threads) { return bytes < threading_bytes ? 1 : threads; }

constexpr int64_t piece = 4;  // floats in 16 bytes

inline bool on_piece(const void* p) { return reinterpret_cast<uintptr_t>(p) % (piece * sizeof(float)) == 0; }

// May an output of `rows` runs of `run` floats be written around the caches, and does it pay?
inline bool should_stream(const float* out, int64_t rows, int64_t run) {
#if defined(__SSE2__)
    return run % piece == 0 && on_piece(out) && rows * run * int64_t{sizeof(float)} >= stream_bytes;
#else
    (void)out, (void)rows, (void)run;
    return false;
#endif
}

// The pieces of v from element `first` on, to p[first...].
inline void stream_from(float* p, vec v, int first) {
#if defined(__SSE2__)
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += piece)
        if (i >= first) _mm_stream_ps(p + i, __m128{v[i], v[i + 1], v[i + 2], v[i + 3]});
#else
    (void)first;
    store(p, v);
#endif
}

inline void stream(float* p, vec v) { stream_from(p, v, 0); }

// A whole vector, of any element type, to an address that is a multiple of its size.
template <class V>
inline void stream_aligned(void* p, V v) {
#if defined(__SSE2__)
    if constexpr (sizeof(V) == 64)
        _mm512_stream_ps(static_cast<float*>(p), (__m512)v);
    else if constexpr (sizeof(V) == 32)
        _mm256_stream_ps(static_cast<float*>(p), (__m256)v);
    else
        _mm_stream_ps(static_cast<float*>(p), (__m128)v);
#else
    std::memcpy(p, &v, sizeof v);
#endif
}

// Asks for a line that will be read soon, into the L2 cache, `ahead` elements from p on. That may be past the end of an
// array, where asking is harmless but a pointer would not be: hence a number. The hardware's own prefetching gives up on
// a batch in which every pixel is another stream.
template <class T>
inline void fetch(const T* p, int64_t ahead = 0) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(ahead) * sizeof(T);
    __builtin_prefetch(reinterpret_cast<const void*>(address), 0, 2);
}
// The same into L1.
inline void fetch_near(const float* p, int64_t ahead) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + ahead * sizeof(float)), 0, 3);
}
constexpr int64_t fetch_distance = 4096 / sizeof(float);  // for arrays read in order

// Streamed stores are ordered with nothing: a thread ends its share with this, and then others may read it.
inline void finish_streaming() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// How a value reads its inputs at one place of the batch: all lanes, or the first few of a batch smaller than a vector. Kernels
// with several outputs also write so.
struct AllLanes {
    vec load(const float* p) const { return c01b::load(p); }
    void store(float* p, vec v) const { c01b::store(p, v); }
};
struct FirstLanes {
    int n;
    vec load(const float* p) const { return load_first(p, n); }
    void store(float* p, vec v) const { store_first(p, v, n); }
};

// out[b] = value(b, lanes) for the whole batch. A last vector that would pass the end is moved back to end there: the
// elements that it computes again come out the same, unless `out` is what it reads: then it has to be `Once`.
template <bool Stream, bool Once = false, class Value>
inline void along_batch(float* out, int64_t batch, const Value& value) {
    int64_t b = 0;
    for (; b + lanes <= batch; b += lanes) {
        const vec v = value(b, AllLanes{});
        Stream ? stream(out + b, v) : store(out + b, v);
    }
    const int rest = static_cast<int>(batch - b);
    if (rest == 0) return;
    if (Once || batch < lanes) {
        store_first(out + b, value(b, FirstLanes{rest}), rest);
        return;
    }
    b = batch - lanes;
    const vec v = value(b, AllLanes{});
    Stream ? stream_from(out + b, v, lanes - rest) : store(out + b, v);
}

// body(b, lanes) for the whole batch, for a body that writes by lanes.store; as above.
template <class Body>
inline void each_of_batch(int64_t batch, const Body& body) {
    int64_t b = 0;
    for (; b + lanes <= batch; b += lanes) body(b, AllLanes{});
    if (b == batch) return;
    if (batch < lanes)
        body(0, FirstLanes{static_cast<int>(batch)});
    else
        body(batch - lanes, AllLanes{});
}

}  // namespace c01b
