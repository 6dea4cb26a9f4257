// The weight gradient: the adjoint of a c01b convolution with respect to its filters.
//
//     dw[c,u',v',k] = sum over i,j,b of  x~[c, i*stride_y - pad_y + u, j*stride_x - pad_x + v, b] * g[k,i,j,b]
//
// A matrix product whose inner dimension is the product index p = (i*out_w + j)*batch + b. It is contiguous in g, and in x
// too along runs: a whole output row where stride_x is 1, one position's batch otherwise. A tap (c,u,v) moves the run's
// start and clips it to the image; nothing is padded, so a tap outside the image contributes nothing, not 0 * inf.
//
//     outer tile (rows x 4 vectors of filters)            dot tile (rows x 4 filters)
//
//             panel: g transposed, [p][64 filters]                g as it is, [k][p]
//                 p:  [ k0..15 | .. | k48..63 ]                     k0: [ p..p+15 ]  ..  k3: [ p..p+15 ]
//     (c,u)  x[p] ->  acc    acc  acc  acc                (c,u) x[p..p+15] ->  acc ..  acc
//      ..    x[p] ->  acc    acc  acc  acc                  ..  x[p..p+15] ->  acc ..  acc
//            splat                                                             each summed over its lanes at the end
//
// Rows are pairs (channel, filter row) for one filter column v: they share the runs, whatever the channel count. Blocking,
// outermost first: units of work (filter block x channels x slice of p, one thread each); chunks of p; groups of u with
// equal clipping; tiles of rows; v. A chunk's panel stays in L2 and is streamed once a tile (4 loads for 24 FMAs); a
// tile's rows of x stay in L1 over all v. So FMAs bound the outer tile, save for the transposition, once a panel: the few
// taps of a one channel image do not pay for it, nor do filters that fill their last vector badly; these take the dot
// tile, bound by loads (10 for 24 FMAs).
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "conv_shape.h"
#include "parallel.h"
#include "simd.h"

