// The loop nest with images in the lanes of a vector, for batches that fill vectors.
//
//     for each item (group, filter blocks, batch blocks, target rows), shared out to the threads
//       for each strip of columns, for each block of source channels                    +--- batch block ---+
//         copy the strip's source pixels to a panel [column][row][channel][image]    x: | V vectors, 64 imgs|  from L2
//         for each block of F filters                                                   +-------------------+
//           for each row and column of the strip                                  w: F  | F x V registers   |  sums
//             add up  column span x row span x channels  products                 (L1)  +-------------------+
//
// In the panel the products of one pixel lie one after another (neighbouring pixels overlap: the im2col matrix without
// storing it), and a group's filters [channel block][filter block][tap column][tap row][channel][filter] are read in
// the same order, so the inner loop has no table and no address arithmetic: V loads, F broadcasts, F*V multiply-adds.
// With F = 6, V = 4 that is 10 loads in 24 multiply-adds and the multiply-adds are the bound. The panel lives in L2 and
// costs 256 bytes for 24 multiply-adds; packed, it cannot suffer from the strides of c01b arrays, which are often
// multiples of 4096 bytes. Sums of earlier channel blocks wait in a thread's own buffer [row][column][filter][image].
//
// A batch of one or two vectors does not fill a tile. Then two or more target columns that meet the same taps share it, and with
// it every weight.
//
// One to three filters, of a group, do not fill a tile. Then P = 6 / F neighbouring target columns share it, and with
// it every load of x:
//
//     source column    0    1    2    3    4    5    6    7     filter 5 wide, P = 4: column q is met by neighbours
//     neighbours      0    01   012  0123 0123  123   23    3   q-4 .. q; each such range is a loop of its own
//
// and the packed filters are [channel block][phase][source column][tap row][channel][neighbour][filter], absent
// neighbours left out.
#pragma once
#include "conv_axes.h"
#include "parallel.h"
#include "stream.h"

namespace c01b {

// The products of P neighbours: source columns [first, last), counted from where the first neighbour's `taps` begin
// (columns outside the source are not among them), and `length` products in each. From column to column the source
// skips rows that the panel holds for other target rows; the weights, tap rows that fall outside the source.
struct ImageProducts {
    int64_t first, last, taps;
    int64_t length, source_skip, skip_before, skip_after;
    int64_t apart = 0;  // of pixels side by side, in products
};

// Where sums come from and go to, and the distances of filters and of neighbours; a null `from` is zeros. Of the last
// vector only images < `images` are written. `streamed`: around the caches, by whole lines.
struct ImageSums {
    const float* from;
    int64_t from_filter, from_neighbour;
    float* to;
    int64_t to_filter, to_neighbour;
    int64_t images;
    bool streamed = false;
};

// P > 1 neighbours share what they meet of x; Q > 1 pixels side by side, whose x is their own, share the weights.
template <int F, int V, int P = 1, int Q = 1>
struct ImageTile {
    static_assert(P == 1 || Q == 1, "from_neighbour and to_neighbour are of the one or the other");
    typedef vec Sums[P * F][Q * V];

    static void run(const float* x, const float* w, const ImageProducts& p, const ImageSums& s) {
        Sums sum;
#pragma GCC unroll 8
        for (int r = 0; r < P * F; ++r) {
            const int64_t from = r / F * s.from_neighbour + r % F * s.from_filter;
#pragma GCC unroll 8
            for (int v = 0; v < Q * V; ++v)
                sum[r][v] = s.from ? load(s.from + from + v / V * s.from_neighbour + v % V * lanes) : zero();
        }
        for (int64_t q = p.first; q < p.last; ++q) {
            if constexpr (P == 1) add_column<0, 1>(sum, x, w, p);
            else add_column_of(std::make_integer_sequence<int, P * P>(), q, sum, x, w, p);
        }
#pragma GCC unroll 8
        for (int r = 0; r < P * F; ++r) {
            float* to = s.to + r / F * s.to_neighbour + r % F * s.to_filter;
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q) {
                if (s.streamed) write_around(to + q * s.to_neighbour, sum[r] + q * V);
                else write(to + q * s.to_neighbour, sum[r] + q * V, s.images);
            }
        }
    }

private:
    // The neighbours From .. To-1 meet this source column.
    template <int From, int To>
    __attribute__((always_inline)) static void add_column(Sums& sum, const float*& x, const float*& w,
                                                          const ImageProducts& p) {
        constexpr int first = From * F, rows = (To - From) * F;
        const int64_t apart = p.apart * V * lanes;
        w += p.skip_before * rows;
        for (int64_t i = 0; i < p.length; ++i, x += V * lanes, w += rows) {
            vec image[Q * V];
#pragma GCC unroll 8
            for (int v = 0; v < Q * V; ++v) image[v] = load(x + v / V * apart + v % V * lanes);
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
                for (int v = 0; v < Q * V; ++v) sum[first + r][v] += w[r] * image[v];
        }
        x += p.source_skip * V * lanes;
        w += p.skip_after * rows;
    }

