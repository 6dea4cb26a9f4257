// Which loop nest a convolution takes: images in the lanes, or filters where a small batch would leave lanes empty; and
// where there is little to compute for a pixel, neither source nor sums are put anywhere else first.
#pragma once
#include "conv_batch_lanes.h"
#include "conv_filter_lanes.h"
#include "conv_unpacked.h"

namespace c01b {

// Lanes computed for each lane wanted.
inline double padding(int64_t count) { return static_cast<double>(block_count(count, lanes) * lanes) / count; }

// Transposing the sums of a pixel to the target takes the time of about 60 products (measured), so a pixel with few of
// them is better off with some empty lanes.
inline bool filters_fill_lanes_better(const Correlation& c) {
    const double products = std::max(1.0, c.depth * mean_taps(c.rows) * mean_taps(c.columns));
    return padding(c.filters) * (1.03 + 60 / products) < padding(c.batch);
}

// A panel pays where its pixels are read often: by many filters, or for many taps, which the fewer filters there are the
// better share their loads with neighbours (measured: even at about 25 products a pixel and filter).
inline bool packing_is_in_vain(const Correlation& c) {
    const int64_t worthwhile = 24;
    return c.filters <= tile_rows && c.depth * mean_taps(c.rows) * mean_taps(c.columns) <= worthwhile * c.filters;
}

inline void correlate(const Correlation& c, int threads) {
    if (c.rows.span.empty() || c.columns.span.empty() || !c.batch || !c.filters) return;
    if (packing_is_in_vain(c)) correlate_unpacked(c, std::max(threads, 1));
    else if (filters_fill_lanes_better(c)) correlate_filter_lanes(c, std::max(threads, 1));
    else correlate_batch_lanes(c, std::max(threads, 1));
}

}  // namespace c01b
