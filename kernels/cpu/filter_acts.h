// FilterActs, the forward convolution: every output is a sum over channels and filter taps (see conv_shape.h). The loop
// nest, its blocking and what bounds it are in conv_tile.h.
#pragma once
#include "conv_tile.h"

namespace c01b {

inline void filter_acts(const ConvShape& s, const float* images, const float* filters, float* outputs, int threads) {
    Correlation c;
    c.source = images;
    c.depth = s.channels, c.source_h = s.height, c.source_w = s.width;
    c.target = outputs;
    c.filters = s.filters, c.batch = s.batch;
    c.weights = filters;
    c.filter_stride = 1;
    c.column_stride = s.filters;
    c.row_stride = s.filter_w * c.column_stride;
    c.depth_stride = s.filter_h * c.row_stride;
    c.rows = forward_axis(s.height, s.out_h, s.filter_h, s.stride_y, s.pad_y, s.flip);
    c.columns = forward_axis(s.width, s.out_w, s.filter_w, s.stride_x, s.pad_x, s.flip);
    correlate(c, threads);
}

}  // namespace c01b
