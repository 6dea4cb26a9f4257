// The weight gradient: the adjoint of a c01b convolution with respect to its filters.
//
//     dw[c,u',v',k] = sum over i,j,b of  x~[c, i*stride_y - pad_y + u, j*stride_x - pad_x + v, b] * g[k,i,j,b]
//
// A matrix product whose inner dimension is the products p = (i*out_w + j)*batch + b. They are contiguous in g, and in
// x along runs: a whole output row where stride_x is 1, one position's batch otherwise. A tap (c,u,v) moves a run's
// start and clips it to the image. Nothing is padded: a tap outside the image contributes nothing, not 0 * inf.
//
//     outer tile: 6 rows x 4 vectors of filters            dot tile: 6 rows x 4 filters
//
//           panel: g transposed, [p][64 filters]                g as it is, [filter][p]
//             p:  [ k0..15 | k16.. | k32.. | k48.. ]              k0: [ p..p+15 ]  ..  k3: [ p..p+15 ]
//     (c,u)  x[p]   acc      acc     acc     acc           (c,u) x[p..p+15]  acc   ..        acc
//      ..    x[p]   acc      acc     acc     acc             ..  x[p..p+15]  acc   ..        acc
//             ^ one product for 16 filters                        ^ 16 products for one filter, summed at the end
//
// The rows of a tile are pairs (channel, filter row) for one filter column v, so that few channels fill it too.
//
// Blocking, from the outside: units of work (of a group a block of filters x some channels x a slice of the products;
// each on one thread, each slice with its own result); chunks of products; filter rows u with equal clipping; tiles of
// rows; v.
//
// Bounds: a chunk's panel stays in L2 and is streamed once a tile, 4 loads for 24 FMAs, and a tile's x stays in cache
// over all v, so FMAs bound the outer tile. But it wastes the lanes past the last filter, and the transposition, once a
// panel, is dear where taps are few. The dot tile wastes lanes past the end of a run instead, and its 10 loads for 24
// FMAs straddle cache lines. The plan takes what costs less. With one channel either reads g for so little work that
// memory is the bound: hence the prefetches.
//
// A partial sum is at most 768 products long, or 384 in each lane of a dot tile, before it is added to the result.
//
// Where that is faster, all of this is left to Winograd's algorithm (weight_winograd.h).
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "conv_shape.h"
#include "parallel.h"
#include "simd.h"
#include "weight_winograd.h"

