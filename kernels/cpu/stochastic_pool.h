// Stochastic pooling: z[c,i,j,b] = one value of window (i, j), drawn with the probability of its share of the window's sum.
//
//     a window of 2 x 2         its sums, in raster order      u * sum
//         +----+----+             0     a     a+b   a+b+c  sum
//         | a  | b  |             |--a--|--b--|--c--|--d---|   the first pixel up to which the sum exceeds u * sum
//         +----+----+                        ^
//         | c  | d  |                     u * sum              none in a window of zeros, of NaN or of infinite sum: 0
//         +----+----+
//
// Built as max_pool.h is: a vector is `lanes` images of one pixel, sizes up to 3 x 3 are templates'. A row of windows gets its
// random numbers first, from its place alone (philox.h), so that threads may be as many as they are. Bound by arithmetic, for
// windows of 2 x 2 half of it the random numbers. The sums are plain additions and no product is added, so that numpy draws
// the same pixels.
#pragma once
#include "philox.h"
#include "pool_windows.h"

namespace c01b {

template <int Rows, int Columns, bool Stream>
struct WindowDraw {
    static void run(const float* x, const Patch& patch, const float* u, float* z, int64_t batch) {
        along_batch<Stream>(z, batch, [&](int64_t b, auto some) {
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                sum += some.load(x + offset + b);
            });
            const vec wanted = some.load(u + b) * sum;
            vec so_far = zero(), drawn = zero();
            index_vec found = {};
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                const vec v = some.load(x + offset + b);
                so_far += v;
                const index_vec exceeds = so_far > wanted;
                drawn = (exceeds & ~found) ? v : drawn;
                found |= exceeds;
            });
            return drawn;
        });
    }
};

// `u` holds the numbers of the row.
template <bool Stream>
void stochastic_max_pool_row(const PoolShape& s, const float* u, int64_t channel, int64_t i, const float* x, float* z) {
    const int64_t row = (channel * s.out_h + i) * s.out_w * s.batch;
    for_windows(s, channel, i, [&](int64_t pixel, int64_t window, const Patch& patch) {
        select<WindowDraw, Stream>(patch)(x + pixel, patch, u + (window - row), z + window, s.batch);
    });
}

inline void stochastic_max_pool(const PoolShape& s, const Philox& random, const float* x, float* z, int threads) {
    struct Numbers;
    const int64_t count = s.out_w * s.batch, bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    if (count == 0) return;
    const bool streamed = should_stream(z, s.channels * s.out_h * s.out_w, s.batch);
    threads = threads_for(bytes, threads);
    const int64_t share = philox_padded(count);
    float* const numbers = scratch<Numbers>(static_cast<size_t>(share * threads));  // here: nothing may throw inside the threads
    parallel_for(s.channels * s.out_h, threads, [&](int64_t row, int thread) {
        const int64_t channel = row / s.out_h, i = row % s.out_h;
        float* const u = numbers + share * thread;
        philox_row(random, row, count, u);
        streamed ? stochastic_max_pool_row<true>(s, u, channel, i, x, z)
                 : stochastic_max_pool_row<false>(s, u, channel, i, x, z);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
