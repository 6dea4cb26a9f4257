// What a convolution kernel of either kind (portable, CUDA) is handed: sizes that were checked, arrays that are
// contiguous, and what it may use.
#pragma once
#include "conv_shape.h"
#include "device.h"

namespace c01b {
namespace gpu {

// What a launcher returns.
constexpr int DONE = 0;       // queued
constexpr int FAILED = -1;    // an exception is set
constexpr int DECLINED = 1;   // not for this kernel: another one must

struct ConvCall {
    const Device& device;
    ConvShape s;
    Buffer images, filters, outputs;  // the op writes one of them and reads the other two
    bool tf32;                        // single TF32 products are accurate enough
    // Weight gradient: output positions in a partial sum; 0: as many as is fast; otherwise that many (the last sum may
    // be shorter).
    int64_t split;
    int64_t workspace;  // bytes of scratch memory, at most
};

}  // namespace gpu
}  // namespace c01b
