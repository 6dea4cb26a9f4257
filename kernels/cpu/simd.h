// The one place that knows how wide a vector is.
//
// Batch is the contiguous axis of c01b, so a vector holds `lanes` neighbouring images and nothing is ever gathered.
// GCC's vector extension turns arithmetic on `vec` into AVX-512, AVX2 or, elsewhere, whatever the target offers (plain
// SSE or NEON), from the same source. Theano compiles with -march=native; LAYOUTOPT_LANES, set by the flag
// layoutopt.simd, narrows the vectors so that one machine can test what another one runs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace c01b {

#if defined(LAYOUTOPT_LANES)
constexpr int lanes = LAYOUTOPT_LANES;
#elif defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
// Architectural vector registers, what a register tile may fill: 32 with AVX-512 and on AArch64, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int vector_registers = 32;
#else
constexpr int vector_registers = 16;
#endif

typedef float vec __attribute__((vector_size(lanes * sizeof(float)), may_alias));
// Same vector without the alignment promise: numpy guarantees 16 bytes, and a batch of 127 starts anywhere.
typedef float vec_unaligned __attribute__((vector_size(lanes * sizeof(float)), may_alias, aligned(sizeof(float))));

inline vec load(const float* p) { return *reinterpret_cast<const vec_unaligned*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec_unaligned*>(p) = v; }
// x - 0 is x for every x, so this is one broadcast; x + 0 is not (-0), and costs an addition.
inline vec splat(float x) { return x - vec{}; }
inline vec zero() { return vec{}; }

// Holds v in a register: GCC would rather read memory again at each use, in tiles whose loads are what bounds them.
inline vec held(vec v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__SSE__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
    return v;
}

#if defined(__AVX512F__) && (!defined(LAYOUTOPT_LANES) || LAYOUTOPT_LANES == 16)
// 1 / sqrt(x) of positive normal numbers within 1.1 units in the last place: an estimate of 14 bits and a step of Newton's, 6
// operations where root and quotient take the divider for 20 cycles. Infinity gives NaN.
inline vec reciprocal_root(vec x) {
    const vec estimate = (vec)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x);
    return estimate + (0.5f * estimate) * (1.0f - (x * estimate) * estimate);
}
#else
inline vec square_root(vec x) {
    vec root;
    for (int i = 0; i < lanes; ++i) root[i] = __builtin_sqrtf(x[i]);  // one instruction where errno is no concern
    return root;
}
inline vec reciprocal_root(vec x) { return 1.0f / square_root(x); }
#endif

// The first n of `lanes` elements, the rest 0; reads no byte past p + n (a read past the end of the batch could be past
// the end of the array).
inline vec load_first(const float* p, int n) {
#if defined(__AVX512F__) && (!defined(LAYOUTOPT_LANES) || LAYOUTOPT_LANES == 16)
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vec v = zero();
    std::memcpy(&v, p, n * sizeof(float));
    return v;
#endif
}

// Writes the first n elements and no byte after them.
inline void store_first(float* p, vec v, int n) {
#if defined(__AVX512F__) && (!defined(LAYOUTOPT_LANES) || LAYOUTOPT_LANES == 16)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
#else
    std::memcpy(p, &v, n * sizeof(float));
#endif
}

inline void copy_floats(const float* from, int64_t count, float* to) {
    for (; count >= lanes; count -= lanes, from += lanes, to += lanes) store(to, load(from));
    if (count) store_first(to, load_first(from, static_cast<int>(count)), static_cast<int>(count));
}

typedef int32_t index_vec __attribute__((vector_size(lanes * sizeof(int32_t))));

// With lanes seen as blocks of Half, exchanges the odd blocks of a with the even blocks of b.
template <int Half>
inline void exchange(vec& a, vec& b) {
    index_vec even = {}, odd = {};
    for (int i = 0; i < lanes; ++i) {
        even[i] = i & Half ? lanes + i - Half : i;
        odd[i] = i & Half ? lanes + i : i + Half;
    }
    const vec old = a;
    a = __builtin_shuffle(old, b, even);
    b = __builtin_shuffle(old, b, odd);
}

// A square of lanes x lanes.
template <int Half = lanes / 2>
inline void transpose(vec (&rows)[lanes]) {
    for (int i = 0; i < lanes; ++i)
        if (!(i & Half)) exchange<Half>(rows[i], rows[i + Half]);
    if constexpr (Half > 1) transpose<Half / 2>(rows);
}

// The sums over the lanes of Count vectors (a power of two, <= lanes), that of vector i in lane i * (lanes / Count).
template <int Count, int Half = lanes / 2>
inline vec lane_sums(vec (&v)[Count]) {
    if constexpr (Half == 0) {
        return v[0];
    } else if constexpr (Count == 1) {
        index_vec other = {};
        for (int i = 0; i < lanes; ++i) other[i] = i ^ Half;
        vec folded[1] = {v[0] + __builtin_shuffle(v[0], other)};
        return lane_sums<1, Half / 2>(folded);
    } else {
        vec folded[Count / 2];
        for (int i = 0; i < Count / 2; ++i) {
            exchange<Half>(v[i], v[i + Count / 2]);
            folded[i] = v[i] + v[i + Count / 2];
        }
        return lane_sums<Count / 2, Half / 2>(folded);
    }
}

}  // namespace c01b
