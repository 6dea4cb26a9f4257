// The loop nest with filters in the lanes of a vector, for batches too small to fill vectors.
//
//     for each item (group, filter blocks, target rows), shared out to the threads
//       copy the item's source pixels, transposed, to a panel [channel block][column][image][row][channel]
//       for each block of V vectors of filters                                          +-- filter block ---+
//         for each block of source channels                                          w: | V vectors, 64     |  from L2
//           for each P pixels that meet the same taps                                   +-------------------+
//             add up  column span x row span x channels  products              x: P     | P x V registers   |  sums
//         transpose the block's sums [pixel][filter] to the target              (L1)    +-------------------+
//
// A pixel is a target row, a column and an image. The tile is that of conv_batch_lanes.h with the parts exchanged:
// source pixels are broadcast, filters loaded, and multiply-adds are the bound again as long as a channel block's
// filters stay in L2. Pixels of different rows and columns share a tile when they are clipped alike. Blocks may be of a
// vector less than fits, with more pixels, where the threads get equal shares so (192 filters: four blocks, not three).
#pragma once
#include <cmath>
#include <numeric>

#include "conv_axes.h"
#include "parallel.h"
#include "stream.h"

namespace c01b {

// to[j * to_step + i] = from[i * from_step + j]
inline void transpose_into(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to,
                           int64_t to_step) {
    const int64_t worthwhile = 3;
    if (rows < worthwhile || columns < worthwhile) {
        for (int64_t j = 0; j < columns; ++j)
            for (int64_t i = 0; i < rows; ++i) to[j * to_step + i] = from[i * from_step + j];
        return;
    }
    for (int64_t i = 0; i < rows; i += lanes)
        for (int64_t j = 0; j < columns; j += lanes) {
            const int height = static_cast<int>(std::min<int64_t>(lanes, rows - i));
            const int width = static_cast<int>(std::min<int64_t>(lanes, columns - j));
            vec square[lanes] = {};
            for (int n = 0; n < height; ++n) {
                const float* row = from + (i + n) * from_step + j;
                square[n] = width == lanes ? load(row) : load_first(row, width);
                fetch_near(row, 2 * lanes);
            }
            transpose(square);
            for (int n = 0; n < width; ++n) {
                float* row = to + (j + n) * to_step + i;
                if (height == lanes) store(row, square[n]);
                else store_first(row, square[n], height);
            }
        }
}

// The products of a pixel: `runs` columns of `length` products. From column to column the source skips rows that the
// panel holds for other pixels, and the weights skip taps that fall outside the source.
struct PixelProducts {
    int64_t runs, length, source_skip, weight_skip;
};

struct Pixel {
    const float* source;
    float* sums;
};

// Filters come from L2, which a tile of few pixels, or a core that shares its caches, waits for.
constexpr int64_t products_ahead = 8;

// Pixels of a tile of `vectors`: a narrow one has registers for more, and addresses for 8.
constexpr int most_pixels = 8;
inline int64_t tile_pixels(int64_t vectors) {
    return vectors < tile_vectors ? std::min<int64_t>(most_pixels, tile_sums / vectors) : tile_rows;
}

// Adds the products of P pixels and V vectors of filters to their sums, or sets them.
template <int P, int V>
struct FilterTile {
    static void run(const Pixel* pixel, const float* w, const PixelProducts& p, bool add) {
        vec sum[P][V];
        const float* x[P];
#pragma GCC unroll 8
        for (int m = 0; m < P; ++m) {
            x[m] = pixel[m].source;
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[m][v] = add ? load(pixel[m].sums + v * lanes) : zero();
        }
        for (int64_t run = 0; run < p.runs; ++run, w += p.weight_skip) {
            for (int64_t i = 0; i < p.length; ++i, w += V * lanes) {
                vec weight[V];
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) weight[v] = load(w + v * lanes), fetch_near(w + v * lanes, products_ahead * V * lanes);
#pragma GCC unroll 8
                for (int m = 0; m < P; ++m)
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sum[m][v] += x[m][i] * weight[v];
            }
#pragma GCC unroll 8
            for (int m = 0; m < P; ++m) x[m] += p.length + p.source_skip;
        }
#pragma GCC unroll 8
        for (int m = 0; m < P; ++m)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) store(pixel[m].sums + v * lanes, sum[m][v]);
    }
};

