// Mean and sum of squared deviations of many numbers, in one read and in double precision.
//
//     a block      d = x - x[0]        sums: d, d * d        4 pairs of sums of half a vector each, side by side
//     together     mean = mean_0 + (sum of n_i (mean_i - mean_0)) / n
//                  squares = sum of squares_i + n_i (mean_i - mean)^2
//
// The formula of several samples and the shift by one of the data are those of Chan, Golub and LeVeque (Algorithms for computing
// the sample variance: analysis and recommendations, The American Statistician 37(3), 1983). Of n numbers the squares about x[0]
// are at most n + 1 times those about the mean, however large the mean is, for x[0] is one of them; so those of a block of 4096
// numbers are off by less than a part in 10^9, which float32 does not see. Bound by memory: 4 operations for half a vector of
// floats, of which a core does more than its memory has numbers.
//
// Infinities: the mean is that of the numbers, infinite where these add up to infinity, and the squares are NaN.
#pragma once
#include <cmath>
#include <limits>

#include "channel_sum.h"

namespace c01b {

struct Moments {
    double count, mean, squares;
};

inline double_vec doubles(const float* p) {
    return __builtin_convertvector(*reinterpret_cast<const half_vec*>(p), double_vec);
}

inline double lane_sum(const double_vec (&sums)[4]) {
    const double_vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = 0;
    for (int lane = 0; lane < half_lanes; ++lane) sum += all[lane];
    return sum;
}

// Of x[0] ... x[count - 1], one number or more.
inline Moments moments(const float* x, int64_t count) {
    constexpr int side_by_side = 4, step = side_by_side * half_lanes;
    const double origin = x[0];
    double_vec sums[side_by_side] = {}, squares[side_by_side] = {};
    int64_t i = 0;
    for (; i + step <= count; i += step) {
        fetch(x + i, fetch_distance);
#pragma GCC unroll 4
        for (int n = 0; n < side_by_side; ++n) {
            const double_vec d = doubles(x + i + n * half_lanes) - origin;
            sums[n] += d, squares[n] += d * d;
        }
    }
    double sum = 0, square = 0;
    for (; i < count; ++i) {
        const double d = x[i] - origin;
        sum += d, square += d * d;
    }
    sum += lane_sum(sums), square += lane_sum(squares);
    const double n = static_cast<double>(count);
    if (!std::isfinite(sum)) return {n, sum_in_double(x, count) / n, std::numeric_limits<double>::quiet_NaN()};
    return {n, origin + sum / n, square - sum * (sum / n)};
}

// Of all numbers of which these are the moments of blocks; NaN of none.
inline Moments together(const Moments* parts, int64_t blocks) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    if (blocks == 0) return {0, nan, nan};
    Moments all{0, 0, 0};
    for (int64_t b = 0; b < blocks; ++b) {
        all.count += parts[b].count;
        all.mean += parts[b].count * (parts[b].mean - parts[0].mean);
    }
    all.mean = parts[0].mean + all.mean / all.count;
    if (!std::isfinite(all.mean)) {  // infinity - infinity, perhaps
        all.mean = 0;
        for (int64_t b = 0; b < blocks; ++b) all.mean += parts[b].count * parts[b].mean;
        all.mean /= all.count;
    }
    for (int64_t b = 0; b < blocks; ++b) {
        const double apart = parts[b].mean - all.mean;
        all.squares += parts[b].squares + parts[b].count * (apart * apart);
    }
    return all;
}

}  // namespace c01b
