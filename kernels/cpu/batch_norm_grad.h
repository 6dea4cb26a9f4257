// The gradient of batch normalisation of training, with d = x - mean and averages <.> over a channel:
//
//     x, dy, a channel   |<- block ->|<- block ->|...|   measure: sums of dy, dy * d and d, in double precision
//                        | gscale, gbias             |   combine: k = invstd^3 <dy d>, offset = invstd <dy> - k <d>
//     gx                 |<------------------------->|   write:   scale * (invstd * dy - k * d - offset)
//
// That is scale * (c - <c>) with c = invstd * dy - k * d, as Theano has it: <d> is what the mean was rounded by.
// Bound by memory: 8 bytes an element are read once, and once more from the L2 cache where two channels fit there, and 4 are
// written, which may be those of dy.
#pragma once
#include "channel_passes.h"
#include "moments.h"

namespace c01b {

struct GradientSums {
    double dy, product, d;
};

inline GradientSums gradient_sums(const float* x, const float* dy, double mean, int64_t count) {
    constexpr int side_by_side = 4, step = side_by_side * half_lanes;
    double_vec sums[side_by_side] = {}, products[side_by_side] = {}, deviations[side_by_side] = {};
    int64_t i = 0;
    for (; i + step <= count; i += step) {
        fetch(x + i, fetch_distance);
        fetch(dy + i, fetch_distance);
#pragma GCC unroll 4
        for (int n = 0; n < side_by_side; ++n) {
            const double_vec d = doubles(x + i + n * half_lanes) - mean, g = doubles(dy + i + n * half_lanes);
            sums[n] += g, products[n] += g * d, deviations[n] += d;
        }
    }
    GradientSums all{0, 0, 0};
    for (; i < count; ++i) {
        const double d = x[i] - mean, g = dy[i];
        all.dy += g, all.product += g * d, all.d += d;
    }
    all.dy += lane_sum(sums), all.product += lane_sum(products), all.d += lane_sum(deviations);
    return all;
}

struct GradientTerms {
    float scale, invstd, k, mean, offset;
};

// gx may be dy.
template <bool Stream>
void gradient_of(const GradientTerms& by, const float* x, const float* dy, int64_t count, float* gx) {
    const vec scale = splat(by.scale), invstd = splat(by.invstd), k = splat(by.k), mean = splat(by.mean);
    const vec offset = splat(by.offset);
    along_batch<Stream, true>(gx, count, [&](int64_t i, auto of) {
        return scale * ((invstd * of.load(dy + i) - k * (of.load(x + i) - mean)) - offset);
    });
    if (Stream) finish_streaming();
}

// x, dy and gx are (channels, count), the others one number for each channel.
inline void batch_norm_train_grad(int64_t channels, int64_t count, const float* x, const float* dy, const float* scale,
                                  const float* mean, const float* invstd, float* gx, float* gscale, float* gbias, int threads) {
    const bool streamed = gx != dy && should_stream(gx, channels, count);
    const auto measure = [=](int64_t first, int64_t n) {
        return gradient_sums(x + first, dy + first, mean[first / count], n);
    };
    const auto combine = [=](int64_t channel, const GradientSums* parts, int64_t blocks) {
        GradientSums all{0, 0, 0};
        for (int64_t b = 0; b < blocks; ++b) all.dy += parts[b].dy, all.product += parts[b].product, all.d += parts[b].d;
        const double inverse = invstd[channel], n = static_cast<double>(count);
        gscale[channel] = count ? static_cast<float>(inverse * all.product) : 0;
        gbias[channel] = static_cast<float>(all.dy);
        const double k = inverse * inverse * inverse * (all.product / n);
        // Of deviations in both directions k * d is infinite in both, and so their average is NaN.
        const double offset = std::isfinite(all.product) ? inverse * (all.dy / n) - k * (all.d / n)
                                                         : std::numeric_limits<double>::quiet_NaN();
        return GradientTerms{scale[channel], invstd[channel], static_cast<float>(k), mean[channel],
                             static_cast<float>(offset)};
    };
    const auto write = [=](const GradientTerms& by, int64_t first, int64_t n) {
        streamed ? gradient_of<true>(by, x + first, dy + first, n, gx + first)
                 : gradient_of<false>(by, x + first, dy + first, n, gx + first);
    };
    const int64_t bytes = 3 * channels * count * int64_t{sizeof(float)};
    channel_passes<GradientSums, GradientTerms>(channels, count, threads_for(bytes, threads), measure, combine, write);
}

}  // namespace c01b