namespace c01b {
namespace weight_grad {

struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
};

inline Range intersect(Range a, Range b) {
    const int64_t begin = std::max(a.begin, b.begin);
    return {begin, std::max(begin, std::min(a.end, b.end))};
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The output positions whose window reads the image at this tap, along one axis.
inline Range inside(int64_t tap, int64_t size, int64_t outputs, int64_t stride, int64_t pad) {
    const int64_t begin = pad > tap ? ceil_div(pad - tap, stride) : 0;
    const int64_t end = size + pad > tap ? std::min(outputs, ceil_div(size + pad - tap, stride)) : 0;
    return {begin, std::max(begin, end)};
}

// ---- register tiles ------------------------------------------------------------------------------------------------

// Products that are neighbours in the images and in the output gradient; or, where stride_x leaves gaps in the images,
// some pieces of that length.
struct Run {
    int64_t image;    // where the first is, from a row's origin
    int32_t product;  // which it is, from the chunk's first
    int32_t length, pieces;
};

// What a tile multiplies: rows of image scalars with columns (filters) of output gradients.
struct Tile {
    const Run* runs;
    int64_t run_count;
    int64_t image_gap;          // between the pieces of a run
    const float* images;
    const int64_t* image_row;   // each row's origin, from images
    const float* grads;         // the panel; for a dot tile the first filter's gradient at the chunk's first product
    int64_t filter_stride;      // from one filter's gradient to the next's
    uintptr_t prefetch;         // where gradients wanted soon are; runs may lead out of the array, where no pointer may
    float* result;
    const int64_t* result_row;  // each row's first filter, from result
    int64_t filters;

    const float* first_of(int row, const Run& run, int32_t piece) const {
        return images + (image_row[row] + run.image + piece * (run.length + image_gap));
    }
};

using TileFunction = void (*)(const Tile&);

struct OuterTile {
    static constexpr int max_rows = 6, max_columns = vector_registers == 32 ? 4 : 2;
    static constexpr int64_t chunk = 768;

    template <int Rows, int Vectors>
    static void multiply(const Tile& t) {
        vec acc[Rows][Vectors] = {};
        for (int64_t i = 0; i < t.run_count; ++i) {
            const Run run = t.runs[i];
            const float* g = t.grads + int64_t{run.product} * (Vectors * lanes);
            const float* x[Rows];
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) x[r] = t.first_of(r, run, 0);
            int64_t at = 0;
            int32_t left = run.length;  // of the piece: one loop over all pieces, as they may be single products
            for (const float* end = g + int64_t{run.length} * run.pieces * (Vectors * lanes); g < end; g += Vectors * lanes) {
                vec gv[Vectors];
#pragma GCC unroll 8
                for (int v = 0; v < Vectors; ++v) gv[v] = load(g + v * lanes);
#pragma GCC unroll 8
                for (int r = 0; r < Rows; ++r) {
                    const vec xv = splat(x[r][at]);
#pragma GCC unroll 8
                    for (int v = 0; v < Vectors; ++v) acc[r][v] += xv * gv[v];
                }
                const bool gap = --left == 0;
                at += 1 + (gap ? t.image_gap : 0), left = gap ? run.length : left;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v)
                add(t.result + t.result_row[r] + v * lanes, acc[r][v], t.filters - v * lanes);
    }

    static void add(float* result, vec sum, int64_t filters) {
        if (filters >= lanes) {
            store(result, load(result) + sum);
        } else if (filters > 0) {
            const int n = static_cast<int>(filters);
            store_first(result, load_first(result, n) + sum, n);
        }
    }
};

struct DotTile {
    static constexpr int max_rows = vector_registers == 32 ? 6 : 3, max_columns = 4;
    static constexpr int64_t chunk = 384 * lanes;

    template <int Rows, int Filters>
    static void multiply(const Tile& t) {
        vec acc[Rows][Filters] = {};
        const auto multiply_vectors = [&](const float* const(&x)[Rows], const float* g, auto load_some) {
            vec xv[Rows];
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) xv[r] = held(load_some(x[r]));
#pragma GCC unroll 8
            for (int f = 0; f < Filters; ++f) {
                const vec gv = held(load_some(g + f * t.filter_stride));
#pragma GCC unroll 8
                for (int r = 0; r < Rows; ++r) acc[r][f] += xv[r] * gv;
            }
        };
        for (int64_t i = 0; i < t.run_count; ++i) {
            const Run run = t.runs[i];
            const float* g = t.grads + run.product;
            uintptr_t prefetch = t.prefetch + run.product * sizeof(float);
            for (int32_t piece = 0; piece < run.pieces; ++piece) {
                const float* x[Rows];
                for (int r = 0; r < Rows; ++r) x[r] = t.first_of(r, run, piece);
                int left = run.length;
                for (; left >= lanes; left -= lanes, g += lanes, prefetch += sizeof(vec)) {
                    __builtin_prefetch(reinterpret_cast<const void*>(prefetch), 0, 2);  // to L2: L1 is full of what is in use
                    multiply_vectors(x, g, [](const float* p) { return load(p); });
                    for (int r = 0; r < Rows; ++r) x[r] += lanes;
                }
                if (left) multiply_vectors(x, g, [left](const float* p) { return load_first(p, left); });
                g += left;
                prefetch += left * sizeof(float);
            }
        }
        add_sums<Rows>(acc, t.result, t.result_row);
    }

    // Adds the accumulators' sums over their lanes, a vector full of sums at a time.
    template <int Rows, int Filters>
    static void add_sums(const vec (*acc)[Filters], float* result, const int64_t* result_row) {
        constexpr int at_once = lanes / max_columns;
        if constexpr (Rows > at_once) {
            add_sums<at_once>(acc, result, result_row);
            add_sums<Rows - at_once>(acc + at_once, result, result_row + at_once);
        } else {
            constexpr int count = (Rows > 2 ? 4 : Rows) * max_columns;
            vec v[count] = {};
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
                for (int f = 0; f < Filters; ++f) v[r * max_columns + f] = acc[r][f];
            float sums[lanes];
            store(sums, lane_sums(v));
            for (int r = 0; r < Rows; ++r)
                for (int f = 0; f < Filters; ++f)
                    result[result_row[r] + f] += sums[(r * max_columns + f) * (lanes / count)];
        }
    }
};

template <class Kind, int... I>
TileFunction choose_tile(int rows, int columns, std::integer_sequence<int, I...>) {
    constexpr int most = Kind::max_columns;
    static constexpr TileFunction tiles[] = {Kind::template multiply<I / most + 1, I % most + 1>...};
    return tiles[(rows - 1) * most + columns - 1];
}

// The tile of exactly this size: a template argument, since its accumulators must be registers.
template <class Kind>
TileFunction choose_tile(int64_t rows, int64_t columns) {
    return choose_tile<Kind>(static_cast<int>(rows), static_cast<int>(columns),
                             std::make_integer_sequence<int, Kind::max_rows * Kind::max_columns>());
}

// ---- panels and runs -----------------------------------------------------------------------------------------------

// The panel [product][vectors * lanes] of some filters' gradients, transposed; filters past the last one read as 0.
inline void pack_panel(const float* grads, int64_t filter_stride, int64_t filters, Range products, float* panel) {
    constexpr int64_t prefetch_distance = 256;
    const int64_t width = ceil_div(filters, lanes) * lanes;
    for (int64_t k = 0; k < filters; k += lanes) {
        const int rows = static_cast<int>(std::min<int64_t>(lanes, filters - k));
        for (int64_t p = products.begin; p < products.end; p += lanes) {
            const int n = static_cast<int>(std::min<int64_t>(lanes, products.end - p));
            const int64_t ahead = std::min(prefetch_distance, filter_stride - 1 - p);
            vec square[lanes];
            for (int r = 0; r < lanes; ++r) {
                square[r] = zero();
                if (r >= rows) continue;
                const float* row = grads + (k + r) * filter_stride + p;
                __builtin_prefetch(row + ahead);
                square[r] = n == lanes ? load(row) : load_first(row, n);
            }
            transpose(square);
            float* target = panel + (p - products.begin) * width + k;
            for (int r = 0; r < n; ++r) store(target + r * width, square[r]);
        }
    }
}

// The runs of filter column v within some output rows and a chunk of products.
inline void find_runs(const ConvShape& s, int64_t v, Range rows, Range chunk, std::vector<Run>& runs) {
    runs.clear();
    const Range columns = inside(v, s.width, s.out_w, s.stride_x, s.pad_x);
    const int64_t piece = (s.stride_x == 1 ? columns.size() : 1) * s.batch, gap = (s.stride_x - 1) * s.batch;
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        const int64_t first = (i * s.out_w + columns.begin) * s.batch;
        const Range p = intersect({first, first + columns.size() * s.batch}, chunk);
        if (p.size() == 0) continue;
        const int64_t pixel = i * s.stride_y * s.width + columns.begin * s.stride_x - s.pad_x + v;
        int64_t done = (p.begin - first) % piece;
        int64_t image = pixel * s.batch + (p.begin - first) / piece * (piece + gap) + done;
        for (int64_t product = p.begin; product < p.end; done = 0) {  // a rest of a piece, whole pieces, a part of one
            const int64_t length = std::min(piece - done, p.end - product);
            const int64_t pieces = done ? 1 : std::max<int64_t>(1, (p.end - product) / piece);
            runs.push_back({image, static_cast<int32_t>(product - chunk.begin), static_cast<int32_t>(length),
                            static_cast<int32_t>(pieces)});
            product += length * pieces;
            image += (length + gap) * pieces;
        }
    }
}

