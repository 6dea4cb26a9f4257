// A data gradient with stride 1 by the transpose of Winograd's algorithm. That has y = A^T [ (G g G^T) * (B^T d B) ] A for M x M
// results of N x N pixels, N = M + R - 1 (winograd.h); as a map of d to y it has the transpose
//
//     d' = B [ (G g G^T) * (A y' A^T) ] B^T
//
// of M x M pixels of the source y' to N x N pixels of the target, which neighbouring tiles share: each adds its part.
//
//     source   |--0--|--1--|--2--|            M = 2, R = 5: a tile of 2 x 2 scatters to 6 x 6
//     target   |-----0-----|
//                    |-----1-----|
//                          |-----2-----|
//
// conv_winograd.h gathers instead, so it cuts the target into tiles. Of an unpadded convolution the source is the smaller of the
// two, and products are as many fewer: LeNet's second layer has 16 tiles here for 36 there, of 8 x 8 pixels and 12 x 12. Where a
// pad makes both the same, this only has more to add up.
//
// An item has some images and filters, so that no other adds to the same pixels. Its columns are [tile row][tile column][image];
// of a block of them, panel, products and sums are as in conv_winograd.h. Products are the bound, and where there are few
// channels, the lines of the panel and of the sums, each of a stream of its own.
//
// Results that are not finite: as in conv_winograd.h, each tile's results are looked at.
#pragma once
#include <atomic>

#include "conv_winograd.h"

namespace c01b {

// What transforms take, in multiply-adds of a vector (measured): of a vector of columns with its M^2 pixels of a channel, of one
// with its N^2 results, which the target's lines make slow, and of one filter's taps for one channel; and how much longer the
// first two take of a vector put together from pieces of several tiles. A gradient has no ties that
// rounding may break, so F(4,5) may compute it as F(2,5) may.
template <int M, int R>
struct ScatteredPrices;
template <>
struct ScatteredPrices<2, 5> {
    static constexpr double images = 700, outputs = 1900, taps = 200;
    static constexpr double parted = 1;
};
template <>
struct ScatteredPrices<4, 5> {
    static constexpr double images = 3500, outputs = 6400, taps = 450;
    static constexpr double parted = 1;
};
template <>
struct ScatteredPrices<2, 7> {
    static constexpr double images = 3300, outputs = 4800, taps = 500;
    static constexpr double parted = 0.5;
};

template <int M, int R>
class WinogradScatter {
    using W = Winograd<M, R>;
    static constexpr int N = W::N, P = W::P, points = P * P, overlap = N - M, square_pitch = 2 * lanes;

public:
    double cost;  // multiply-adds of a vector on the busiest thread; infinite where it does not apply

    // Negative: by a test, whatever the flag says.
    bool allowed() const { return c.winograd == -10 - M || c.winograd >= 2; }

    // For a target that is not empty.
    WinogradScatter(const Correlation& c, int threads) : cost(HUGE_VAL), c(last_tap_first(c)) {
        first_row = 1 - R - c.rows.origin, first_column = 1 - R - c.columns.origin;
        tiles_down = block_count(c.source_h, M), tiles_across = block_count(c.source_w, M);
        const bool reached = first_row <= 0 && first_column <= 0 &&
                             first_row + c.source_h + R - 1 >= static_cast<int64_t>(c.rows.span.size()) &&
                             first_column + c.source_w + R - 1 >= static_cast<int64_t>(c.columns.span.size());
        if (c.epilogue || c.rows.stride != 1 || c.columns.stride != 1 || !c.depth || !c.source_h || !c.source_w || !reached) return;
        filter_blocks = block_count(c.filters, tile_rows);
        share_out(threads);
        filter_point = line_apart(filter_blocks * winograd_block(c.depth));
        panel_point = line_apart(c.depth * tile_vectors * lanes);
        sum_pitch = line_apart(points * tile_vectors * lanes);
    }

    // False: something was not finite, and the target is not to be used.
    bool run(int threads) const {
        std::atomic<bool> finite{true};
        const float* filters = transform_filters<M, R>(c, filter_blocks, filter_point, threads);
        const int64_t sums = block_count(filter_blocks, chunks) * tile_rows * sum_pitch;
        const int64_t share = points * panel_point + sums + N * N * square_pitch;
        float* work = scratch<Working>(share * threads);  // here: nothing may throw inside the threads
        const int64_t parts = block_count(c.batch, images);
        parallel_for(c.groups * chunks * parts, threads, [&](int64_t i, int thread) {
            if (!finite.load(std::memory_order_relaxed)) return;
            const int64_t chunk = i / parts % chunks, group = i / parts / chunks;
            float* panel = work + thread * share;
            const Item item{group, i % parts * images, std::min(images, c.batch - i % parts * images),
                            block_begin(filter_blocks, chunks, chunk), block_begin(filter_blocks, chunks, chunk + 1),
                            filters + group * points * filter_point, panel, panel + points * panel_point,
                            panel + points * panel_point + sums};
            if (!run_item(item)) finite.store(false, std::memory_order_relaxed);
        });
        return finite.load();
    }

private:
    struct Item {
        int64_t group, image, images, filter_block, filter_block_end;
        const float* filters;
        float *panel, *sums, *work;
    };
    // Images of one tile that lie in one vector.
    struct Piece {
        int64_t lane, count, tile_row, tile_column, image;
    };
    struct Pieces {
        int count;
        Piece piece[lanes];
    };

