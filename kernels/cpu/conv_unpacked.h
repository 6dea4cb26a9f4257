// The loop nest for groups of few channels and filters, such as depthwise convolutions: nothing is packed.
//
//     for each item (group, filter block, target row), shared out to the threads
//       for each run of neighbouring columns              source rows   a b c d e f g h   V vectors a tap
//         for each V vectors of its pixels                                 | | | | | |
//           add up  channels x row span x column span     target row      B C D E F G     F x V registers
//
// Neighbouring columns that meet the same taps, of sources as far apart as they are, make a run: with stride 1 all but
// those at the edges. Its columns and images are one axis, since source and target of any pixel stand the same distance
// apart: a vector may hold several columns, and even one image fills it. Elsewhere a run is a single column.
//
// A packed panel (conv_batch_lanes.h) is for sources that many filters read. Here the sources of a row of one group stay
// in the caches as they are, and few enough of them are read side by side that strides of 4096 bytes do no harm. Loads
// are the bound, V + F for F*V multiply-adds; of a depthwise convolution, which has F = 1, memory is.
#pragma once
#include "conv_axes.h"
#include "parallel.h"

namespace c01b {

// What is added up for a pixel, and the distances of its factors: in the source, and in the weights counted in taps.
struct PixelTaps {
    int64_t channels, rows, columns;
    int64_t channel_step, row_step, column_step;
    int64_t channel_taps, row_taps;
};

struct PixelTarget {
    float* to;
    int64_t filter_step, pixels;  // pixels: of all vectors together
};

template <int F, int V>
struct UnpackedTile {
    static void run(const float* x, const float* w, const PixelTaps& p, const PixelTarget& target) {
        vec sum[F][V] = {};
        const int last = static_cast<int>(target.pixels - (V - 1) * lanes);
        if (last == lanes) add(sum, x, w, p, [](const float* from) { return load(from); });
        else add(sum, x, w, p, [last](const float* from) { return load_first(from, last); });
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f) {
            float* to = target.to + f * target.filter_step;
#pragma GCC unroll 8
            for (int v = 0; v < V - 1; ++v) store(to + v * lanes, sum[f][v]);
            if (last == lanes) store(to + (V - 1) * lanes, sum[f][V - 1]);
            else store_first(to + (V - 1) * lanes, sum[f][V - 1], last);
        }
    }

private:
    template <class Load>
    __attribute__((always_inline)) static void add(vec (&sum)[F][V], const float* x, const float* w,
                                                   const PixelTaps& p, const Load& load_last) {
        for (int64_t d = 0; d < p.channels; ++d)
            for (int64_t u = 0; u < p.rows; ++u) {
                const float* from = x + d * p.channel_step + u * p.row_step;
                const float* weight = w + (d * p.channel_taps + u * p.row_taps) * F;
                for (int64_t v = 0; v < p.columns; ++v, from += p.column_step, weight += F) {
                    vec image[V];
#pragma GCC unroll 8
                    for (int i = 0; i < V - 1; ++i) image[i] = load(from + i * lanes);
                    image[V - 1] = load_last(from + (V - 1) * lanes);
#pragma GCC unroll 8
                    for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
                        for (int i = 0; i < V; ++i) sum[f][i] += weight[f] * image[i];
                }
            }
    }
};

struct ColumnRun {
    int64_t column, columns;
};

inline Table<ColumnRun> column_runs(const Axis& axis) {
    Table<ColumnRun> runs;
    const int64_t columns = axis.span.size();
    for (int64_t t = 0; t < columns; ++t) {
        const Span s = axis.span[t], before = axis.span[std::max<int64_t>(t - 1, 0)];
        const bool goes_on = s.tap == before.tap && s.count == before.count && s.source == before.source + 1;
        if (t && (goes_on || (!s.count && !before.count))) ++runs.back().columns;
        else runs.push_back({t, 1});
    }
    return runs;
}

// One target row of a group for the filters of a block, whose weights are [channel][tap row][tap column][filter].
inline void correlate_row(const Correlation& c, const Table<ColumnRun>& runs, int64_t group, int64_t filter,
                          int64_t count, int64_t row, const float* weights) {
    const int64_t columns = c.columns.span.size(), column_taps = c.columns.order.size();
    const int64_t source_row = c.source_w * c.batch, plane = c.rows.span.size() * columns * c.batch;
    const Span across = c.rows.span[row];
    float* target = c.target_of(group) + filter * plane + row * columns * c.batch;
    for (const ColumnRun& run : runs) {
        const Span along = c.columns.span[run.column];
        const bool meets = c.depth && across.count && along.count;
        const float* x = meets ? c.source_of(group) + (across.source * c.source_w + along.source) * c.batch : c.source;
        const float* w = meets ? weights + (across.tap * column_taps + along.tap) * count : weights;
        const PixelTaps taps{meets ? c.depth : 0, across.count, along.count, c.source_h * source_row, source_row,
                             c.batch, static_cast<int64_t>(c.rows.order.size()) * column_taps, column_taps};
        const int64_t pixels = run.columns * c.batch, pitch = tile_vectors * lanes;
        for (int64_t i = 0; i < pixels; i += pitch) {
            const int64_t here = std::min(pixels - i, pitch);
            const PixelTarget to{target + run.column * c.batch + i, plane, here};
            Tiles<UnpackedTile>::get(count, block_count(here, lanes))(meets ? x + i : x, w, taps, to);
            if (c.epilogue) finish_sums(c, group, filter, count, to.to, plane, here);
        }
    }
}

inline void correlate_unpacked(const Correlation& c, int threads) {
    const Table<ColumnRun> runs = column_runs(c.columns);
    const int64_t rows = c.rows.span.size(), blocks = block_count(c.filters, tile_rows);
    const int64_t taps = c.depth * c.rows.order.size() * c.columns.order.size();
    float* packed = scratch<Prepared>(c.groups * taps * c.filters);
    parallel_for(c.groups * blocks, threads, [&](int64_t i, int) {
        const int64_t group = i / blocks, filter = block_begin(c.filters, blocks, i % blocks);
        const PackItem item{group, 0, c.depth, filter, block_begin(c.filters, blocks, i % blocks + 1)};
        float* to = packed + (group * c.filters + filter) * taps;
        for (int64_t d = 0; d < c.depth; ++d)
            for (size_t u = 0; u < c.rows.order.size(); ++u)
                for (size_t v = 0; v < c.columns.order.size(); ++v) to = pack_tap(c, item, u, v, d, to);
    });
    parallel_for(c.groups * blocks * rows, threads, [&](int64_t i, int) {
        const int64_t row = i % rows, block = i / rows % blocks, group = i / rows / blocks;
        const int64_t filter = block_begin(c.filters, blocks, block);
        const int64_t count = block_begin(c.filters, blocks, block + 1) - filter;
        correlate_row(c, runs, group, filter, count, row, packed + (group * c.filters + filter) * taps);
    });
}

}  // namespace c01b
