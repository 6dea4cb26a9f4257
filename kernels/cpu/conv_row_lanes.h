// The loop nest with a whole row in the lanes: in c01b the images of neighbouring columns lie one after another, so where
// neighbouring columns meet the same taps, one source column further on each, columns and images are one axis and vectors
// are full whatever the batch is.
//
//     batch 3, vectors of 8:     | column 0 | column 1 | column 2 | column 3 | column 4 | ..      target row
//                                |     vector 0      |      vector 1       |      vector 2  ..
//
//     for each item (group, target rows, filter blocks), shared out to the threads
//       for each strip of columns
//         copy its source rows to a panel [row][channel][phase][column][image], with zeros where they end
//         for each block of F filters                                                   +---- positions ----+
//           for each row and block of V vectors of positions                         x: | V vectors, unaligned|
//             add up  row span x channels x column taps  products                  w: F | F x V registers    |  sums
//
// A stride s is a sorting: source column s*q + r is place q of phase r, and tap v of target t is in phase v mod s, v div s
// places on. Nothing is transposed, neither source nor sums, which is what filters in the lanes pay for with few products.
// A tile loads V vectors, which straddle lines, and F numbers for F*V multiply-adds; as taps of a row overlap, a line comes
// from L2 once and is met in L1 after that. Bound: multiply-adds, as long as the sources of a row, or of a strip of it, fit L2.
//
// A zero beyond the end of a row takes part in a product. Where a weight is not finite that is no zero, so then the other
// loop nests, which leave such products out, are asked.
#pragma once
#include <cmath>

#include "column_phases.h"
#include "conv_axes.h"
#include "parallel.h"

namespace c01b {

// The products of F filters and V vectors of positions: `lines` rows and channels, `pitch` apart, with `taps` of each.
template <int F, int V>
struct RowTile {
    static void run(const float* x, int64_t pitch, int64_t lines, const int64_t* tap, int64_t taps, const float* w, float* to,
                    int64_t filter, int64_t positions) {
        vec sum[F][V] = {};
        for (int64_t line = 0; line < lines; ++line, x += pitch)
            for (int64_t t = 0; t < taps; ++t, w += F) {
                vec source[V];
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) source[v] = load(x + (tap[t] + v * lanes));
#pragma GCC unroll 8
                for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sum[f][v] += w[f] * source[v];
            }
        const int last = static_cast<int>(positions - (V - 1) * lanes);
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f) {
#pragma GCC unroll 8
            for (int v = 0; v < V - 1; ++v) store(to + f * filter + v * lanes, sum[f][v]);
            if (last == lanes) store(to + f * filter + (V - 1) * lanes, sum[f][V - 1]);
            else store_first(to + f * filter + (V - 1) * lanes, sum[f][V - 1], last);
        }
    }
};

class RowLanes {
public:
    double cost;  // multiply-adds of a vector on the busiest thread; infinite where it does not apply

    // For a target that is not empty.
    RowLanes(const Correlation& c, int threads) : c(c), phases(phases_of(1)) {
        cost = HUGE_VAL;
        if (!c.columns.stride || !c.depth) return;
        taps = c.columns.order.size();
        filter_blocks = block_count(c.filters, tile_rows);
        share_out(threads);
        phases = phases_of(strips), pitch = phases.row_pitch();
        for (int64_t v = 0; v < taps; ++v) tap.push_back(phases.tap(v));
    }

    // False: the target is not computed.
    bool run(int threads) const {
        float* packed = scratch<Prepared>(c.groups * packed_floats());
        pack_weights(threads, packed);
        const auto finite = [](float w) { return std::isfinite(w); };
        if (clipped(c.columns) && !std::all_of(packed, packed + c.groups * packed_floats(), finite)) return false;
        float* panels = scratch<Working>(panel_floats * threads);  // here: nothing may throw inside the threads
        const int64_t rows = c.rows.span.size(), row_items = block_count(rows, item_rows);
        parallel_for(c.groups * chunks * row_items, threads, [&](int64_t i, int thread) {
            const int64_t row = i % row_items * item_rows, chunk = i / row_items % chunks, group = i / row_items / chunks;
            const Item item{group, row, std::min(row + item_rows, rows), block_begin(filter_blocks, chunks, chunk),
                            block_begin(filter_blocks, chunks, chunk + 1)};
            run_item(item, packed + group * packed_floats(), panels + thread * panel_floats);
        });
        return true;
    }

private:
    struct Item {
        int64_t group, row, row_end, block, block_end;  // of target rows and of filter blocks
    };

    // Target columns [begin, end).
    struct Strip {
        int64_t begin, end;
    };

    const Correlation& c;
    int64_t taps, filter_blocks;
    ColumnPhases phases;  // of the widest strip
    int64_t pitch;        // floats of a source row and channel
    int64_t item_rows, chunks, strips = 1, panel_floats;
    Table<int64_t> tap;  // where a tap's pixels are

    int64_t packed_floats() const { return c.rows.order.size() * c.depth * taps * c.filters; }

    Strip strip_at(int64_t i, int64_t strips) const {
        const int64_t columns = c.columns.span.size();
        return {block_begin(columns, strips, i), block_begin(columns, strips, i + 1)};
    }
    int64_t vectors_of(Strip s) const { return block_count((s.end - s.begin) * c.batch, lanes); }

    // The rows of the widest of so many strips.
    ColumnPhases phases_of(int64_t strips) const {
        const int64_t stride = std::max<int64_t>(1, c.columns.stride), taps = c.columns.order.size();
        return {c.source_w, c.batch, stride, taps, block_count(c.columns.span.size(), strips)};
    }

