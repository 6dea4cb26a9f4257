// Whether Winograd's algorithm takes a correlation with 3 x 3 taps, in which tiles, and its kernels.
#pragma once
#include "choose_correlate.h"

namespace c01b {
namespace gpu {
namespace cuda {

// The correlation that a convolution or its data gradient is, for 3 x 3 filters, stride 1 and one group.
inline bool winograd_takes(const ConvShape& s) {
    return s.filter_h == 3 && s.filter_w == 3 && s.stride_y == 1 && s.stride_x == 1 && s.groups == 1 && s.winograd != 0;
}

inline WinogradSizes winograd_sizes(const ConvShape& s, bool gradient) {
    WinogradSizes p = {};
    p.depth = int(gradient ? s.filters : s.channels), p.rows = int(gradient ? s.channels : s.filters), p.batch = int(s.batch);
    p.source_h = int(gradient ? s.out_h : s.height), p.source_w = int(gradient ? s.out_w : s.width);
    p.target_h = int(gradient ? s.height : s.out_h), p.target_w = int(gradient ? s.width : s.out_w);
    p.pad_y = int(gradient ? 2 - s.pad_y : s.pad_y), p.pad_x = int(gradient ? 2 - s.pad_x : s.pad_x), p.flip = s.flip;
    return p;
}

// Seconds in tiles of M x M: the products at a rate that needs depth to come up to 107 TFLOP/s, and the transforms' memory at
// 4 TB/s. Within 10% of what was measured on an H200.
inline double winograd_seconds(const WinogradSizes& p, int m) {
    const double tiles = double(ceil_div(p.target_h, m) * ceil_div(p.target_w, m)) * p.batch;
    const double elements = double((m + 2) * (m + 2));
    const double products = 2 * elements * p.depth * p.rows * tiles / 107e12 * (1 + 100.0 / p.depth);
    const double images = double(p.depth) * p.source_h * p.source_w * p.batch;
    const double outputs = double(p.rows) * p.target_h * p.target_w * p.batch;
    return products + 4 * (images + outputs + elements * tiles * (p.depth + p.rows)) / 4e12 + 2e-5;
}

inline double direct_seconds(const WinogradSizes& p) {
    return 18.0 * p.depth * p.rows * p.target_h * p.target_w * p.batch / 105e12;
}

// 2 or 4, the tile's size, or 0 where the direct kernel is not clearly slower. `allowed` is ConvShape's: below 0, that size.
inline int choose_winograd(const WinogradSizes& p, int64_t allowed) {
    if (allowed < 0) return int(-allowed);
    int best = 0;
    double least = 0.9 * direct_seconds(p);
    for (int m = 2; m <= allowed; m += 2)
        if (winograd_seconds(p, m) < least) least = winograd_seconds(p, m), best = m;
    return best;
}

inline Kernel winograd_kernel(const char* part, const WinogradSizes& p, int m, int floats, int64_t channels) {
    const std::string name = format("winograd_%s_%d_a%d", part, m, floats);
    return {{"cuda/sizes.cuh", "cuda/winograd.cuh"},
            name,
            simple_instance(name, "WinogradSizes", format("winograd_%s<%d, %d>", part, m, floats)),
            {ceil_div(int64_t(p.band_rows) * p.tiles_w, 4), ceil_div(p.batch, 64 * floats), channels},
            256};
}

inline Kernel winograd_filter_kernel(const WinogradSizes& p, int m, bool gradient) {
    const std::string name = format("winograd_filters_%d%s", m, gradient ? "_gradient" : "");
    return {{"cuda/sizes.cuh", "cuda/winograd.cuh"},
            name,
            simple_instance(name, "WinogradSizes", format("winograd_filters<%d, %s>", m, gradient ? "true" : "false")),
            {ceil_div(int64_t(p.depth) * p.rows, 256), 1, 1},
            256};
}

// The products of a band, as a convolution of 1 x 1 filters in groups.
inline ConvShape winograd_products(const WinogradSizes& p, int m) {
    const int64_t elements = (m + 2) * (m + 2);
    ConvShape s = {};
    s.channels = elements * p.depth, s.filters = elements * p.rows, s.groups = elements, s.batch = p.batch;
    s.height = s.out_h = p.band_rows, s.width = s.out_w = p.tiles_w;
    s.filter_h = s.filter_w = s.stride_y = s.stride_x = 1;
    return s;
}

// A whole run: tiles of m x m (0: not at all), and where in a workspace of `floats` each part begins.
struct WinogradPlan {
    int m, tile_rows;
    WinogradSizes sizes;  // of the first band
    WgmmaVariant variant;
    PackSizes pack;
    int64_t filters, packed, inputs, outputs, floats;
};

inline CorrelateSizes winograd_product_sizes(const WinogradPlan& plan) {
    return forward_sizes(winograd_products(plan.sizes, plan.m));
}
inline Kernel winograd_products_kernel(const WinogradPlan& plan) {
    return wgmma_kernel(winograd_product_sizes(plan), plan.variant);
}

// As many of the tiles' rows in a band as `workspace` floats hold.
inline WinogradPlan plan_winograd(const ConvShape& s, bool gradient, int64_t workspace) {
    const auto whole = [](int64_t floats) { return ceil_div(floats, 16) * 16; };  // 64 bytes: parts stay aligned
    WinogradPlan plan = {};
    WinogradSizes& p = plan.sizes = winograd_sizes(s, gradient);
    const int m = p.depth > 65535 || p.rows > 65535 ? 0 : choose_winograd(p, s.winograd);  // blocks along an axis
    if (m == 0) return plan;
    p.tiles_w = int(ceil_div(p.target_w, m)), p.band_rows = 1;
    plan.tile_rows = int(ceil_div(p.target_h, m));
    const ConvShape products = winograd_products(p, m);
    plan.variant = choose_wgmma(forward_sizes(products), Arithmetic::Tf32x3, false, true);
    plan.pack = pack_sizes(products, forward_sizes(products), false);
    plan.packed = whole(products.channels * p.rows);
    plan.inputs = plan.packed + whole(packed_floats(plan.pack, plan.variant));
    const int64_t row = int64_t(p.tiles_w) * p.batch * (products.channels + products.filters) + 32;
    p.band_rows = int(std::min<int64_t>(plan.tile_rows, (workspace - plan.inputs) / row));
    if (p.band_rows < 1) return plan;
    const int64_t tiles = int64_t(p.band_rows) * p.tiles_w * p.batch;
    plan.outputs = plan.inputs + whole(products.channels * tiles);
    plan.floats = plan.outputs + whole(products.filters * tiles);
    plan.m = m;
    return plan;
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
