// The weight gradient of a convolution by Winograd's algorithm, of a strided one phase by phase (winograd_phases.h): with the
// matrices of winograd.h the forward convolution's tile is y = A^T [(G g G^T) * (B^T d B)] A, linear in g, so the gradient of g
// is its adjoint
//
//     dg = G^T [ sum over tiles and images of (A dy A^T) * (B^T d B) ] G
//
// In the brackets, for each of the P^2 points, stands the product of a matrix channels x columns with one columns x filters;
// columns are those of winograd_columns.h, all tiles of all images. An item, a range of channels and one of filters, has
// its own part of the sums and goes through all columns, T = 64 at a time:
//
//      x, tiles of N x N pixels         panel [point][channel][column]          sums [point][channel][filter]
//      +-----+-----+--                  +----------------+                      +--- filter block ---+
//      |     |     |    --transform-->  | 6 rows         |  x      T            |                    |
//      +-----+-----+--                C |                |  +-------------+  +=>| 6 x 64 of them are |
//                                       +----------------+  | 64 filters  |     | a tile's registers |  --transform--> dw
//      dy, M x M pixels                        T            +-------------+     +--------------------+
//      +-----+-----+--  --transpose, transform-->  panel [point][filter block][column][filter]
//
// A tile loads 4 vectors and broadcasts 6 numbers for 24 multiply-adds; a filter block's columns (16 KB) stay in L1 for all
// channels. Sums are read and written once in T columns: 2 bytes for each multiply-add of a vector, from L2 or L3. In every
// block of T columns they begin at 0, so that no sum is longer than T or the number of blocks.
//
// As with the forward pass, what is not finite shows in the results, and the caller begins again with a direct kernel.
#pragma once
#include <atomic>
#include <cmath>

#include "conv_winograd.h"
#include "forward_correlation.h"

namespace c01b {

// The products of F channels and V vectors of filters, added up over columns, and those sums to what is there.
template <int F, int V>
struct ColumnTile {
    static void run(const float* x, int64_t channel, const float* y, int64_t columns, float* sums, int64_t sums_channel) {
        vec sum[F][V] = {};
        for (int64_t t = 0; t < columns; ++t, y += V * lanes) {
            vec g[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) g[v] = load(y + v * lanes);
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[f][v] += x[f * channel + t] * g[v];
        }
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                float* to = sums + f * sums_channel + v * lanes;
                store(to, load(to) + sum[f][v]);
            }
    }
};

template <int M, int R>
struct WeightWinograd {
    using W = Winograd<M, R>;
    static constexpr int P = W::P, points = P * P;

    const ConvShape& s;
    const float* grads;
    const Correlation& c;  // the forward convolution
    const WinogradColumns<M, R> columns;
    int64_t filter_vectors, filter_blocks, channel_blocks;  // of a group
    int64_t channel_parts = 1, filter_parts = 1;            // items of a group
    int64_t part_channels, part_vectors;                    // the most an item has
    int64_t channel_point, filter_point, sums_point;        // odd multiples of a line, against strides of 4096 bytes
    double cost;                                            // multiply-adds of a vector on the busiest thread

    // For a gradient that is not empty, and filters whose longest phase has R x R taps.
    WeightWinograd(const ConvShape& s, const float* grads, const Correlation& c, int threads)
        : s(s), grads(grads), c(c), columns(c) {
        filter_vectors = block_count(c.filters, lanes);
        filter_blocks = block_count(filter_vectors, tile_vectors);
        channel_blocks = block_count(columns.depth, tile_rows);
        cost = -1;
        for (int64_t i = 1; i <= channel_blocks; i *= 2)
            for (int64_t j = 1; j <= filter_blocks; j *= 2) {
                const double with_parts = estimate(i, j, threads);
                if (cost < 0 || with_parts < cost) cost = with_parts, channel_parts = i, filter_parts = j;
            }
        part_channels = block_count(channel_blocks, channel_parts) * tile_rows;
        part_vectors = block_count(filter_blocks, filter_parts) * tile_vectors;
        channel_point = line_apart(part_channels * columns.width);
        filter_point = line_apart(part_vectors * lanes * columns.width);
        sums_point = line_apart(columns.depth * filter_vectors * lanes);
    }

