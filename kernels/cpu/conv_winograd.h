// Winograd's algorithm for 3 x 3, 5 x 5 and 7 x 7 taps, and for filters that a stride cuts to that size, as 11 x 11 with stride 4
// to 3 x 3 (winograd_phases.h): a batched matrix product over channels, one for each point of the transform (winograd.h), in the
// place of a convolution. The images of all tiles of the target, `columns`, are in the lanes, one after another [tile row]
// [tile column][image], whatever the batch is; a block of them is an item:
//
//       x, tiles of N x N pixels          panel [point][channel][column]         sums [filter][point][column]
//      +-----+-----+--                   +------------------+                   +-----+-----+-----+
//      |     |     |     --transform-->  |  T = 64 columns  |    --products-->  |     |     |     |  --transform-->  y
//      +-----+-----+--                 C |                  |                 F |     |     |     |
//                                        +------------------+ x N^2             +-----+-----+-----+ x N^2
//
// The products are those of conv_batch_lanes.h, whose tiles of F filters x V vectors they use: as long as one point's
// panel (C x 256 bytes) stays in L2, multiply-adds are the bound. Points are outermost, of as many filters as have 1 MB of
// sums, which so wait in L2; the other panels may wait in L3, and the transformed filters, up to 4 times the size of the
// filters, are read in order once for every item, 4 bytes for 4 multiply-adds. What the transforms cost besides is reading
// N^2 pixels where M^2 are new (4 and 2.25 times), from L3 and memory in pieces of 256 bytes: with 64 channels that is a
// fifth of the time, and the bound.
//
// A tile mixes its pixels: a NaN or an infinity would spread to neighbours, and a sum may overflow that has no need to.
// Either leaves something in the M x M results that is not finite, whatever the point that it enters by (every point is
// part of some result, and nothing finite comes of a sum with a NaN or an infinity in it). So results are looked at as
// they pass, and where one is not finite the caller begins again with a direct kernel.
#pragma once
#include <atomic>

#include "conv_batch_lanes.h"
#include "winograd_columns.h"
#include "winograd_filters.h"

namespace c01b {

// What transforms take, in multiply-adds of a vector (measured): of a vector of columns with its N^2 pixels, or its M^2
// results; and of one filter's taps for one channel. And the least value of the flag that allows it: F(4,3) loses digits, and
// with F(4,5) equal results in different places of a tile may be rounded apart, which breaks ties of a max-pooling behind a forward
// pass; a gradient's are nobody's.
constexpr double winograd_share = 0.88;  // of peak, that the products reach: 75 to 88% (measured)
template <int M, int R>
struct WinogradPrices;
template <>
struct WinogradPrices<2, 3> {
    static constexpr double images = 450, outputs = 330, taps = 40;
    static constexpr int allowed = 2;
};
template <>
struct WinogradPrices<4, 3> {
    static constexpr double images = 1500, outputs = 1400, taps = 85;
    static constexpr int allowed = 4;
};
template <>
struct WinogradPrices<2, 5> {
    static constexpr double images = 1200, outputs = 450, taps = 200;
    static constexpr int allowed = 2;
};
template <>
struct WinogradPrices<4, 5> {
    static constexpr double images = 4500, outputs = 2800, taps = 450;
    static constexpr int allowed = 4;
};
template <>
struct WinogradPrices<2, 7> {
    static constexpr double images = 3500, outputs = 1500, taps = 500;
    static constexpr int allowed = 2;
};

template <int M, int R>
struct ConvWinograd {
    static constexpr int points = Winograd<M, R>::P * Winograd<M, R>::P;

    const Correlation& c;
    const WinogradColumns<M, R> columns;
    int64_t filter_blocks, chunks;                 // chunks of filter blocks, for more items than there are column blocks
    int64_t at_once;                               // filter blocks of an item whose sums wait in L2
    int64_t filter_point, panel_point, sum_pitch;  // odd multiples of a line, against strides of 4096 bytes
    double cost;                                   // multiply-adds of a vector on the busiest thread

    // For a target that is not empty.
    ConvWinograd(const Correlation& c, int threads) : c(c), columns(c, threads) {
        filter_blocks = block_count(c.filters, tile_rows);
        filter_point = line_apart(filter_blocks * winograd_block(columns.depth));
        panel_point = line_apart(columns.depth * columns.width);
        sum_pitch = line_apart(points * columns.width);
        cost = -1;
        for (int64_t n = 1; n <= std::min<int64_t>(filter_blocks, 4 * threads); n *= 2) {
            const double with_n = estimate(n, threads);
            if (cost < 0 || with_n < cost) cost = with_n, chunks = n;
        }
        at_once = std::max<int64_t>(1, std::min(waiting_sums / (tile_rows * sum_pitch), block_count(filter_blocks, chunks)));
    }