    const Correlation c;
    int64_t first_row, first_column;  // of the target, that the source's first pixel reaches
    int64_t tiles_down, tiles_across;
    int64_t filter_blocks, images, chunks;         // images of an item, and chunks of filter blocks
    int64_t filter_point, panel_point, sum_pitch;  // odd multiples of a line, against strides of 4096 bytes

    int64_t filter_at(int64_t block) const { return block_begin(c.filters, filter_blocks, block); }

    // Of the convolution that this is the transpose of, taps come in the other order.
    static Correlation last_tap_first(const Correlation& c) {
        Correlation turned = c;
        std::reverse(turned.rows.order.begin(), turned.rows.order.end());
        std::reverse(turned.columns.order.begin(), turned.columns.order.end());
        return turned;
    }

    // Equal numbers of images for each thread, or whole vectors.
    void share_out(int threads) {
        for (int64_t parts = block_count(c.batch, tile_vectors * lanes); parts <= c.batch; parts *= 2) {
            const int64_t equal = block_count(c.batch, std::min(c.batch, block_count(parts, threads) * threads));
            const int64_t whole = block_count(block_count(c.batch, parts), lanes) * lanes;
            for (int64_t n : {equal, std::min(whole, c.batch)})
                for (int64_t k = 1; k <= std::min<int64_t>(filter_blocks, 4 * threads); k *= 2) {
                    const double with = estimate(n, k, threads);
                    if (with < cost) cost = with, images = n, chunks = k;
                }
        }
    }

    double estimate(int64_t of_images, int64_t in_chunks, int threads) const {
        using Price = ScatteredPrices<M, R>;
        const int64_t count = tiles_down * tiles_across * of_images;
        const double vectors = block_count(count, lanes), filters = double(c.filters) / in_chunks;
        const double parted = of_images % lanes ? std::min<double>(vectors, tiles_down * tiles_across - 1) / vectors : 0;
        const double transforms = (Price::images * c.depth + Price::outputs * filters) * (1 + Price::parted * parted);
        const double item = vectors * (points * c.depth * filters / winograd_share + transforms);
        const double taps = Price::taps * c.groups * c.depth * c.filters / threads;
        return (block_count(c.groups * in_chunks * block_count(c.batch, of_images), threads) + waiting) * item + taps;
    }

    bool run_item(const Item& item) const {
        const int64_t count = tiles_down * tiles_across * item.images, vectors = block_count(count, lanes);
        const int64_t blocks = block_count(vectors, tile_vectors);
        vec zeros = zero();  // as long as everything is finite
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t first = block_begin(vectors, blocks, b), width = block_begin(vectors, blocks, b + 1) - first;
            Pieces pieces[tile_vectors];
            for (int64_t v = 0; v < width; ++v) find_pieces(item, (first + v) * lanes, count, pieces[v]);
            transform_source(item, pieces, width);
            multiply(item, width);
            const int64_t begin = filter_at(item.filter_block), end = filter_at(item.filter_block_end);
            for (int64_t f = begin; f < end; ++f)
                for (int64_t v = 0; v < width; ++v)
                    zeros += scatter(item, pieces[v], f, item.sums + (f - begin) * sum_pitch + v * lanes, width * lanes);
        }
        for (int i = 0; i < lanes; ++i)
            if (zeros[i] != 0) return false;
        return true;
    }

    void find_pieces(const Item& item, int64_t first, int64_t count, Pieces& pieces) const {
        const int64_t end = std::min(first + lanes, count);
        pieces.count = 0;
        for (int64_t t = first, next; t < end; t = next) {
            const int64_t tile = t / item.images;
            next = std::min(end, (tile + 1) * item.images);
            pieces.piece[pieces.count++] = {t - first, next - t, tile / tiles_across, tile % tiles_across,
                                            item.image + t % item.images};
        }
    }

