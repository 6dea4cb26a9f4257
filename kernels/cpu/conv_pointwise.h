// The loop nest for filters of one tap, such as those of 1 x 1: a product of matrices, [filter] x [channel] with [channel] x
// [position], where a position is a pixel that takes part and an image, all of them one axis.
//
//     for each item (group, blocks of 64 positions, filter blocks), shared out to the threads
//       copy its positions to a panel [block][channel][position]                        +--- positions ---+
//       for each block of F filters                                                  x: | V vectors, 64   |  from L2
//         for each block of positions                                                   +-----------------+
//           add up the products of all channels                                   w: F  | F x V registers |  sums
//                                                                                 (L1)  +-----------------+
//
// So vectors are full whatever the batch is, and a stride only says where a position lies: in the source of a convolution, in
// the target of a gradient, whose pixels between them are zeros that are written along.
//
//     stride 2, batch 2:    dense   a0 a1 b0 b1 c0 c1 ...       spaced   a0 a1 -- -- b0 b1 -- -- c0 c1 ...
//
// With stride 1 both are dense. The tile is that of conv_batch_lanes.h, and multiply-adds are the bound as they are there; with few
// channels it is the target, which is written around the caches where none could hold it and its lines are whole vectors.
#pragma once
#include <cmath>

#include "conv_batch_lanes.h"

namespace c01b {

class Pointwise {
public:
    double cost;  // multiply-adds of a vector on the busiest thread; infinite where it does not apply

    // For a target that is not empty.
    Pointwise(const Correlation& c, int threads) : cost(HUGE_VAL), c(c) {
        if (c.rows.order.size() != 1 || c.columns.order.size() != 1 || !c.depth || !c.source_h || !c.source_w) return;
        const int64_t rows = c.rows.span.size(), columns = c.columns.span.size();
        gradient = !c.rows.shift.empty();
        spaced_h = gradient ? rows : c.source_h, spaced_w = gradient ? columns : c.source_w;
        dense_h = gradient ? c.source_h : rows, dense_w = gradient ? c.source_w : columns;
        stride_y = gradient ? c.rows.step : c.rows.stride, stride_x = gradient ? c.columns.step : c.columns.stride;
        const bool unpadded = gradient ? !c.rows.shift[0] && !c.columns.shift[0] : !c.rows.origin && !c.columns.origin;
        const bool inside = (dense_h - 1) * stride_y < spaced_h && (dense_w - 1) * stride_x < spaced_w;
        if (!unpadded || !inside) return;
        dense = dense_h == spaced_h && dense_w == spaced_w;
        if (gradient && !dense && c.epilogue) return;  // the pixels between have no sums to finish
        positions = dense_h * dense_w * c.batch, plane = spaced_h * spaced_w * c.batch;
        vectors = block_count(positions, lanes);
        blocks = block_count(vectors, tile_vectors), filter_blocks = block_count(c.filters, tile_rows);
        constexpr int64_t line = lanes * sizeof(float);
        streamed = !(gradient && !dense) && !c.epilogue && positions % lanes == 0 &&
                   reinterpret_cast<uintptr_t>(c.target) % line == 0 && should_stream(c.target, c.groups * c.filters, positions);
        share_out(threads);
    }

    void run(int threads) const {
        float* packed = scratch<Prepared>(c.groups * c.filters * c.depth);
        parallel_for(c.groups * filter_blocks, threads, [&](int64_t i, int) {
            const int64_t group = i / filter_blocks, filter = filter_at(i % filter_blocks);
            pack_filters({group, 0, c.depth, filter, filter_at(i % filter_blocks + 1)},
                         packed + (group * c.filters + filter) * c.depth);
        });
        const int64_t panel_floats = together * c.depth * tile_vectors * lanes;
        float* panels = scratch<Working>(panel_floats * threads);  // here: nothing may throw inside the threads
        const int64_t items = block_count(blocks, together);
        parallel_for(c.groups * chunks * items, threads, [&](int64_t i, int thread) {
            const int64_t group = i / items / chunks, chunk = i / items % chunks;
            const Item item{group, i % items * together, std::min((i % items + 1) * together, blocks),
                            block_begin(filter_blocks, chunks, chunk), block_begin(filter_blocks, chunks, chunk + 1)};
            run_item(item, packed + group * c.filters * c.depth, panels + thread * panel_floats);
        });
    }

private:
    struct Item {
        int64_t group, block, block_end, filter_block, filter_block_end;
    };

