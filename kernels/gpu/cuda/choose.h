// Which variant of the CUDA kernels takes a convolution, with which sizes and how many blocks: plain arithmetic, no GPU.
// select.h launches what is chosen here.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "conv_shape.h"

namespace c01b {
namespace gpu {
namespace cuda {

#include "sizes.cuh"

// How products are formed. Tf32x3 has float32's accuracy (split.cuh), its speed is the tensor cores'.
enum class Arithmetic { Scalar, Tf32, Tf32x3 };

struct Tile {
    int rows, columns, threads;
    int per_processor;  // blocks that a multiprocessor shall hold: bounds registers
    const char* type;   // of correlate_tiles.cuh or weight_tiles.cuh; %d: steps between promotions
    double penalty;     // time for equal work, the best tile's being 1: measured
};

// One kernel of one blocking: what to compile and how to launch it.
struct Kernel {
    std::vector<const char*> files;  // in kernels/gpu, compiled as one text
    std::string name;                // of the extern "C" function behind them; tells the variant
    std::string instance;            // that function's text
    int64_t blocks[3];
    int threads;
    int shared = 0;  // bytes of shared memory besides what it declares
};

template <class... Args>
std::string format(const char* text, Args... args) {
    char buffer[1024];
    std::snprintf(buffer, sizeof buffer, text, args...);
    return buffer;
}

// The extern "C" function around a call of one of the templates; Sizes is the struct's name. Buffers are a pointer and an offset.
inline std::string instance(const std::string& name, int threads, int per_processor, const char* sizes, const std::string& call) {
    return format("extern \"C\" __global__ void __launch_bounds__(%d, %d)\n"
                  "%s(const float* a, unsigned long long a_bytes, const float* b, unsigned long long b_bytes,\n"
                  "float* target, unsigned long long target_bytes, %s p) {\n    %s(a + a_bytes / 4, b + b_bytes / 4, target + target_bytes / 4, p);\n}\n",
                  threads, per_processor, name.c_str(), sizes, call.c_str());
}

// The same around a function of one array and the target.
inline std::string simple_instance(const std::string& name, const char* sizes, const std::string& call) {
    return format("extern \"C\" __global__ void %s(const float* a, unsigned long long a_bytes, float* target, unsigned long long target_bytes, %s p) {\n"
                  "    %s(a + a_bytes / 4, target + target_bytes / 4, p);\n}\n", name.c_str(), sizes, call.c_str());
}

// What float32 is made of for sums of so many terms. Short sums have little work and a small error: scalar.
inline Arithmetic float32_arithmetic(int64_t terms) { return terms < 128 ? Arithmetic::Scalar : Arithmetic::Tf32x3; }

// Steps of 16 terms between promotions: the error grows with them, a scalar sum's with its length, whose error is the limit.
inline int promotion(int64_t terms) { return terms < 1024 ? 2 : 4; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// a / b as the upper half of a * magic: exact while a * b < 2^32 (the kernels ask for a < 2^16); 0 stands for 1.
inline unsigned magic(int64_t b) { return static_cast<unsigned>(b == 1 ? 0 : ((int64_t(1) << 32) + b - 1) / b); }

// The tiles of correlate.cuh. Fewer rows are slower, and worth it where they leave less of the last tile empty.
struct Tiles {
    const Tile* begin;
    int count;
};
inline Tiles correlate_tiles(Arithmetic arithmetic) {
    static const Tile scalar[] = {{128, 128, 128, 2, "FfmaTile<128, 128, 16, 8>", 1.0},
                                  {64, 128, 128, 3, "FfmaTile<64, 128, 8, 8>", 1.08},
                                  {32, 128, 64, 6, "FfmaTile<32, 128, 8, 8>", 1.15}};
    static const Tile tf32[] = {{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>", 1.0},
                                {64, 128, 64, 4, "MmaTile<64, 128, 64, 64, 1, 0>", 1.12},
                                {32, 128, 128, 4, "MmaTile<32, 128, 32, 32, 1, 0>", 1.7}};
    static const Tile tf32x3[] = {{64, 128, 128, 2, "MmaTile<64, 128, 64, 32, 3, %d>", 1.0},
                                  {32, 128, 128, 3, "MmaTile<32, 128, 32, 32, 3, %d>", 1.15}};
    return arithmetic == Arithmetic::Scalar ? Tiles{scalar, 3} : arithmetic == Arithmetic::Tf32 ? Tiles{tf32, 3} : Tiles{tf32x3, 2};
}

// The tile that covers rows x columns in the least time.
inline const Tile* cheapest(Tiles tiles, int64_t rows, int64_t columns) {
    const auto cost = [=](const Tile& t) {
        return t.penalty * static_cast<double>(ceil_div(rows, t.rows) * t.rows) * static_cast<double>(ceil_div(columns, t.columns) * t.columns);
    };
    return std::min_element(tiles.begin, tiles.begin + tiles.count, [&](const Tile& a, const Tile& b) { return cost(a) < cost(b); });
}

// Images a column of positions takes; as few as leave little of the batch's end empty, but pieces of fewer than 32 are slow.
inline int choose_images(int64_t batch) {
    const struct { int images; double penalty; } choices[] = {{128, 1}, {64, 1.02}, {32, 1.04}, {16, 1.1}, {8, 1.2}, {4, 1.5}};
    int best = 128;
    double least = 1e300;
    for (const auto& choice : choices) {
        const double cost = static_cast<double>(ceil_div(batch, choice.images) * choice.images) * choice.penalty;
        if (cost < least) least = cost, best = choice.images;
    }
    return best;
}

// Flat where padding channels to whole steps would cost more than the address work of the flat order.
inline bool choose_flat(int64_t depth, int64_t taps) {
    const double by_taps = static_cast<double>(ceil_div(depth, 16) * taps), flat = static_cast<double>(ceil_div(depth * taps, 16));
    return depth * taps < 65536 && flat * 1.15 < by_taps;
}

inline const char* suffix(Arithmetic arithmetic) {
    return arithmetic == Arithmetic::Scalar ? "scalar" : arithmetic == Arithmetic::Tf32 ? "tf32" : "tf32x3";
}

struct CorrelateVariant {
    const Tile* tile;
    int images;       // of a column block
    int row_floats;   // 4: weights and their rows are aligned to 16 bytes
    int column_floats;
    bool flat;
};

inline CorrelateVariant choose_correlate(const CorrelateSizes& p, Arithmetic arithmetic, bool weights_aligned, bool images_aligned) {
    const bool whole_rows = p.rows % 4 == 0 && weights_aligned, whole_columns = p.batch % 4 == 0 && images_aligned;
    return {cheapest(correlate_tiles(arithmetic), p.rows, 128), choose_images(p.batch), whole_rows ? 4 : 1, whole_columns ? 4 : 1,
            choose_flat(p.depth, int64_t(p.taps_h) * p.taps_w)};
}

inline Kernel correlate_kernel(const CorrelateSizes& p, const CorrelateVariant& v, Arithmetic arithmetic) {
    const int period = promotion(int64_t(p.depth) * p.taps_h * p.taps_w);
    const std::string name = format("correlate_%s_%dx%d_i%d_a%d%d_p%d%s", suffix(arithmetic), v.tile->rows, v.tile->columns, v.images, v.row_floats,
                                    v.column_floats, period, v.flat ? "_flat" : "");
    const std::string call = format("correlate<%s, %d, %d, %d, %s>", format(v.tile->type, period).c_str(), v.images, v.row_floats,
                                    v.column_floats, v.flat ? "true" : "false");
    const int64_t positions = ceil_div(int64_t(p.grid_h) * p.grid_w, v.tile->columns / v.images);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/correlate_tiles.cuh", "cuda/correlate.cuh"}, name,
            instance(name, v.tile->threads, v.tile->per_processor, "CorrelateSizes", call),
            {ceil_div(p.rows, v.tile->rows) * ceil_div(p.batch, v.images) * positions, 1, p.groups}, v.tile->threads};
}

// The tiles of wgmma.cuh, for compute capability 9.0. There is no scalar one.
inline Tiles wgmma_tiles(Arithmetic arithmetic) {
    static const Tile tf32[] = {{128, 128, 128, 2, "WgmmaImages<128, 1, 0>", 1.0}, {64, 128, 128, 3, "WgmmaImages<64, 1, 0>", 1.35},
                                {32, 128, 128, 4, "WgmmaImages<32, 1, 0>", 2.2}};
    static const Tile tf32x3[] = {{64, 128, 128, 2, "WgmmaImages<64, 3, %d>", 1.0}, {32, 128, 128, 3, "WgmmaImages<32, 3, %d>", 1.45}};
    return arithmetic == Arithmetic::Tf32 ? Tiles{tf32, 3} : Tiles{tf32x3, 2};
}

struct WgmmaVariant {
    const Tile* tile;
    int images, column_floats;
    bool flat;
    int parts;  // of a packed filter: 1, or high and low
};

inline WgmmaVariant choose_wgmma(const CorrelateSizes& p, Arithmetic arithmetic, bool gradient, bool images_aligned) {
    const bool flat = !gradient && choose_flat(p.depth, int64_t(p.taps_h) * p.taps_w);
    return {cheapest(wgmma_tiles(arithmetic), p.rows, 128), choose_images(p.batch), p.batch % 4 == 0 && images_aligned ? 4 : 1, flat,
            arithmetic == Arithmetic::Tf32 ? 1 : 2};
}

inline Kernel wgmma_kernel(const CorrelateSizes& p, const WgmmaVariant& v) {
    constexpr int stages = 4;
    const int period = promotion(int64_t(p.depth) * p.taps_h * p.taps_w);
    const std::string name = format("correlate_wgmma%d_%d_i%d_a%d_p%d%s", v.parts == 1 ? 1 : 3, v.tile->rows, v.images, v.column_floats, period, v.flat ? "_flat" : "");
    const std::string call = format("correlate_wgmma<%s, %d, %d, %s, %d>", format(v.tile->type, period).c_str(), v.images, v.column_floats,
                                    v.flat ? "true" : "false", stages);
    const int64_t positions = ceil_div(int64_t(p.grid_h) * p.grid_w, 128 / v.images);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/correlate_tiles.cuh", "cuda/correlate.cuh", "cuda/wgmma_ptx.cuh",
             "cuda/wgmma_tile.cuh", "cuda/wgmma.cuh"}, name, instance(name, v.tile->threads, v.tile->per_processor, "CorrelateSizes", call),
            {ceil_div(p.rows, v.tile->rows) * ceil_div(p.batch, v.images) * positions, 1, p.groups}, v.tile->threads,
            stages * 4 * 16 * (v.tile->columns + v.parts * v.tile->rows)};
}

// Forward: a row is a filter, a position an output.
inline CorrelateSizes forward_sizes(const ConvShape& s) {
    CorrelateSizes p = {};
    p.groups = int(s.groups), p.depth = int(s.group_channels()), p.source_h = int(s.height), p.source_w = int(s.width), p.batch = int(s.batch);
    p.rows = p.channels = int(s.group_filters());
    p.grid_h = p.target_h = int(s.out_h), p.grid_w = p.target_w = int(s.out_w);
    p.taps_h = p.filter_h = int(s.filter_h), p.taps_w = p.filter_w = int(s.filter_w), p.flip = s.flip;
    p.step_y = int(s.stride_y), p.step_x = int(s.stride_x), p.pad_y = int(s.pad_y), p.pad_x = int(s.pad_x);
    p.phases_h = p.phases_w = 1;
    p.taps_magic = magic(int64_t(p.taps_h) * p.taps_w), p.width_magic = magic(p.taps_w);
    return p;
}

// One axis of the data gradient, after correlate.cuh: position T - least_T of the grid is pixels a with (a + pad) / stride == T.
struct GradientAxis {
    int taps, pad, first, grid;
    GradientAxis(int64_t pixels, int64_t filter, int64_t stride, int64_t padding) {
        const int64_t least = padding / stride, most = (pixels - 1 + padding) / stride;
        taps = int(ceil_div(filter, stride));
        pad = int(taps - 1 - least);
        first = int(least * stride - padding);
        grid = int(most - least + 1);
    }
};

inline CorrelateSizes gradient_sizes(const ConvShape& s) {
    const GradientAxis y(s.height, s.filter_h, s.stride_y, s.pad_y), x(s.width, s.filter_w, s.stride_x, s.pad_x);
    CorrelateSizes p = {};
    p.groups = int(s.groups), p.depth = int(s.group_filters()), p.source_h = int(s.out_h), p.source_w = int(s.out_w), p.batch = int(s.batch);
    p.channels = int(s.group_channels()), p.rows = int(s.stride_y * s.stride_x * p.channels);
    p.grid_h = y.grid, p.grid_w = x.grid, p.taps_h = y.taps, p.taps_w = x.taps;
    p.step_y = p.step_x = 1, p.pad_y = y.pad, p.pad_x = x.pad;
    p.phases_h = int(s.stride_y), p.phases_w = int(s.stride_x);
    p.filter_h = int(s.filter_h), p.filter_w = int(s.filter_w), p.first_y = y.first, p.first_x = x.first;
    p.target_h = int(s.height), p.target_w = int(s.width);
    p.taps_magic = magic(int64_t(p.taps_h) * p.taps_w), p.width_magic = magic(p.taps_w);
    return p;
}

// The filters of the data gradient, in a workspace of `filter_floats`.
inline FilterSizes filter_sizes(const ConvShape& s, const CorrelateSizes& p) {
    FilterSizes f = {};
    f.groups = p.groups, f.channels = p.channels, f.filter_h = p.filter_h, f.filter_w = p.filter_w, f.filters = p.depth, f.flip = s.flip;
    f.taps_h = p.taps_h, f.taps_w = p.taps_w, f.phases_h = p.phases_h, f.phases_w = p.phases_w;
    return f;
}
inline int64_t filter_floats(const CorrelateSizes& p) { return int64_t(p.depth) * p.taps_h * p.taps_w * p.groups * p.rows; }
inline Kernel filter_kernel(const FilterSizes& f) {
    return {{"cuda/sizes.cuh", "cuda/filters.cuh"}, "transpose_filters_kernel", simple_instance("transpose_filters_kernel", "FilterSizes", "transpose_filters"),
            {ceil_div(f.filters, 32), ceil_div(f.channels, 32), int64_t(f.groups) * f.taps_h * f.taps_w * f.phases_h * f.phases_w}, 256};
}

// Filters packed for wgmma.cuh: of `packed_floats`, by a kernel of `pack_threads` threads.
inline PackSizes pack_sizes(const ConvShape& s, const CorrelateSizes& p, bool flat) {
    PackSizes k = {};
    k.groups = p.groups, k.rows = p.rows, k.channels = p.channels, k.filter_h = p.filter_h, k.filter_w = p.filter_w, k.flip = s.flip;
    k.depth = flat ? p.depth * p.taps_h * p.taps_w : p.depth, k.taps_h = flat ? 1 : p.taps_h, k.taps_w = flat ? 1 : p.taps_w;
    k.phases_h = p.phases_h, k.phases_w = p.phases_w, k.flat = flat;
    return k;
}
inline int64_t pack_threads(const PackSizes& k, const WgmmaVariant& v) {
    return k.groups * ceil_div(k.rows, v.tile->rows) * k.taps_h * k.taps_w * ceil_div(k.depth, 16) * 4 * v.tile->rows;
}
inline int64_t packed_floats(const PackSizes& k, const WgmmaVariant& v) { return 4 * v.parts * pack_threads(k, v); }

inline Kernel pack_kernel(const PackSizes& k, const WgmmaVariant& v, bool gradient) {
    const std::string name = format("pack_%d_%d%s", v.tile->rows, v.parts, gradient ? "_gradient" : "");
    const std::string call = format("pack_filters<%d, %d, %s>", v.tile->rows, v.parts, gradient ? "true" : "false");
    return {{"cuda/sizes.cuh", "cuda/split.cuh", "cuda/pack.cuh"}, name, simple_instance(name, "PackSizes", call), {ceil_div(pack_threads(k, v), 256), 1, 1}, 256};
}

// The tiles of weight_acts.cuh: rows are elements of a filter, columns filters.
inline Tiles weight_tiles(Arithmetic arithmetic) {
    static const Tile scalar[] = {{128, 128, 128, 2, "FfmaTile<128, 128, 8, 16>", 1.0}, {128, 64, 128, 2, "FfmaTile<128, 64, 8, 8>", 1.0},
                                  {128, 32, 64, 4, "FfmaTile<128, 32, 8, 8>", 1.3}, {32, 64, 64, 4, "FfmaTile<32, 64, 4, 8>", 1.6},
                                  {32, 32, 32, 8, "FfmaTile<32, 32, 4, 8>", 2.2}};
    static const Tile tf32[] = {{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>", 1.0}, {128, 64, 128, 3, "MmaTile<128, 64, 32, 64, 1, 0>", 1.3},
                                {128, 32, 128, 4, "MmaTile<128, 32, 32, 32, 1, 0>", 1.7}, {32, 64, 64, 6, "MmaTile<32, 64, 32, 32, 1, 0>", 1.8},
                                {32, 32, 32, 12, "MmaTile<32, 32, 32, 32, 1, 0>", 2.4}};
    static const Tile tf32x3[] = {{128, 64, 128, 2, "MmaTile<128, 64, 32, 64, 3, %d>", 1.0}, {128, 32, 128, 3, "MmaTile<128, 32, 32, 32, 3, %d>", 1.3},
                                  {32, 64, 64, 5, "MmaTile<32, 64, 32, 32, 3, %d>", 1.4}, {32, 32, 32, 10, "MmaTile<32, 32, 32, 32, 3, %d>", 1.8}};
    return arithmetic == Arithmetic::Scalar ? Tiles{scalar, 5} : arithmetic == Arithmetic::Tf32 ? Tiles{tf32, 5} : Tiles{tf32x3, 4};
}

// Positions of a chunk: few enough that all multiprocessors have work of equal length, many enough that starting a block and
// adding up the partial sums cost little. In units of one block's step of 16 terms, about 2 microseconds.
inline int choose_positions(const WeightSizes& p, const Tile& tile, int64_t processors, int64_t workspace) {
    const int64_t rows = int64_t(p.channels) * p.filter_h * p.filter_w, elements = rows * p.groups * p.filters;
    const int64_t tiles = ceil_div(rows, tile.rows) * ceil_div(p.filters, tile.columns) * p.groups, total = int64_t(p.out_h) * p.out_w;
    const int64_t most = std::min<int64_t>({total, 1024, std::max<int64_t>(1, workspace / (4 * elements))});
    const int64_t slots = processors * tile.per_processor, steps = ceil_div(p.batch, 16);
    const double start = 16, sum = 8.0 * double(elements) / 4e12 / 2e-6;
    int64_t best = total;
    double least = 1e300;
    for (int64_t wanted = 1; wanted <= most; ++wanted) {
        const int64_t positions = ceil_div(total, wanted), chunks = ceil_div(total, positions);
        const double cost = double(ceil_div(tiles * chunks, slots)) * (double(positions * steps) + start) + (chunks > 1 ? sum * double(chunks) + 2 : 0);
        if (cost < least) least = cost, best = positions;
    }
    return int(best);
}

inline WeightSizes weight_sizes(const ConvShape& s) {
    WeightSizes p = {};
    p.groups = int(s.groups), p.channels = int(s.group_channels()), p.height = int(s.height), p.width = int(s.width), p.batch = int(s.batch);
    p.filters = int(s.group_filters()), p.out_h = int(s.out_h), p.out_w = int(s.out_w);
    p.filter_h = int(s.filter_h), p.filter_w = int(s.filter_w), p.flip = s.flip;
    p.stride_y = int(s.stride_y), p.stride_x = int(s.stride_x), p.pad_y = int(s.pad_y), p.pad_x = int(s.pad_x);
    p.positions = p.out_h * p.out_w, p.chunks = 1;
    return p;
}

inline int64_t weight_blocks(const WeightSizes& p, const Tile& tile) {
    return ceil_div(int64_t(p.channels) * p.filter_h * p.filter_w, tile.rows) * ceil_div(p.filters, tile.columns) * p.chunks;
}

inline Kernel sum_kernel(const SumSizes& p) {
    return {{"cuda/sizes.cuh", "cuda/filters.cuh"}, "sum_chunks_kernel", simple_instance("sum_chunks_kernel", "SumSizes", "sum_chunks"),
            {ceil_div(p.elements, 256), 1, 1}, 256};
}

inline Kernel weight_kernel(const WeightSizes& p, const Tile& tile, Arithmetic arithmetic, bool aligned) {
    const int floats = p.batch % 4 == 0 && aligned ? 4 : 1;
    const std::string name = format("weight_acts_%s_%dx%d_a%d", suffix(arithmetic), tile.rows, tile.columns, floats);
    const std::string call = format("weight_acts<%s, %d>", format(tile.type, promotion(0)).c_str(), floats);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/weight_tiles.cuh", "cuda/weight_acts.cuh"}, name,
            instance(name, tile.threads, tile.per_processor, "WeightSizes", call), {weight_blocks(p, tile), 1, p.groups}, tile.threads};
}

// The tiles of weight_wgmma.cuh, for three terms: single TF32 products take less time than preparing hid for them, and mma.sync
// needs no preparation. With few rows a tile of 128 is mostly empty, and mma.sync has smaller ones.
inline bool weight_wgmma_takes(Arithmetic arithmetic, int64_t rows) { return arithmetic == Arithmetic::Tf32x3 && rows > 48; }
inline Tiles weight_wgmma_tiles() {
    static const Tile tiles[] = {{128, 64, 128, 2, "WgmmaElements<64, %d>", 1.0}, {128, 32, 128, 2, "WgmmaElements<32, %d>", 1.5}};
    return {tiles, 2};
}

inline Kernel weight_wgmma_kernel(const WeightSizes& p, const Tile& tile, bool aligned) {
    constexpr int stages = 4;
    const int floats = p.batch % 4 == 0 && aligned ? 4 : 1;
    const std::string name = format("weight_acts_wgmma3_%d_a%d", tile.columns, floats);
    const std::string call = format("weight_acts_wgmma<%s, %d, %d>", format(tile.type, promotion(0)).c_str(), floats, stages);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/weight_tiles.cuh", "cuda/weight_acts.cuh", "cuda/wgmma_ptx.cuh",
             "cuda/wgmma_tile.cuh", "cuda/weight_wgmma.cuh"}, name, instance(name, tile.threads, tile.per_processor, "WeightSizes", call),
            {weight_blocks(p, tile), 1, p.groups}, tile.threads, stages * 4 * 16 * (tile.rows + 2 * tile.columns)};
}

// What fits the kernels' 32-bit indices: sizes, pixels of an image, blocks.
inline bool fits(const ConvShape& s) {
    const int64_t small = 1 << 15, large = int64_t(1) << 31;
    for (int64_t size : {s.height, s.width, s.filter_h, s.filter_w, s.stride_y, s.stride_x, s.pad_y, s.pad_x, s.out_h * s.stride_y, s.out_w * s.stride_x})
        if (size >= small) return false;
    return s.channels * s.height * s.width < large && s.filters * s.out_h * s.out_w < large && s.batch < large / 2 &&
           s.channels * s.filter_h * s.filter_w * s.filters < large && s.channels * s.stride_y * s.stride_x < large;
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
