// What the CUDA kernels are told besides three pointers: one struct, a kernel parameter by value. This text is compiled
// twice: by NVRTC in front of the kernels, and by the launcher (select.h), which fills the structs in.
//
// Sizes are those of one group; `groups` of them lie one behind the other along the channel axis.

// y[m, i, j, b] = sum over c, u, v of  weights[c, u, v, m] * source[c, i*step_y + u - pad_y, j*step_x + v - pad_x, b]
//
// Forward, m is a filter and (i, j) an output. In the data gradient a row m is (phase, channel): pixels whose distance
// from the border leaves the same remainders by the stride make up a phase, and each phase is a correlation of its own
// with every stride-th tap (correlate.cuh has the formula). With 1 x 1 phases target row and pixel are m and (i, j).
struct CorrelateSizes {
    int groups;
    int depth, source_h, source_w, batch;  // source: (groups * depth, source_h, source_w, batch)
    int rows;                              // m of a group;  weights: (depth, taps_h, taps_w, groups * rows)
    int grid_h, grid_w;                    // positions (i, j)
    int taps_h, taps_w, flip;              // flip: tap u reads weights[taps_h - 1 - u]
    int step_y, step_x, pad_y, pad_x;      // a pad may be negative
    int phases_h, phases_w, channels;      // rows = phases_h * phases_w * channels
    int filter_h, filter_w;                // of the forward filters: phase r has ceil((filter - r) / phases) taps
    int first_y, first_x;                  // pixel of position 0 in phase 0
    int target_h, target_w;                // target: (groups * channels, target_h, target_w, batch)
    unsigned taps_magic,
        width_magic;  // ceil(2^32 / (taps_h*taps_w)), ceil(2^32 / taps_w), or 0 for 1: to divide by multiplying
};

// partials[q][c, u, v, k] = sum over b and positions (i, j) of chunk q of
//     images[c, i*stride_y + u - pad_y, j*stride_x + v - pad_x, b] * hid[k, i, j, b]
struct WeightSizes {
    int groups;
    int channels, height, width, batch;  // images: (groups * channels, height, width, batch)
    int filters, out_h, out_w;           // hid: (groups * filters, out_h, out_w, batch)
    int filter_h, filter_w, flip;        // target: (chunks, channels, filter_h, filter_w, groups * filters)
    int stride_y, stride_x, pad_y, pad_x;
    int chunks, positions;  // positions of a chunk; the last chunk may have fewer
};

// Filters of the data gradient: see filters.cuh.
struct FilterSizes {
    int groups;
    int channels, filter_h, filter_w, filters;  // source: (channels, filter_h, filter_w, groups * filters)
    int flip;
    int taps_h, taps_w, phases_h, phases_w;  // target: (filters, taps_h, taps_w, groups * phases * channels)
};

// The same for wgmma.cuh: see pack.cuh.
struct PackSizes {
    int groups, rows, depth,
        channels;  // rows and depth as in CorrelateSizes; source as in FilterSizes or, forward, (depth, ..., groups * rows)
    int filter_h, filter_w, flip;
    int taps_h, taps_w, phases_h, phases_w, flat;
};

struct SumSizes {
    int elements, chunks;  // source: (chunks, elements)
};

// Window (i, j): rows [start_y + i*stride_y, + size_y), columns likewise, clipped to the image. Sizes and strides are
// compiled in.
struct PoolSizes {
    int height, width, out_h, out_w, batch, start_y, start_x;
};

// Winograd's tiles of a correlation with 3 x 3 taps (winograd.cuh): rows and depth as in CorrelateSizes, one group.
struct WinogradSizes {
    int depth, source_h, source_w, batch;  // source: (depth, source_h, source_w, batch)
    int rows, target_h, target_w;          // target: (rows, target_h, target_w, batch)
    int pad_y, pad_x, flip;
    int tiles_w, first_row, band_rows;  // tiles of the grid's rows [first_row, + band_rows)
};