    // Neighbouring positions of one pixel: the first, counted from the block's, how many, and where they are among the spaced.
    struct Piece {
        int64_t position, count, spaced;
        bool row_end;  // whether its pixel is the last of a row: what lies behind is no other's
        bool last_row;
    };
    struct Pieces {
        Piece piece[tile_vectors * lanes];
        int64_t count;
    };

    const Correlation& c;
    bool gradient, dense, streamed;
    int64_t spaced_h, spaced_w, dense_h, dense_w, stride_y, stride_x;
    int64_t positions, plane, vectors, blocks, filter_blocks;  // plane: floats of a channel of spaced pixels
    int64_t together, chunks;                                  // of an item: blocks, and into how many filters are cut

    int64_t filter_at(int64_t block) const { return block_begin(c.filters, filter_blocks, block); }
    int64_t position_at(int64_t block) const { return block_begin(vectors, blocks, block) * lanes; }
    int64_t width_of(int64_t block) const { return position_at(block + 1) - position_at(block); }

    // Blocks of an item, whose panel fits L2 with room to spare, and chunks of filters, as the busiest thread has least to do: the
    // products, at 92% of peak, 6 for a tile's sums, and for a vector packed 4, or more of small pieces (measured).
    void share_out(int threads) {
        const int64_t limit = 128 * 1024, block_floats = c.depth * tile_vectors * lanes;
        const double packing = dense || c.batch >= lanes ? 4 : 4 + 6.0 * lanes / c.batch;
        const double spaced = gradient && !dense ? 2.0 * plane / positions + packing : 0;
        const double loads = std::max(1.0, 2.2 / c.filters);  // of a tile of one or two filters they are the bound
        for (int64_t n = std::max<int64_t>(1, std::min(blocks, limit / block_floats)); n; n /= 2)
            for (int64_t m = 1; m <= std::min<int64_t>(filter_blocks, 4 * threads); m *= 2) {
                const double filters = double(block_count(filter_blocks, m)) * c.filters / filter_blocks;
                const double of_vector = filters * (loads * (c.depth + 6) / 0.92 + spaced) + packing * c.depth;
                const double item = n * double(vectors) / blocks * of_vector + 200;
                const double with = block_count(c.groups * m * block_count(blocks, n), threads) * item;
                if (with < cost) cost = with, together = n, chunks = m;
            }
        cost += double(c.groups) * c.depth * c.filters / threads;  // packing filters
    }

    // [channel][filter]
    void pack_filters(const PackItem& item, float* to) const {
        for (int64_t d = item.channel; d < item.channel_end; ++d) to = pack_tap(c, item, 0, 0, d, to);
    }

    void run_item(const Item& item, const float* packed, float* panel) const {
        const int64_t block_floats = c.depth * tile_vectors * lanes;
        Table<Pieces> pieces(dense ? 0 : item.block_end - item.block);
        for (int64_t b = item.block; b < item.block_end; ++b) {
            if (!dense) pieces[b - item.block] = pieces_of(b);
            pack_positions(item.group, b, dense || gradient ? nullptr : &pieces[b - item.block],
                           panel + (b - item.block) * block_floats);
        }
        for (int64_t f = item.filter_block; f < item.filter_block_end; ++f)
            for (int64_t b = item.block; b < item.block_end; ++b)
                multiply(item.group, f, b, packed + filter_at(f) * c.depth, panel + (b - item.block) * block_floats,
                         dense || !gradient ? nullptr : &pieces[b - item.block]);
        if (streamed) finish_streaming();
    }

