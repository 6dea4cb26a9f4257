// ImageActs, the data gradient of FilterActs; conv_tile.h chooses the loop nest.
#pragma once
#include "conv_tile.h"
#include "gradient_correlation.h"

namespace c01b {

inline void image_acts(const ConvShape& s, const float* outputs_grad, const float* filters, float* images_grad,
                       int threads) {
    correlate<true>(gradient_correlation(s, outputs_grad, filters, images_grad), threads);
}

}  // namespace c01b