    template <int... I>
    __attribute__((always_inline)) static void add_column_of(std::integer_sequence<int, I...>, int64_t q, Sums& sum,
                                                             const float*& x, const float*& w, const ImageProducts& p) {
        const int64_t which = std::max<int64_t>(0, q - p.taps + 1) * P + std::min<int64_t>(P - 1, q);
        const auto add = [&](auto n) __attribute__((always_inline)) {
            constexpr int from = n / P, to = n % P + 1;
            if constexpr (from < to) add_column<from, to>(sum, x, w, p);
            return true;
        };
        (void)(... || (which == I && add(std::integral_constant<int, I>())));
    }

    static void write_around(float* to, const vec* sum) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) stream_aligned(to + v * lanes, sum[v]);
    }

    static void write(float* to, const vec* sum, int64_t images) {
#pragma GCC unroll 8
        for (int v = 0; v < V - 1; ++v) store(to + v * lanes, sum[v]);
        const int64_t last = images - (V - 1) * lanes;
        if (last == lanes) store(to + (V - 1) * lanes, sum[V - 1]);
        else store_first(to + (V - 1) * lanes, sum[V - 1], static_cast<int>(last));
    }
};

inline int64_t neighbours_of(int64_t filters) { return filters ? std::max<int64_t>(1, tile_rows / filters) : 1; }
template <int F, int V>
struct SinglePixel : ImageTile<F, V> {};

// Of a batch of one or two vectors: as many pixels that meet the same taps as fill the tile.
constexpr int64_t pixels_beside(int64_t vectors) { return tile_vectors / vectors; }
template <int F, int V>
struct PixelsBeside : ImageTile<F, V, 1, pixels_beside(V)> {};
template <int F, int V>
struct NeighbourPixels : ImageTile<F, V, tile_rows / F> {};

struct Images {
    int64_t first, count, vectors;
};

// How the loop nest is cut; see the drawing above.
struct BatchLanes {
    int64_t taps, filter_blocks, neighbours;
    Table<Images> batch_blocks;
    int64_t item_rows, strip, together;  // of an item: target rows, the columns of a strip, batch blocks
    int64_t channel_blocks, chunks;      // of source channels, of filter blocks
    int64_t panel_floats, sums_floats;   // of a batch block
};

inline int64_t row_items(const Correlation& c, const BatchLanes& b) {
    return block_count(c.rows.span.size(), b.item_rows);
}
inline int64_t batch_items(const BatchLanes& b) { return block_count(b.batch_blocks.size(), b.together); }

// The time of the busiest thread, in multiply-adds of a vector. The other prices are measured, roughly: a vector packed
// 6, and twice that where batch blocks are not read side by side; a run of products begun 20; a vector of sums put away
// and fetched 4; a vector of the target written 1, or 3 in small pieces. Pixels that lack neighbours are bound by their
// loads.
inline double estimate(const Correlation& c, const BatchLanes& b, int threads, double products) {
    const double columns = c.columns.span.size();
    const double filters = block_count(b.filter_blocks, b.chunks) * double(c.filters) / b.filter_blocks;
    const bool whole = b.together == static_cast<int64_t>(b.batch_blocks.size());
    const double vectors = b.item_rows * columns * b.together * tile_vectors;
    const double alone = b.neighbours == 1 ? 0 : double(b.strip % (b.neighbours * c.columns.step)) / b.strip;
    const double multiplying = vectors * filters * products * (1 + alone);
    const double panels = block_count(c.columns.span.size(), b.strip) * b.channel_blocks * b.together;
    const double packing = panels * b.panel_floats / lanes * (whole ? 6 : 12);
    const double tiles = vectors / tile_vectors * filters / tile_rows;
    const double runs = tiles * b.channel_blocks * (b.item_rows > 1 ? c.columns.order.size() : 1) * 20;
    const double sums = vectors * filters * ((b.channel_blocks - 1) * 4 + (whole ? 1 : 3));
    const int64_t items = c.groups * row_items(c, b) * batch_items(b) * b.chunks;
    return block_count(items, threads) * (multiplying + packing + runs + sums);
}