    // Of weights no ties are asked, so F(4,5) may compute them.
    bool allowed() const { return s.winograd == -M || s.winograd >= (M == 4 && R == 3 ? 4 : 2); }

    // False: something was not finite, and the result is not to be used.
    bool run(float* result, int threads) const {
        std::atomic<bool> finite{true};
        float* sums = scratch<Prepared>(s.groups * points * sums_point);
        const int64_t share = points * (channel_point + filter_point) + work_floats();
        float* work = scratch<Working>(share * threads);  // here: nothing may throw inside the threads
        parallel_for(s.groups * channel_parts * filter_parts, threads, [&](int64_t i, int thread) {
            const int64_t filter_part = i % filter_parts, part = i / filter_parts % channel_parts;
            const int64_t group = i / filter_parts / channel_parts;
            const Item item{group, channel_at(block_begin(channel_blocks, channel_parts, part)),
                            channel_at(block_begin(channel_blocks, channel_parts, part + 1)),
                            block_begin(filter_blocks, filter_parts, filter_part),
                            block_begin(filter_blocks, filter_parts, filter_part + 1),
                            sums + group * points * sums_point, work + thread * share};
            if (!run_item(item, result)) finite.store(false, std::memory_order_relaxed);
        });
        return finite.load();
    }

private:
    struct Item {
        int64_t group, channel, channel_end, block, block_end;  // blocks of filters
        float *sums, *work;                                     // sums: of the group
    };

    // Images that lie one after another in a vector of columns: their first lane and pixel, and what of the tile exists.
    struct Piece {
        int64_t lane, count, pixel;
        int rows, columns;
    };

    int64_t channel_at(int64_t block) const { return block_begin(columns.depth, channel_blocks, block); }
    int64_t vector_at(int64_t block) const { return block_begin(filter_vectors, filter_blocks, block); }
    int64_t work_floats() const { return columns.work_floats() + (M * M * lanes + R * R) * lanes; }

    // Multiply-adds of a vector on the busiest thread. A line of transformed gradients takes 17 (measured), one of images 1.3
    // times that, and both more by as much as what an item goes through in every block of columns exceeds 2.2 MB; a line of sums,
    // cleared and read, as much.
    double estimate(int64_t in_channels, int64_t in_filters, int threads) const {
        const double channels = double(columns.depth) / in_channels, filters = double(filter_vectors) * lanes / in_filters;
        const double floats = points * (channels * filters + columns.width * (channels + filters));
        const double misses = std::max(1.0, floats * sizeof(float) / 2.2e6), line = 17 * points;
        const double vector = points * channels * filters + line * misses * (1.3 * channels + filters);
        return block_count(s.groups * in_channels * in_filters, threads) *
               (columns.vectors * vector + line * channels * filters / lanes);
    }

    bool run_item(const Item& item, float* result) const {
        float *x = item.work, *y = x + points * channel_point, *work = y + points * filter_point;
        const int64_t pitch = filter_vectors * lanes;
        std::fill(work, work + work_floats(), 0.0f);  // lanes past the last column take part in sums, with gradients of 0
        for (int64_t point = 0; point < points; ++point)
            for (int64_t d = item.channel; d < item.channel_end; ++d)
                std::fill(item.sums + point * sums_point + d * pitch + vector_at(item.block) * lanes,
                          item.sums + point * sums_point + d * pitch + vector_at(item.block_end) * lanes, 0.0f);
        for (int64_t b = 0; b < columns.blocks; ++b) {
            ColumnBlock block = columns.block(b);
            columns.transform_images(block, item.group, item.channel, item.channel_end, work, x, channel_point);
            transform_gradients(block, item, work, y);
            for (int64_t point = 0; point < points; ++point) multiply(item, block.vectors * lanes, point, x, y);
        }
        return write_weights(item, work, result);
    }

