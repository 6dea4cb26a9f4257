// The sizes of one convolution: what the three kernels (FilterActs, ImageActs, WeightActs) share.
//
//     images  (channels, height, width, batch)                    x[c, y, x, b]
//     filters (channels / groups, filter_h, filter_w, filters)    w[c, u, v, k]
//     outputs (filters, out_h, out_w, batch)                      y[k, i, j, b]
//
//     y[k,i,j,b] = sum over c,u,v of  w[c,u',v',k] * x[c, i*stride_y - pad_y + u, j*stride_x - pad_x + v, b]
//
// with u' = u, or filter_h-1-u where flip (true convolution); x reads as 0 outside the image. Only the leading pad is
// given: the trailing one is whatever out_h and out_w imply, so floor and ceiling geometries and asymmetric pads are all
// this one formula. With groups, both the channels and the filters are cut into so many runs of equal length, and each
// run of filters is a convolution by itself, of the run of channels with the same number. All arrays are contiguous
// float32. Every size is >= 0, strides and groups >= 1, pads >= 0, groups divides channels and filters, and products fit
// int64: the op checks that before a kernel is entered.
#pragma once
#include <cstdint>

namespace c01b {

struct ConvShape {
    int64_t channels, height, width, batch;
    int64_t filters, filter_h, filter_w;
    int64_t groups;
    int64_t out_h, out_w;
    int64_t stride_y, stride_x;
    int64_t pad_y, pad_x;
    bool flip;
    int64_t winograd;  // Winograd's algorithm: 0 (not at all), 2 (where no digits are lost) or 4; or -2, -4: tiles of that
                       // size whatever they cost, which tests ask for; see conv_winograd.h; -12, -14: winograd_scatter.h

    int64_t group_channels() const { return channels / groups; }
    int64_t group_filters() const { return filters / groups; }
};

}  // namespace c01b
