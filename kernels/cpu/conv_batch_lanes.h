// The loop nest with images in the lanes of a vector, for batches that fill vectors.
//
//     for each item (filter blocks, batch blocks, target row), shared out to the threads
//       for each strip of columns, for each group of source channels                    +--- batch block ---+
//         copy the strip's source pixels to a panel [column][row][channel][image]    x: | V vectors, 64 imgs|  from L2
//         for each block of F filters                                                   +-------------------+
//           for each column of the strip                                          w: F  | F x V registers   |  sums
//             add up  column span x row span x channels  products                 (L1)  +-------------------+
//
// In the panel the products of one pixel lie one after another (neighbouring pixels overlap: the im2col matrix without
// storing it), and the packed filters [group][block][tap column][tap row][channel][filter] are read in the same order, so
// the inner loop has no table and no address arithmetic: V loads, F broadcasts, F*V multiply-adds. With F = 6, V = 4 that
// is 10 loads in 24 multiply-adds and the multiply-adds are the bound. The panel lives in L2 and costs 256 bytes for 24
// multiply-adds; packed, it cannot suffer from the strides of c01b arrays, which are often multiples of 4096 bytes.
// Sums of earlier channel groups wait in a thread's own buffer [column][filter][image].
#pragma once
#include "conv_axes.h"
#include "parallel.h"

namespace c01b {

// Where F x V sums come from and go to; a null `from` is zeros. Of the last vector only images < `images` are written.
struct Sums {
    const float* from;
    int64_t from_stride;
    float* to;
    int64_t to_stride;
    int64_t images;
};

template <int F, int V>
struct ImageTile {
    static void run(const float* x, const float* w, const Products& p, const Sums& s) {
        vec sum[F][V];
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[f][v] = s.from ? load(s.from + f * s.from_stride + v * lanes) : zero();

        for (int64_t run = 0; run < p.runs; ++run, x += p.source_skip, w += p.weight_skip)
            for (int64_t i = 0; i < p.length; ++i, x += V * lanes, w += F) {
                vec image[V];
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) image[v] = load(x + v * lanes);
#pragma GCC unroll 8
                for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sum[f][v] += w[f] * image[v];
            }

#pragma GCC unroll 8
        for (int f = 0; f < F; ++f) {
            float* to = s.to + f * s.to_stride;
#pragma GCC unroll 8
            for (int v = 0; v < V - 1; ++v) store(to + v * lanes, sum[f][v]);
            const int64_t last = s.images - (V - 1) * lanes;
            if (last == lanes) store(to + (V - 1) * lanes, sum[f][V - 1]);
            else store_first(to + (V - 1) * lanes, sum[f][V - 1], static_cast<int>(last));
        }
    }
};

// How the loop nest is cut; see the drawing above.
struct Blocking {
    int64_t taps, vectors;
    int64_t groups, filter_blocks, batch_blocks, together, chunks, strip;
    int64_t panel_floats, sums_floats;
};

inline Blocking choose_blocking(const Correlation& c, int threads) {
    Blocking b;
    b.taps = c.rows.order.size() * c.columns.order.size();
    b.vectors = c.filters <= few_rows ? wide_vectors : tile_vectors;
    b.filter_blocks = block_count(c.filters, tile_rows);
    b.batch_blocks = block_count(block_count(c.batch, lanes), b.vectors);
    b.groups = std::max<int64_t>(1, block_count(c.depth * b.taps, 1024));
    b.groups = std::min(b.groups, std::max<int64_t>(1, c.depth));
    const int64_t depth = block_count(c.depth, b.groups);

    const int64_t columns = c.columns.span.size(), rows = c.rows.span.size();
    const int64_t column_floats = widest(c.rows, 1) * depth * b.vectors * lanes;
    b.strip = std::max<int64_t>(columns, 1);
    while (b.strip > 4 && widest(c.columns, b.strip) * column_floats > 96 * 1024) b.strip = block_count(b.strip, 2);
    b.panel_floats = widest(c.columns, b.strip) * column_floats;
    b.sums_floats = b.groups > 1 ? b.strip * c.filters * b.vectors * lanes : 0;

    // Panels of several batch blocks side by side, where they are small, make longer stores.
    b.together = b.groups > 1 ? 1 : std::max<int64_t>(1, 96 * 1024 / std::max<int64_t>(1, b.panel_floats));
    b.together = std::min(b.together, b.batch_blocks);
    while (b.together > 1 && rows * block_count(b.batch_blocks, b.together) < 2 * threads) --b.together;

    // Filters are split into chunks as far as that evens out the threads' shares; each chunk packs its own panels.
    b.chunks = 1;
    const int64_t items = rows * block_count(b.batch_blocks, b.together), packing = 1;
    int64_t best = INT64_MAX;
    for (int64_t chunks = 1; chunks <= std::min<int64_t>(b.filter_blocks, 4 * threads); ++chunks) {
        const int64_t cost = block_count(items * chunks, threads) * (block_count(b.filter_blocks, chunks) + packing);
        if (cost < best) best = cost, b.chunks = chunks;
    }
    return b;
}

