// The CUDA kernels: which convolutions they take, and their launches. choose.h chooses among them.
#pragma once
#include "../conv_call.h"
#include "choose.h"
#include "hopper.h"

namespace c01b {
namespace gpu {
namespace cuda {

// Asynchronous copies and TF32 came with compute capability 8.0.
inline bool takes(const ConvCall& call) {
    return call.device.compute >= 80 && call.device.local_memory >= 48 * 1024 && fits(call.s);
}

inline bool aligned(const Buffer& buffer) { return buffer.offset % 16 == 0; }  // allocations are

inline Arithmetic arithmetic(const ConvCall& call, int64_t terms) {
    return call.tf32 ? Arithmetic::Tf32 : float32_arithmetic(terms);
}

// wgmma is compute_90a's alone.
inline bool has_wgmma(const ConvCall& call, Arithmetic how) {
    return call.device.compute == 90 && how != Arithmetic::Scalar && has_hopper_libraries();
}

inline Program program(const Kernel& k) { return {k.files, k.name.c_str(), "", 0, k.instance}; }

inline Grid grid(const Kernel& k) {
    return {{size_t(k.blocks[0]), size_t(k.blocks[1]), size_t(k.blocks[2])}, {size_t(k.threads), 1, 1}, size_t(k.shared)};
}

// By libgpuarray: buffers in the order of the kernel's parameters, then the sizes.
template <class... Args>
int run(const ConvCall& call, const Kernel& kernel, const Args&... args) {
    return launch(call.device, program(kernel), grid(kernel), args...);
}

// By wgmma: filters packed, then the correlation. DECLINED where the device, the arithmetic or the workspace is another.
inline int correlate_wgmma(const ConvCall& call, const CorrelateSizes& p, Arithmetic how, bool gradient,
                           const Buffer& images, const Buffer& target) {
    if (!has_wgmma(call, how)) return DECLINED;
    const WgmmaVariant variant = choose_wgmma(p, how, gradient, aligned(images) && aligned(target));
    const PackSizes k = pack_sizes(call.s, p, variant.flat);
    const int64_t bytes = 4 * packed_floats(k, variant);
    if (bytes > call.workspace || pack_threads(k, variant) >= int64_t(1) << 31) return DECLINED;
    const Kernel kernel = wgmma_kernel(p, variant);
    if (!hopper_function(call.device, program(kernel), kernel.shared)) return DECLINED;
    Workspace scratch;
    if (scratch.allocate(call.device, size_t(bytes))) return FAILED;
    if (run(call, pack_kernel(k, variant, gradient), call.filters, scratch.buffer(), k)) return FAILED;
    return hopper_launch(call.device, program(kernel), grid(kernel), images, scratch.buffer(), target, p);
}

// By Winograd's algorithm, band after band of the tiles' rows, as many as the workspace holds.
inline int correlate_winograd(const ConvCall& call, Arithmetic how, bool gradient, const Buffer& images, const Buffer& target) {
    if (how != Arithmetic::Tf32x3 || !has_wgmma(call, how) || !winograd_takes(call.s)) return DECLINED;
    WinogradPlan plan = plan_winograd(call.s, gradient, call.workspace / 4);
    if (plan.m == 0) return DECLINED;
    const Kernel products = winograd_products_kernel(plan);
    if (!hopper_function(call.device, program(products), products.shared)) return DECLINED;
    Workspace scratch;
    if (scratch.allocate(call.device, size_t(4 * plan.floats))) return FAILED;
    const auto part = [&](int64_t begin) { return Buffer{scratch.buffer().data, scratch.buffer().offset + size_t(4 * begin)}; };
    WinogradSizes& p = plan.sizes;
    if (run(call, winograd_filter_kernel(p, plan.m, gradient), call.filters, part(plan.filters), p)) return FAILED;
    if (run(call, pack_kernel(plan.pack, plan.variant, false), part(plan.filters), part(plan.packed), plan.pack)) return FAILED;

    const int floats = p.batch % 2 == 0 && images.offset % 8 == 0 && target.offset % 8 == 0 ? 2 : 1;
    for (const int band = p.band_rows; p.first_row < plan.tile_rows; p.first_row += band) {
        p.band_rows = std::min(band, plan.tile_rows - p.first_row);
        const Kernel multiply = winograd_products_kernel(plan);
        const CorrelateSizes sizes = winograd_product_sizes(plan);
        if (run(call, winograd_kernel("input", p, plan.m, floats, p.depth), images, part(plan.inputs), p)) return FAILED;
        const Buffer inputs = part(plan.inputs), outputs = part(plan.outputs);
        if (hopper_launch(call.device, program(multiply), grid(multiply), inputs, part(plan.packed), outputs, sizes))
            return FAILED;
        if (run(call, winograd_kernel("output", p, plan.m, floats, p.rows), outputs, target, p)) return FAILED;
    }
    return DONE;
}

// By mma.sync or scalar: on filters as they are, or, for the gradient, rearranged.
inline int correlate(const ConvCall& call, const CorrelateSizes& p, Arithmetic how, const Buffer& images,
                     const Buffer& weights, const Buffer& target) {
    const CorrelateVariant variant = choose_correlate(p, how, aligned(weights), aligned(images) && aligned(target));
    return run(call, correlate_kernel(p, variant, how), images, weights, target, p);
}

inline int filter_acts(const ConvCall& call) {
    if (!takes(call)) return DECLINED;
    const CorrelateSizes p = forward_sizes(call.s);
    const Arithmetic how = arithmetic(call, int64_t(p.depth) * p.taps_h * p.taps_w);
    int done = correlate_winograd(call, how, false, call.images, call.outputs);
    if (done == DECLINED) done = correlate_wgmma(call, p, how, false, call.images, call.outputs);
    return done != DECLINED ? done : correlate(call, p, how, call.images, call.filters, call.outputs);
}

inline int image_acts(const ConvCall& call) {
    if (!takes(call)) return DECLINED;
    const CorrelateSizes p = gradient_sizes(call.s);
    const Arithmetic how = arithmetic(call, int64_t(p.depth) * p.taps_h * p.taps_w);
    int done = correlate_winograd(call, how, true, call.outputs, call.images);
    if (done == DECLINED) done = correlate_wgmma(call, p, how, true, call.outputs, call.images);
    if (done != DECLINED) return done;
    const FilterSizes f = filter_sizes(call.s, p);
    const Kernel rearrange = filter_kernel(f);
    if (4 * filter_floats(p) > call.workspace || rearrange.blocks[1] > 65535 || rearrange.blocks[2] > 65535) return DECLINED;
    Workspace scratch;
    if (scratch.allocate(call.device, size_t(4 * filter_floats(p)))) return FAILED;
    if (run(call, rearrange, call.filters, scratch.buffer(), f)) return FAILED;
    return correlate(call, p, how, call.outputs, scratch.buffer(), call.images);
}

// One launch of the kernel that sums over chunks of positions, by wgmma or else.
inline int weight_partials(const ConvCall& call, const WeightSizes& p, const Tile& tile, Arithmetic how, bool by_wgmma,
                           const Buffer& target) {
    const bool whole = aligned(call.images) && aligned(call.outputs);
    if (!by_wgmma) return run(call, weight_kernel(p, tile, how, whole), call.images, call.outputs, target, p);
    const Kernel kernel = weight_wgmma_kernel(p, tile, whole);
    return hopper_launch(call.device, program(kernel), grid(kernel), call.images, call.outputs, target, p);
}

// Partial sums of chunks of positions, then their sum, if there is more than one.
inline int weight_sums(const ConvCall& call, Arithmetic how, bool by_wgmma) {
    WeightSizes p = weight_sizes(call.s);
    const int64_t rows = int64_t(p.channels) * p.filter_h * p.filter_w, elements = rows * call.s.filters,
                  positions = int64_t(p.out_h) * p.out_w;
    const Tile& tile = *cheapest(by_wgmma ? weight_wgmma_tiles() : weight_tiles(how), rows, p.filters);
    const auto fits_workspace = [&](int64_t chunks) { return chunks == 1 || 4 * elements * chunks <= call.workspace; };
    p.positions = int(call.split && fits_workspace(ceil_div(positions, call.split))
                          ? std::min(call.split, positions)
                          : choose_positions(p, tile, call.device.processors, call.workspace));
    p.chunks = int(ceil_div(positions, p.positions));
    if (p.chunks == 1) return weight_partials(call, p, tile, how, by_wgmma, call.filters);
    Workspace scratch;
    if (scratch.allocate(call.device, size_t(4 * elements * p.chunks))) return FAILED;
    if (const int failed = weight_partials(call, p, tile, how, by_wgmma, scratch.buffer())) return failed;
    const SumSizes sum = {int(elements), p.chunks};
    return run(call, sum_kernel(sum), scratch.buffer(), call.filters, sum);
}

inline int weight_acts(const ConvCall& call) {
    if (!takes(call)) return DECLINED;
    const ConvShape& s = call.s;
    const Arithmetic how = arithmetic(call, s.out_h * s.out_w * s.batch);
    const bool by_wgmma = has_wgmma(call, how) && weight_wgmma_takes(how, s.group_channels() * s.filter_h * s.filter_w);
    const int done = by_wgmma ? weight_sums(call, how, true) : DECLINED;
    return done != DECLINED ? done : weight_sums(call, how, false);
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