    // A y' A^T of every channel to the panel, [point][channel][column].
    void transform_source(const Item& item, const Pieces* pieces, int64_t width) const {
        const int64_t row = c.source_w * c.batch;
        int64_t column[M], square_column[M];
        for (int j = 0; j < M; ++j) column[j] = j * c.batch, square_column[j] = j * square_pitch;
        float* to = item.panel;
        for (int64_t d = 0; d < c.depth; ++d) {
            const float* source = c.source_of(item.group) + d * c.source_h * row;
            for (int64_t v = 0; v < width; ++v, to += lanes) {
                const Piece& p = pieces[v].piece[0];
                if (p.count == lanes && (p.tile_row + 1) * M <= c.source_h && (p.tile_column + 1) * M <= c.source_w) {
                    evaluate_square<W::output_transposed, P>(source + p.tile_row * M * row + p.tile_column * M * c.batch + p.image,
                                                             row, column, to, panel_point);
                    continue;
                }
                for (int i = 0; i < pieces[v].count; ++i) assemble(pieces[v].piece[i], source, item.work);
                evaluate_square<W::output_transposed, P>(item.work, M * square_pitch, square_column, to, panel_point);
            }
        }
    }

    // A piece's pixels to [row][column][lane]. Stores past its end, where the next one follows or nothing counts.
    void assemble(const Piece& p, const float* source, float* square) const {
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) {
                const int64_t y = p.tile_row * M + i, x = p.tile_column * M + j;
                const bool in = y < c.source_h && x < c.source_w;
                store(square + (i * M + j) * square_pitch + p.lane,
                      in ? load_first(source + (y * c.source_w + x) * c.batch + p.image, static_cast<int>(p.count)) : zero());
            }
    }

    void multiply(const Item& item, int64_t width) const {
        const int64_t first = filter_at(item.filter_block);
        const ImageProducts products{0, 1, 1, c.depth, 0, 0, 0};
        for (int64_t point = 0; point < points; ++point)
            for (int64_t b = item.filter_block; b < item.filter_block_end; ++b) {
                const int64_t f = filter_at(b), count = filter_at(b + 1) - f;
                const ImageSums sums{nullptr, 0, 0, item.sums + (f - first) * sum_pitch + point * width * lanes, sum_pitch, 0,
                                     width * lanes};
                Tiles<SinglePixel>::get(count, width)(item.panel + point * panel_point,
                                                      item.filters + point * filter_point + b * winograd_block(c.depth),
                                                      products, sums);
            }
    }

    // Adds a vector's results of one filter to the target; returns 0, or where not all of them are finite NaN.
    vec scatter(const Item& item, const Pieces& pieces, int64_t filter, const float* sums, int64_t point) const {
        vec y[N][N];
        interpolate_square<W::image_transposed, N, P>(sums, point, y);
        vec sum = zero();
        for (int i = 0; i < N; ++i)
            for (int j = 0; j < N; ++j) sum += y[i][j];
        float* target = c.target_of(item.group) + filter * int64_t(c.rows.span.size() * c.columns.span.size()) * c.batch;
        if (pieces.piece[0].count == lanes) {
            add_piece(pieces.piece[0], target, [&](int i, int j, float* to, bool begins) {
                store(to, begins ? y[i][j] : load(to) + y[i][j]);
            });
            return sum * 0.0f;
        }
        for (int i = 0; i < N; ++i)
            for (int j = 0; j < N; ++j) store(item.work + (i * N + j) * square_pitch, y[i][j]);
        for (int k = 0; k < pieces.count; ++k) {
            const Piece& p = pieces.piece[k];
            const int count = static_cast<int>(p.count);
            add_piece(p, target, [&](int i, int j, float* to, bool begins) {
                const vec part = load(item.work + (i * N + j) * square_pitch + p.lane);
                store_first(to, begins ? part : load_first(to, count) + part, count);
            });
        }
        return sum * 0.0f;
    }

    // Calls add(i, j, to, begins) for each of a tile's results that is in the target; `begins`: no earlier tile reaches it.
    template <class Add>
    void add_piece(const Piece& p, float* target, const Add& add) const {
        const int64_t rows = c.rows.span.size(), columns = c.columns.span.size();
        const int64_t y = first_row + p.tile_row * M, x = first_column + p.tile_column * M;
        const int begin_row = clamp(-y), end_row = clamp(rows - y), begin = clamp(-x), end = clamp(columns - x);
        const auto at = [&](int i, int j) { return target + (((y + i) * columns + x + j) * c.batch + p.image); };
        for (int i = begin_row; i < end_row; ++i) {
            const bool new_row = p.tile_row == 0 || i >= overlap;
            const int known = !new_row ? end : p.tile_column ? std::max(begin, std::min(end, overlap)) : begin;
            for (int j = begin; j < known; ++j) add(i, j, at(i, j), false);
            for (int j = known; j < end; ++j) add(i, j, at(i, j), true);
        }
    }
    static int clamp(int64_t pixel) { return static_cast<int>(std::max<int64_t>(0, std::min<int64_t>(pixel, N))); }
};

}  // namespace c01b