struct FilterLanes {
    int64_t taps, vectors, filter_blocks, channel_blocks;
    int64_t item_rows, chunks, source_column, source_columns;
    int64_t panel_floats, sums_floats, packed_floats;  // packed: of filters that an item packs; 0: all are packed before
    Table<int64_t> rows, columns;  // target columns, and the rows of each item, sorted by the taps they meet
};

inline void sort_by_taps(const Axis& axis, Table<int64_t>& targets, int64_t begin, int64_t end) {
    std::sort(targets.begin() + begin, targets.begin() + end, [&](int64_t a, int64_t b) {
        const Span s = axis.span[a], t = axis.span[b];
        return std::make_tuple(s.tap, s.count, a) < std::make_tuple(t.tap, t.count, b);
    });
}

// Where the targets that meet the same taps as list[begin] end.
inline int64_t alike_end(const Axis& axis, const Table<int64_t>& list, int64_t begin, int64_t end) {
    int64_t i = begin + 1;
    while (i < end && same_taps(axis.span[list[i]], axis.span[list[begin]])) ++i;
    return i;
}

// How many times as long as their products the pixels take, as some share a tile with few others: a tile of fewer than 3.5
// takes as long as one of 3.5, for so long its filters take from L2 (measured). From 4 images on there is none.
inline double thin_tiles(const Correlation& c) {
    if (c.batch >= 4) return 1;
    const auto sorted = [](const Axis& axis) {
        Table<int64_t> targets(axis.span.size());
        std::iota(targets.begin(), targets.end(), 0);
        sort_by_taps(axis, targets, 0, targets.size());
        return targets;
    };
    const Table<int64_t> rows = sorted(c.rows), columns = sorted(c.columns);
    const int64_t row_count = rows.size(), column_count = columns.size();
    double products = 0, taken = 0;
    for (int64_t i = 0, i_end; i < row_count; i = i_end) {
        i_end = alike_end(c.rows, rows, i, row_count);
        for (int64_t j = 0, j_end; j < column_count; j = j_end) {
            j_end = alike_end(c.columns, columns, j, column_count);
            const double taps = double(c.rows.span[rows[i]].count) * c.columns.span[columns[j]].count;
            const double pixels = double(i_end - i) * (j_end - j) * c.batch;
            products += taps * pixels;
            taken += taps * std::max(pixels, 3.5 * std::ceil(pixels / tile_rows));
        }
    }
    return products > 0 ? taken / products : 1;
}

