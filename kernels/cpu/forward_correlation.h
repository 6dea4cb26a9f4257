// The forward convolution as a Correlation (conv_axes.h).
#pragma once
#include "conv_axes.h"

namespace c01b {

inline Correlation forward_correlation(const ConvShape& s, const float* images, const float* filters, float* outputs) {
    Correlation c;
    c.groups = s.groups;
    c.source = images;
    c.depth = s.group_channels(), c.source_h = s.height, c.source_w = s.width;
    c.target = outputs;
    c.filters = s.group_filters(), c.batch = s.batch;
    c.weights = filters;
    c.group_stride = s.group_filters();
    c.filter_stride = 1;
    c.column_stride = s.filters;
    c.row_stride = s.filter_w * c.column_stride;
    c.depth_stride = s.filter_h * c.row_stride;
    c.rows = forward_axis(s.height, s.out_h, s.filter_h, s.stride_y, s.pad_y, s.flip);
    c.columns = forward_axis(s.width, s.out_w, s.filter_w, s.stride_x, s.pad_x, s.flip);
    c.winograd = s.winograd;
    return c;
}

}  // namespace c01b