namespace c01b {
namespace weight_grad {

// Register tiles: accumulators, one vector of x and the vectors of g fill the register file.
constexpr int block_vectors = vector_registers == 32 ? 4 : 2;
constexpr int outer_rows = 6;
constexpr int dot_rows = vector_registers == 32 ? 6 : 3;
constexpr int dot_filters = 4;
// Products a chunk: bounds the rounding error of a tile's accumulators and the panel (192 KiB for 64 filters).
constexpr int64_t outer_products = 768, dot_products = 3072;
constexpr int64_t prefetch_products = 256;

// Products that are neighbours in the images and in the output gradient.
struct Run {
    int64_t image;    // of the first, from the row's origin
    int32_t product;  // of the first, from the chunk's
    int32_t length;
};

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

struct Tile {
    const Run* runs;
    int64_t run_count;
    const float* images;
    const int64_t* image_row;  // origin of each row of the tile, from images
    const float* grads;        // the panel, or g of the tile's first filter at the chunk's first product
    int64_t grad_stride;       // from one filter to the next (dot tile)
    const float* prefetch;     // gradients that the next tiles read (dot tile)
    float* target;
    const int64_t* target_row;  // from target
    int64_t filters;            // of the block, <= its width
};

template <int Rows, int Vectors>
void outer_tile(const Tile& t) {
    constexpr int width = Vectors * lanes;
    vec acc[Rows][Vectors] = {};
    for (int64_t i = 0; i < t.run_count; ++i) {
        const Run run = t.runs[i];
        const float* x[Rows];
        for (int r = 0; r < Rows; ++r) x[r] = t.images + (t.image_row[r] + run.image);
        const float* g = t.grads + run.product * static_cast<int64_t>(width);
        for (int64_t p = 0; p < run.length; ++p, g += width) {
            vec gv[Vectors];
            for (int v = 0; v < Vectors; ++v) gv[v] = load(g + v * lanes);
            for (int r = 0; r < Rows; ++r) {
                const vec xv = splat(x[r][p]);
                for (int v = 0; v < Vectors; ++v) acc[r][v] += xv * gv[v];
            }
        }
    }
    for (int r = 0; r < Rows; ++r) {
        float* target = t.target + t.target_row[r];
        for (int v = 0; v < Vectors; ++v, target += lanes) {
            const int64_t n = t.filters - v * lanes;
            if (n >= lanes) {
                store(target, load(target) + acc[r][v]);
            } else if (n > 0) {
                store_first(target, load_first(target, static_cast<int>(n)) + acc[r][v], static_cast<int>(n));
            }
        }
    }
}

// Adds the lane sums of a dot tile's accumulators to its targets, a vector full of sums at a time.
template <int Rows, int Filters>
inline void add_sums(const vec (*acc)[Filters], float* target, const int64_t* target_row) {
    constexpr int most = lanes / dot_filters;
    if constexpr (Rows > most) {
        add_sums<most>(acc, target, target_row);
        add_sums<Rows - most>(acc + most, target, target_row + most);
    } else {
        constexpr int rows = Rows > 2 ? 4 : Rows;
        vec v[rows * dot_filters] = {};
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
            for (int f = 0; f < Filters; ++f) v[r * dot_filters + f] = acc[r][f];
        alignas(vec) float sums[lanes];
        store(sums, lane_sums(v));
        for (int r = 0; r < Rows; ++r)
            for (int f = 0; f < Filters; ++f)
                target[target_row[r] + f] += sums[(r * dot_filters + f) * (lanes / (rows * dot_filters))];
    }
}

template <int Rows, int Filters>
void dot_tile(const Tile& t) {
    vec acc[Rows][Filters] = {};
    const auto multiply = [&](const float* const(&x)[Rows], const float* g, auto load_some) {
        vec gv[Filters];
#pragma GCC unroll 8
        for (int f = 0; f < Filters; ++f) gv[f] = load_some(g + f * t.grad_stride);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const vec xv = held(load_some(x[r]));
#pragma GCC unroll 8
            for (int f = 0; f < Filters; ++f) acc[r][f] += xv * gv[f];
        }
    };
    for (int64_t i = 0; i < t.run_count; ++i) {
        const Run run = t.runs[i];
        const float* x[Rows];
        for (int r = 0; r < Rows; ++r) x[r] = t.images + (t.image_row[r] + run.image);
        const float* g = t.grads + run.product;
        const float* next = t.prefetch + run.product;
        int left = run.length;
        for (; left >= lanes; left -= lanes) {
            __builtin_prefetch(next);
            multiply(x, g, [](const float* p) { return load(p); });
            for (int r = 0; r < Rows; ++r) x[r] += lanes;
            g += lanes;
            next += lanes;
        }
        if (left) multiply(x, g, [left](const float* p) { return load_first(p, left); });
    }
    add_sums<Rows>(acc, t.target, t.target_row);
}

// The tile function for each height 1..Rows, at [width - 1][height - 1].
using TileFunction = void (*)(const Tile&);

using OuterWidths = std::make_integer_sequence<int, block_vectors>;
using DotWidths = std::make_integer_sequence<int, dot_filters>;

// The tile function for each height 1..Rows, at [width - 1][height - 1].
using TileFunction = void (*)(const Tile&);

template <int Vectors, int... R>
TileFunction outer_of_height(int rows, std::integer_sequence<int, R...>) {
    static constexpr TileFunction table[] = {outer_tile<R + 1, Vectors>...};
    return table[rows - 1];
}
template <int Filters, int... R>
TileFunction dot_of_height(int rows, std::integer_sequence<int, R...>) {
    static constexpr TileFunction table[] = {dot_tile<R + 1, Filters>...};
    return table[rows - 1];
}
template <int... V>
TileFunction outer_of(int vectors, int rows, std::integer_sequence<int, V...>) {
    using Heights = std::make_integer_sequence<int, outer_rows>;
    static constexpr TileFunction (*table[])(int, Heights) = {outer_of_height<V + 1>...};
    return table[vectors - 1](rows, Heights());
}
template <int... F>
TileFunction dot_of(int filters, int rows, std::integer_sequence<int, F...>) {
    using Heights = std::make_integer_sequence<int, dot_rows>;
    static constexpr TileFunction (*table[])(int, Heights) = {dot_of_height<F + 1>...};
    return table[filters - 1](rows, Heights());
}

// ---- one unit of work ----------------------------------------------------------------------------------------------

// The panel [product][vectors * lanes] of `filters` filters' gradients; missing filters read as 0.
inline void pack_panel(const float* grads, int64_t stride, int64_t filters, int vectors, int64_t first, int64_t products,
                       float* panel) {
    const int64_t width = static_cast<int64_t>(vectors) * lanes;
    for (int64_t k = 0; k < width; k += lanes) {
        for (int64_t p = 0; p < products; p += lanes) {
            const int n = static_cast<int>(std::min<int64_t>(lanes, products - p));
            const int64_t ahead = std::min(prefetch_products, stride - 1 - (first + p));
            vec block[lanes];
            for (int r = 0; r < lanes; ++r) {
                const float* row = grads + (k + r) * stride + first + p;
                if (k + r < filters) __builtin_prefetch(row + ahead);
                block[r] = k + r >= filters ? zero() : n == lanes ? load(row) : load_first(row, n);
            }
            transpose(block);
            for (int r = 0; r < n; ++r) store(panel + (p + r) * width + k, block[r]);
        }
    }
}

// Appends the runs of filter column v within output rows `rows` and products `chunk`; neighbours are merged (1 x 1 filters).
inline void find_runs(const ConvShape& s, Range rows, int64_t v, Range chunk, std::vector<Run>& runs) {
    const Range columns = inside(v, s.width, s.out_w, s.stride_x, s.pad_x);
    const int64_t columns_a_run = s.stride_x == 1 ? columns.size() : 1;
    const size_t start = runs.size();
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        for (int64_t j = columns.begin; j < columns.end; j += columns_a_run) {
            const int64_t first = (i * s.out_w + j) * s.batch;
            const Range p = intersect({first, first + columns_a_run * s.batch}, chunk);
            if (p.size() == 0) continue;
            const int64_t pixel = i * s.stride_y * s.width + j * s.stride_x - s.pad_x + v;
            const int64_t image = pixel * s.batch + (p.begin - first);
            const int32_t product = static_cast<int32_t>(p.begin - chunk.begin), length = static_cast<int32_t>(p.size());
            if (runs.size() > start && runs.back().image + runs.back().length == image &&
                runs.back().product + runs.back().length == product) {
                runs.back().length += length;
            } else {
                runs.push_back({image, product, length});
            }
        }
    }
}