    // By the flag; negative: by a test, whatever it says.
    bool allowed() const {
        return c.winograd == -M || c.winograd >= (R == 5 && c.is_gradient() ? 2 : WinogradPrices<M, R>::allowed);
    }

    // False: something was not finite, and the target is not to be used.
    bool run(int threads) const {
        std::atomic<bool> finite{true};
        const float* filters = transform_filters<M, R>(c, filter_blocks, filter_point, threads);
        const int64_t sums = at_once * tile_rows * sum_pitch;
        const int64_t share = points * panel_point + sums + columns.work_floats();
        float* work = scratch<Working>(share * threads);  // here: nothing may throw inside the threads
        parallel_for(c.groups * chunks * columns.blocks, threads, [&](int64_t i, int thread) {
            if (!finite.load(std::memory_order_relaxed)) return;
            const int64_t chunk = i / columns.blocks % chunks;
            float* panel = work + thread * share;
            const Item item{i / columns.blocks / chunks, i % columns.blocks, block_begin(filter_blocks, chunks, chunk),
                            block_begin(filter_blocks, chunks, chunk + 1), panel, panel + points * panel_point,
                            panel + points * panel_point + sums};
            if (!run_item(item, filters + item.group * points * filter_point))
                finite.store(false, std::memory_order_relaxed);
        });
        return finite.load();
    }

private:
    static constexpr int64_t waiting_sums = 256 * 1024;  // floats

    struct Item {
        int64_t group, column_block, filter_block, filter_block_end;
        float *panel, *sums, *work;
    };

    int64_t filter_at(int64_t block) const { return block_begin(c.filters, filter_blocks, block); }

    // Where transformed filters are more than 1 MB, an item reads them from L3: as much as a multiply-add for each (measured).
    double estimate(int64_t in_chunks, int threads) const {
        using Price = WinogradPrices<M, R>;
        const double filters = double(c.filters) / in_chunks, vectors = double(columns.vectors) / columns.blocks;
        const double item = products_of_all() * filters / winograd_share + Price::images * columns.depth + Price::outputs * filters;
        const double taps = Price::taps * c.groups * columns.depth * c.filters / threads;
        const double floats = points * columns.depth * filters, read = floats * sizeof(float) > 1e6 ? floats : 0;
        return block_count(c.groups * in_chunks * columns.blocks, threads) * (vectors * item + read) + taps;
    }

    bool run_item(const Item& item, const float* filters) const {
        ColumnBlock block = columns.block(item.column_block);
        columns.transform_images(block, item.group, 0, columns.depth, item.work, item.panel, panel_point);
        vec zeros = zero();  // as long as everything is finite
        for (int64_t b = item.filter_block, end; b < item.filter_block_end; b = end) {
            end = std::min(b + at_once, item.filter_block_end);
            multiply(item, block.vectors, b, end, filters);
            for (int64_t f = filter_at(b); f < filter_at(end); ++f)
                zeros += columns.transform_outputs(block, item.group, f, item.sums + (f - filter_at(b)) * sum_pitch, item.work);
        }
        for (int i = 0; i < lanes; ++i)
            if (zeros[i] != 0) return false;
        return true;
    }

    // The products of a point: lines of phases that lie in one row, without those whose taps leave nothing at this point.
    ImageProducts products_of(int64_t point) const {
        constexpr int P = Winograd<M, R>::P;
        const WinogradPhases& s = columns.strides;
        const int64_t rows = is_last_tap<Winograd<M, R>::filter>(point / P) ? s.long_rows : s.row_stride;
        const int64_t line = is_last_tap<Winograd<M, R>::filter>(point % P) ? s.long_columns : s.column_stride;
        const int64_t skipped = (s.column_stride - line) * c.depth;
        return skipped ? ImageProducts{0, rows, 1, line * c.depth, skipped, 0, skipped}
                       : ImageProducts{0, 1, 1, rows * line * c.depth, 0, 0, 0};
    }

    double products_of_all() const {
        int64_t sum = 0;
        for (int64_t point = 0; point < points; ++point) sum += products_of(point).last * products_of(point).length;
        return static_cast<double>(sum);
    }

    // Filter blocks [begin, end).
    void multiply(const Item& item, int64_t vectors, int64_t begin, int64_t end, const float* filters) const {
        const int64_t first = filter_at(begin);
        for (int64_t point = 0; point < points; ++point) {
            const ImageProducts products = products_of(point);
            for (int64_t b = begin; b < end; ++b) {
                const int64_t f = filter_at(b), count = filter_at(b + 1) - f;
                const ImageSums sums{nullptr, 0, 0, item.sums + (f - first) * sum_pitch + point * columns.width, sum_pitch,
                                     0, vectors * lanes};
                Tiles<SinglePixel>::get(count, vectors)(item.panel + point * panel_point,
                                                        filters + point * filter_point + b * winograd_block(columns.depth),
                                                        products, sums);
            }
        }
    }
};

}  // namespace c01b
