// What a kernel does to its results while they are still in the first-level cache: a bias of the channel, and an activation.
//
//     kernel -> | a tile's stores, or a row's |  ->  + bias [ -> a second array ]  ->  activation  ->  the output
//
// As ops of their own, bias and activation read and write the whole array once each, from memory; here a vector costs a load and
// a store that hit, beside at least 4 reads (of a pooling window) or 9 products. The bias comes after the whole sum, as it does
// there, and the formulas are the ones that programs write, so that results are the same to the last bit, NaN and zeros included.
#pragma once
#include "activation.h"

namespace c01b {

// The places in ACTIVATIONS of kernels/reference/epilogue.py.
enum class Activating : int64_t { none, half_sum, positive, larger, tanh, sigmoid };

struct Epilogue {
    const float* bias = nullptr;  // of each channel of the output; null: there is no epilogue
    Activating activation = Activating::none;
    float* before = nullptr;  // where values go before the activation, in an array like the output; null: nowhere

    explicit operator bool() const { return bias; }
};

struct Unchanged {
    vec operator()(vec x) const { return x; }
};
// relu as 0.5 * (x + |x|); as x > 0 ? x : 0, which is 0 for NaN; and as the larger of x and 0, which is x for -0 and NaN.
struct HalfSum {
    vec operator()(vec x) const { return 0.5f * (x + absolute(x)); }
};
struct Positive {
    vec operator()(vec x) const { return x > 0.0f ? x : zero(); }
};
struct Larger {
    vec operator()(vec x) const { return x < 0.0f ? zero() : x; }
};

// Calls body with the function.
template <class Body>
inline void with_activation(Activating activation, const Body& body) {
    switch (activation) {
        case Activating::none: return body(Unchanged());
        case Activating::half_sum: return body(HalfSum());
        case Activating::positive: return body(Positive());
        case Activating::larger: return body(Larger());
        case Activating::tanh: return body(Tanh());
        case Activating::sigmoid: return body(Sigmoid());
    }
}

// to[i] = f(from[i] + bias), before[i] = from[i] + bias. `to` may be `from`.
template <class Function>
inline void finish_run(const Function& f, float bias, const float* from, float* to, float* before, int64_t count) {
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        const vec x = load(from + i) + bias;
        if (before) store(before + i, x);
        store(to + i, f(x));
    }
    if (i == count) return;
    const int rest = static_cast<int>(count - i);
    const vec x = load_first(from + i, rest) + bias;
    if (before) store_first(before + i, x, rest);
    store_first(to + i, f(x), rest);
}

}  // namespace c01b
