// The windows of one output row, one after the other, for kernels that do something with each.
#pragma once
#include "max_pool.h"

namespace c01b {

// body(first pixel, window, patch) for each window of row i of a channel: where they begin, in floats, and the pixels' extent.
template <class Body>
void for_windows(const PoolShape& s, int64_t channel, int64_t i, const Body& body) {
    const Range rows = s.y.pixels(i, s.height);
    const int64_t first = (channel * s.height + rows.begin) * s.width, windows = (channel * s.out_h + i) * s.out_w;
    for (int64_t j = 0; j < s.out_w; ++j) {
        const Range columns = s.x.pixels(j, s.width);
        const Patch patch{rows.size(), columns.size(), s.width * s.batch, s.batch};
        body((first + columns.begin) * s.batch, (windows + j) * s.batch, patch);
    }
}

}  // namespace c01b