// Rows of an item, filter blocks and chunks of them: as the threads' shares come out smallest, in units of a twentieth of the
// products of a row and a filter block; a panel costs about one such unit a source row, its filters two. To pack a filter block
// costs as much as the products of 24 pixels, and little more than half of that where the item that needs it does so, whose filters
// then are in its L2; other items fetch them from L3, which takes as long as 11.
inline void share_out(const Correlation& c, int threads, FilterLanes& l) {
    const int64_t rows = c.rows.span.size(), columns = c.columns.span.size();
    const int64_t row_floats = c.depth * l.source_columns * c.batch, panel_limit = 192 * 1024;
    const double packing = 20 * 24.0 / (columns * c.batch), fetching = 20 * 11.0 / (columns * c.batch);
    const int64_t least_blocks = block_count(l.vectors, tile_vectors);
    double best = HUGE_VAL;
    for (int64_t item_rows = rows;; item_rows = block_count(item_rows, 2)) {
        const int64_t source_rows = widest(c.rows, item_rows), row_items = block_count(rows, item_rows);
        const double mean_rows = double(rows) / row_items;
        for (int64_t chunks = 1; chunks <= std::min<int64_t>(least_blocks, 4 * threads); ++chunks) {
            const int64_t equal = block_count(least_blocks, chunks) * chunks;
            const int64_t filter_blocks = l.vectors >= equal * (tile_vectors - 1) ? equal : least_blocks;
            const double rounds = block_count(c.groups * row_items * chunks, threads) + waiting;
            const bool item_packs = item_rows == rows;
            const double of_item = item_packs ? 0.6 * packing : fetching;
            const double blocks = block_count(filter_blocks, chunks) * double(least_blocks) / filter_blocks;  // as wide as they can be
            const double before = item_packs ? 0 : packing * least_blocks * c.groups / threads;
            const double longest = blocks * 20 * (item_rows - mean_rows);  // one thread has at most so much more than its share
            const double cost = rounds * (blocks * (20 * mean_rows + 2 + of_item) + source_rows) + longest + before;
            const bool fits = item_rows == 1 || source_rows * row_floats <= panel_limit;
            if (!fits || cost >= best) continue;
            best = cost, l.item_rows = item_rows, l.filter_blocks = filter_blocks, l.chunks = chunks;
            l.panel_floats = block_count(source_rows * row_floats, 16) * 16;  // what follows begins with a line
        }
        if (item_rows == 1) break;
    }
    l.sums_floats = l.item_rows * columns * c.batch * std::min<int64_t>(tile_vectors, l.vectors) * lanes;
    l.packed_floats = l.item_rows == rows ? block_count(c.depth, l.channel_blocks) * l.taps * tile_vectors * lanes : 0;
}

inline FilterLanes plan_filter_lanes(const Correlation& c, int threads) {
    FilterLanes l;
    const int64_t columns = c.columns.span.size(), rows = c.rows.span.size();
    l.taps = c.rows.order.size() * c.columns.order.size();
    l.vectors = block_count(c.filters, lanes);
    const int64_t block_limit = 96 * 1024;  // floats of a channel block's filters, in L2
    l.channel_blocks = std::max<int64_t>(1, block_count(c.depth * l.taps * tile_vectors * lanes, block_limit));
    l.channel_blocks = std::min(l.channel_blocks, std::max<int64_t>(1, c.depth));
    l.source_column = source_begin(c.columns, 0, columns);
    l.source_columns = source_end(c.columns, 0, columns) - l.source_column;
    share_out(c, threads, l);
    l.columns.resize(columns), l.rows.resize(rows);
    std::iota(l.columns.begin(), l.columns.end(), 0), std::iota(l.rows.begin(), l.rows.end(), 0);
    sort_by_taps(c.columns, l.columns, 0, columns);
    for (int64_t row = 0; row < rows; row += l.item_rows)
        sort_by_taps(c.rows, l.rows, row, std::min(row + l.item_rows, rows));
    return l;
}

// A group's filters of a block and channels [from, end) as [tap column][tap row][channel][filter], `pitch` floats a
// channel, the last vector padded with zeros.
inline void pack_filter_vectors(const Correlation& c, int64_t group, int64_t from, int64_t end, int64_t filter,
                                int64_t count, int64_t pitch, float* to) {
    for (int64_t v : c.columns.order)
        for (int64_t u : c.rows.order) {
            const float* w = c.weights_of(group) + u * c.row_stride + v * c.column_stride + filter * c.filter_stride +
                             from * c.depth_stride;
            if (c.filter_stride != 1) transpose_into(w, c.filter_stride, count, end - from, to, pitch);
            for (int64_t d = 0; d < end - from; ++d, to += pitch) {
                if (c.filter_stride == 1) std::copy_n(w + d * c.depth_stride, count, to);
                std::fill(to + count, to + pitch, 0.0f);
            }
        }
}