// How the work is cut. Every slice of the products has its own result.
struct Plan {
    bool dot;
    int64_t filters_a_block, channels_a_part, products_a_slice;
    int64_t blocks, parts, slices;
};

// What one thread does at a time: its share of one slice's result.
struct Unit {
    Range filters, channels, products;
    float* result;  // (channels, filter_h, filter_w, filters)
};

inline void clear(const ConvShape& s, const Unit& unit) {
    const int64_t taps = s.filter_h * s.filter_w;
    for (int64_t row = unit.channels.begin * taps; row < unit.channels.end * taps; ++row)
        std::fill_n(unit.result + row * s.filters + unit.filters.begin, unit.filters.size(), 0.f);
}

// Adds a chunk's products for the filter rows `us`, all of which see the same output rows: their runs are the same.
inline void add_chunk(const ConvShape& s, const Unit& unit, bool dot, const float* images, const float* grads, Range us,
                      int64_t ahead, const std::vector<Run>* runs) {
    const int64_t rows = unit.channels.size() * us.size();
    const int64_t max_rows = dot ? dot_rows : outer_rows;
    const int64_t height = ceil_div(rows, ceil_div(rows, max_rows));  // tiles of equal height, or nearly
    const int vectors = static_cast<int>(ceil_div(unit.filters.size(), lanes));
    const int64_t width = dot ? dot_filters : unit.filters.size();
    for (int64_t first = 0; first < rows; first += height) {
        const int tile_rows = static_cast<int>(std::min(height, rows - first));
        int64_t image_row[outer_rows], result_row[outer_rows];
        for (int r = 0; r < tile_rows; ++r) {
            const int64_t c = unit.channels.begin + (first + r) / us.size(), u = us.begin + (first + r) % us.size();
            const int64_t tap_row = c * s.filter_h + (s.flip ? s.filter_h - 1 - u : u);
            image_row[r] = (c * s.height + u - s.pad_y) * s.width * s.batch;
            result_row[r] = tap_row * s.filter_w * s.filters;
        }
        for (int64_t k = 0; k < unit.filters.size(); k += width) {
            Tile tile = {nullptr, 0, images, image_row, grads, 0, grads, nullptr, result_row, std::min(width, unit.filters.size() - k)};
            if (dot) {
                tile.grad_stride = s.out_h * s.out_w * s.batch;
                tile.grads = grads + (unit.filters.begin + k) * tile.grad_stride;
            }
            const float* next = tile.grads;
            if (dot && k + 2 * dot_filters <= unit.filters.size()) {
                next = tile.grads + dot_filters * tile.grad_stride;
            } else if (dot && dot_filters <= unit.filters.size()) {
                next = grads + unit.filters.begin * tile.grad_stride + ahead;
            }
            const TileFunction multiply = dot ? dot_of(static_cast<int>(tile.filters), tile_rows, DotWidths())
                                              : outer_of(vectors, tile_rows, OuterWidths());
            for (int64_t v = 0; v < s.filter_w; ++v) {
                if (runs[v].empty()) continue;
                if (dot) tile.prefetch = next + v % dot_filters * tile.grad_stride;
                tile.runs = runs[v].data();
                tile.run_count = static_cast<int64_t>(runs[v].size());
                tile.target = unit.result + (s.flip ? s.filter_w - 1 - v : v) * s.filters + unit.filters.begin + k;
                multiply(tile);
            }
        }
    }
}

