// FilterActs and ImageActs in the terms of correlate.cuh.
#pragma once
#include "kernel.h"

namespace c01b {
namespace gpu {
namespace cuda {

// Forward: a row is a filter, a position an output.
inline CorrelateSizes forward_sizes(const ConvShape& s) {
    CorrelateSizes p = {};
    p.groups = int(s.groups), p.depth = int(s.group_channels()), p.source_h = int(s.height), p.source_w = int(s.width),
    p.batch = int(s.batch);
    p.rows = p.channels = int(s.group_filters());
    p.grid_h = p.target_h = int(s.out_h), p.grid_w = p.target_w = int(s.out_w);
    p.taps_h = p.filter_h = int(s.filter_h), p.taps_w = p.filter_w = int(s.filter_w), p.flip = s.flip;
    p.step_y = int(s.stride_y), p.step_x = int(s.stride_x), p.pad_y = int(s.pad_y), p.pad_x = int(s.pad_x);
    p.phases_h = p.phases_w = 1;
    p.taps_magic = magic(int64_t(p.taps_h) * p.taps_w), p.width_magic = magic(p.taps_w);
    return p;
}

// One axis of the data gradient, after correlate.cuh: position T - least of the grid is the pixels a with
// (a + padding) / stride == T.
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
    p.groups = int(s.groups), p.depth = int(s.group_filters()), p.source_h = int(s.out_h), p.source_w = int(s.out_w),
    p.batch = int(s.batch);
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
    f.groups = p.groups, f.channels = p.channels, f.filter_h = p.filter_h, f.filter_w = p.filter_w, f.filters = p.depth,
    f.flip = s.flip;
    f.taps_h = p.taps_h, f.taps_w = p.taps_w, f.phases_h = p.phases_h, f.phases_w = p.phases_w;
    return f;
}
inline int64_t filter_floats(const CorrelateSizes& p) { return int64_t(p.depth) * p.taps_h * p.taps_w * p.groups * p.rows; }
inline Kernel filter_kernel(const FilterSizes& f) {
    return {{"cuda/sizes.cuh", "cuda/filters.cuh"},
            "transpose_filters_kernel",
            simple_instance("transpose_filters_kernel", "FilterSizes", "transpose_filters"),
            {ceil_div(f.filters, 32), ceil_div(f.channels, 32),
             int64_t(f.groups) * f.taps_h * f.taps_w * f.phases_h * f.phases_w},
            256};
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
