// Max-pooling: z[c,i,j,b] = the maximum of x[c,:,:,b] over window (i, j).
//
//     x, channel c                                      z, channel c
//     row   +----+----+----+----+----+--                row i +----+----+--
//           | B  | B  | B  | B  | B  | ...   2 x 2            | B  | B  |
//     row+1 +----+----+----+----+----+--    --------->        +----+----+--
//           | B  | B  | B  | B  | B  | ...
//           +----+----+----+----+----+--     B = the pixel's batch, contiguous: `lanes` images a vector
//
// Bound by memory. A thread takes consecutive output rows, so that it reads a few contiguous streams (the rows of a
// window) and writes one; rows that two windows share are read again from the L1 or L2 cache. Windows are at most
// 3 x 3 in nearly every network, so that the size is a template's and the loop over it vanishes; clipped windows at the
// border are windows of another size. Large outputs are written around the caches (stream.h).
#pragma once
#include "parallel.h"
#include "pool_shape.h"
#include "stream.h"

namespace c01b {

// How many rows and columns of something (pixels of a window, windows of a pixel) there are, and their distances.
struct Patch {
    int64_t rows, columns, row_step, column_step;
};

// Calls body(offset) for each element of the patch in raster order. Rows or Columns of 0: known at run time only.
template <int Rows, int Columns, class Body>
inline void for_patch(const Patch& patch, const Body& body) {
    const int64_t rows = Rows ? Rows : patch.rows, columns = Columns ? Columns : patch.columns;
#pragma GCC unroll 3
    for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 3
        for (int64_t c = 0; c < columns; ++c) body(r * patch.row_step + c * patch.column_step);
}

// Kernel<Rows, Columns, Stream>::run for this patch: one of the small unrolled ones, or the one for any size.
template <template <int, int, bool> class Kernel, bool Stream>
auto select(const Patch& patch) {
    using Run = decltype(&Kernel<0, 0, Stream>::run);
    static constexpr Run small[3][3] = {
        {Kernel<1, 1, Stream>::run, Kernel<1, 2, Stream>::run, Kernel<1, 3, Stream>::run},
        {Kernel<2, 1, Stream>::run, Kernel<2, 2, Stream>::run, Kernel<2, 3, Stream>::run},
        {Kernel<3, 1, Stream>::run, Kernel<3, 2, Stream>::run, Kernel<3, 3, Stream>::run}};
    const bool is_small = patch.rows >= 1 && patch.rows <= 3 && patch.columns >= 1 && patch.columns <= 3;
    return is_small ? small[patch.rows - 1][patch.columns - 1] : Run{Kernel<0, 0, Stream>::run};
}

// The comparison is Theano's also for NaN (one that comes first stays, others are passed over) and for zeros (of +0
// and -0 the first stays).
template <int Rows, int Columns, bool Stream>
struct WindowMax {
    static void run(const float* x, const Patch& patch, float* z, int64_t batch) {
        along_batch<Stream>(z, batch, [&](int64_t b, auto some) {
            vec best = some.load(x + b);
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                const vec v = some.load(x + offset + b);
                best = v > best ? v : best;
            });
            return best;
        });
    }
};

template <bool Stream>
void max_pool_row(const PoolShape& s, int64_t channel, int64_t i, const float* x, float* z) {
    const Range rows = s.y.pixels(i, s.height);
    x += (channel * s.height + rows.begin) * s.width * s.batch;
    z += (channel * s.out_h + i) * s.out_w * s.batch;
    for (int64_t j = 0; j < s.out_w; ++j) {
        const Range columns = s.x.pixels(j, s.width);
        const Patch window{rows.size(), columns.size(), s.width * s.batch, s.batch};
        select<WindowMax, Stream>(window)(x + columns.begin * s.batch, window, z + j * s.batch, s.batch);
    }
}

inline void max_pool(const PoolShape& s, const float* x, float* z, int threads) {
    const int64_t bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = should_stream(z, s.channels * s.out_h * s.out_w, s.batch);
    parallel_for(s.channels * s.out_h, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.out_h, i = row % s.out_h;
        streamed ? max_pool_row<true>(s, channel, i, x, z) : max_pool_row<false>(s, channel, i, x, z);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