inline void run_unit(const ConvShape& s, const Unit& unit, bool dot, const float* images, const float* grads) {
    struct PanelTag;
    static thread_local std::vector<std::vector<Run>> runs;
    if (runs.size() < static_cast<size_t>(s.filter_w)) runs.resize(s.filter_w);
    clear(s, unit);
    if (unit.products.size() == 0) return;
    const int64_t filter_stride = s.out_h * s.out_w * s.batch, row_products = s.out_w * s.batch;
    const int vectors = static_cast<int>(ceil_div(unit.filters.size(), lanes));
    const int64_t chunks = ceil_div(unit.products.size(), dot ? dot_products : outer_products);
    const int64_t step = ceil_div(ceil_div(unit.products.size(), chunks), lanes) * lanes;
    for (int64_t p = unit.products.begin; p < unit.products.end; p += step) {
        const Range chunk = {p, std::min(p + step, unit.products.end)};
        const float* g = grads + p;
        if (!dot) {
            float* panel = scratch<PanelTag>(step * vectors * lanes);
            pack_panel(grads + unit.filters.begin * filter_stride, filter_stride, unit.filters.size(), vectors, p,
                       chunk.size(), panel);
            g = panel;
        }
        const Range chunk_rows = {p / row_products, ceil_div(chunk.end, row_products)};
        for (Range us = {0, 0}; us.begin < s.filter_h; us.begin = us.end) {
            const auto rows_of = [&](int64_t u) {
                return intersect(inside(u, s.height, s.out_h, s.stride_y, s.pad_y), chunk_rows);
            };
            const Range rows = rows_of(us.begin);
            for (us.end = us.begin + 1; us.end < s.filter_h; ++us.end) {
                const Range next = rows_of(us.end);
                if (next.begin != rows.begin || next.end != rows.end) break;
            }
            if (rows.size() == 0) continue;
            for (int64_t v = 0; v < s.filter_w; ++v) {
                runs[v].clear();
                find_runs(s, rows, v, chunk, runs[v]);
            }
            add_chunk(s, unit, dot, images, g, us, chunk.end < unit.products.end ? step : 0, runs.data());
        }
    }
}

