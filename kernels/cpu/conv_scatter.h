// A data gradient the other way round: not every target pixel gathers its products, every source pixel scatters them.
//
//     for each item (group, target rows of one phase, channels), shared out to the threads
//       for each block of V vectors of source pixels, all images one after another       +--- pixels ---+
//         copy them to a panel [filter][pixel]                                         x: |  V vectors   |  from L1
//         for each T rows of the matrix [channel, tap row, tap column] x [filter]         +--------------+
//           T x V sums of products over the filters                           w: T, as    | T x V        |
//           added to the item's targets, where tap and pixel belong            they lie    | registers    |  sums
//                                                                                         +--------------+
//       copy the targets, from [channel][row][column phase][column][image], to where they go
//
// The products are a product of matrices: none is left out for being clipped, whatever the pad, and pixels fill vectors
// whatever the batch is; the filters (channel, row, column, filter) are one of the matrices as they lie, where other nests
// transpose them. What it costs is an addition in L1 or L2 for each sum, so there have to be enough filters; and
// pixels that fall outside of the image are computed for nothing. Its place is a gradient of few images.
#pragma once
#include <cmath>

#include "conv_axes.h"
#include "parallel.h"

namespace c01b {

// Products of R rows of the matrix and V vectors of pixels, to `sums` [row][pixel].
template <int R, int V>
struct ScatterTile {
    static void run(const float* const* rows, const float* panel, int64_t depth, float* sums) {
        const float* w[R];
        for (int r = 0; r < R; ++r) w[r] = rows[r];
        vec sum[R][V] = {};
        for (int64_t d = 0; d < depth; ++d, panel += V * lanes) {
            vec x[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) x[v] = load(panel + v * lanes);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] += w[r][d] * x[v];
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) store(sums + (r * V + v) * lanes, sum[r][v]);
    }
};

inline void add_floats(const float* from, int64_t count, float* to) {
    for (; count >= lanes; count -= lanes, from += lanes, to += lanes) store(to, load(to) + load(from));
    const int rest = static_cast<int>(count);
    if (rest) store_first(to, load_first(to, rest) + load_first(from, rest), rest);
}

// Along an axis, source i of tap u belongs to target step * i + shift[u]: place i + place[u] of phase[u].
struct Scattering {
    int64_t step, first, places;  // target t is of phase (t - first) mod step, where it has place (t - first) / step
    Table<int64_t> phase, place;

    Scattering(const Axis& axis, int64_t source) : step(axis.step) {
        const auto [least, most] = std::minmax_element(axis.shift.begin(), axis.shift.end());
        first = *least;
        places = source + (*most - first) / step;
        for (int64_t shift : axis.shift) phase.push_back((shift - first) % step), place.push_back((shift - first) / step);
    }
};

class Scatter {
public:
    double cost;  // multiply-adds of a vector on the busiest thread; infinite where it does not apply

    // For a target that is not empty.
    Scatter(const Correlation& c, int threads) : cost(HUGE_VAL), c(c) {
        const bool gradient = c.is_gradient() && c.depth_stride == 1;
        if (!gradient || !c.depth || !c.source_h || !c.source_w || c.epilogue) return;
        row_taps = c.rows.shift.size(), column_taps = c.columns.shift.size();
        pixels = c.source_h * c.source_w * c.batch;
        blocks = block_count(block_count(pixels, lanes), tile_vectors);
        share_out(threads);
    }

    void run(int threads) const {
        const Scattering down(c.rows, c.source_h), across(c.columns, c.source_w);
        const int64_t channel_floats = down.places * across.step * across.places * c.batch;
        const int64_t panel_floats = c.depth * tile_vectors * lanes, share = channels * channel_floats + panel_floats;
        float* work = scratch<Working>(share * threads);  // here: nothing may throw inside the threads
        const int64_t chunks = block_count(c.filters, channels);
        parallel_for(c.groups * chunks * down.step, threads, [&](int64_t i, int thread) {
            const int64_t phase = i % down.step, chunk = i / down.step % chunks, group = i / down.step / chunks;
            float *targets = work + thread * share, *panel = targets + channels * channel_floats;
            const Item item{group, block_begin(c.filters, chunks, chunk), block_begin(c.filters, chunks, chunk + 1), phase,
                            channel_floats, targets, panel};
            run_item(item, down, across);
        });
    }

private:
    struct Item {
        int64_t group, channel, channel_end, phase, channel_floats;
        float *targets, *panel;
    };
    // A row of the matrix, and how far from a pixel's place its sums belong.
    struct Row {
        const float* weights;
        int64_t target;
    };
    // Pixels of a block that are neighbours in the targets, too.
    struct Run {
        int64_t pixel, count, target;
    };

    const Correlation& c;
    int64_t row_taps, column_taps, pixels, blocks, channels;  // channels of an item

