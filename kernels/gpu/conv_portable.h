// Launches of the portable convolution kernels: tiles are chosen and counted here.
#pragma once
#include "conv_call.h"

namespace c01b {
namespace gpu {

constexpr int64_t largest_int = (int64_t(1) << 31) - 1;

inline int64_t tiles(int64_t count, int64_t tile) { return (count + tile - 1) / tile; }

// Elements of a tile's side that a thread makes: 4, or 1 where most of 4 would be masked.
inline int64_t per_thread(int64_t count) { return count > 16 ? 4 : 1; }

inline std::string tile_defines(const char* rows, int64_t row_count, const char* columns, int64_t column_count) {
    return std::string("#define ") + rows + " " + std::to_string(row_count) + "\n#define " + columns + " " +
           std::to_string(column_count) + "\n";
}

// Kernels count pixels, positions and terms of a sum in 32 bits; offsets into arrays are 64 bits wide.
inline int check_counts(const char* op, const ConvShape& s) {
    const int64_t depth = std::max<int64_t>({1, s.channels, s.filters}), taps = s.filter_h * s.filter_w;
    const int64_t counts[] = {s.channels, s.filters, s.batch, s.height * s.width, s.out_h * s.out_w};
    if (taps <= (largest_int - 64) / depth && *std::max_element(std::begin(counts), std::end(counts)) <= largest_int) return 0;
    PyErr_Format(PyExc_ValueError,
                 "%s: too large for the GPU kernels: %lld channels of %lld x %lld, %lld filters of %lld x %lld, %lld x "
                 "%lld outputs, %lld images",
                 op, (long long)s.channels, (long long)s.height, (long long)s.width, (long long)s.filters,
                 (long long)s.filter_h, (long long)s.filter_w, (long long)s.out_h, (long long)s.out_w,
                 (long long)s.batch);
    return -1;
}

// FilterActs (forward) and ImageActs: one kernel, which reads the filters along the one axis or the other.
inline int correlate(const ConvCall& call, bool forward) {
    const ConvShape& s = call.s;
    const int64_t groups = s.groups, rows = (forward ? s.filters : s.channels) / groups;
    const int64_t depth = (forward ? s.channels : s.filters) / groups;
    const int64_t tile_rows = per_thread(rows), tile_images = per_thread(s.batch);
    const int64_t row_tiles = tiles(rows, 16 * tile_rows), image_tiles = tiles(s.batch, 16 * tile_images);
    const int64_t positions = forward ? s.out_h * s.out_w : s.height * s.width;
    const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
    const auto [source_h, source_w] = forward ? std::pair(s.height, s.width) : std::pair(s.out_h, s.out_w);
    const auto [target_h, target_w] = forward ? std::pair(s.out_h, s.out_w) : std::pair(s.height, s.width);
    const Program program{{"correlate.cluda"}, "correlate",
                          std::string("#define FORWARD ") + (forward ? "1\n" : "0\n") +
                              tile_defines("ROWS", tile_rows, "IMAGES", tile_images)};
    const Grid grid{{static_cast<size_t>(positions * groups * row_tiles * image_tiles), 1, 1}, {256, 1, 1}};
    return launch(call.device, program, grid, call.filters, forward ? call.images : call.outputs,
                  forward ? call.outputs : call.images, i32(rows), i32(depth), i32(row_tiles), i32(groups), i32(s.batch),
                  i32(image_tiles), i32(source_h), i32(source_w), i32(target_h), i32(target_w), i32(s.filter_h),
                  i32(s.filter_w), i32(s.filters), s.stride_y, s.stride_x, s.pad_y, s.pad_x, i32(s.flip));
}

// One chunk's sums, [chunk][channel][row][column][filter], into `target`.
inline int weight_partials(const ConvCall& call, int64_t chunk, const Buffer& target) {
    const ConvShape& s = call.s;
    const int64_t channels = s.group_channels(), filters = s.group_filters();
    const int64_t tile_rows = per_thread(channels), tile_columns = per_thread(filters);
    const int64_t row_tiles = tiles(channels, 16 * tile_rows), column_tiles = tiles(filters, 16 * tile_columns);
    const int64_t blocks = tiles(s.out_h * s.out_w, chunk) * s.filter_h * s.filter_w * s.groups * row_tiles * column_tiles;
    const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
    const Program program{{"weight_acts.cluda"}, "weight_acts", tile_defines("ROWS", tile_rows, "COLUMNS", tile_columns)};
    const Grid grid{{static_cast<size_t>(blocks), 1, 1}, {256, 1, 1}};
    return launch(call.device, program, grid, call.images, call.outputs, target, i32(channels), i32(row_tiles),
                  i32(filters), i32(column_tiles), i32(s.groups), i32(s.height), i32(s.width), i32(s.batch),
                  i32(s.out_h), i32(s.out_w), i32(s.filter_h), i32(s.filter_w), s.stride_y, s.stride_x, s.pad_y,
                  s.pad_x, i32(s.flip), i32(chunk));
}

inline int sum_partials(const ConvCall& call, const Buffer& partials, int64_t chunks) {
    const int64_t size = call.s.group_channels() * call.s.filter_h * call.s.filter_w * call.s.filters;
    const Grid grid{{static_cast<size_t>(tiles(size, 256)), 1, 1}, {256, 1, 1}};
    return launch(call.device, Program{{"sum_partials.cluda"}, "sum_partials", ""}, grid, partials, call.filters, chunks,
                  size);
}

// Output positions per partial sum: so few that every processor has some blocks, as far as the partial sums fit the workspace.
inline int64_t choose_chunk(const ConvCall& call) {
    const ConvShape& s = call.s;
    const int64_t positions = s.out_h * s.out_w, channels = s.group_channels(), filters = s.group_filters();
    const int64_t bytes = std::max<int64_t>(1, channels * s.filter_h * s.filter_w * s.filters * int64_t{sizeof(float)});
    const int64_t most = std::max<int64_t>(1, call.workspace / bytes);
    int64_t chunks = 1;
    if (call.split > 0) {
        chunks = tiles(positions, call.split);
    } else {
        const int64_t blocks = s.filter_h * s.filter_w * s.groups * tiles(channels, 16 * per_thread(channels)) *
                               tiles(filters, 16 * per_thread(filters));
        chunks = tiles(int64_t{8} * call.device.processors, std::max<int64_t>(1, blocks));
    }
    return tiles(positions, std::max<int64_t>(1, std::min({chunks, most, positions})));
}

inline int weight_sums(const ConvCall& call) {
    const int64_t positions = call.s.out_h * call.s.out_w, chunk = choose_chunk(call);
    const int64_t chunks = tiles(positions, chunk);
    if (chunks == 1) return weight_partials(call, chunk, call.filters);
    const int64_t floats = chunks * (call.s.group_channels()) * call.s.filter_h * call.s.filter_w * call.s.filters;
    Workspace partials;
    if (partials.allocate(call.device, floats * sizeof(float)) || weight_partials(call, chunk, partials.buffer()))
        return FAILED;
    return sum_partials(call, partials.buffer(), chunks);
}

}  // namespace gpu
}  // namespace c01b
