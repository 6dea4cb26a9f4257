// Which kernels correlate: tile, images of a column block, order of terms; by mma.sync or scalar, and by wgmma.
#pragma once
#include "correlate_sizes.h"

namespace c01b {
namespace gpu {
namespace cuda {

// The tiles of correlate.cuh. Fewer rows are slower, and worth it where they leave less of the last tile empty.
inline Tiles correlate_tiles(Arithmetic arithmetic) {
    static const Tile scalar[] = {{128, 128, 128, 2, "FfmaTile<128, 128, 16, 8>", 1.0},
                                  {64, 128, 128, 3, "FfmaTile<64, 128, 8, 8>", 1.08},
                                  {32, 128, 64, 6, "FfmaTile<32, 128, 8, 8>", 1.15}};
    static const Tile tf32[] = {{128, 128, 128, 2, "MmaTile<128, 128, 64, 64, 1, 0>", 1.0},
                                {64, 128, 64, 4, "MmaTile<64, 128, 64, 64, 1, 0>", 1.12},
                                {32, 128, 128, 4, "MmaTile<32, 128, 32, 32, 1, 0>", 1.7}};
    static const Tile tf32x3[] = {{64, 128, 128, 2, "MmaTile<64, 128, 64, 32, 3, %d>", 1.0},
                                  {32, 128, 128, 3, "MmaTile<32, 128, 32, 32, 3, %d>", 1.15}};
    return arithmetic == Arithmetic::Scalar ? Tiles{scalar, 3}
           : arithmetic == Arithmetic::Tf32 ? Tiles{tf32, 3}
                                            : Tiles{tf32x3, 2};
}

// Images a column of positions takes; as few as leave little of the batch's end empty, but pieces of fewer than 32 are slow.
inline int choose_images(int64_t batch) {
    const struct {
        int images;
        double penalty;
    } choices[] = {{128, 1}, {64, 1.02}, {32, 1.04}, {16, 1.1}, {8, 1.2}, {4, 1.5}};
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
    const double by_taps = static_cast<double>(ceil_div(depth, 16) * taps),
                 flat = static_cast<double>(ceil_div(depth * taps, 16));
    return depth * taps < 65536 && flat * 1.15 < by_taps;
}

struct CorrelateVariant {
    const Tile* tile;
    int images;      // of a column block
    int row_floats;  // 4: weights and their rows are aligned to 16 bytes
    int column_floats;
    bool flat;
};

inline CorrelateVariant choose_correlate(const CorrelateSizes& p, Arithmetic arithmetic, bool weights_aligned,
                                         bool images_aligned) {
    const bool whole_rows = p.rows % 4 == 0 && weights_aligned, whole_columns = p.batch % 4 == 0 && images_aligned;
    return {cheapest(correlate_tiles(arithmetic), p.rows, 128), choose_images(p.batch), whole_rows ? 4 : 1,
            whole_columns ? 4 : 1, choose_flat(p.depth, int64_t(p.taps_h) * p.taps_w)};
}

inline Kernel correlate_kernel(const CorrelateSizes& p, const CorrelateVariant& v, Arithmetic arithmetic) {
    const int period = promotion(int64_t(p.depth) * p.taps_h * p.taps_w);
    const std::string name = format("correlate_%s_%dx%d_i%d_a%d%d_p%d%s", suffix(arithmetic), v.tile->rows, v.tile->columns,
                                    v.images, v.row_floats, v.column_floats, period, v.flat ? "_flat" : "");
    const std::string call = format("correlate<%s, %d, %d, %d, %s>", format(v.tile->type, period).c_str(), v.images,
                                    v.row_floats, v.column_floats, v.flat ? "true" : "false");
    const int64_t positions = ceil_div(int64_t(p.grid_h) * p.grid_w, v.tile->columns / v.images);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/correlate_tiles.cuh", "cuda/correlate.cuh"},
            name,
            instance(name, v.tile->threads, v.tile->per_processor, "CorrelateSizes", call),
            {ceil_div(p.rows, v.tile->rows) * ceil_div(p.batch, v.images) * positions, 1, p.groups},
            v.tile->threads};
}

// The tiles of wgmma.cuh, for compute capability 9.0. There is no scalar one.
inline Tiles wgmma_tiles(Arithmetic arithmetic) {
    static const Tile tf32[] = {{128, 128, 128, 2, "WgmmaImages<128, 1, 0>", 1.0},
                                {64, 128, 128, 3, "WgmmaImages<64, 1, 0>", 1.35},
                                {32, 128, 128, 4, "WgmmaImages<32, 1, 0>", 2.2}};
    static const Tile tf32x3[] = {{64, 128, 128, 2, "WgmmaImages<64, 3, %d>", 1.0},
                                  {32, 128, 128, 3, "WgmmaImages<32, 3, %d>", 1.45}};
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
    return {cheapest(wgmma_tiles(arithmetic), p.rows, 128), choose_images(p.batch),
            p.batch % 4 == 0 && images_aligned ? 4 : 1, flat, arithmetic == Arithmetic::Tf32 ? 1 : 2};
}

inline Kernel wgmma_kernel(const CorrelateSizes& p, const WgmmaVariant& v) {
    constexpr int stages = 4;
    const int period = promotion(int64_t(p.depth) * p.taps_h * p.taps_w);
    const std::string name = format("correlate_wgmma%d_%d_i%d_a%d_p%d%s", v.parts == 1 ? 1 : 3, v.tile->rows, v.images,
                                    v.column_floats, period, v.flat ? "_flat" : "");
    const std::string call = format("correlate_wgmma<%s, %d, %d, %s, %d>", format(v.tile->type, period).c_str(), v.images,
                                    v.column_floats, v.flat ? "true" : "false", stages);
    const int64_t positions = ceil_div(int64_t(p.grid_h) * p.grid_w, 128 / v.images);
    return {{"cuda/sizes.cuh", "cuda/ptx.cuh", "cuda/split.cuh", "cuda/correlate_tiles.cuh", "cuda/correlate.cuh",
             "cuda/wgmma_ptx.cuh", "cuda/wgmma_tile.cuh", "cuda/wgmma.cuh"},
            name,
            instance(name, v.tile->threads, v.tile->per_processor, "CorrelateSizes", call),
            {ceil_div(p.rows, v.tile->rows) * ceil_div(p.batch, v.images) * positions, 1, p.groups},
            v.tile->threads,
            stages * 4 * 16 * (v.tile->columns + v.parts * v.tile->rows)};
}

// Filters packed for wgmma.cuh: of `packed_floats`, by a kernel of `pack_threads` threads.
inline PackSizes pack_sizes(const ConvShape& s, const CorrelateSizes& p, bool flat) {
    PackSizes k = {};
    k.groups = p.groups, k.rows = p.rows, k.channels = p.channels, k.filter_h = p.filter_h, k.filter_w = p.filter_w,
    k.flip = s.flip;
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
    return {{"cuda/sizes.cuh", "cuda/split.cuh", "cuda/pack.cuh"},
            name,
            simple_instance(name, "PackSizes", call),
            {ceil_div(pack_threads(k, v), 256), 1, 1},
            256};
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
