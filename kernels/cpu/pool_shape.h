// The sizes of one pooling: what max_pool.h and max_pool_grad.h share.
//
//     images  (channels, height, width, batch)            x[c, y, x, b]
//     outputs (channels, out_h, out_w, batch)             z[c, i, j, b]
//
//     window (i, j):  rows    [start_y + i*stride_y, + size_y)   and
//                     columns [start_x + j*stride_x, + size_x),  clipped to the image; never empty
//
// All arrays are contiguous float32. Sizes and strides are >= 1 where there is an output, start may be negative (a pad)
// or positive (pixels left out), and products fit int64: the op checks that before a kernel is entered.
#pragma once
#include <algorithm>
#include <cstdint>

namespace c01b {

// Indices [begin, end); empty where end <= begin.
struct Range {
    int64_t begin, end;
    int64_t size() const { return end > begin ? end - begin : 0; }
};

struct PoolAxis {
    int64_t size, stride, start;

    // The pixels of window j.
    Range pixels(int64_t j, int64_t image) const {
        const int64_t first = start + j * stride;
        return {std::max<int64_t>(first, 0), std::min(first + size, image)};
    }

    // The windows that pixel a lies in.
    Range windows(int64_t a, int64_t outputs) const {
        const int64_t from_start = a - start, excess = from_start - size + 1;
        if (from_start < 0) return {0, 0};
        const int64_t begin = excess <= 0 ? 0 : (excess + stride - 1) / stride;
        const int64_t end = std::min(from_start / stride + 1, outputs);
        return begin < end ? Range{begin, end} : Range{0, 0};  // not behind the last window: places are found from these
    }
};

struct PoolShape {
    int64_t channels, height, width, batch;
    int64_t out_h, out_w;
    PoolAxis y, x;

    int64_t image_floats() const { return channels * height * width * batch; }
    int64_t output_floats() const { return channels * out_h * out_w * batch; }
};

}  // namespace c01b
