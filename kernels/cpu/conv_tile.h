// Which loop nest a convolution takes: images in the lanes, or filters where a small batch would leave lanes empty.
#pragma once
#include "conv_batch_lanes.h"
#include "conv_filter_lanes.h"

namespace c01b {

// Lanes computed for each lane wanted.
inline double padding(int64_t count) { return static_cast<double>(block_count(count, lanes) * lanes) / count; }

// Transposing the sums of a pixel to the target takes the time of about 60 products (measured), so a pixel with few of
// them is better off with some empty lanes.
inline bool filters_fill_lanes_better(const Correlation& c) {
    const double products = std::max(1.0, c.depth * mean_taps(c.rows) * mean_taps(c.columns));
    return padding(c.filters) * (1.03 + 60 / products) < padding(c.batch);
}

inline void correlate(const Correlation& c, int threads) {
    if (c.rows.span.empty() || c.columns.span.empty() || !c.batch || !c.filters) return;
    if (filters_fill_lanes_better(c)) correlate_filter_lanes(c, std::max(threads, 1));
    else correlate_batch_lanes(c, std::max(threads, 1));
}

}  // namespace c01b
