// Which variant of the CUDA kernels takes a convolution, with which sizes and how many blocks: plain arithmetic, no GPU.
// select.h launches what is chosen here.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>

#include "conv_shape.h"

namespace c01b {
namespace gpu {
namespace cuda {

#include "sizes.cuh"

// How products are formed. float32 accuracy: Scalar, or Tf32x3, whose error is smaller still (docs/performance.md).
enum class Arithmetic { Scalar, Tf32, Tf32x3 };

struct Tile {
    int rows, columns, threads;
    int per_processor;  // blocks that a multiprocessor shall hold: bounds registers
    const char* type;   // of correlate_tiles.cuh or weight_tiles.cuh
};

// One kernel of one blocking: what to compile and how to launch it.
struct Kernel {
    std::string name;      // of the extern "C" function; tells the variant
    std::string instance;  // its text, to be compiled behind the files
    int64_t blocks;
    int threads;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// a / b as the upper half of a * magic: exact while a * b < 2^32 (the kernels ask for a < 2^16); 0 stands for 1.
inline unsigned magic(int64_t b) { return static_cast<unsigned>(b == 1 ? 0 : ((int64_t(1) << 32) + b - 1) / b); }

// The tiles of correlate.cuh. Fewer rows are less efficient, and more so than the waste that they save where rows are not a
// multiple of the tile: `penalty` is the measured time for equal work.
struct CorrelateTile {
    Tile tile;
    double penalty;
};
inline const CorrelateTile* correlate_tiles(Arithmetic arithmetic) {
    static const CorrelateTile scalar[] = {{{128, 128, 128, 2, "FfmaTile<128, 128, 16, 8>"}, 1.0},
                                           {{64, 128, 64, 4, "FfmaTile<64, 128, 16, 8>"}, 1.05},
                                           {{32, 128, 64, 6, "FfmaTile<32, 128, 8, 8>"}, 1.3}};
    static const CorrelateTile tf32[] = {{{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>"}, 1.0},
                                         {{64, 128, 128, 3, "MmaTile<64, 128, 32, 64, 1, 0>"}, 1.1},
                                         {{32, 128, 128, 4, "MmaTile<32, 128, 32, 32, 1, 0>"}, 1.4}};
    static const CorrelateTile tf32x3[] = {{{128, 128, 256, 1, "MmaTile<128, 128, 64, 32, 3, 4>"}, 1.0},
                                           {{64, 128, 128, 2, "MmaTile<64, 128, 64, 32, 3, 4>"}, 1.02},
                                           {{32, 128, 128, 3, "MmaTile<32, 128, 32, 32, 3, 4>"}, 1.25}};
    return arithmetic == Arithmetic::Scalar ? scalar : arithmetic == Arithmetic::Tf32 ? tf32 : tf32x3;
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
    const CorrelateTile* tiles = correlate_tiles(arithmetic);
    const Tile* best = nullptr;
    double least = 1e300;
    for (int n = 0; n < 3; ++n) {
        const double cost = static_cast<double>(ceil_div(p.rows, tiles[n].tile.rows) * tiles[n].tile.rows) * tiles[n].penalty;
        if (cost < least) least = cost, best = &tiles[n].tile;
    }
    const bool whole_rows = p.rows % 4 == 0 && weights_aligned, whole_columns = p.batch % 4 == 0 && images_aligned;
    return {best, choose_images(p.batch), whole_rows ? 4 : 1, whole_columns ? 4 : 1, choose_flat(p.depth, int64_t(p.taps_h) * p.taps_w)};
}

inline Kernel correlate_kernel(const CorrelateSizes& p, const CorrelateVariant& v, Arithmetic arithmetic) {
    char name[200], text[600];
    std::snprintf(name, sizeof name, "correlate_%s_%dx%d_i%d_a%d%d%s", suffix(arithmetic), v.tile->rows, v.tile->columns, v.images, v.row_floats,
                  v.column_floats, v.flat ? "_flat" : "");
    std::snprintf(text, sizeof text,
                  "extern \"C\" __global__ void __launch_bounds__(%d, %d)\n%s(const float* source, unsigned long long source_bytes, const float* "
                  "weights, unsigned long long weights_bytes,\nfloat* target, unsigned long long target_bytes, CorrelateSizes p) {\n"
                  "    correlate<%s, %d, %d, %d, %s>(source, weights, target, p);\n}\n",
                  v.tile->threads, v.tile->per_processor, name, v.tile->type, v.images, v.row_floats, v.column_floats, v.flat ? "true" : "false");
    const int64_t positions = ceil_div(int64_t(p.grid_h) * p.grid_w, v.tile->columns / v.images);
    return {name, text, ceil_div(p.rows, v.tile->rows) * ceil_div(p.batch, v.images) * positions, v.tile->threads};
}

// Forward: a row is a filter, a position an output.
inline CorrelateSizes forward_sizes(const ConvShape& s, int64_t groups) {
    CorrelateSizes p = {};
    p.groups = int(groups), p.depth = int(s.channels / groups), p.source_h = int(s.height), p.source_w = int(s.width), p.batch = int(s.batch);
    p.rows = p.channels = int(s.filters / groups);
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

inline CorrelateSizes gradient_sizes(const ConvShape& s, int64_t groups) {
    const GradientAxis y(s.height, s.filter_h, s.stride_y, s.pad_y), x(s.width, s.filter_w, s.stride_x, s.pad_x);
    CorrelateSizes p = {};
    p.groups = int(groups), p.depth = int(s.filters / groups), p.source_h = int(s.out_h), p.source_w = int(s.out_w), p.batch = int(s.batch);
    p.channels = int(s.channels / groups), p.rows = int(s.stride_y * s.stride_x * p.channels);
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

// The tiles of weight_acts.cuh: rows are elements of a filter, columns filters.
inline const Tile* weight_tiles(Arithmetic arithmetic) {
    static const Tile scalar[] = {{128, 128, 128, 2, "FfmaTile<128, 128, 8, 16>"}, {128, 64, 128, 2, "FfmaTile<128, 64, 8, 8>"},
                                  {128, 32, 64, 4, "FfmaTile<128, 32, 8, 8>"}, {32, 64, 64, 4, "FfmaTile<32, 64, 4, 8>"},
                                  {32, 32, 32, 8, "FfmaTile<32, 32, 4, 8>"}};
    static const Tile tf32[] = {{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>"}, {128, 64, 128, 3, "MmaTile<128, 64, 64, 32, 1, 0>"},
                                {128, 32, 128, 4, "MmaTile<128, 32, 32, 32, 1, 0>"}, {32, 64, 64, 6, "MmaTile<32, 64, 32, 32, 1, 0>"},
                                {32, 32, 32, 12, "MmaTile<32, 32, 32, 32, 1, 0>"}};
    static const Tile tf32x3[] = {{128, 128, 256, 1, "MmaTile<128, 128, 64, 32, 3, 4>"}, {128, 64, 128, 2, "MmaTile<128, 64, 64, 32, 3, 4>"},
                                  {128, 32, 128, 3, "MmaTile<128, 32, 32, 32, 3, 4>"}, {32, 64, 64, 5, "MmaTile<32, 64, 32, 32, 3, 4>"},
                                  {32, 32, 32, 10, "MmaTile<32, 32, 32, 32, 3, 4>"}};
    return arithmetic == Arithmetic::Scalar ? scalar : arithmetic == Arithmetic::Tf32 ? tf32 : tf32x3;
}

inline const Tile* choose_weight_tile(int64_t rows, int64_t filters, Arithmetic arithmetic) {
    const double penalty[] = {1.0, 1.1, 1.5, 1.8, 2.4};
    const Tile* tiles = weight_tiles(arithmetic);
    const Tile* best = nullptr;
    double least = 1e300;
    for (int n = 0; n < 5; ++n) {
        const double cost = penalty[n] * static_cast<double>(ceil_div(rows, tiles[n].rows) * tiles[n].rows * ceil_div(filters, tiles[n].columns) * tiles[n].columns);
        if (cost < least) least = cost, best = &tiles[n];
    }
    return best;
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

inline WeightSizes weight_sizes(const ConvShape& s, int64_t groups) {
    WeightSizes p = {};
    p.groups = int(groups), p.channels = int(s.channels / groups), p.height = int(s.height), p.width = int(s.width), p.batch = int(s.batch);
    p.filters = int(s.filters / groups), p.out_h = int(s.out_h), p.out_w = int(s.out_w);
    p.filter_h = int(s.filter_h), p.filter_w = int(s.filter_w), p.flip = s.flip;
    p.stride_y = int(s.stride_y), p.stride_x = int(s.stride_x), p.pad_y = int(s.pad_y), p.pad_x = int(s.pad_x);
    p.positions = p.out_h * p.out_w, p.chunks = 1;
    return p;
}

inline Kernel weight_kernel(const WeightSizes& p, const Tile& tile, Arithmetic arithmetic, bool aligned) {
    const int floats = p.batch % 4 == 0 && aligned ? 4 : 1;
    char name[200], text[600];
    std::snprintf(name, sizeof name, "weight_acts_%s_%dx%d_a%d", suffix(arithmetic), tile.rows, tile.columns, floats);
    std::snprintf(text, sizeof text,
                  "extern \"C\" __global__ void __launch_bounds__(%d, %d)\n%s(const float* images, unsigned long long images_bytes, const float* hid, "
                  "unsigned long long hid_bytes,\nfloat* target, unsigned long long target_bytes, WeightSizes p) {\n"
                  "    weight_acts<%s, %d>(images, hid, target, p);\n}\n",
                  tile.threads, tile.per_processor, name, tile.type, floats);
    return {name, text, ceil_div(int64_t(p.channels) * p.filter_h * p.filter_w, tile.rows) * ceil_div(p.filters, tile.columns) * p.chunks, tile.threads};
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
