// Vectors of every M-th element, from vectors of neighbours, and back.
#pragma once
#include "simd.h"

namespace c01b {

// a and b to a0 b0 a1 b1 ...
inline void interleave(vec& a, vec& b) {
    index_vec low = {}, high = {};
    for (int i = 0; i < lanes; ++i) low[i] = i / 2 + i % 2 * lanes, high[i] = low[i] + lanes / 2;
    const vec old = a;
    a = __builtin_shuffle(old, b, low), b = __builtin_shuffle(old, b, high);
}
inline void separate(vec& a, vec& b) {
    index_vec even = {}, odd = {};
    for (int i = 0; i < lanes; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
    const vec old = a;
    a = __builtin_shuffle(old, b, even), b = __builtin_shuffle(old, b, odd);
}
// The elements from, from + Step, ...; Step is a power of two.
template <int Step>
inline vec load_every(const float* from) {
    if constexpr (Step == 1) return load(from);
    else {
        vec a = load_every<Step / 2>(from), b = load_every<Step / 2>(from + Step / 2 * lanes);
        separate(a, b);
        return a;
    }
}
// Vectors of every M-th element to the elements in order, and back.
inline void interleave(vec (&x)[2]) { interleave(x[0], x[1]); }
inline void interleave(vec (&x)[4]) {
    interleave(x[0], x[2]), interleave(x[1], x[3]);
    // x[0], x[2] are a0 c0 a1 c1 ..., x[1], x[3] are b0 d0 b1 d1 ...
    interleave(x[0], x[1]), interleave(x[2], x[3]);
}
inline void separate(vec (&x)[2]) { separate(x[0], x[1]); }
inline void separate(vec (&x)[4]) {
    separate(x[0], x[1]), separate(x[2], x[3]);
    separate(x[0], x[2]), separate(x[1], x[3]);
}

}  // namespace c01b
