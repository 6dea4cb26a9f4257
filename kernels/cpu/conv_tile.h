// Which loop nest a convolution takes: images in the lanes, or filters where a small batch would leave lanes empty.
#pragma once
#include "conv_batch_lanes.h"
#include "conv_filter_lanes.h"

namespace c01b {

// Lanes computed for each lane wanted.
inline double padding(int64_t count) { return static_cast<double>(block_count(count, lanes) * lanes) / count; }

inline void correlate(const Correlation& c, int threads) {
    if (c.rows.span.empty() || c.columns.span.empty() || !c.batch || !c.filters) return;
    const double transposing = 1.1;
    if (padding(c.batch) > transposing * padding(c.filters)) correlate_filter_lanes(c, std::max(threads, 1));
    else correlate_batch_lanes(c, std::max(threads, 1));
}

}  // namespace c01b
