// FilterActs, the forward convolution: every output is a sum over channels and filter taps (see conv_shape.h). The loop
// nests, their blocking and what bounds them are in headers of their own, among which conv_tile.h chooses.
#pragma once
#include "conv_tile.h"
#include "forward_correlation.h"

namespace c01b {

inline void filter_acts(const ConvShape& s, const float* images, const float* filters, float* outputs, int threads) {
    correlate<false>(forward_correlation(s, images, filters, outputs), threads);
}

}  // namespace c01b
