// Batch normalisation of training: each channel less its mean, over its standard deviation, scaled and shifted.
//
//     x, a channel   |<- block ->|<- block ->|...|       measure: moments of each block (moments.h)
//                    | mean, variance            |       combine: factor = scale / sqrt(variance + epsilon)
//     y              |<------------------------->|       write:   (x - mean) * factor + bias
//
// Bound by memory: 4 bytes an element are read once, and once more from the L2 cache where a channel fits there, and 4 are written.
#pragma once
#include "channel_passes.h"
#include "moments.h"

namespace c01b {

struct Normalised {
    float mean, factor, bias;
};

template <bool Stream>
void normalise(const Normalised& by, const float* x, int64_t count, float* y) {
    const vec mean = splat(by.mean), factor = splat(by.factor), bias = splat(by.bias);
    along_batch<Stream>(y, count, [&](int64_t i, auto of) { return (of.load(x + i) - mean) * factor + bias; });
    if (Stream) finish_streaming();
}

// x and y are (channels, count), the others one number for each channel. What follows from the variance is rounded as Theano's
// elementwise ops round it.
inline void batch_norm_train(int64_t channels, int64_t count, const float* x, const float* scale, const float* bias,
                             float epsilon, float* y, float* mean, float* variance, int threads) {
    const bool streamed = should_stream(y, channels, count);
    const auto measure = [=](int64_t first, int64_t n) { return moments(x + first, n); };
    const auto combine = [=](int64_t channel, const Moments* parts, int64_t blocks) {
        const Moments all = together(parts, blocks);
        mean[channel] = static_cast<float>(all.mean);
        variance[channel] = static_cast<float>(all.squares / all.count);
        const float inverse = 1 / std::sqrt(variance[channel] + epsilon);
        return Normalised{mean[channel], scale[channel] * inverse, bias[channel]};
    };
    const auto write = [=](const Normalised& by, int64_t first, int64_t n) {
        streamed ? normalise<true>(by, x + first, n, y + first) : normalise<false>(by, x + first, n, y + first);
    };
    const int64_t bytes = 2 * channels * count * int64_t{sizeof(float)};
    channel_passes<Moments, Normalised>(channels, count, threads_for(bytes, threads), measure, combine, write);
}

}  // namespace c01b
