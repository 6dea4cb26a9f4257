// The sum of each row of a matrix, in double precision: of a channel's pixels, in c01b.
//
//     x, a channel     |<--- block --->|<--- block --->|<- rest ->|      4 sums of half a vector each, side by side, so that
//                          s0 s1 s2 s3     s0 s1 s2 s3    s0 ...         no addition waits for the one before
//
// Bound by memory, 4 bytes an element; one sum at a time, as a compiler has to leave it, is bound by the latency of an
// addition, 4 cycles an element. Blocks are added up in order and do not depend on the threads, so results do not either.
#pragma once
#include <algorithm>

#include "numpy_glue.h"
#include "parallel.h"
#include "simd.h"
#include "stream.h"

namespace c01b {

constexpr int half_lanes = lanes / 2;
typedef float half_vec __attribute__((vector_size(half_lanes * sizeof(float)), may_alias, aligned(sizeof(float))));
typedef double double_vec __attribute__((vector_size(half_lanes * sizeof(double))));

// x[0] + ... + x[count - 1]
inline double sum_in_double(const float* x, int64_t count) {
    constexpr int side_by_side = 4, step = side_by_side * half_lanes;
    double_vec sums[side_by_side] = {};
    int64_t i = 0;
    for (; i + step <= count; i += step) {
        fetch(x + i, fetch_distance);
#pragma GCC unroll 4
        for (int n = 0; n < side_by_side; ++n)
            sums[n] += __builtin_convertvector(*reinterpret_cast<const half_vec*>(x + i + n * half_lanes), double_vec);
    }
    double sum = 0;
    for (; i < count; ++i) sum += x[i];
    const double_vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int lane = 0; lane < half_lanes; ++lane) sum += all[lane];
    return sum;
}

struct BlockSums {};

// sums[r] = the sum of x[r * count ... (r + 1) * count - 1]
inline void channel_sum(const float* x, int64_t rows, int64_t count, float* sums, int threads) {
    constexpr int64_t block = 16384;
    const int64_t blocks = std::max<int64_t>(1, (count + block - 1) / block);
    double* parts = reinterpret_cast<double*>(scratch<BlockSums>(rows * blocks * (sizeof(double) / sizeof(float))));
    parallel_for(rows * blocks, threads_for(rows * count * int64_t{sizeof(float)}, threads), [&](int64_t i, int) {
        const int64_t begin = i % blocks * block;
        parts[i] = sum_in_double(x + i / blocks * count + begin, std::min(block, count - begin));
    });
    for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; ++b) sum += parts[r * blocks + b];
        sums[r] = static_cast<float>(sum);
    }
}

// The C entry of ChannelSum, for arrays of two axes and more.
inline int channel_sum_op(PyArrayObject* x_in, PyArrayObject** out) {
    const Contiguous x(x_in);
    const int64_t rows = PyArray_DIM(x_in, 0), size = PyArray_SIZE(x_in);
    if (x.failed() || ensure_output(out, 1, &rows, NPY_FLOAT32)) return -1;
    float* sums = static_cast<float*>(PyArray_DATA(*out));
    return run_unlocked([&] { channel_sum(x.data<float>(), rows, rows ? size / rows : 0, sums, max_threads()); });
}

}  // namespace c01b