constexpr int64_t least_strip = 4;

// A panel has to fit L2 with room to spare for filters and sums.
inline bool fits(const Correlation& c, const BatchLanes& b) {
    const int64_t limit = 128 * 1024, size = b.panel_floats * b.together;
    const bool smallest = b.item_rows == 1 && b.strip <= least_strip && b.together == 1;
    return smallest || (size <= limit && (c.filters > tile_rows || size + b.sums_floats * b.together <= 2 * limit));
}

// Tries the cuts, each size halved from all there is, and takes the cheapest. Items of several rows pack less but break
// up the products of a pixel, so they are for few filters, where packing is a large part of the work.
inline BatchLanes plan_batch_lanes(const Correlation& c, int threads) {
    BatchLanes b, best;
    b.taps = c.rows.order.size() * c.columns.order.size();
    b.filter_blocks = block_count(c.filters, tile_rows);
    b.neighbours = c.columns.step ? neighbours_of(c.filters) : 1;
    const int64_t vectors = block_count(c.batch, lanes), blocks = block_count(vectors, tile_vectors);
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t begin = block_begin(vectors, blocks, i), end = block_begin(vectors, blocks, i + 1);
        b.batch_blocks.push_back({begin * lanes, std::min(end * lanes, c.batch) - begin * lanes, end - begin});
    }
    const int64_t pitch = tile_vectors * lanes, block_products = 1024, depth = std::max<int64_t>(1, c.depth);
    const int64_t fewest_blocks = std::min(depth, std::max<int64_t>(1, block_count(c.depth * b.taps, block_products)));
    const int64_t most_blocks = b.neighbours > 1 ? depth : fewest_blocks;
    const double products = c.depth * mean_taps(c.rows) * mean_taps(c.columns);
    const auto halve = [](int64_t n) { return n == 1 ? 0 : block_count(n, 2); };
    double least = -1;
    for (b.item_rows = b.neighbours > 1 ? c.rows.span.size() : 1; b.item_rows; b.item_rows = halve(b.item_rows)) {
        const int64_t rows = widest(c.rows, b.item_rows);
        for (b.strip = c.columns.span.size(); b.strip; b.strip = b.strip <= least_strip ? 0 : halve(b.strip)) {
            const int64_t window = rows * widest(c.columns, b.strip);
            for (b.together = blocks; b.together; b.together = halve(b.together))
                for (b.channel_blocks = fewest_blocks; b.channel_blocks <= most_blocks; b.channel_blocks *= 2) {
                    b.panel_floats = window * block_count(c.depth, b.channel_blocks) * pitch;
                    b.sums_floats = b.channel_blocks > 1 ? b.item_rows * b.strip * c.filters * pitch : 0;
                    if (!fits(c, b)) continue;
                    for (b.chunks = 1; b.chunks <= std::min<int64_t>(b.filter_blocks, 4 * threads); b.chunks *= 2) {
                        const double cost = estimate(c, b, threads, products);
                        if (least < 0 || cost < least) least = cost, best = b;
                    }
                }
        }
    }
    return best;
}

// [tap column][tap row][channel][filter]
inline void pack_weights(const Correlation& c, const PackItem& item, float* to) {
    for (size_t v = 0; v < c.columns.order.size(); ++v)
        for (size_t u = 0; u < c.rows.order.size(); ++u)
            for (int64_t d = item.channel; d < item.channel_end; ++d) to = pack_tap(c, item, u, v, d, to);
}

