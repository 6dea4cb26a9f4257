// Which variant of the CUDA kernels takes a convolution, with which sizes and how many blocks: plain arithmetic, no GPU.
// select.h launches what is chosen here.
#pragma once
#include "choose_correlate.h"
#include "choose_weights.h"
#include "choose_winograd.h"

namespace c01b {
namespace gpu {
namespace cuda {

// What fits the kernels' 32-bit indices: sizes, pixels of an image, blocks.
inline bool fits(const ConvShape& s) {
    const int64_t small = 1 << 15, large = int64_t(1) << 31;
    for (int64_t size : {s.height, s.width, s.filter_h, s.filter_w, s.stride_y, s.stride_x, s.pad_y, s.pad_x,
                         s.out_h * s.stride_y, s.out_w * s.stride_x})
        if (size >= small) return false;
    return s.channels * s.height * s.width < large && s.filters * s.out_h * s.out_w < large && s.batch < large / 2 &&
           s.channels * s.filter_h * s.filter_w * s.filters < large && s.channels * s.stride_y * s.stride_x < large;
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
