// The gradients of max-pooling.
//
//     max_pool_grad       gx[c,a,e,b] = sum over windows (i,j) that hold pixel (a,e) of gz[c,i,j,b],
//     max_pool_grad_grad  gg[c,i,j,b] = sum over pixels (a,e) of window (i,j) of ggx[c,a,e,b],
//                         in both where x[c,a,e,b] == z[c,i,j,b].
//
// Every tied maximum counts in full.
//
//     windows 3 x 3, stride 2          a pixel lies in 1, 2 or 4 windows
//         +-----+-----+-----+
//         |  4     2     4  |       The first gathers: it goes through gx once, in order, and sums over the windows
//         |                 |       around each pixel, so that gx is written once and never read or cleared, whether
//         |  2     1     2  |       windows overlap or not. What it needs of z and gz are a few rows, read from memory
//         |                 |       once and then from the L2 cache.
//         |  4     2     4  |
//         +-----+-----+-----+
//
// A pixel's gradient depends on no other pixel, so gx may be x: its lines are in the cache then, and neither fetched nor streamed.
//
// Bound by memory (x, gx and, a stride-th of their size each way, z and gz). Sums run in raster order of the windows,
// as Theano's do, so that even their rounding is the same. The number of windows of a pixel is a template's up to 3.
#pragma once
#include "max_pool.h"

namespace c01b {

// A sum that starts at +0, as Theano's: a gradient of -0 becomes +0.
template <int Rows, int Columns, bool Stream>
struct PixelGradient {
    static void run(const float* x, const float* z, const float* gz, const Patch& patch, float* gx, int64_t batch) {
        along_batch<Stream, !Stream>(gx, batch, [&](int64_t b, auto some) {
            fetch(x + b, fetch_distance);
            const vec pixel = some.load(x + b);
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                const vec g = some.load(gz + offset + b);
                sum += pixel == some.load(z + offset + b) ? g : zero();
            });
            return sum;
        });
    }
};

template <int Rows, int Columns, bool Stream>
struct WindowSum {
    static void run(const float* x, const float* z, const float* ggx, const Patch& patch, float* gg, int64_t batch) {
        along_batch<Stream>(gg, batch, [&](int64_t b, auto some) {
            const vec best = some.load(z + b);
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                fetch(ggx + offset + b, fetch_distance);
                const vec g = some.load(ggx + offset + b);
                sum += some.load(x + offset + b) == best ? g : zero();
            });
            return sum;
        });
    }
};

template <bool Stream>
void max_pool_grad_row(const PoolShape& s, int64_t channel, int64_t a, const float* x, const float* z, const float* gz,
                       float* gx) {
    const Range rows = s.y.windows(a, s.out_h);
    const int64_t windows = (channel * s.out_h + rows.begin) * s.out_w, pixels = (channel * s.height + a) * s.width;
    for (int64_t e = 0; e < s.width; ++e) {
        const Range columns = s.x.windows(e, s.out_w);
        const Patch around{rows.size(), columns.size(), s.out_w * s.batch, s.batch};
        const int64_t pixel = (pixels + e) * s.batch, window = (windows + columns.begin) * s.batch;
        select<PixelGradient, Stream>(around)(x + pixel, z + window, gz + window, around, gx + pixel, s.batch);
    }
}

template <bool Stream>
void max_pool_grad_grad_row(const PoolShape& s, int64_t channel, int64_t i, const float* x, const float* z,
                            const float* ggx, float* gg) {
    const Range rows = s.y.pixels(i, s.height);
    const int64_t windows = (channel * s.out_h + i) * s.out_w, pixels = (channel * s.height + rows.begin) * s.width;
    for (int64_t j = 0; j < s.out_w; ++j) {
        const Range columns = s.x.pixels(j, s.width);
        const Patch window{rows.size(), columns.size(), s.width * s.batch, s.batch};
        const int64_t pixel = (pixels + columns.begin) * s.batch, at = (windows + j) * s.batch;
        select<WindowSum, Stream>(window)(x + pixel, z + at, ggx + pixel, window, gg + at, s.batch);
    }
}

inline void max_pool_grad(const PoolShape& s, const float* x, const float* z, const float* gz, float* gx, int threads) {
    const int64_t bytes = 2 * (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = gx != x && should_stream(gx, s.channels * s.height * s.width, s.batch);
    parallel_for(s.channels * s.height, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.height, a = row % s.height;
        streamed ? max_pool_grad_row<true>(s, channel, a, x, z, gz, gx)
                 : max_pool_grad_row<false>(s, channel, a, x, z, gz, gx);
        if (streamed) finish_streaming();
    });
}

inline void max_pool_grad_grad(const PoolShape& s, const float* x, const float* z, const float* ggx, float* gg,
                               int threads) {
    const int64_t bytes = 2 * (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = should_stream(gg, s.channels * s.out_h * s.out_w, s.batch);
    parallel_for(s.channels * s.out_h, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.out_h, i = row % s.out_h;
        streamed ? max_pool_grad_grad_row<true>(s, channel, i, x, z, ggx, gg)
                 : max_pool_grad_grad_row<false>(s, channel, i, x, z, ggx, gg);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
