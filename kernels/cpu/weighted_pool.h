// Pooling by the values' own weights, and its gradient.
//
//     weighted_max_pool       y[w]      = (sum of x^2) / (sum of x) over the pixels of window w; 0 where the sum is 0
//     weighted_max_pool_grad  gx[pixel] = sum of q[w] (2 x[pixel] - y[w]) over the windows w around it,
//                             q[w]      = gz[w] / (sum of x over w); 0 where the sum is 0
//
// Bound by memory, and built as max_pool.h and max_pool_grad.h are: a vector is `lanes` images of one pixel, sizes up to 3 x 3
// are templates'. The gradient takes two passes: q into scratch memory of the outputs' size, which reads x once, then a gathering
// over the windows of each pixel, which reads it again and writes gx once.
//
//     x --> q = gz / sum  (outputs' size)  --+
//                                            +--> gx
//     x, y ----------------------------------+
#pragma once
#include "pool_windows.h"

namespace c01b {

// numerator / sum, and 0 where the sum is 0.
inline vec over(vec numerator, vec sum) { return sum == 0.0f ? zero() : numerator / sum; }

template <int Rows, int Columns, bool Stream>
struct WindowWeighted {
    static void run(const float* x, const Patch& patch, float* y, int64_t batch) {
        along_batch<Stream>(y, batch, [&](int64_t b, auto some) {
            vec sum = zero(), squares = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                const vec v = some.load(x + offset + b);
                sum += v;
                squares += v * v;
            });
            return over(squares, sum);
        });
    }
};

template <int Rows, int Columns, bool>
struct WindowShare {
    static void run(const float* x, const Patch& patch, const float* gz, float* q, int64_t batch) {
        along_batch<false>(q, batch, [&](int64_t b, auto some) {
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                sum += some.load(x + offset + b);
            });
            return over(some.load(gz + b), sum);
        });
    }
};

template <int Rows, int Columns, bool Stream>
struct PixelWeighted {
    static void run(const float* x, const float* y, const float* q, const Patch& patch, float* gx, int64_t batch) {
        along_batch<Stream>(gx, batch, [&](int64_t b, auto some) {
            fetch(x + b, fetch_distance);
            const vec v = some.load(x + b), twice = v + v;
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                sum += some.load(q + offset + b) * (twice - some.load(y + offset + b));
            });
            return sum;
        });
    }
};

template <bool Stream>
void weighted_max_pool_row(const PoolShape& s, int64_t channel, int64_t i, const float* x, float* y) {
    for_windows(s, channel, i, [&](int64_t pixel, int64_t window, const Patch& patch) {
        select<WindowWeighted, Stream>(patch)(x + pixel, patch, y + window, s.batch);
    });
}

template <bool Stream>
void weighted_max_pool_grad_row(const PoolShape& s, int64_t channel, int64_t a, const float* x, const float* y, const float* q,
                                float* gx) {
    const Range rows = s.y.windows(a, s.out_h);
    const int64_t windows = (channel * s.out_h + rows.begin) * s.out_w, pixels = (channel * s.height + a) * s.width;
    for (int64_t e = 0; e < s.width; ++e) {
        const Range columns = s.x.windows(e, s.out_w);
        const Patch around{rows.size(), columns.size(), s.out_w * s.batch, s.batch};
        const int64_t pixel = (pixels + e) * s.batch, window = (windows + columns.begin) * s.batch;
        select<PixelWeighted, Stream>(around)(x + pixel, y + window, q + window, around, gx + pixel, s.batch);
    }
}

inline void weighted_max_pool(const PoolShape& s, const float* x, float* y, int threads) {
    const int64_t bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = should_stream(y, s.channels * s.out_h * s.out_w, s.batch);
    parallel_for(s.channels * s.out_h, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.out_h, i = row % s.out_h;
        streamed ? weighted_max_pool_row<true>(s, channel, i, x, y) : weighted_max_pool_row<false>(s, channel, i, x, y);
        if (streamed) finish_streaming();
    });
}

inline void weighted_max_pool_grad(const PoolShape& s, const float* x, const float* y, const float* gz, float* gx, int threads) {
    struct Shares;
    const bool streamed = should_stream(gx, s.channels * s.height * s.width, s.batch);
    threads = threads_for(2 * (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)}, threads);
    float* const q = scratch<Shares>(static_cast<size_t>(s.output_floats()));
    parallel_for(s.channels * s.out_h, threads, [&](int64_t row, int) {
        for_windows(s, row / s.out_h, row % s.out_h, [&](int64_t pixel, int64_t window, const Patch& patch) {
            select<WindowShare, false>(patch)(x + pixel, patch, gz + window, q + window, s.batch);
        });
    });
    parallel_for(s.channels * s.height, threads, [&](int64_t row, int) {
        const int64_t channel = row / s.height, a = row % s.height;
        streamed ? weighted_max_pool_grad_row<true>(s, channel, a, x, y, q, gx)
                 : weighted_max_pool_grad_row<false>(s, channel, a, x, y, q, gx);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