// ---- a unit of work ------------------------------------------------------------------------------------------------

// One thread's share of one result (group_channels, filter_h, filter_w, filters): it alone writes these filters and
// channels.
struct Unit {
    const ConvShape& s;
    const float *images, *grads;  // from the group's first channel; grads and result from the unit's first filter
    bool dot;
    int64_t filters;
    Range channels, products;
    float* result;

    void run() const {
        clear();
        if (channels.size() == 0 || products.size() == 0) return;
        const int64_t row_products = s.out_w * s.batch;
        const int64_t chunks = ceil_div(products.size(), dot ? DotTile::chunk : OuterTile::chunk);
        const int64_t step = ceil_div(ceil_div(products.size(), chunks), lanes) * lanes;
        float* panel = dot ? nullptr : scratch<Unit>(step * ceil_div(filters, lanes) * lanes);
        for (int64_t p = products.begin; p < products.end; p += step) {
            const Range chunk = {p, std::min(p + step, products.end)};
            if (!dot) pack_panel(grads, filter_stride(), filters, chunk, panel);
            const Range chunk_rows = {p / row_products, ceil_div(chunk.end, row_products)};
            for (Range us = {0, 0}; us.begin < s.filter_h; us.begin = us.end) {
                const Range rows = output_rows(us.begin, chunk_rows);
                for (us.end = us.begin + 1; us.end < s.filter_h; ++us.end) {
                    const Range next = output_rows(us.end, chunk_rows);
                    if (next.begin != rows.begin || next.end != rows.end) break;
                }
                if (rows.size() > 0) add_filter_rows(us, rows, chunk, panel);
            }
        }
    }