// Results are (slices, channels, filter_h, filter_w, filters).
inline void run_plan(const ConvShape& s, const Plan& plan, const float* images, const float* grads, float* results,
                     int threads) {
    const int64_t size = s.channels * s.filter_h * s.filter_w * s.filters, products = s.out_h * s.out_w * s.batch;
    parallel_for(plan.slices * plan.parts * plan.blocks, threads, [&](int64_t index, int) {
        const int64_t block = index % plan.blocks, part = index / plan.blocks % plan.parts;
        const int64_t slice = index / plan.blocks / plan.parts;
        const auto share = [](int64_t i, int64_t step, int64_t end) {
            return Range{std::min(i * step, end), std::min((i + 1) * step, end)};
        };
        const Unit unit = {share(block, plan.filters_a_block, s.filters), share(part, plan.channels_a_part, s.channels),
                           share(slice, plan.products_a_slice, products), results + slice * size};
        run_unit(s, unit, plan.dot, images, grads);
    });
}

// The cut that costs least, in vector FMAs of the busiest thread; products_a_slice 0: as many as is best.
inline Plan make_plan(const ConvShape& s, int64_t products_a_slice, int threads) {
    Plan best = {};
    const int64_t products = s.out_h * s.out_w * s.batch, taps = s.filter_h * s.filter_w;
    const bool dot = s.channels * taps < 50;
    const int64_t vectors = ceil_div(s.filters, lanes), blocks = std::max<int64_t>(1, ceil_div(vectors, block_vectors));
    const int64_t block = std::max<int64_t>(1, ceil_div(vectors, blocks)) * lanes;
    double least = -1;
    for (int64_t parts = 1; parts == 1 || (parts <= s.channels && parts * blocks <= 4 * threads); ++parts) {
        for (int64_t slices = 1; slices == 1 || (!products_a_slice && parts * blocks * slices <= 4 * threads); ++slices) {
            Plan plan = {dot, block, std::max<int64_t>(1, ceil_div(s.channels, parts)), products_a_slice, blocks, parts, slices};
            if (products_a_slice) plan.slices = ceil_div(products, products_a_slice);
            else plan.products_a_slice = std::max<int64_t>(1, ceil_div(ceil_div(products, slices), lanes) * lanes);
            const double rounds = static_cast<double>(ceil_div(blocks * parts * plan.slices, threads));
            const double unit = block / lanes * (plan.channels_a_part * taps + 6.0) * plan.products_a_slice;
            const double merge = slices > 1 ? static_cast<double>(slices) * s.channels * taps * vectors / threads : 0;
            const double cost = rounds * unit + merge;
            if (least < 0 || cost < least) least = cost, best = plan;
        }
    }
    return best;
}

}  // namespace weight_grad

inline void weight_acts(const ConvShape& s, const float* images, const float* outputs_grad, float* filters_grad,
                        int threads) {
    using namespace weight_grad;
    struct ResultsTag;
    const int64_t size = s.channels * s.filter_h * s.filter_w * s.filters;
    if (size == 0) return;
    const Plan plan = make_plan(s, 0, threads);
    if (plan.slices == 1) return run_plan(s, plan, images, outputs_grad, filters_grad, threads);
    float* results = scratch<ResultsTag>(plan.slices * size);
    run_plan(s, plan, images, outputs_grad, results, threads);
    constexpr int64_t run = 4096;
    parallel_for(ceil_div(size, run), threads, [&](int64_t i, int) {
        const int64_t begin = i * run, end = std::min(size, begin + run);
        std::copy(results + begin, results + end, filters_grad + begin);
        for (int64_t slice = 1; slice < plan.slices; ++slice)
            for (int64_t e = begin; e < end; ++e) filters_grad[e] += results[slice * size + e];
    });
}

// The same over chunks of partial_sum output positions (m = i*out_w + j, chunk m / partial_sum), each into its own result:
// partials is (chunks, channels, filter_h, filter_w, filters).
inline void weight_acts_partials(const ConvShape& s, int64_t partial_sum, const float* images, const float* outputs_grad,
                                 float* partials, int threads) {
    using namespace weight_grad;
    if (s.channels * s.filter_h * s.filter_w * s.filters == 0 || s.out_h * s.out_w == 0) return;
    if (partial_sum <= 0) partial_sum = s.out_h * s.out_w;
    Plan plan = make_plan(s, partial_sum * s.batch, threads);
    plan.slices = ceil_div(s.out_h * s.out_w, partial_sum);
    run_plan(s, plan, images, outputs_grad, partials, threads);
}

}  // namespace c01b