    // Channels of an item, as the busiest thread has least to do: the products, at 95% of peak, 8 for a sum added, 4 for a vector
    // of the panel, 6 for one of the targets cleared and copied, and 3.5 for a weight fetched (measured, docs/performance.md).
    void share_out(int threads) {
        const double vectors = block_count(pixels, lanes), phases = c.rows.step;
        const double results = double(c.rows.span.size()) * c.columns.span.size() * (c.batch + lanes) / lanes / phases;
        const double target_floats = double(c.source_h + row_taps / phases) * (c.source_w + column_taps / phases + 1) *
                                     c.columns.step * c.batch;
        const double limit = 128 * 1024;  // floats of an item's targets, in L2
        for (int64_t n = c.filters;; n = block_count(n, 2)) {
            const double taps = n * std::ceil(row_taps / phases) * column_taps;
            const double rows = block_count(static_cast<int64_t>(taps), tile_rows) * tile_rows;
            const double item = vectors * (rows * (c.depth + 8) / 0.95 + c.depth * 4) + 6 * n * results + 3.5 * taps * c.depth;
            const double with = (block_count(c.groups * block_count(c.filters, n) * c.rows.step, threads) + waiting) * item;
            if (with < cost && n * target_floats <= limit) cost = with, channels = n;
            if (n == 1) break;
        }
    }

    void run_item(const Item& item, const Scattering& down, const Scattering& across) const {
        std::fill(item.targets, item.targets + (item.channel_end - item.channel) * item.channel_floats, 0.0f);
        const Table<Row> rows = rows_of(item, down, across);
        Table<Run> runs;
        const int64_t vectors = block_count(pixels, lanes), tiles = block_count(rows.size(), tile_rows);
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t first = block_begin(vectors, blocks, b) * lanes;
            const int64_t width = block_begin(vectors, blocks, b + 1) * lanes - first, count = std::min(width, pixels - first);
            pack(item, first, count, width);
            runs_of(first, count, across, runs);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t row = block_begin(rows.size(), tiles, t), row_end = block_begin(rows.size(), tiles, t + 1);
                const float* weights[tile_rows];
                float sums[tile_rows * tile_vectors * lanes];
                for (int64_t r = row; r < row_end; ++r) weights[r - row] = rows[r].weights;
                Tiles<ScatterTile>::get(row_end - row, width / lanes)(weights, item.panel, c.depth, sums);
                for (int64_t r = row; r < row_end; ++r)
                    for (const Run& run : runs)
                        add_floats(sums + (r - row) * width + run.pixel, run.count, item.targets + rows[r].target + run.target);
            }
        }
        write(item, down, across);
    }

    Table<Row> rows_of(const Item& item, const Scattering& down, const Scattering& across) const {
        Table<Row> rows;
        const int64_t line = across.step * across.places * c.batch;
        for (int64_t channel = item.channel; channel < item.channel_end; ++channel)
            for (int64_t u = 0; u < row_taps; ++u)
                for (int64_t v = 0; v < column_taps && down.phase[u] == item.phase; ++v)
                    rows.push_back({c.weights_of(item.group) + channel * c.filter_stride + c.rows.order[u] * c.row_stride +
                                        c.columns.order[v] * c.column_stride,
                                    (channel - item.channel) * item.channel_floats + down.place[u] * line +
                                        (across.phase[v] * across.places + across.place[v]) * c.batch});
        return rows;
    }

    // Pixels [first, first + count) of every filter, and zeros up to `width`.
    void pack(const Item& item, int64_t first, int64_t count, int64_t width) const {
        const float* from = c.source_of(item.group) + first;
        for (int64_t d = 0; d < c.depth; ++d, from += pixels) {
            float* to = item.panel + d * width;
            copy_floats(from, count, to);
            std::fill(to + count, to + width, 0.0f);
        }
    }

    void runs_of(int64_t first, int64_t count, const Scattering& across, Table<Run>& runs) const {
        runs.clear();
        const int64_t line = c.source_w * c.batch;
        for (int64_t at = first, end; at < first + count; at = end) {
            end = std::min((at / line + 1) * line, first + count);
            runs.push_back({at - first, end - at, at / line * across.step * across.places * c.batch + at % line});
        }
    }

    // Target rows of the item's phase; those that no tap reaches are zeros.
    void write(const Item& item, const Scattering& down, const Scattering& across) const {
        const int64_t rows = c.rows.span.size(), columns = c.columns.span.size();
        const int64_t first = ((down.first + item.phase) % down.step + down.step) % down.step;
        for (int64_t channel = item.channel; channel < item.channel_end; ++channel)
            for (int64_t row = first; row < rows; row += down.step) {
                const int64_t place = (row - down.first - item.phase) / down.step;
                float* to = c.target_of(item.group) + (channel * rows + row) * columns * c.batch;
                if (row < down.first || place >= down.places)
                    std::fill(to, to + columns * c.batch, 0.0f);
                else
                    write_row(item.targets + (channel - item.channel) * item.channel_floats +
                                  place * across.step * across.places * c.batch, across, to);
            }
    }

    void write_row(const float* from, const Scattering& across, float* to) const {
        const int64_t columns = c.columns.span.size(), begin = std::min(std::max<int64_t>(0, across.first), columns);
        const int64_t end = std::max(begin, std::min(columns, across.first + across.step * across.places));
        std::fill(to, to + begin * c.batch, 0.0f);
        if (across.step == 1) copy_floats(from + (begin - across.first) * c.batch, (end - begin) * c.batch, to + begin * c.batch);
        else
            for (int64_t t = begin; t < end; ++t) {
                const int64_t phase = (t - across.first) % across.step, place = (t - across.first) / across.step;
                const float* pixel = from + (phase * across.places + place) * c.batch;
                if (c.batch == 1) to[t] = *pixel;
                else copy_floats(pixel, c.batch, to + t * c.batch);
            }
        std::fill(to + end * c.batch, to + columns * c.batch, 0.0f);
    }
};

}  // namespace c01b