    int64_t filter_stride() const { return s.out_h * s.out_w * s.batch; }
    int64_t gap() const { return (s.stride_x - 1) * s.batch; }

    Range output_rows(int64_t u, Range among) const {
        return intersect(inside(u, s.height, s.out_h, s.stride_y, s.pad_y), among);
    }

    void clear() const {
        const int64_t taps = s.filter_h * s.filter_w;
        for (int64_t tap = channels.begin * taps; tap < channels.end * taps; ++tap)
            std::fill_n(result + tap * s.filters, filters, 0.f);
    }

    // Adds a chunk's products for the filter rows `us`, inside the image for the same output rows: their runs agree.
    void add_filter_rows(Range us, Range output_rows, Range chunk, const float* panel) const {
        static thread_local std::vector<std::vector<Run>> runs;
        if (static_cast<int64_t>(runs.size()) < s.filter_w) runs.resize(s.filter_w);
        for (int64_t v = 0; v < s.filter_w; ++v) find_runs(s, v, output_rows, chunk, runs[v]);
        const int64_t rows = channels.size() * us.size();
        const int64_t tiles = ceil_div(rows, dot ? DotTile::max_rows : OuterTile::max_rows);
        for (int64_t i = 0; i < tiles; ++i) {  // of equal heights: a thin one takes as long to read the panel
            const int64_t first = rows * i / tiles, tile_rows = rows * (i + 1) / tiles - first;
            int64_t image_row[OuterTile::max_rows], result_row[OuterTile::max_rows];
            for (int64_t r = 0; r < tile_rows; ++r) {
                const int64_t c = channels.begin + (first + r) / us.size(), u = us.begin + (first + r) % us.size();
                image_row[r] = (c * s.height + u - s.pad_y) * s.width * s.batch;
                result_row[r] = (c * s.filter_h + (s.flip ? s.filter_h - 1 - u : u)) * s.filter_w * s.filters;
            }
            Tile tile = {};
            tile.images = images;
            if (dot && tile_rows > 1 && filters * s.filter_w >= 64 && aliases(image_row[1] - image_row[0])) {
                tile.images = copy_rows(runs, image_row, tile_rows);
            }
            tile.image_row = image_row;
            tile.image_gap = gap();
            tile.filter_stride = filter_stride();
            tile.result_row = result_row;
            tile.grads = panel;
            add_tiles(tile, tile_rows, runs, chunk);
        }
    }

    // Are addresses this far apart in the same set of the L1 cache, or nearly? Of ten streams it keeps eight.
    static bool aliases(int64_t floats) {
        constexpr int64_t set_period = 4096 / sizeof(float), near = 32;
        return (floats + near) % set_period < 2 * near;
    }

    // Copies what the runs read of some rows to where they do not alias, and moves the rows' origins there.
    const float* copy_rows(const std::vector<std::vector<Run>>& runs, int64_t* image_row, int64_t rows) const {
        struct Rows;
        Range window = {INT64_MAX, INT64_MIN};
        for (int64_t v = 0; v < s.filter_w; ++v) {
            if (runs[v].empty()) continue;
            window.begin = std::min(window.begin, runs[v].front().image);
            const Run& last = runs[v].back();
            window.end = std::max(window.end, last.image + last.length * last.pieces + gap() * (last.pieces - 1));
        }
        if (window.begin > window.end || window.size() > 4 * DotTile::chunk) return images;  // mostly not read
        const int64_t pitch = ceil_div(window.size(), 1024) * 1024 + 80;
        float* copy = scratch<Rows>(rows * pitch);
        for (int64_t r = 0; r < rows; ++r) {
            std::copy_n(images + (image_row[r] + window.begin), window.size(), copy + r * pitch);
            image_row[r] = r * pitch - window.begin;
        }
        return copy;
    }