    Pieces pieces_of(int64_t block) const {
        const int64_t first = position_at(block), end = std::min(position_at(block + 1), positions);
        Pieces found;
        found.count = 0;
        for (int64_t p = first, n; p < end; p += n) {
            const int64_t pixel = p / c.batch, image = p % c.batch, row = pixel / dense_w, column = pixel % dense_w;
            n = std::min(c.batch - image, end - p);
            found.piece[found.count++] = {p - first, n, (row * stride_y * spaced_w + column * stride_x) * c.batch + image,
                                          column == dense_w - 1, row == dense_h - 1};
        }
        return found;
    }

    // A block's positions of all channels, [channel][position]; without pieces they lie one after another.
    void pack_positions(int64_t group, int64_t block, const Pieces* pieces, float* to) const {
        const int64_t width = width_of(block), first = position_at(block), count = std::min(width, positions - first);
        const float* from = c.source_of(group);
        for (int64_t d = 0; d < c.depth; ++d, to += width) {
            if (pieces) {
                for (int64_t i = 0; i < pieces->count; ++i)
                    copy_floats(from + d * plane + pieces->piece[i].spaced, pieces->piece[i].count,
                                to + pieces->piece[i].position);
            } else {
                copy_floats(from + d * positions + first, count, to);
            }
            std::fill(to + count, to + width, 0.0f);
        }
    }

    // With pieces the target is spaced; else its positions lie one after another.
    void multiply(int64_t group, int64_t filter_block, int64_t block, const float* weights, const float* panel,
                  const Pieces* pieces) const {
        const int64_t filter = filter_at(filter_block), filters = filter_at(filter_block + 1) - filter;
        const int64_t width = width_of(block), first = position_at(block), count = std::min(width, positions - first);
        const ImageProducts products{0, 1, 1, c.depth, 0, 0, 0};
        const auto tile = Tiles<SinglePixel>::get(filters, width / lanes);
        if (!pieces) {
            float* to = c.target_of(group) + filter * positions + first;
            tile(panel, weights, products, {nullptr, 0, 0, to, positions, 0, count, streamed && count == width});
            if (c.epilogue) finish_sums(c, group, filter, filters, to, positions, count);
            return;
        }
        float sums[tile_rows * tile_vectors * lanes];
        tile(panel, weights, products, {nullptr, 0, 0, sums, width, 0, width});
        for (int64_t f = 0; f < filters; ++f) write_spaced(sums + f * width, *pieces, c.target_of(group) + (filter + f) * plane);
    }

    // Sums to where they belong, and zeros to what lies between there and the pixels of other sums: to the right of a pixel and
    // below that, as far as a stride reaches, or at the ends of rows and columns as far as there are pixels.
    void write_spaced(const float* sums, const Pieces& pieces, float* target) const {
        const int64_t line = spaced_w * c.batch;
        for (int64_t i = 0; i < pieces.count; ++i) {
            const Piece& p = pieces.piece[i];
            float* to = target + p.spaced;
            copy_floats(sums + p.position, p.count, to);
            const int64_t image = p.spaced % c.batch;
            const int64_t columns = p.row_end ? spaced_w - (dense_w - 1) * stride_x : stride_x;
            const int64_t rows = p.last_row ? spaced_h - (dense_h - 1) * stride_y : stride_y;
            if (image + p.count == c.batch) {  // the pixel's last piece writes the zeros of all its images
                std::fill(to + p.count, to + p.count + (columns - 1) * c.batch, 0.0f);
                for (int64_t row = 1; row < rows; ++row)
                    std::fill_n(to - image + row * line, columns * c.batch, 0.0f);
            }
        }
    }
};

}  // namespace c01b
