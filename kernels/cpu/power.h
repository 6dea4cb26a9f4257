// d ** -power of float32 for d > 0, a vector at a time and without branches: what normalisation divides by.
//
// The exponents that people use, 1/4, 1/2, 3/4 and 1, are made of reciprocals of roots; any other goes by logarithm and
// exponential, 2 ** (-power * log2 d), in which the whole part of the logarithm is kept apart, so that it costs no accuracy.
// Bound: arithmetic; a vector of 16 takes 1.6 ns for 1/2 and 1, 3.3 for 1/4, 3.7 for 3/4 and 11.5 for any other.
// Error over all normal d, in units in the last place of the exact result where that is normal: below 3 for 1/4, 1/2, 3/4
// and 1, below 2 + 2 power for any other; of 1 / d below 3.5. Where d is 1, the result is 1.
//
// d must be no less than the least normal number; infinity gives 0 and NaN gives NaN, as in C's pow.
#pragma once
#include <limits>

#include "activation.h"

namespace c01b {

enum class Exponent { quarter, half, three_quarters, one, any };

inline Exponent exponent_of(double power) {
    return power == 0.25   ? Exponent::quarter
           : power == 0.5  ? Exponent::half
           : power == 0.75 ? Exponent::three_quarters
           : power == 1    ? Exponent::one
                           : Exponent::any;
}

// `result` where d is finite or NaN, 0 where it is infinite.
inline vec unless_infinite(vec d, vec result) {
    return d == std::numeric_limits<float>::infinity() ? zero() : result;
}

// What one d gives: d ** -power, and for gradients 1 / d.
struct Quotients {
    vec power, inverse;
};

// By roots. `power` is E.
template <Exponent E>
class NegativePower {
  public:
    explicit NegativePower(double) {}

    vec operator()(vec d) const { return quotients(d).power; }

    Quotients quotients(vec d) const {
        if constexpr (E == Exponent::one) return {1.0f / d, 1.0f / d};
        const vec r = reciprocal_root(d), inverse = unless_infinite(d, r * r);
        if constexpr (E == Exponent::half) return {unless_infinite(d, r), inverse};
        const vec quarter = reciprocal_root(d * r);
        return {unless_infinite(d, E == Exponent::quarter ? quarter : r * quarter), inverse};
    }
};

// f(z) = log2(1 + z) / z for z between sqrt(1/2) - 1 and sqrt(2) - 1, degree 8: log2(m) is (m - 1) f(m - 1) within 2^-25.5.
// Derived as those in activation.h, and by tests/test_cross_map_norm.py.
constexpr float log2_tail[] = {1.4426950216293335f,  -0.721347451210022f, 0.4809107482433319f,
                               -0.3606932759284973f, 0.2879032492637634f, -0.2391698807477951f,
                               0.21607822179794312f, -0.2058618813753128f, 0.12310968339443207f};

template <>
class NegativePower<Exponent::any> {
  public:
    explicit NegativePower(double power) {
        for (; power > 1.9; power /= 2) ++squarings_;  // so that 2^(whole part) is the product of two float32 numbers
        power_ = static_cast<float>(power);
        uint32_t bits;
        std::memcpy(&bits, &power_, sizeof bits);
        bits &= 0xffff0000u;
        std::memcpy(&high_, &bits, sizeof bits);  // 8 bits: its product with a whole number up to 128 is exact
        low_ = static_cast<float>(power - high_);
    }

    vec operator()(vec d) const {
        // d = 2^e m with m from sqrt(1/2) to sqrt(2). So for any bits, NaN's among them: e is from -256 to 255, what follows
        // is finite, and only at the end NaN comes back. Turning a NaN into an integer would be undefined.
        constexpr uint32_t least_m = 0x3f3504f3;
        const index_vec e = (index_vec)((bits_vec)d - least_m) >> 23;
        const vec z = (vec)((bits_vec)d - ((bits_vec)e << 23)) - 1.0f;
        const vec whole = __builtin_convertvector(e, vec);
        const vec exact = high_ * whole, rest = low_ * whole + power_ * (z * polynomial(z, log2_tail));
        // The result is 2^-(k + f) with k whole and f about a half at most; exact - k is exact.
        constexpr float rounder = 12582912.0f;  // see activation.h
        const vec k = ((exact + rest) + rounder) - rounder;
        const vec r = ((exact - k) + rest) * -0.693147180559945f;
        vec result = (r + (r * r) * polynomial(r, exp_tail)) + 1.0f;
        const index_vec minus_k = __builtin_convertvector(-k, index_vec), half = minus_k >> 1;
        result = (result * two_to(half)) * two_to(minus_k - half);
        for (int i = 0; i < squarings_; ++i) result *= result;
        return d != d ? d : unless_infinite(d, result);
    }

    Quotients quotients(vec d) const { return {(*this)(d), 1.0f / d}; }

  private:
    // 2^n for n from -126 to 127.
    static vec two_to(index_vec n) { return (vec)((bits_vec)(n + 127) << 23); }

    float power_, high_, low_;
    int squarings_ = 0;
};

}  // namespace c01b