// [phase][source column][tap row][channel][neighbour][filter], see above.
inline void pack_neighbour_weights(const Correlation& c, const PackItem& item, int64_t neighbours, float* to) {
    for (size_t phase = 0; phase + 1 < c.columns.begin.size(); ++phase) {
        const int64_t begin = c.columns.begin[phase], taps = c.columns.begin[phase + 1] - begin;
        for (int64_t q = 0; taps && q < taps + neighbours - 1; ++q)
            for (size_t u = 0; u < c.rows.order.size(); ++u)
                for (int64_t d = item.channel; d < item.channel_end; ++d)
                    for (int64_t n = std::max<int64_t>(0, q - taps + 1); n <= std::min(q, neighbours - 1); ++n)
                        to = pack_tap(c, item, u, begin + q - n, d, to);
    }
}

// Of `neighbours` with `taps` each, those that meet the source columns before q, counted once for each column.
inline int64_t meetings_before(int64_t q, int64_t taps, int64_t neighbours) {
    int64_t meetings = 0;
    for (int64_t n = 0; n < neighbours; ++n) meetings += std::min(std::max<int64_t>(q - n, 0), taps);
    return meetings;
}

inline void copy_images(const float* from, const Images& images, float* to) {
    if (images.count == tile_vectors * lanes) {
#pragma GCC unroll 8
        for (int v = 0; v < tile_vectors; ++v) store(to + v * lanes, load(from + v * lanes));
        return;
    }
    const int64_t full = images.count / lanes;
    for (int64_t v = 0; v < full; ++v) store(to + v * lanes, load(from + v * lanes));
    const int tail = static_cast<int>(images.count % lanes);
    if (tail) store(to + full * lanes, load_first(from + full * lanes, tail));
}

// What a thread does at a time: some filter blocks, batch blocks and target rows of a group.
struct ImageItem {
    int64_t group, block, block_end, batch_block, batch_block_end, row, row_end;
};

// A rectangle of columns x rows of the source.
struct Window {
    int64_t column, column_end, row, row_end;
};

// The window's pixels as one panel a batch block, [column][row][channel][image], the last vector padded with zeros.
// Images are innermost here too: the source is read in runs as long as the item's batch blocks are together. The next channel's
// are fetched: such runs end before the hardware has found them (2 to 12% of layers whose source no cache holds).
inline void pack_images(const Correlation& c, const BatchLanes& b, const ImageItem& item, const Window& window,
                        int64_t channel, int64_t channels, float* panels) {
    const int64_t rows = window.row_end - window.row, next_channel = c.source_h * c.source_w * c.batch;
    const float* source = c.source_of(item.group);
    for (int64_t d = 0; d < channels; ++d)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t line = ((channel + d) * c.source_h + window.row + r) * c.source_w;
            for (int64_t column = window.column; column < window.column_end; ++column)
                for (int64_t i = item.batch_block; i < item.batch_block_end; ++i) {
                    const Images& images = b.batch_blocks[i];
                    const int64_t pixel = ((column - window.column) * rows + r) * channels + d;
                    const float* from = source + (line + column) * c.batch + images.first;
                    for (int64_t v = 0; v < images.vectors; ++v) fetch(from, next_channel + v * lanes);
                    copy_images(from, images, panels + (i - item.batch_block) * b.panel_floats + pixel * images.vectors * lanes);
                }
        }
}

// A strip and channel block of an item, and where its panels, weights and waiting sums are.
struct Strip {
    int64_t column, column_end, channel_block, channel, channels;
    Window window;
    const float *panels, *weights, *neighbour_weights;
    float* sums;
};

// How many targets from t on share a tile, `most` if these meet the same taps, or one; and how many sources they are apart.
struct Beside {
    int64_t count, apart;

    Beside(const Axis& axis, int64_t t, int64_t end, int64_t most) : count(1), apart(0) {
        if (most < 2 || t + most > end) return;
        const Span& first = axis.span[t];
        apart = axis.span[t + 1].source - first.source;
        for (int64_t i = 1; i < most; ++i) {
            const Span& s = axis.span[t + i];
            if (!same_taps(s, first) || s.source != first.source + i * apart) return;
        }
        count = most;
    }
};

