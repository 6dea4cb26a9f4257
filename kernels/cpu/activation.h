// tanh and the logistic sigmoid of float32, a vector at a time and without branches.
//
// Bound: arithmetic on one thread, some 25 operations and one division a vector (0.5 ns an element with 16 lanes, 0.7
// with 8, 2.5 with 4 and no fused multiply-add); memory where several threads share it, 8 bytes an element.
// Error, over all float32 numbers, in units in the last place of the exact result: tanh 1.26, sigmoid 1.97; neither is
// more than 2 float32 numbers away from the correctly rounded one.
//
// Polynomials interpolate at the Chebyshev points of their interval, which is close to the best polynomial of that
// degree, and are then rounded to float32. With f in double,
//     numpy.polynomial.Chebyshev.interpolate(f, degree, interval).convert(kind=numpy.polynomial.Polynomial).coef
// gives the coefficients below; tests/test_activation.py derives them anew and measures the errors stated here.
#pragma once
#include <algorithm>

#include "parallel.h"
#include "simd.h"

namespace c01b {

typedef uint32_t bits_vec __attribute__((vector_size(lanes * sizeof(uint32_t))));

constexpr uint32_t sign_bit = 0x80000000u;

inline vec absolute(vec x) { return (vec)((bits_vec)x & ~sign_bit); }
// min(x, bound), and NaN for NaN.
inline vec at_most(vec x, float bound) { return x > bound ? splat(bound) : x; }

// c[0] + c[1] x + ...
template <size_t Count>
inline vec polynomial(vec x, const float (&c)[Count]) {
    vec sum = splat(c[Count - 1]);
    for (size_t i = Count - 1; i-- > 0;) sum = sum * x + c[i];
    return sum;
}

// f(r) = (exp(r) - 1 - r) / r^2 on [-ln2 / 2, ln2 / 2], degree 5: exp(r) is 1 + r + r^2 f(r) within 2^-30.
constexpr float exp_tail[] = {0.5f,           0.1666666716337204f,   0.04166646674275398f,
                              0.00833331048488617f, 0.0013933641603216529f, 0.00019890980911441147f};
// f(z) = (tanh(sqrt z) / sqrt z - 1) / z on [0, 0.6^2], degree 5: tanh(x) is x + x^3 f(x^2) within a relative 2^-27.8.
constexpr float tanh_tail[] = {-0.3333333432674408f,  0.13333313167095184f,   -0.05396155267953873f,
                               0.021788321435451508f, -0.008410071022808552f, 0.0023707656655460596f};
constexpr float tanh_small = 0.6f;

// exp(x) = 2^k (1 + p), with k the nearest whole number to x / ln2, so that |p| < 0.42.
struct Exponential {
    vec scale;  // 2^(k + Raised)
    vec p;
};

// Right for |x| <= 105 and NaN, and -126 <= k + Raised <= 127. Raised keeps 2^k from underflowing.
template <int Raised>
inline Exponential exponential(vec x) {
    constexpr float inverse_ln2 = 1.44269504088896f;
    // ln2 in two parts; the first has 16 bits, so that its product with k is exact, with or without fused multiply-add.
    constexpr float ln2_high = 45426.0f / 65536.0f, ln2_low = 1.42860682030941723212e-6f;
    // Adding 1.5 * 2^23 rounds to a whole number, and leaves it in the low bits.
    constexpr float rounder = 12582912.0f;
    const vec shifted = x * inverse_ln2 + rounder;
    const vec k = shifted - rounder;
    const vec r = (x - k * ln2_high) - k * ln2_low;
    return {(vec)(((bits_vec)shifted << 23) + (uint32_t)((127 + Raised) << 23)), r + (r * r) * polynomial(r, exp_tail)};
}

// Near 0 the polynomial, elsewhere 1 - 2 / (exp(2|x|) + 1), which is 1 in float32 from 9.011 on. The sign is that of x.
struct Tanh {
    vec operator()(vec x) const {
        const vec size = absolute(x), squared = size * size;
        const vec near = size + (size * squared) * polynomial(squared, tanh_tail);
        const vec bounded = at_most(size, 10.0f);
        const Exponential e = exponential<0>(bounded + bounded);
        const vec far = 1.0f - 2.0f / (e.scale * e.p + (e.scale + 1.0f));
        const vec result = size < tanh_small ? near : far;
        return (vec)((bits_vec)result | ((bits_vec)x & sign_bit));
    }
};

// With t = exp(-|x|), which cannot overflow: 1 / (1 + t), or t / (1 + t) where x < 0. Below -87.3 results are
// subnormal, below -103.97 they are 0; there, only the multiplication by 2^-64 rounds. What the sum rounds off is given
// back, to first order: without that the error would be 2.41 units.
struct Sigmoid {
    vec operator()(vec x) const {
        const Exponential e = exponential<64>(-at_most(absolute(x), 105.0f));
        const vec t = (e.scale * e.p + e.scale) * 0x1p-64f;
        const vec sum = 1.0f + t, rounded_off = t - (sum - 1.0f);
        const vec result = (x < 0.0f ? t : splat(1.0f)) / sum;
        return result - result * rounded_off;
    }
};

// Elements that one thread takes at a time, and what starting another thread must be worth.
constexpr int64_t activation_block = 4096, activation_thread = 8192;

// out[i] = function(in[i]) for i in [0, count). out may be in.
template <class Function>
void activate(const float* in, float* out, int64_t count, int threads) {
    const Function function;
    const int64_t blocks = (count + activation_block - 1) / activation_block;
    threads = (int)std::min<int64_t>(threads, std::max<int64_t>(1, count / activation_thread));
    parallel_for(blocks, threads, [&](int64_t block, int) {
        const int64_t end = std::min(count, (block + 1) * activation_block);
        int64_t i = block * activation_block;
        for (; i + lanes <= end; i += lanes) store(out + i, function(load(in + i)));
        if (i < end) store_first(out + i, function(load_first(in + i, (int)(end - i))), (int)(end - i));
    });
}

}  // namespace c01b
