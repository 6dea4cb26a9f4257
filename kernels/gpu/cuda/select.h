// The CUDA kernels: which of them takes a convolution, if any.
#pragma once
#include "../conv_call.h"

namespace c01b {
namespace gpu {
namespace cuda {

inline int filter_acts(const ConvCall&) { return DECLINED; }
inline int image_acts(const ConvCall&) { return DECLINED; }
inline int weight_acts(const ConvCall&) { return DECLINED; }

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