// One filter block and one target row of the strip. With few products a pixel every instruction here counts.
inline void multiply_row(const Correlation& c, const BatchLanes& b, const ImageItem& item, const Strip& strip,
                         int64_t block, int64_t row) {
    const int64_t filter = block_begin(c.filters, b.filter_blocks, block);
    const int64_t count = block_begin(c.filters, b.filter_blocks, block + 1) - filter;
    const int64_t rows = c.rows.span.size(), columns = c.columns.span.size(), row_taps = c.rows.order.size();
    const int64_t window_rows = strip.window.row_end - strip.window.row, channels = strip.channels;
    const Span across = c.rows.span[row];
    const int64_t length = across.count * channels, source_skip = window_rows * channels - length;
    const int64_t skip_before = across.tap * channels, skip_after = row_taps * channels - length - skip_before;
    const bool one_run = !source_skip && !skip_before && !skip_after;
    const bool last_block = strip.channel_block == b.channel_blocks - 1;
    const int64_t step = b.neighbours > 1 ? c.columns.step : 1, plane = rows * columns * c.batch;
    float* target_row = c.target_of(item.group) + filter * plane + row * columns * c.batch;
    const bool small = b.batch_blocks.size() == 1 && b.neighbours == 1;
    const int64_t most_beside = small ? pixels_beside(b.batch_blocks[0].vectors) : 1;

    for (int64_t phase = 0; phase < std::min(step, strip.column_end - strip.column); ++phase)
        for (int64_t t = strip.column + phase, pixels; t < strip.column_end; t += pixels * step) {
            const Beside beside(c.columns, t, strip.column_end, most_beside);
            const int64_t neighbours = t + (b.neighbours - 1) * step < strip.column_end ? b.neighbours : 1;
            const Span along = c.columns.span[t];
            const int64_t begin = c.columns.begin[along.phase], taps = c.columns.begin[along.phase + 1] - begin;
            const int64_t source = along.source - (along.tap - begin);  // of the first tap, inside the source or not
            const int64_t outside = std::max<int64_t>(0, -source);
            const int64_t end = taps && length ? std::min(taps + neighbours - 1, c.source_w - source) : outside;
            const int64_t met = std::max<int64_t>(0, end - outside), first = met ? outside : 0;
            ImageProducts p = neighbours == 1 && one_run
                ? ImageProducts{0, 1, taps, length * met, 0, 0, 0}
                : ImageProducts{first, first + met, taps, length, source_skip, skip_before, skip_after};
            pixels = neighbours * beside.count;
            p.apart = beside.apart * window_rows * channels;
            const float* w = neighbours > 1
                ? strip.neighbour_weights + (begin * neighbours + meetings_before(first, taps, neighbours)) * row_taps *
                      channels * count
                : strip.weights + (filter * b.taps + (begin + first) * row_taps * count) * channels;
            const int64_t x = met ? ((source + first - strip.window.column) * window_rows + across.source -
                                     strip.window.row) * channels : 0;
            const int64_t pixel = (row - item.row) * (strip.column_end - strip.column) + t - strip.column;
            for (int64_t i = item.batch_block; i < item.batch_block_end; ++i) {  // innermost: the target is contiguous
                const Images& images = b.batch_blocks[i];
                const int64_t pitch = images.vectors * lanes, next = step * c.filters * pitch;
                float* sums = strip.sums + (i - item.batch_block) * b.sums_floats +
                              (pixel * c.filters + filter) * pitch;
                float* target = target_row + t * c.batch + images.first;
                const ImageSums s{strip.channel_block ? sums : nullptr, pitch, next,
                                  last_block ? target : sums, last_block ? plane : pitch,
                                  last_block ? step * c.batch : next, last_block ? images.count : pitch};
                const auto tile = neighbours > 1 ? Tiles<NeighbourPixels>::get(count, images.vectors)
                                : beside.count > 1 ? Tiles<PixelsBeside>::get(count, images.vectors)
                                                   : Tiles<SinglePixel>::get(count, images.vectors);
                tile(strip.panels + (i - item.batch_block) * b.panel_floats + x * pitch, w, p, s);
                for (int64_t n = 0; last_block && c.epilogue && n < pixels; ++n)
                    finish_sums(c, item.group, filter, count, target + n * step * c.batch, plane, images.count);
            }
        }
}