// Of filter block `block` and channel block `part`.
struct FilterPart {
    int64_t vector, vectors, channel, channels;

    FilterPart(const Correlation& c, const FilterLanes& l, int64_t block, int64_t part)
        : vector(block_begin(l.vectors, l.filter_blocks, block)),
          vectors(block_begin(l.vectors, l.filter_blocks, block + 1) - vector),
          channel(block_begin(c.depth, l.channel_blocks, part)),
          channels(block_begin(c.depth, l.channel_blocks, part + 1) - channel) {}
    int64_t pitch() const { return vectors * lanes; }
    int64_t filters(const Correlation& c) const { return std::min(pitch(), c.filters - vector * lanes); }
    void pack(const Correlation& c, int64_t group, float* to) const {
        pack_filter_vectors(c, group, channel, channel + channels, vector * lanes, filters(c), pitch(), to);
    }
};

// One item: filter blocks [block, block_end) of target rows [row, row_end) of a group.
struct RowsItem {
    int64_t group, block, block_end, row, row_end;
    int64_t source, source_rows;  // the source rows it meets
};

inline void pack_pixels(const Correlation& c, const FilterLanes& l, const RowsItem& item, float* panel) {
    const int64_t pixels = l.source_columns * c.batch;
    const float* source = c.source_of(item.group);
    for (int64_t block = 0; block < l.channel_blocks; ++block) {
        const int64_t channel = block_begin(c.depth, l.channel_blocks, block);
        const int64_t channels = block_begin(c.depth, l.channel_blocks, block + 1) - channel;
        for (int64_t r = 0; r < item.source_rows; ++r) {
            const int64_t line = (channel * c.source_h + item.source + r) * c.source_w;
            const float* from = source + (line + l.source_column) * c.batch;
            transpose_into(from, c.source_h * c.source_w * c.batch, channels, pixels, panel + r * channels,
                           item.source_rows * channels);
        }
        panel += pixels * item.source_rows * channels;
    }
}

// The products of one filter block and channel block for the pixels of rows x columns (all clipped alike) and images.
inline void multiply_pixels(const Correlation& c, const FilterLanes& l, const RowsItem& item, const int64_t* rows,
                            int64_t row_count, const int64_t* columns, int64_t column_count, const float* panel,
                            int64_t channels, const float* w, int64_t vectors, float* sums, bool add) {
    const Span across = c.rows.span[*rows], along = c.columns.span[*columns];
    const int64_t row_taps = c.rows.order.size(), width = c.columns.span.size(), pitch = vectors * lanes;
    const int64_t line = item.source_rows * channels;  // of one source column and image
    const PixelProducts p{along.count, across.count * channels, c.batch * line - across.count * channels,
                     (row_taps - across.count) * channels * pitch};
    if (p.runs && p.length) w += (along.tap * row_taps + across.tap) * channels * pitch;

    const int64_t pixels = row_count * column_count * c.batch, tiles = block_count(pixels, tile_pixels(vectors));
    int64_t row = 0, column = 0, image = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        Pixel pixel[most_pixels];
        const int64_t count = block_begin(pixels, tiles, tile + 1) - block_begin(pixels, tiles, tile);
        for (int64_t m = 0; m < count; ++m) {
            const Span down = c.rows.span[rows[row]], right = c.columns.span[columns[column]];
            const int64_t from = ((right.source - l.source_column) * c.batch + image) * line +
                                 (down.source - item.source) * channels;
            const int64_t to = ((rows[row] - item.row) * width + columns[column]) * c.batch + image;
            pixel[m] = {p.runs && p.length ? panel + from : panel, sums + to * pitch};
            if (++image == c.batch) image = 0, ++column;
            if (column == column_count) column = 0, ++row;
        }
        Tiles<FilterTile, most_pixels>::get(count, vectors)(pixel, w, p, add);
    }
}

