// A convolution with stride s is the sum of s^2 convolutions with stride 1, each of one phase of the source, its every s-th
// row and column, with every s-th tap:
//
//     filter 11, stride 4     phase 0: taps 0 4 8  on rows 0 4 8 12 ..      phase 2: taps 2 6 10 on rows 2 6 10 14 ..
//                             phase 1: taps 1 5 9  on rows 1 5 9 13 ..      phase 3: taps 3 7    on rows 3 7 11 15 ..
//
// So Winograd's algorithm takes it for one of s^2 times the channels, [phase row][phase column][channel], with the taps of the
// longest phase; the last phases have one less, and that is 0, as are all products of a point that is the last tap alone.
// Nothing is moved for it: a tile's pixels lie s apart in either direction.
#pragma once
#include "conv_axes.h"

namespace c01b {

// Taps of the longest phase.
inline int64_t phase_taps(const Axis& axis) { return block_count(axis.order.size(), axis.stride); }

struct WinogradPhases {
    int64_t row_stride, column_stride, count;
    int64_t long_rows, long_columns;  // phases with the most taps, which come first

    // Of a convolution, or of a data gradient with stride 1.
    explicit WinogradPhases(const Correlation& c)
        : row_stride(c.rows.stride), column_stride(c.columns.stride), count(row_stride * column_stride),
          long_rows(long_phases(c.rows)), long_columns(long_phases(c.columns)) {}

    int64_t row_of(int64_t phase) const { return phase / column_stride; }
    int64_t column_of(int64_t phase) const { return phase % column_stride; }

private:
    static int64_t long_phases(const Axis& axis) { return axis.order.size() - (phase_taps(axis) - 1) * axis.stride; }
};

}  // namespace c01b
