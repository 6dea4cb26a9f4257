// The adjoint of the forward convolution with respect to the images, as a Correlation (conv_axes.h): output channels become
// the channels that are summed over, image channels the filters, and every pixel meets the taps of its own stride phase, last
// tap first (see gradient_axis).
#pragma once
#include "conv_axes.h"

namespace c01b {

inline Correlation gradient_correlation(const ConvShape& s, const float* outputs_grad, const float* filters,
                                        float* images_grad) {
    Correlation c;
    c.groups = s.groups;
    c.source = outputs_grad;
    c.depth = s.group_filters(), c.source_h = s.out_h, c.source_w = s.out_w;
    c.target = images_grad;
    c.filters = s.group_channels(), c.batch = s.batch;
    c.weights = filters;
    c.group_stride = s.group_filters();
    c.depth_stride = 1;
    c.column_stride = s.filters;
    c.row_stride = s.filter_w * c.column_stride;
    c.filter_stride = s.filter_h * c.row_stride;
    c.rows = gradient_axis(s.out_h, s.height, s.filter_h, s.stride_y, s.pad_y, s.flip);
    c.columns = gradient_axis(s.out_w, s.width, s.filter_w, s.stride_x, s.pad_x, s.flip);
    c.winograd = s.stride_y == 1 && s.stride_x == 1 ? s.winograd : 0;
    return c;
}

}  // namespace c01b
