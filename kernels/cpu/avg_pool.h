// Sums and averages over windows, and their gradients.
//
//     avg_pool        z[c,i,j,b]  = (sum of x[c,a,e,b] over the pixels (a,e) of window (i,j)) / count(i,j)
//     avg_pool_grad   gx[c,a,e,b] = sum of gz[c,i,j,b] / count(i,j) over the windows (i,j) that hold pixel (a,e)
//
//     a window of 3 x 3 at a padded corner        count is
//         +-----+-----+-----+                         1  in a sum,
//         | pad | pad | pad |                         9  where the pad counts,
//         +-----+-----+-----+--                       4  where the image alone does
//         | pad |  x  |  x  | ...
//         +-----+-----+-----+--
//         | pad |  x  |  x  | ...
//         +-----+-----+-----+--
//
// Bound by memory, and built as max_pool.h and max_pool_grad.h are: a vector is `lanes` images of one pixel, sizes up
// to 3 x 3 are templates', and the gradient gathers, so that gx is written once and never read or cleared. Sums run in
// raster order and each term is divided as Theano divides it, so that even the rounding is the same.
#pragma once
#include "max_pool.h"

namespace c01b {

// What is counted: nothing, or the pixels of a window inside the image extended by a margin on every side.
struct Averaging {
    bool counts;
    int64_t margin_y, margin_x;
};

// Pixels of window j that are counted along one axis.
inline int64_t counted(const PoolAxis& axis, int64_t j, int64_t image, int64_t margin) {
    const int64_t first = axis.start + j * axis.stride;
    return std::min(first + axis.size, image + margin) - std::max(first, -margin);
}

inline int64_t window_count(const PoolShape& s, const Averaging& a, int64_t i, int64_t j) {
    return a.counts ? counted(s.y, i, s.height, a.margin_y) * counted(s.x, j, s.width, a.margin_x) : 1;
}

// Division by a count. By a power of two, 1 among them, it is a multiplication: rounded as the division is, and several
// times faster. It is kept from being fused with an addition, which would round denormals once less.
class Divisor {
  public:
    explicit Divisor(int64_t count)
        : by_(static_cast<float>(count)), reciprocal_(1 / by_), exact_((count & (count - 1)) == 0) {}
    vec operator()(vec v) const {
        if (!exact_) return v / splat(by_);
#if defined(__FMA__)
        return held(v * splat(reciprocal_));
#else
        return v * splat(reciprocal_);
#endif
    }

  private:
    float by_, reciprocal_;
    bool exact_;
};

template <int Rows, int Columns, bool Stream>
struct WindowAverage {
    static void run(const float* x, const Patch& patch, const Divisor& divided, float* z, int64_t batch) {
        along_batch<Stream>(z, batch, [&](int64_t b, auto some) {
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                fetch(x + offset + b, fetch_distance);
                sum += some.load(x + offset + b);
            });
            return divided(sum);
        });
    }
};

// A pixel all of whose windows have the same count.
template <int Rows, int Columns, bool Stream>
struct PixelShare {
    static void run(const float* gz, const Patch& patch, const Divisor& divided, float* gx, int64_t batch) {
        along_batch<Stream>(gx, batch, [&](int64_t b, auto some) {
            vec sum = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) { sum += divided(some.load(gz + offset + b)); });
            return sum;
        });
    }
};

// A pixel near the border, where windows are clipped and their counts differ. `gz` is the gradient of window (0, 0).
template <bool Stream>
void border_pixel(const PoolShape& s, const Averaging& a, const Range& rows, const Range& columns, const float* gz,
                  float* gx) {
    along_batch<Stream>(gx, s.batch, [&](int64_t b, auto some) {
        vec sum = zero();
        for (int64_t i = rows.begin; i < rows.end; ++i)
            for (int64_t j = columns.begin; j < columns.end; ++j)
                sum += Divisor(window_count(s, a, i, j))(some.load(gz + (i * s.out_w + j) * s.batch + b));
        return sum;
    });
}

// Is the same number of pixels counted in each of these windows? Only windows that are clipped may differ.
inline bool same_count(const Range& windows, const PoolAxis& axis, int64_t image, int64_t margin) {
    return windows.size() <= 1 || (counted(axis, windows.begin, image, margin) == axis.size &&
                                   counted(axis, windows.end - 1, image, margin) == axis.size);
}

template <bool Stream>
void avg_pool_row(const PoolShape& s, const Averaging& a, int64_t channel, int64_t i, const float* x, float* z) {
    const Range rows = s.y.pixels(i, s.height);
    x += (channel * s.height + rows.begin) * s.width * s.batch;
    z += (channel * s.out_h + i) * s.out_w * s.batch;
    for (int64_t j = 0; j < s.out_w; ++j) {
        const Range columns = s.x.pixels(j, s.width);
        const Patch window{rows.size(), columns.size(), s.width * s.batch, s.batch};
        const Divisor divided(window_count(s, a, i, j));
        select<WindowAverage, Stream>(window)(x + columns.begin * s.batch, window, divided, z + j * s.batch, s.batch);
    }
}

template <bool Stream>
void avg_pool_grad_row(const PoolShape& s, const Averaging& a, int64_t channel, int64_t row, const float* gz,
                       float* gx) {
    const Range rows = s.y.windows(row, s.out_h);
    const bool same_rows = !a.counts || same_count(rows, s.y, s.height, a.margin_y);
    gz += channel * s.out_h * s.out_w * s.batch;
    gx += (channel * s.height + row) * s.width * s.batch;
    for (int64_t e = 0; e < s.width; ++e, gx += s.batch) {
        const Range columns = s.x.windows(e, s.out_w);
        if (!same_rows || (a.counts && !same_count(columns, s.x, s.width, a.margin_x))) {
            border_pixel<Stream>(s, a, rows, columns, gz, gx);
            continue;
        }
        const Patch around{rows.size(), columns.size(), s.out_w * s.batch, s.batch};
        const bool none = around.rows == 0 || around.columns == 0;
        const Divisor divided(none ? 1 : window_count(s, a, rows.begin, columns.begin));
        const int64_t first = none ? 0 : rows.begin * s.out_w + columns.begin;
        select<PixelShare, Stream>(around)(gz + first * s.batch, around, divided, gx, s.batch);
    }
}

inline void avg_pool(const PoolShape& s, const Averaging& a, const float* x, float* z, int threads) {
    const int64_t bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = should_stream(z, s.channels * s.out_h * s.out_w, s.batch);
    parallel_for(s.channels * s.out_h, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.out_h, i = row % s.out_h;
        streamed ? avg_pool_row<true>(s, a, channel, i, x, z) : avg_pool_row<false>(s, a, channel, i, x, z);
        if (streamed) finish_streaming();
    });
}

inline void avg_pool_grad(const PoolShape& s, const Averaging& a, const float* gz, float* gx, int threads) {
    const int64_t bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)};
    const bool streamed = should_stream(gx, s.channels * s.height * s.width, s.batch);
    parallel_for(s.channels * s.height, threads_for(bytes, threads), [&](int64_t line, int) {
        const int64_t channel = line / s.height, row = line % s.height;
        streamed ? avg_pool_grad_row<true>(s, a, channel, row, gz, gx)
                 : avg_pool_grad_row<false>(s, a, channel, row, gz, gx);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