    void multiply(const Item& item, int64_t count, int64_t point, const float* x, const float* y) const {
        const int64_t pitch = filter_vectors * lanes, first = vector_at(item.block);
        for (int64_t b = item.block; b < item.block_end; ++b) {
            const int64_t vector = vector_at(b), vectors = vector_at(b + 1) - vector;
            for (int64_t d = item.channel, end; d < item.channel_end; d = end) {
                end = std::min(d + tile_rows, item.channel_end);
                Tiles<ColumnTile>::get(end - d, vectors)(
                    x + point * channel_point + (d - item.channel) * count, count,
                    y + point * filter_point + (vector - first) * lanes * count, count,
                    item.sums + point * sums_point + d * pitch + vector * lanes, pitch);
            }
        }
    }

    // The transforms of the item's filters, [point][filter block][column][filter].
    void transform_gradients(const ColumnBlock& b, const Item& item, float* tile, float* panel) const {
        int64_t column[M];
        for (int j = 0; j < M; ++j) column[j] = j * lanes * lanes;
        const int64_t count = b.vectors * lanes, first = vector_at(item.block);
        for (int64_t v = 0; v < b.vectors; ++v) {
            Piece pieces[lanes];
            const int found = find_pieces(b, v, pieces);
            for (int64_t block = item.block; block < item.block_end; ++block) {
                const int64_t vector = vector_at(block), vectors = vector_at(block + 1) - vector;
                for (int64_t k = 0; k < vectors; ++k) {
                    transpose_tile(item.group, (vector + k) * lanes, pieces, found, tile);
                    float* to = panel + (vector - first) * lanes * count + (v * lanes * vectors + k) * lanes;
                    for (int64_t t = 0; t < lanes; ++t)
                        evaluate_square<W::output_transposed, P>(tile + t * lanes, M * lanes * lanes, column,
                                                                 to + t * vectors * lanes, filter_point);
                }
            }
        }
    }

    int find_pieces(const ColumnBlock& b, int64_t v, Piece (&pieces)[lanes]) const {
        int found = 0;
        for (int64_t r = b.begin[v]; r < b.begin[v + 1]; ++r)
            for (int64_t i = 0, n; i < b.run[r].count; i += n) {
                const int64_t tile = (b.run[r].at + i) / s.batch, image = (b.run[r].at + i) % s.batch;
                n = std::min(b.run[r].count - i, s.batch - image);
                const int64_t row = b.run[r].tile_row * M, column = tile * M;
                pieces[found++] = {b.run[r].lane + i, n, (row * s.out_w + column) * s.batch + image,
                                   static_cast<int>(std::min<int64_t>(M, s.out_h - row)),
                                   static_cast<int>(std::min<int64_t>(M, s.out_w - column))};
            }
        return found;
    }