// The weights of block `block` and channels [from, end) as [tap column][tap row][channel][filter].
inline void pack_weights(const Correlation& c, int64_t from, int64_t end, int64_t filter, int64_t filter_end, float* to) {
    for (int64_t v : c.columns.order)
        for (int64_t u : c.rows.order)
            for (int64_t d = from; d < end; ++d) {
                const float* w = c.weights + d * c.depth_stride + u * c.row_stride + v * c.column_stride;
                for (int64_t f = filter; f < filter_end; ++f) *to++ = w[f * c.filter_stride];
            }
}

// Source channels [from, end), the rows of one span, some columns and the images of one block, as
// [column][row][channel][image], the last vector padded with zeros.
struct Panel {
    int64_t channel, channel_end, row, row_end, column, column_end, image, images, vectors;
};
inline void pack_panel(const Correlation& c, const Panel& p, float* panel) {
    const int64_t channels = p.channel_end - p.channel, rows = p.row_end - p.row;
    const int64_t pitch = p.vectors * lanes, full = p.images / lanes;
    const int tail = static_cast<int>(p.images % lanes);
    for (int64_t d = 0; d < channels; ++d)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t line = ((p.channel + d) * c.source_h + p.row + r) * c.source_w;
            for (int64_t column = p.column; column < p.column_end; ++column) {
                const float* from = c.source + (line + column) * c.batch + p.image;
                float* to = panel + (((column - p.column) * rows + r) * channels + d) * pitch;
                for (int64_t v = 0; v < full; ++v) store(to + v * lanes, load(from + v * lanes));
                if (tail) store(to + full * lanes, load_first(from + full * lanes, tail));
            }
        }
}

struct PackedWeights {};
struct PanelsAndSums {};

// What one thread does at a time: some filter blocks and batch blocks of one target row.
struct Item {
    int64_t block, block_end, batch_block, batch_block_end, row;
};

struct Images {
    int64_t first, count, vectors;
};
inline Images images_of(const Correlation& c, const Blocking& b, int64_t batch_block) {
    const int64_t vectors = block_count(c.batch, lanes);
    const int64_t begin = block_begin(vectors, b.batch_blocks, batch_block);
    const int64_t end = block_begin(vectors, b.batch_blocks, batch_block + 1);
    return {begin * lanes, std::min(end * lanes, c.batch) - begin * lanes, end - begin};
}