    // All filters and filter columns of some rows: one outer tile, or a dot tile at each 4 filters.
    void add_tiles(Tile tile, int64_t rows, const std::vector<std::vector<Run>>& runs, Range chunk) const {
        constexpr int columns = DotTile::max_columns;
        const int64_t width = dot ? columns : filters;
        for (int64_t k = 0; k < filters; k += width) {
            tile.filters = std::min(width, filters - k);
            const TileFunction multiply = dot ? choose_tile<DotTile>(rows, tile.filters)
                                              : choose_tile<OuterTile>(rows, ceil_div(filters, lanes));
            if (dot) tile.grads = grads + k * tile.filter_stride + chunk.begin;
            const float* prefetch = tile.grads;  // the next filters, or those that begin the next chunk
            if (dot && k + 2 * columns <= filters) {
                prefetch += columns * tile.filter_stride;
            } else if (dot && columns <= filters) {
                prefetch = grads + chunk.begin + std::min(chunk.size(), products.end - chunk.end);
            }
            for (int64_t v = 0; v < s.filter_w; ++v) {
                if (runs[v].empty()) continue;
                tile.runs = runs[v].data();
                tile.run_count = static_cast<int64_t>(runs[v].size());
                tile.prefetch = reinterpret_cast<uintptr_t>(prefetch + (dot ? v % tile.filters * tile.filter_stride : 0));
                tile.result = result + (s.flip ? s.filter_w - 1 - v : v) * s.filters + k;
                multiply(tile);
            }
        }
    }
};

// ---- who does what -------------------------------------------------------------------------------------------------

struct Plan {
    bool dot;
    int threads;
    int64_t filters_a_block, channels_a_part, products_a_slice;
    int64_t blocks, parts, slices;  // so many each, of a group: a unit of work is one of each
    double cost;                    // of the busiest thread, in multiply-adds of a vector
};

// What a unit costs, in FMAs of vectors. The constants are measured: what a run, a chunk and a panel cost besides, and
// how much slower than an outer tile's a dot tile's FMAs are.
inline double unit_cost(const ConvShape& s, const Plan& plan) {
    const int64_t filters = std::min(plan.filters_a_block, s.group_filters()), products = plan.products_a_slice;
    const double taps = static_cast<double>(plan.channels_a_part * s.filter_h * s.filter_w);
    if (!plan.dot) {
        const int64_t chunks = ceil_div(products, OuterTile::chunk);
        return ceil_div(filters, lanes) * (taps * (products + 4 * chunks) + 8 * products);
    }
    constexpr double slower = vector_registers == 32 ? 1.05 : 1.5;
    const int64_t run = std::max<int64_t>(1, (s.stride_x == 1 ? s.out_w : 1) * s.batch);
    const double runs = static_cast<double>(products) / run;
    return slower * filters * taps * (runs * (ceil_div(run, lanes) + 0.4) + 2.5 * ceil_div(products, DotTile::chunk));
}

// The plan whose busiest thread has least to do. products_a_slice 0: slices are ours to choose.
inline Plan make_plan(const ConvShape& s, int64_t products_a_slice, int threads) {
    const int64_t channels = s.group_channels(), products = s.out_h * s.out_w * s.batch;
    const int64_t vectors = ceil_div(s.group_filters(), lanes);
    const int64_t blocks = ceil_div(vectors, OuterTile::max_columns), block = ceil_div(vectors, blocks) * lanes;
    const double results = static_cast<double>(s.channels * s.filter_h * s.filter_w * vectors);  // of all groups
    if (results * products < 30000) threads = 1;  // about 8 us
    Plan best = {};
    double least = -1;
    const auto consider = [&](bool dot, int64_t parts, int64_t slices) {
        Plan plan = {dot, threads, block, ceil_div(channels, parts), products_a_slice, blocks, parts, slices, 0};
        plan.parts = ceil_div(channels, plan.channels_a_part);
        if (products_a_slice) {
            plan.slices = ceil_div(products, products_a_slice);
        } else {
            plan.products_a_slice = std::max<int64_t>(1, ceil_div(ceil_div(products, slices), lanes) * lanes);
        }
        const double units = ceil_div(s.groups * blocks * plan.parts * plan.slices, threads) + waiting;
        const double cost = units * unit_cost(s, plan) + (slices > 1 ? 8 * results * slices / threads : 0);
        if (least < 0 || cost < least) least = plan.cost = cost, best = plan;
    };
    const int64_t most_units = ceil_div(4 * static_cast<int64_t>(threads), s.groups);  // of a group
    for (int64_t parts = 1; parts == 1 || (parts <= channels && parts * blocks <= most_units); ++parts) {
        const int64_t most_slices = products_a_slice ? 1 : std::max<int64_t>(1, most_units / (parts * blocks));
        for (int64_t slices = 1; slices <= most_slices; ++slices) {
            consider(false, parts, slices);
            consider(true, parts, slices);
        }
    }
    return best;
}