// `packed`: the group's filters, or room for those of a part.
inline void correlate_rows(const Correlation& c, const FilterLanes& l, const RowsItem& item, float* packed, float* panel,
                           float* sums) {
    const int64_t rows = c.rows.span.size(), columns = c.columns.span.size(), pixels = columns * c.batch;
    pack_pixels(c, l, item, panel);
    for (int64_t block = item.block; block < item.block_end; ++block) {
        for (int64_t part = 0; part < l.channel_blocks; ++part) {
            const FilterPart f(c, l, block, part);
            const float* x = panel + f.channel * l.source_columns * c.batch * item.source_rows;
            float* w = packed + (l.packed_floats ? 0 : (f.vector * lanes * c.depth + f.channel * f.pitch()) * l.taps);
            if (l.packed_floats) f.pack(c, item.group, w);
            for (int64_t i = item.row, i_end; i < item.row_end; i = i_end) {
                i_end = alike_end(c.rows, l.rows, i, item.row_end);
                for (int64_t j = 0, j_end; j < columns; j = j_end) {
                    j_end = alike_end(c.columns, l.columns, j, columns);
                    multiply_pixels(c, l, item, &l.rows[i], i_end - i, &l.columns[j], j_end - j, x, f.channels, w,
                                    f.vectors, sums, part > 0);
                }
            }
        }
        const FilterPart f(c, l, block, 0);
        const int64_t filter = f.vector * lanes, count = f.filters(c);
        float* target = c.target_of(item.group) + (filter * rows + item.row) * pixels;
        transpose_into(sums, f.pitch(), (item.row_end - item.row) * pixels, count, target, rows * pixels);
        if (c.epilogue)
            finish_sums(c, item.group, filter, count, target, rows * pixels, (item.row_end - item.row) * pixels);
    }
}

// All filters, groups one after another.
inline float* pack_all_filters(const Correlation& c, const FilterLanes& l, int64_t of_group, int threads) {
    float* packed = scratch<Prepared>(c.groups * of_group);
    parallel_for(c.groups * l.channel_blocks * l.filter_blocks, threads, [&](int64_t i, int) {
        const int64_t group = i / l.filter_blocks / l.channel_blocks;
        const FilterPart f(c, l, i % l.filter_blocks, i / l.filter_blocks % l.channel_blocks);
        f.pack(c, group, packed + group * of_group + (f.vector * lanes * c.depth + f.channel * f.pitch()) * l.taps);
    });
    return packed;
}

inline void correlate_filter_lanes(const Correlation& c, int threads) {
    const FilterLanes l = plan_filter_lanes(c, threads);
    const int64_t of_group = c.depth * l.taps * l.vectors * lanes;
    float* packed = l.packed_floats ? nullptr : pack_all_filters(c, l, of_group, threads);
    const int64_t share = l.panel_floats + l.sums_floats + l.packed_floats, rows = c.rows.span.size();
    float* work = scratch<Working>(share * threads);
    const int64_t row_items = block_count(rows, l.item_rows);
    parallel_for(c.groups * l.chunks * row_items, threads, [&](int64_t i, int thread) {
        RowsItem item;
        const int64_t chunk = i / row_items % l.chunks;
        item.group = i / row_items / l.chunks;
        item.block = block_begin(l.filter_blocks, l.chunks, chunk);
        item.block_end = block_begin(l.filter_blocks, l.chunks, chunk + 1);
        item.row = i % row_items * l.item_rows;
        item.row_end = std::min(item.row + l.item_rows, rows);
        item.source = source_begin(c.rows, item.row, item.row_end);
        item.source_rows = source_end(c.rows, item.row, item.row_end) - item.source;
        float *panel = work + thread * share, *sums = panel + l.panel_floats;
        correlate_rows(c, l, item, packed ? packed + item.group * of_group : sums + l.sums_floats, panel, sums);
    });
}

}  // namespace c01b