    // M x M pixels of output gradients of a vector of filters and one of columns, [row][column][lane][filter].
    void transpose_tile(int64_t group, int64_t filter, const Piece* pieces, int found, float* tile) const {
        const int64_t plane = s.out_h * s.out_w * s.batch, filters = std::min<int64_t>(lanes, c.filters - filter);
        const float* from = grads + (group * c.filters + filter) * plane;
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j, tile += lanes * lanes) {
                vec square[lanes] = {};
                for (int64_t k = 0; k < filters; ++k)
                    square[k] = gather(from + k * plane, i, j, pieces, found);
                transpose(square);
                for (int t = 0; t < lanes; ++t) store(tile + t * lanes, square[t]);
            }
    }

    // A pixel of each lane's tile, 0 where it is outside of the gradients.
    vec gather(const float* plane, int row, int column, const Piece* pieces, int found) const {
        const int64_t pixel = (row * s.out_w + column) * s.batch;
        if (found == 1 && pieces->count == lanes)
            return row < pieces->rows && column < pieces->columns ? load(plane + (pieces->pixel + pixel)) : zero();
        float line[lanes] = {};
        for (int n = 0; n < found; ++n) {
            const Piece& p = pieces[n];
            if (row < p.rows && column < p.columns)
                std::copy_n(plane + (p.pixel + pixel), p.count, line + p.lane);
        }
        return load(line);
    }

    // G^T sums G to the weights, [channel][row][column][filter]; false where one is not finite.
    bool write_weights(const Item& item, float* tile, float* result) const {
        const int64_t pitch = filter_vectors * lanes;
        int64_t column[P];
        for (int j = 0; j < P; ++j) column[j] = j * sums_point;
        vec zeros = zero();
        for (int64_t d = item.channel; d < item.channel_end; ++d)
            for (int64_t v = vector_at(item.block); v < vector_at(item.block_end); ++v) {
                evaluate_square<W::filter_transposed, R>(item.sums + d * pitch + v * lanes, P * sums_point, column, tile, lanes);
                const int count = static_cast<int>(std::min<int64_t>(lanes, c.filters - v * lanes));
                for (int tap = 0; tap < R * R; ++tap) zeros += load(tile + tap * lanes) * 0.0f;
                write_taps(d, tile, result + item.group * c.filters + v * lanes, count);
            }
        for (int i = 0; i < lanes; ++i)
            if (zeros[i] != 0) return false;
        return true;
    }

    // Those of a phase's R x R taps that it has.
    void write_taps(int64_t channel, const float* tile, float* to, int count) const {
        const int64_t phase = channel / c.depth, rows = s.filter_h, row_taps = s.filter_w;
        const WinogradPhases& strides = columns.strides;
        for (int i = 0; i < R; ++i)
            for (int j = 0; j < R; ++j) {
                const int64_t row = i * strides.row_stride + strides.row_of(phase);
                const int64_t column = j * strides.column_stride + strides.column_of(phase);
                if (row >= rows || column >= row_taps) continue;
                const int64_t tap = (channel % c.depth * rows + c.rows.order[row]) * row_taps + c.columns.order[column];
                store_first(to + tap * s.filters, load(tile + (i * R + j) * lanes), count);
            }
    }
};

// Whether this algorithm's result is there: computed, since it is allowed and takes less than `least`.
template <int M, int R>
bool weights_in_tiles(const WeightWinograd<M, R>& tiles, double least, float* result, int threads) {
    return tiles.allowed() && tiles.cost < least && tiles.run(result, threads);
}

// Prices are good to some 10%, so Winograd's has to be better than that: than a direct kernel, which takes `direct`, in
// multiply-adds of a vector, with all taps inside of the images. False: nothing is computed. With 7 x 7 filters, and 5 x 5
// in small tiles, it never was.
inline bool weights_by_winograd(const ConvShape& s, const float* images, const float* grads, float* result, double direct,
                                int threads) {
    const bool empty = !s.channels || !s.filters || !s.batch || !s.out_h || !s.out_w || !s.height || !s.width;
    if (!s.winograd || empty) return false;
    const Correlation c = forward_correlation(s, images, nullptr, nullptr);
    const int64_t taps = phase_taps(c.rows);
    if (taps != phase_taps(c.columns) || (taps != 3 && taps != 5)) return false;
    const double inside = mean_taps(c.rows) * mean_taps(c.columns) / (s.filter_h * s.filter_w);
    const double least = s.winograd < 0 ? HUGE_VAL : 0.9 * direct * inside;
    if (taps == 5) return weights_in_tiles<4, 5>({s, grads, c, threads}, least, result, threads);
    const WeightWinograd<2, 3> two(s, grads, c, threads);
    const WeightWinograd<4, 3> four(s, grads, c, threads);
    return weights_in_tiles(four, two.allowed() ? std::min(two.cost, least) : least, result, threads) ||
           weights_in_tiles(two, four.allowed() ? std::min(four.cost, least) : least, result, threads);
}

}  // namespace c01b