// Floats of a result (group_channels, filter_h, filter_w, filters).
inline int64_t result_floats(const ConvShape& s) { return s.group_channels() * s.filter_h * s.filter_w * s.filters; }

// Results are (slices, group_channels, filter_h, filter_w, filters).
inline void run_plan(const ConvShape& s, const Plan& plan, const float* images, const float* grads, float* results) {
    const int64_t size = result_floats(s), products = s.out_h * s.out_w * s.batch;
    const int64_t group_pixels = s.group_channels() * s.height * s.width * s.batch;
    const auto share = [](int64_t i, int64_t step, int64_t end) {
        return Range{std::min(i * step, end), std::min((i + 1) * step, end)};
    };
    parallel_for(s.groups * plan.blocks * plan.parts * plan.slices, plan.threads, [&](int64_t i, int) {
        const Range filters = share(i % plan.blocks, plan.filters_a_block, s.group_filters());
        const Range channels = share(i / plan.blocks % plan.parts, plan.channels_a_part, s.group_channels());
        const int64_t slice = i / plan.blocks / plan.parts % plan.slices;
        const int64_t group = i / plan.blocks / plan.parts / plan.slices;
        const int64_t filter = group * s.group_filters() + filters.begin;
        const Unit unit = {s, images + group * group_pixels, grads + filter * products, plan.dot, filters.size(),
                           channels, share(slice, plan.products_a_slice, products), results + slice * size + filter};
        unit.run();
    });
}

// Adds the slices' results in order.
inline void sum_slices(const float* results, int64_t slices, int64_t size, float* sum, int threads) {
    constexpr int64_t piece = 4096;
    parallel_for(ceil_div(size, piece), threads, [&](int64_t i, int) {
        const int64_t begin = i * piece, end = std::min(size, begin + piece);
        std::copy(results + begin, results + end, sum + begin);
        for (int64_t slice = 1; slice < slices; ++slice)
            for (int64_t e = begin; e < end; ++e) sum[e] += results[slice * size + e];
    });
}

}  // namespace weight_grad

inline void weight_acts(const ConvShape& s, const float* images, const float* outputs_grad, float* filters_grad,
                        int threads) {
    using namespace weight_grad;
    const int64_t size = result_floats(s);
    if (size == 0) return;
    const Plan plan = make_plan(s, 0, threads);
    if (weights_by_winograd(s, images, outputs_grad, filters_grad, plan.cost, threads)) return;
    if (plan.slices == 1) return run_plan(s, plan, images, outputs_grad, filters_grad);
    float* results = scratch<Prepared>(plan.slices * size);
    run_plan(s, plan, images, outputs_grad, results);
    sum_slices(results, plan.slices, size, filters_grad, plan.threads);
}

// The same for each chunk of partial_sum output positions, with its own result: position i*out_w + j belongs to chunk
// (i*out_w + j) / partial_sum, and partials is (chunks, group_channels, filter_h, filter_w, filters). Below 1: all
// positions.
inline void weight_acts_partials(const ConvShape& s, int64_t partial_sum, const float* images,
                                 const float* outputs_grad, float* partials, int threads) {
    using namespace weight_grad;
    if (result_floats(s) == 0) return;
    const int64_t positions = s.out_h * s.out_w;
    if (partial_sum < 1 || partial_sum > positions) partial_sum = std::max<int64_t>(1, positions);
    Plan plan = make_plan(s, std::max<int64_t>(1, partial_sum * s.batch), threads);
    plan.slices = ceil_div(positions, partial_sum);  // without images, too
    run_plan(s, plan, images, outputs_grad, partials);
}

}  // namespace c01b
