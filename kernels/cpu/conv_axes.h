// What a convolution looks like to the loop nests. Forward convolution and data gradient are one thing: every target
// pixel is a sum of products of source pixels and filter taps, and along either axis the taps that meet the source are
// a run of neighbours (a Span), provided the taps are stored in the right order (Axis::order). Clipping, stride, flip
// and the phases of a strided gradient are all in the Spans.
//
//     forward, filter 5, stride 2, pad 2:     source  0 1 2 3 4 5 6 7       target 0: source 0..2, taps 2..4
//                                            taps 0 1 2 3 4                 target 1: source 0..4, taps 0..4
//                                                     0 1 2 3 4
//
//     gradient of the same: target t meets source (t + 2 - tap) / 2, so even t meet taps 4 2 0 and odd t taps 3 1;
//     packed in the order 4 2 0 3 1, the taps of a target are neighbours and rise with the source.
#pragma once
#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "conv_shape.h"
#include "epilogue.h"
#include "kept.h"
#include "simd.h"

namespace c01b {

// The source rows (or columns) source .. source+count-1 meet the packed taps tap .. tap+count-1, which are some or all
// of those of one phase.
struct Span {
    int64_t source, tap, count, phase;
};

inline bool same_taps(Span a, Span b) { return a.tap == b.tap && a.count == b.count; }

struct Axis {
    Table<Span> span;      // for each target row (or column)
    Table<int64_t> order;  // which row (or column) of the filter a packed tap is
    Table<int64_t> begin;  // where each phase begins in `order`, and the end
    int64_t step;          // target t+step meets the taps of target t one source further on; 0: no target does
    int64_t stride;        // target t+1 meets the same taps so many sources further on; 0: other taps
    int64_t origin;        // where that is not 0: the source, inside or not, that target 0's first tap meets
    Table<int64_t> shift;  // of a gradient: source i meets target step*i + shift of a packed tap, inside or not
};

inline Span clip(int64_t first, int64_t taps, int64_t source, int64_t begin, int64_t phase) {
    const int64_t from = std::max<int64_t>(first, 0), end = std::min(first + taps, source);
    return {from, begin + from - first, std::max<int64_t>(end - from, 0), phase};
}

// Target t of a convolution meets source t*stride - pad + tap.
inline Axis forward_axis(int64_t source, int64_t target, int64_t filter, int64_t stride, int64_t pad, bool flip) {
    Axis axis;
    axis.begin = {0, filter};
    axis.step = stride == 1;
    axis.stride = stride;
    axis.origin = -pad;
    for (int64_t u = 0; u < filter; ++u) axis.order.push_back(flip ? filter - 1 - u : u);
    axis.span.reserve(target);  // at once: a size that memory does not hold is refused before it is touched
    for (int64_t t = 0; t < target; ++t) axis.span.push_back(clip(t * stride - pad, filter, source, 0, 0));
    return axis;
}

// Target t of a data gradient meets source (t + pad - tap) / stride for every stride-th tap: those with the phase of t
// + pad. As the source rises by 1 the tap falls by stride, so a phase is packed from its last tap to its first.
inline Axis gradient_axis(int64_t source, int64_t target, int64_t filter, int64_t stride, int64_t pad, bool flip) {
    Axis axis;
    axis.begin = {0};
    axis.step = stride;
    axis.stride = stride == 1;
    axis.origin = pad - (filter - 1);
    const int64_t phases = std::min(stride, filter + 1);  // a stride above the filter leaves one without taps
    for (int64_t phase = 0; phase < phases; ++phase) {
        for (int64_t u = filter - 1; u >= 0; --u)
            if (u % stride == phase) axis.order.push_back(flip ? filter - 1 - u : u), axis.shift.push_back(u - pad);
        axis.begin.push_back(axis.order.size());
    }
    axis.span.reserve(target);
    for (int64_t t = 0; t < target; ++t) {
        const int64_t phase = std::min((t + pad) % stride, phases - 1), last = (t + pad) / stride;
        const int64_t begin = axis.begin[phase], taps = axis.begin[phase + 1] - begin;
        axis.span.push_back(clip(last - taps + 1, taps, source, begin, phase));
    }
    return axis;
}

// A correlation of source (depth, source_h, source_w, batch) to target (filters, rows, columns, batch): so for each of
// some groups, whose sources and targets lie one after another. Groups differ in nothing but where their data are, so
// one plan serves all of them, and their work is shared out to the threads together.
struct Correlation {
    int64_t groups;
    const float* source;
    int64_t depth, source_h, source_w;
    float* target;
    int64_t filters, batch;
    const float* weights;
    int64_t group_stride, depth_stride, filter_stride, row_stride, column_stride;  // of the weights
    Axis rows, columns;
    int64_t winograd;  // as in ConvShape; 0 for the data gradient of a stride
    Epilogue epilogue;

