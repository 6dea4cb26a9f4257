// The filters of conv_winograd.h: G g G^T of every filter and channel, as [point][filter block][channel][filter], in the
// order in which products read them. Of a filter block and some channels, the taps are first copied to rows
// [tap][channel][filter], in L1; then every vector is full, whatever the number of filters in a block.
#pragma once
#include "conv_filter_lanes.h"
#include "winograd.h"
#include "winograd_phases.h"

namespace c01b {

constexpr int64_t winograd_channels = 64;  // at a time
template <int R>
constexpr int64_t winograd_taps = R * R * (winograd_channels * tile_rows + 2 * lanes);

// Floats of a filter block and point: whole lines, so that vectors are stored to lines, and the last one past the end.
inline int64_t winograd_block(int64_t depth) { return block_count(depth * tile_rows, 16) * 16; }

// [channel][filter] of one tap.
inline void pack_winograd_tap(const Correlation& c, const float* w, int64_t channels, int64_t filters, float* to) {
    if (c.filter_stride == 1)
        for (int64_t d = 0; d < channels; ++d)  // stores past the end, over what comes next
            for (int64_t f = 0; f < filters; f += lanes) {  // a block has up to 6 filters, a vector perhaps 4 lanes
                const int count = static_cast<int>(std::min<int64_t>(lanes, filters - f));
                store(to + d * filters + f, load_first(w + d * c.depth_stride + f, count));
            }
    else
        transpose_into(w, c.filter_stride, filters, channels, to, filters);
    store(to + channels * filters, zero());
}

// [channel][filter] of tap (u, v) of each channel's phase; 0 where that has no such tap.
inline void pack_phase_taps(const Correlation& c, int64_t group, int64_t filter, int64_t filters, int64_t channel,
                            int64_t channels, int64_t u, int64_t v, float* to) {
    const WinogradPhases strides(c);
    for (int64_t d = channel, next; d < channel + channels; d = next) {
        const int64_t phase = d / c.depth, first = d % c.depth;
        next = std::min(channel + channels, d + c.depth - first);
        const int64_t row = u * strides.row_stride + strides.row_of(phase);
        const int64_t column = v * strides.column_stride + strides.column_of(phase);
        float* here = to + (d - channel) * filters;
        if (row >= static_cast<int64_t>(c.rows.order.size()) || column >= static_cast<int64_t>(c.columns.order.size())) {
            std::fill(here, here + (next - d) * filters + lanes, 0.0f);
            continue;
        }
        pack_winograd_tap(c, c.weights_of(group) + filter * c.filter_stride + first * c.depth_stride +
                                 c.rows.order[row] * c.row_stride + c.columns.order[column] * c.column_stride,
                          next - d, filters, here);
    }
}

template <int M, int R>
void transform_filter_block(const Correlation& c, int64_t group, int64_t filter, int64_t filters, int64_t channel,
                            int64_t channels, float* taps, float* to, int64_t point) {
    const int64_t size = channels * filters, tap = size + lanes;
    for (int u = 0; u < R; ++u)
        for (int v = 0; v < R; ++v)
            pack_phase_taps(c, group, filter, filters, channel, channels, u, v, taps + (u * R + v) * tap);
    int64_t column[R];
    for (int v = 0; v < R; ++v) column[v] = v * tap;
    for (int64_t i = 0; i < size; i += lanes)
        evaluate_square<Winograd<M, R>::filter, Winograd<M, R>::P>(taps + i, R * tap, column, to + i, point);
}

// All of them, groups one after another, `point` floats from one point to the next; in scratch memory.
template <int M, int R>
float* transform_filters(const Correlation& c, int64_t blocks, int64_t point, int threads) {
    const int64_t depth = c.depth * WinogradPhases(c).count;
    const int64_t parts = block_count(depth, winograd_channels), of_group = Winograd<M, R>::P * Winograd<M, R>::P * point;
    float* filters = scratch<Prepared>(c.groups * of_group);
    float* taps = scratch<Working>(winograd_taps<R> * threads);
    parallel_for(c.groups * parts * blocks, threads, [&](int64_t i, int thread) {
        const int64_t block = i % blocks, channel = i / blocks % parts * winograd_channels, group = i / blocks / parts;
        const int64_t f = block_begin(c.filters, blocks, block), count = block_begin(c.filters, blocks, block + 1) - f;
        transform_filter_block<M, R>(c, group, f, count, channel, std::min(winograd_channels, depth - channel),
                                  taps + thread * winograd_taps<R>,
                                  filters + group * of_group + block * winograd_block(depth) + channel * count, point);
    });
    return filters;
}

}  // namespace c01b
