// Which kernels make the weight gradient: tile, and how positions are split into chunks.
#pragma once
#include "kernel.h"

namespace c01b {
namespace gpu {
namespace cuda {

// The tiles of weight_acts.cuh: rows are elements of a filter, columns filters.
inline Tiles weight_tiles(Arithmetic arithmetic) {
    static const Tile scalar[] = {{128, 128, 128, 2, "FfmaTile<128, 128, 8, 16>", 1.0},
                                  {128, 64, 128, 2, "FfmaTile<128, 64, 8, 8>", 1.0},
                                  {128, 32, 64, 4, "FfmaTile<128, 32, 8, 8>", 1.3},
                                  {32, 64, 64, 4, "FfmaTile<32, 64, 4, 8>", 1.6},
                                  {32, 32, 32, 8, "FfmaTile<32, 32, 4, 8>", 2.2}};
    static const Tile tf32[] = {{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>", 1.0},
                                {128, 64, 128, 3, "MmaTile<128, 64, 32, 64, 1, 0>", 1.3},
                                {128, 32, 128, 4, "MmaTile<128, 32, 32, 32, 1, 0>", 1.7},
                                {32, 64, 64, 6, "MmaTile<32, 64, 32, 32, 1, 0>", 1.8},
                                {32, 32, 32, 12, "MmaTile<32, 32, 32, 32, 1, 0>", 2.4}};
    static const Tile tf32x3[] = {{128, 64, 128, 2, "MmaTile<128, 64, 32, 64, 3, %d>", 1.0},
                                  {128, 32, 128, 3, "MmaTile<128, 32, 32, 32, 3, %d>", 1.3},
                                  {32, 64, 64, 5, "MmaTile<32, 64, 32, 32, 3, %d>", 1.4},
                                  {32, 32, 32, 10, "MmaTile<32, 32, 32, 32, 3, %d>", 1.8}};
    return arithmetic == Arithmetic::Scalar ? Tiles{scalar, 5}
           : arithmetic == Arithmetic::Tf32 ? Tiles{tf32, 5}
                                            : Tiles{tf32x3, 4};
}

// Positions of a chunk: few enough that all multiprocessors have work of equal length, many enough that starting a block and
// adding up the partial sums cost little. In units of one block's step of 16 terms, about 2 microseconds.
inline int choose_positions(const WeightSizes& p, const Tile& tile, int64_t processors, int64_t workspace) {
    const int64_t rows = int64_t(p.channels) * p.filter_h * p.filter_w, elements = rows * p.groups * p.filters;
    const int64_t tiles = ceil_div(rows, tile.rows) * ceil_div(p.filters, tile.columns) * p.groups,
                  total = int64_t(p.out_h) * p.out_w;
    const int64_t most = std::min<int64_t>({total, 1024, std::max<int64_t>(1, workspace / (4 * elements))});
    const int64_t slots = processors * tile.per_processor, steps = ceil_div(p.batch, 16);
    const double start = 16, sum = 8.0 * double(elements) / 4e12 / 2e-6;
    int64_t best = total;
    double least = 1e300;
    for (int64_t wanted = 1; wanted <= most; ++wanted) {
        const int64_t positions = ceil_div(total, wanted), chunks = ceil_div(total, positions);
        const double cost = double(ceil_div(tiles * chunks, slots)) * (double(positions * steps) + start) +
                            (chunks > 1 ? sum * double(chunks) + 2 : 0);
        if (cost < least) least = cost, best = positions;
    }
    return int(best);
}

inline WeightSizes weight_sizes(const ConvShape& s) {
    WeightSizes p = {};
    p.groups = int(s.groups), p.channels = int(s.group_channels()), p.height = int(s.height), p.width = int(s.width),
    p.batch = int(s.batch);
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
    return {{"cuda/sizes.cuh", "cuda/filters.cuh"},
            "sum_chunks_kernel",
            simple_instance("sum_chunks_kernel", "SumSizes", "sum_chunks"),
            {ceil_div(p.elements, 256), 1, 1},
            256};
}

inline Kernel weight_kernel(const WeightSizes& p, const Tile& tile, Arithmetic arithmetic, bool aligned) {
    const int floats = p.batch % 4 == 0 && aligned ? 4 : 1;
    const std::string name = format("weight_acts_%s_%dx%d_a%d", suffix(arithmetic), tile.rows, tile.columns, floats);
    const std::string call = format("weight_acts<%s, %d>", format(tile.type, promotion(0)).c_str(), floats);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/weight_tiles.cuh", "cuda/weight_acts.cuh"},
            name,
            instance(name, tile.threads, tile.per_processor, "WeightSizes", call),
            {weight_blocks(p, tile), 1, p.groups},
            tile.threads};
}

// The tiles of weight_wgmma.cuh, for three terms: single TF32 products take less time than preparing hid for them, and mma.sync
// needs no preparation. With few rows a tile of 128 is mostly empty, and mma.sync has smaller ones.
inline bool weight_wgmma_takes(Arithmetic arithmetic, int64_t rows) { return arithmetic == Arithmetic::Tf32x3 && rows > 48; }
inline Tiles weight_wgmma_tiles() {
    static const Tile tiles[] = {{128, 64, 128, 2, "WgmmaElements<64, %d>", 1.0},
                                 {128, 32, 128, 2, "WgmmaElements<32, %d>", 1.5}};
    return {tiles, 2};
}

inline Kernel weight_wgmma_kernel(const WeightSizes& p, const Tile& tile, bool aligned) {
    constexpr int stages = 4;
    const int floats = p.batch % 4 == 0 && aligned ? 4 : 1;
    const std::string name = format("weight_acts_wgmma3_%d_a%d", tile.columns, floats);
    const std::string call =
        format("weight_acts_wgmma<%s, %d, %d>", format(tile.type, promotion(0)).c_str(), floats, stages);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/weight_tiles.cuh", "cuda/weight_acts.cuh",
             "cuda/wgmma_ptx.cuh", "cuda/wgmma_tile.cuh", "cuda/weight_wgmma.cuh"},
            name,
            instance(name, tile.threads, tile.per_processor, "WeightSizes", call),
            {weight_blocks(p, tile), 1, p.groups},
            tile.threads,
            stages * 4 * 16 * (tile.rows + 2 * tile.columns)};
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