    bool is_gradient() const { return !rows.shift.empty() && !columns.shift.empty(); }
    const float* source_of(int64_t group) const { return source + group * depth * source_h * source_w * batch; }
    const float* weights_of(int64_t group) const { return weights + group * group_stride; }
    float* target_of(int64_t group) const {
        return target + group * filters * rows.span.size() * columns.span.size() * batch;
    }
    // For a place in the target, the one where its value before the activation goes; null if that is nowhere.
    float* before_of(const float* to) const { return epilogue.before ? epilogue.before + (to - target) : nullptr; }
};

// What an epilogue does to complete sums: `count` of each of some filters of a group, which are `step` apart.
inline void finish_sums(const Correlation& c, int64_t group, int64_t filter, int64_t filters, float* to, int64_t step,
                        int64_t count) {
    const float* bias = c.epilogue.bias + group * c.filters + filter;
    with_activation(c.epilogue.activation, [&](const auto& f) {
        for (int64_t n = 0; n < filters; ++n, to += step) finish_run(f, bias[n], to, to, c.before_of(to), count);
    });
}

// `count` things in `blocks` blocks as equal as can be: where block i begins.
inline int64_t block_begin(int64_t count, int64_t blocks, int64_t i) { return count * i / blocks; }
inline int64_t block_count(int64_t count, int64_t size) { return (count + size - 1) / size; }

inline int64_t source_begin(const Axis& axis, int64_t first, int64_t end) {
    int64_t begin = INT64_MAX;
    for (int64_t t = first; t < end; ++t)
        if (axis.span[t].count) begin = std::min(begin, axis.span[t].source);
    return begin == INT64_MAX ? 0 : begin;
}
inline int64_t source_end(const Axis& axis, int64_t first, int64_t end) {
    int64_t last = 0;
    for (int64_t t = first; t < end; ++t)
        if (axis.span[t].count) last = std::max(last, axis.span[t].source + axis.span[t].count);
    return last;
}
inline int64_t widest(const Axis& axis, int64_t step) {
    int64_t width = 0;
    const int64_t targets = axis.span.size();
    for (int64_t t = 0; t < targets; t += step) {
        const int64_t end = std::min(t + step, targets);
        width = std::max(width, source_end(axis, t, end) - source_begin(axis, t, end));
    }
    return width;
}

// Whether some targets meet fewer sources than there are taps, as others are outside.
inline bool clipped(const Axis& axis) {
    const auto whole = [&](const Span& s) { return s.count == axis.begin[s.phase + 1] - axis.begin[s.phase]; };
    return !std::all_of(axis.span.begin(), axis.span.end(), whole);
}

inline double mean_taps(const Axis& axis) {
    int64_t taps = 0;
    for (const Span& s : axis.span) taps += s.count;
    return static_cast<double>(taps) / axis.span.size();
}

// What is packed at a time: filters [filter, filter_end) of one group for channels [channel, channel_end).
struct PackItem {
    int64_t group, channel, channel_end, filter, filter_end;
};

// The weights of the filters for one tap and channel.
inline float* pack_tap(const Correlation& c, const PackItem& item, int64_t tap_row, int64_t tap_column, int64_t channel,
                       float* to) {
    const float* w = c.weights_of(item.group) + channel * c.depth_stride + c.rows.order[tap_row] * c.row_stride +
                     c.columns.order[tap_column] * c.column_stride;
    for (int64_t f = item.filter; f < item.filter_end; ++f) *to++ = w[f * c.filter_stride];
    return to;
}

// A register tile is R broadcasts x V vectors of sums; registers remain for the V vectors and a broadcast.
constexpr int tile_rows = vector_registers >= 32 ? 6 : 4;
constexpr int tile_sums = vector_registers >= 32 ? 24 : 12;
constexpr int tile_vectors = tile_sums / tile_rows;

// The tile function Kernel<R, V>::run for every R <= Rows and V that fit the registers.
template <template <int, int> class Kernel, int Rows = tile_rows>
struct Tiles {
    typedef decltype(&Kernel<1, 1>::run) Function;

    static Function get(int64_t rows, int64_t vectors) {
        static constexpr auto functions = all(std::make_integer_sequence<int, Rows>());
        return functions[rows - 1][vectors - 1];
    }

private:
    template <int R, int... V>
    static constexpr std::array<Function, tile_vectors> row(std::integer_sequence<int, V...>) {
        return {{Kernel<R, std::min(V + 1, tile_sums / R)>::run...}};
    }
    template <int... R>
    static constexpr std::array<std::array<Function, tile_vectors>, Rows> all(std::integer_sequence<int, R...>) {
        return {{row<R + 1>(std::make_integer_sequence<int, tile_vectors>())...}};
    }
};

}  // namespace c01b
