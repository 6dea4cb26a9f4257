// The columns of an image's row sorted by what a stride makes of them: column stride*q + r is place q of phase r, so that the
// pixels which a tap meets, stride columns apart, lie one after another.
//
//     stride 2:    row  0 1 2 3 4 5 6     phase 0: 0 2 4 6     phase 1: 1 3 5 -      tap 3 meets phase 1 from place 1 on
#pragma once
#include <algorithm>
#include <type_traits>

#include "conv_axes.h"
#include "interleave.h"

namespace c01b {

// Of one image, pixels first, first + step, ..., `count` of them, of which those at [begin, end) exist; 0 for the others.
inline void pick_columns(const float* row, int64_t first, int64_t step, int64_t count, int64_t begin, int64_t end, float* to) {
    begin = std::clamp<int64_t>(begin, 0, count), end = std::clamp(end, begin, count);
    std::fill(to, to + begin, 0.0f);
    int64_t t = begin;  // a vector is loaded up to before the next pixel, which exists; the last one begins where it can
    const auto load_while_more = [&](auto every) __attribute__((always_inline)) {
        while (end - begin > lanes && t < end - 1) {
            t = std::min(t, end - 1 - lanes);
            store(to + t, load_every<every.value>(row + first + t * step)), t += lanes;
        }
    };
    switch (step) {
        case 1: copy_floats(row + first + t, end - t, to + t), t = end; break;
        case 2: load_while_more(std::integral_constant<int, 2>()); break;
        case 4: load_while_more(std::integral_constant<int, 4>()); break;
        case 8: load_while_more(std::integral_constant<int, 8>()); break;
        case 16: load_while_more(std::integral_constant<int, 16>()); break;
    }
    for (; t < end; ++t) to[t] = row[first + t * step];
    std::fill(to + end, to + count, 0.0f);
}

struct ColumnPhases {
    int64_t columns, batch, stride;  // of a row
    int64_t places, pitch;           // of a phase: columns, and floats from one to the next, at least places * batch

    // For windows of so many taps at `targets` places. Room for a vector more, as loads of the last one may reach past the places.
    ColumnPhases(int64_t columns, int64_t batch, int64_t stride, int64_t taps, int64_t targets)
        : columns(columns), batch(batch), stride(stride), places(targets + (taps - 1) / stride),
          pitch(block_count(places * batch, lanes) * lanes + lanes) {}

    // Floats from one sorted row to the next, which are kept off strides of 4096 bytes.
    int64_t row_pitch() const { return stride * pitch + (stride * pitch % 1024 ? 0 : lanes); }

    // Where a tap's first pixel is.
    int64_t tap(int64_t v) const { return v % stride * pitch + v / stride * batch; }

    // Cycles of sorting a row: 4 for a place and 3 for each of its vectors (measured); of one image, by vectors, one.
    double cost() const { return stride * places * (batch == 1 ? 1.0 : 4.0 + 3 * block_count(batch, lanes)); }

    // Tap 0 of the first target meets column `first`, inside the row or not; 0 for those that are not.
    void sort(const float* row, int64_t first, float* to) const {
        for (int64_t r = 0; r < stride; ++r) pick(row, first + r, to + r * pitch);
    }

private:
    // Columns first, first + stride, ..., and zeros up to the next phase.
    void pick(const float* row, int64_t first, float* to) const {
        const int64_t begin = std::min(first < 0 ? block_count(-first, stride) : 0, places);
        const int64_t end = first < columns ? std::min(places, block_count(columns - first, stride)) : 0;
        if (begin >= end) {
            std::fill(to, to + pitch, 0.0f);
            return;
        }
        if (batch == 1) {
            pick_columns(row, first, stride, pitch, begin, end, to);
            return;
        }
        std::fill(to, to + begin * batch, 0.0f);
        if (stride == 1) copy_floats(row + (first + begin) * batch, (end - begin) * batch, to + begin * batch);
        else
            for (int64_t q = begin; q < end; ++q) copy_floats(row + (first + q * stride) * batch, batch, to + q * batch);
        std::fill(to + end * batch, to + pitch, 0.0f);
    }
};

}  // namespace c01b