// The products of one channel group for columns [column, end) of an item, from the panels (one a batch block) that start at
// source column `source`. Images are innermost: that is how the target is contiguous.
inline void multiply_panels(const Correlation& c, const Blocking& b, const Item& item, const float* packed,
                            const float* panels, float* sums, int64_t group, int64_t column, int64_t end, int64_t source) {
    const int64_t channel = block_begin(c.depth, b.groups, group);
    const int64_t channels = block_begin(c.depth, b.groups, group + 1) - channel;
    const int64_t rows = c.rows.span.size(), columns = c.columns.span.size(), row_taps = c.rows.order.size();
    const Span across = c.rows.span[item.row];
    const bool last = group == b.groups - 1;
    for (int64_t k = item.block; k < item.block_end; ++k) {
        const int64_t filter = block_begin(c.filters, b.filter_blocks, k);
        const int64_t count = block_begin(c.filters, b.filter_blocks, k + 1) - filter;
        const float* weights = packed + (channel * c.filters + filter * channels) * b.taps;
        for (int64_t t = column; t < end; ++t) {
            const Span along = c.columns.span[t];
            Products p{along.count, across.count * channels, 0, (row_taps - across.count) * channels * count};
            if (p.weight_skip == 0) p = {1, p.runs * p.length, 0, 0};
            const float* w = weights + (along.tap * row_taps + across.tap) * channels * count;
            const int64_t x = (along.source - source) * across.count * channels;
            for (int64_t i = item.batch_block; i < item.batch_block_end; ++i) {
                const Images images = images_of(c, b, i);
                const int64_t pitch = images.vectors * lanes;
                float* waiting = sums + ((t - column) * c.filters + filter) * pitch;
                float* target = c.target + ((filter * rows + item.row) * columns + t) * c.batch + images.first;
                Sums s{group ? waiting : nullptr, pitch, waiting, pitch, pitch};
                if (last) s.to = target, s.to_stride = rows * columns * c.batch, s.images = images.count;
                Tiles<ImageTile>::get(count, images.vectors)(panels + (i - item.batch_block) * b.panel_floats + x * pitch, w, p, s);
            }
        }
    }
}

inline void correlate_item(const Correlation& c, const Blocking& b, const Item& item, const float* packed, float* panels,
                           float* sums) {
    const int64_t columns = c.columns.span.size();
    const Span across = c.rows.span[item.row];
    for (int64_t column = 0; column < columns; column += b.strip) {
        const int64_t end = std::min(column + b.strip, columns);
        const int64_t source = source_begin(c.columns, column, end);
        for (int64_t group = 0; group < b.groups; ++group) {
            for (int64_t i = item.batch_block; i < item.batch_block_end; ++i) {
                const Images images = images_of(c, b, i);
                pack_panel(c, {block_begin(c.depth, b.groups, group), block_begin(c.depth, b.groups, group + 1),
                               across.source, across.source + across.count, source, source_end(c.columns, column, end),
                               images.first, images.count, images.vectors},
                           panels + (i - item.batch_block) * b.panel_floats);
            }
            multiply_panels(c, b, item, packed, panels, sums, group, column, end, source);
        }
    }
}

inline void correlate_batch_lanes(const Correlation& c, int threads) {
    const int64_t rows = c.rows.span.size();
    const Blocking b = choose_blocking(c, threads);
    float* packed = scratch<PackedWeights>(c.depth * b.taps * c.filters);
    parallel_for(b.groups * b.filter_blocks, threads, [&](int64_t i, int) {
        const int64_t group = i / b.filter_blocks, block = i % b.filter_blocks;
        const int64_t from = block_begin(c.depth, b.groups, group), end = block_begin(c.depth, b.groups, group + 1);
        const int64_t filter = block_begin(c.filters, b.filter_blocks, block);
        const int64_t filter_end = block_begin(c.filters, b.filter_blocks, block + 1);
        pack_weights(c, from, end, filter, filter_end, packed + (from * c.filters + filter * (end - from)) * b.taps);
    });
    const int64_t share = b.panel_floats * b.together + b.sums_floats;
    float* work = scratch<PanelsAndSums>(share * threads);  // here: nothing may throw inside the threads
    const int64_t batches = block_count(b.batch_blocks, b.together);
    parallel_for(b.chunks * batches * rows, threads, [&](int64_t i, int thread) {
        const int64_t chunk = i / (batches * rows), batch = i / rows % batches;
        const Item item{block_begin(b.filter_blocks, b.chunks, chunk), block_begin(b.filter_blocks, b.chunks, chunk + 1),
                        block_begin(b.batch_blocks, batches, batch), block_begin(b.batch_blocks, batches, batch + 1),
                        i % rows};
        correlate_item(c, b, item, packed, work + thread * share, work + thread * share + b.panel_floats * b.together);
    });
}

}  // namespace c01b