inline void multiply_strip(const Correlation& c, const BatchLanes& b, const ImageItem& item, const Strip& strip) {
    for (int64_t block = item.block; block < item.block_end; ++block)
        for (int64_t row = item.row; row < item.row_end; ++row) multiply_row(c, b, item, strip, block, row);
}

inline void correlate_item(const Correlation& c, const BatchLanes& b, const ImageItem& item, const float* packed,
                           float* panels) {
    const int64_t columns = c.columns.span.size();
    Strip s;
    s.panels = panels;
    s.sums = panels + b.panel_floats * b.together;
    for (s.column = 0; s.column < columns; s.column = s.column_end) {
        s.column_end = std::min(s.column + b.strip, columns);
        s.window = {source_begin(c.columns, s.column, s.column_end), source_end(c.columns, s.column, s.column_end),
                    source_begin(c.rows, item.row, item.row_end), source_end(c.rows, item.row, item.row_end)};
        for (s.channel_block = 0; s.channel_block < b.channel_blocks; ++s.channel_block) {
            s.channel = block_begin(c.depth, b.channel_blocks, s.channel_block);
            s.channels = block_begin(c.depth, b.channel_blocks, s.channel_block + 1) - s.channel;
            s.weights = packed + s.channel * b.taps * c.filters;
            s.neighbour_weights = packed + (c.depth + s.channel * b.neighbours) * b.taps * c.filters;
            pack_images(c, b, item, s.window, s.channel, s.channels, panels);
            multiply_strip(c, b, item, s);
        }
    }
}

// A group's weights as correlate_item finds them: those of single pixels, then those of neighbours.
inline int64_t packed_floats(const Correlation& c, const BatchLanes& b) {
    return c.depth * b.taps * c.filters * (b.neighbours > 1 ? 1 + b.neighbours : 1);
}

inline void pack_filters(const Correlation& c, const BatchLanes& b, int threads, float* packed) {
    parallel_for(c.groups * b.channel_blocks * b.filter_blocks, threads, [&](int64_t i, int) {
        const int64_t block = i % b.filter_blocks, channel_block = i / b.filter_blocks % b.channel_blocks;
        const int64_t group = i / b.filter_blocks / b.channel_blocks;
        const PackItem item{group, block_begin(c.depth, b.channel_blocks, channel_block),
                            block_begin(c.depth, b.channel_blocks, channel_block + 1),
                            block_begin(c.filters, b.filter_blocks, block),
                            block_begin(c.filters, b.filter_blocks, block + 1)};
        const int64_t channels = item.channel_end - item.channel;
        float* of_group = packed + group * packed_floats(c, b);
        pack_weights(c, item, of_group + (item.channel * c.filters + item.filter * channels) * b.taps);
        if (b.neighbours > 1)
            pack_neighbour_weights(c, item, b.neighbours,
                                   of_group + (c.depth + item.channel * b.neighbours) * b.taps * c.filters);
    });
}

inline void correlate_batch_lanes(const Correlation& c, int threads) {
    const BatchLanes b = plan_batch_lanes(c, threads);
    const int64_t rows = c.rows.span.size(), blocks = b.batch_blocks.size();
    float* packed = scratch<Prepared>(c.groups * packed_floats(c, b));
    pack_filters(c, b, threads, packed);
    const int64_t share = (b.panel_floats + b.sums_floats) * b.together;
    float* work = scratch<Working>(share * threads);  // here: nothing may throw inside the threads
    const int64_t row_count = row_items(c, b), batch_count = batch_items(b);
    parallel_for(c.groups * b.chunks * batch_count * row_count, threads, [&](int64_t i, int thread) {
        const int64_t row = i % row_count * b.item_rows, batch = i / row_count % batch_count * b.together;
        const int64_t chunk = i / row_count / batch_count % b.chunks, group = i / row_count / batch_count / b.chunks;
        const ImageItem item{group, block_begin(b.filter_blocks, b.chunks, chunk),
                             block_begin(b.filter_blocks, b.chunks, chunk + 1),
                             batch, std::min(batch + b.together, blocks), row, std::min(row + b.item_rows, rows)};
        correlate_item(c, b, item, packed + group * packed_floats(c, b), work + thread * share);
    });
}

}  // namespace c01b