    // Rows of an item, chunks of filter blocks and strips of columns, as the busiest thread has least to do. Strips only where
    // a row does not fit L2: what neighbouring ones share is copied twice.
    void share_out(int threads) {
        const int64_t columns = c.columns.span.size();
        for (int64_t n = 1; n <= columns; n *= 2) {
            double vectors = 0;
            for (int64_t i = 0; i < n; ++i) vectors += vectors_of(strip_at(i, n));
            if (share_rows_out(threads, n, vectors, phases_of(n))) break;
        }
    }

    // How many times as long as their multiply-adds the products of a tile of so few vectors take (measured): for one, 7 loads
    // and 6 chains of sums.
    static double thin(double vectors) { return vectors <= 1 ? 1.9 : vectors <= 2 ? 1.3 : vectors <= 3 ? 1.1 : 1.0; }

    // The same for so many strips; whether a target row's sources fit L2. The products, at 90% of peak, what ends a tile, and
    // copying.
    bool share_rows_out(int threads, int64_t in_strips, double vectors, const ColumnPhases& sorted) {
        const int64_t rows = c.rows.span.size(), limit = 192 * 1024;  // floats of a panel
        const double loads = std::max(1.0, 2.2 / c.filters);  // of a tile of one or two filters they are the bound
        const double a_tile = std::ceil(vectors / in_strips);
        const double products = c.depth * mean_taps(c.rows) * taps * loads * thin(a_tile / std::ceil(a_tile / tile_vectors));
        const double copied = in_strips * c.depth * sorted.cost();
        for (int64_t n = rows;; n = block_count(n, 2)) {
            const int64_t source_rows = widest(c.rows, n), floats = source_rows * c.depth * sorted.row_pitch();
            for (int64_t m = 1; m <= std::min<int64_t>(filter_blocks, threads); ++m) {
                const double filters = double(c.filters) / m;
                const double share = floats > limit ? 0.8 : 0.9;  // of peak
                const double item = n * vectors * filters * (products + 8) / share + source_rows * copied;
                const double with = block_count(c.groups * block_count(rows, n) * m, threads) * item;
                if ((n > 1 && floats > limit) || floats > 16 * limit || with >= cost) continue;
                cost = with, item_rows = n, chunks = m, strips = in_strips, panel_floats = floats;
            }
            if (n == 1) return floats <= limit;
        }
    }

    // [filter block][tap row][channel][tap column][filter]
    void pack_weights(int threads, float* packed) const {
        parallel_for(c.groups * filter_blocks, threads, [&](int64_t i, int) {
            const int64_t group = i / filter_blocks, filter = block_begin(c.filters, filter_blocks, i % filter_blocks);
            const PackItem item{group, 0, c.depth, filter, block_begin(c.filters, filter_blocks, i % filter_blocks + 1)};
            const int64_t row_taps = c.rows.order.size();
            float* to = packed + group * packed_floats() + row_taps * c.depth * taps * filter;
            for (int64_t u = 0; u < row_taps; ++u)
                for (int64_t d = 0; d < c.depth; ++d)
                    for (int64_t v = 0; v < taps; ++v) to = pack_tap(c, item, u, v, d, to);
        });
    }

    // Source rows [first, end) of a strip as [row][channel][phase][column][image].
    void pack_rows(int64_t group, int64_t first, int64_t end, Strip strip, float* panel) const {
        const int64_t first_column = strip.begin * c.columns.stride + c.columns.origin;
        for (int64_t y = first; y < end; ++y)
            for (int64_t d = 0; d < c.depth; ++d, panel += pitch)
                phases.sort(c.source_of(group) + (d * c.source_h + y) * c.source_w * c.batch, first_column, panel);
    }

    void run_item(const Item& item, const float* packed, float* panel) const {
        const int64_t first = source_begin(c.rows, item.row, item.row_end), end = source_end(c.rows, item.row, item.row_end);
        for (int64_t i = 0; i < strips; ++i) {
            const Strip strip = strip_at(i, strips);
            pack_rows(item.group, first, end, strip, panel);
            for (int64_t block = item.block; block < item.block_end; ++block)
                for (int64_t row = item.row; row < item.row_end; ++row) {
                    const Span span = c.rows.span[row];
                    multiply_row(item.group, block, row, strip, packed,
                                 span.count ? panel + (span.source - first) * c.depth * pitch : panel);
                }
        }
    }

    // One filter block and target row of a strip, whose sources begin at x.
    void multiply_row(int64_t group, int64_t block, int64_t row, Strip strip, const float* packed, const float* x) const {
        const int64_t filter = block_begin(c.filters, filter_blocks, block);
        const int64_t filters = block_begin(c.filters, filter_blocks, block + 1) - filter;
        const int64_t lines = c.rows.order.size() * c.depth, rows = c.rows.span.size(), columns = c.columns.span.size();
        const float* w = packed + (filter * lines + c.rows.span[row].tap * c.depth * filters) * taps;
        float* to = c.target_of(group) + ((filter * rows + row) * columns + strip.begin) * c.batch;
        const int64_t plane = rows * columns * c.batch, positions = (strip.end - strip.begin) * c.batch;
        const int64_t vectors = block_count(positions, lanes), blocks = block_count(vectors, tile_vectors);
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t vector = block_begin(vectors, blocks, b), at = vector * lanes;
            const int64_t count = block_begin(vectors, blocks, b + 1) - vector;
            Tiles<RowTile>::get(filters, count)(x + at, pitch, c.rows.span[row].count * c.depth, tap.data(), taps, w, to + at,
                                                plane, std::min(count * lanes, positions - at));
        }
        if (c.epilogue) finish_sums(c, group, filter, filters, to, plane, positions);
    }
};

}  // namespace c01b
