// What kernels/gpu/cuda/choose.h chooses, for ctypes: the kernels of one convolution in the order of their launches.
#include "choose.h"

#include <cstring>

using namespace c01b;
using namespace c01b::gpu::cuda;

namespace {

// A launch: of `kernel`, on `sizes`, writing `floats` floats. Strings end with a zero.
struct Launch {
    char files[512], name[128], instance[1024], sizes[256];
    int64_t blocks[3], threads, floats;
};

template <class Sizes>
Launch launch(const Kernel& k, const Sizes& sizes, int64_t floats) {
    Launch l = {};
    std::string files;
    for (const char* file : k.files) files += std::string(file) + " ";
    std::strcpy(l.files, files.c_str()), std::strcpy(l.name, k.name.c_str()), std::strcpy(l.instance, k.instance.c_str());
    static_assert(sizeof sizes <= sizeof l.sizes, "room for the sizes");
    std::memcpy(l.sizes, &sizes, sizeof sizes);
    std::copy(k.blocks, k.blocks + 3, l.blocks);
    l.threads = k.threads, l.floats = floats;
    return l;
}

int correlation(const ConvShape& s, bool gradient, Arithmetic how, bool wgmma, Launch* out) {
    const CorrelateSizes p = gradient ? gradient_sizes(s) : forward_sizes(s);
    const int64_t target = gradient ? s.channels * s.height * s.width * s.batch : s.filters * s.out_h * s.out_w * s.batch;
    int count = 0;
    if (wgmma) {
        const WgmmaVariant v = choose_wgmma(p, how, gradient, true);
        const PackSizes k = pack_sizes(s, p, v.flat);
        out[count++] = launch(pack_kernel(k, v, gradient), k, packed_floats(k, v));
        out[count++] = launch(wgmma_kernel(p, v), p, target);
        return count;
    }
    const FilterSizes f = filter_sizes(s, p);
    if (gradient) out[count++] = launch(filter_kernel(f), f, filter_floats(p));
    out[count++] = launch(correlate_kernel(p, choose_correlate(p, how, true, true), how), p, target);
    return count;
}

int weights(const ConvShape& s, Arithmetic how, bool wgmma, int positions, Launch* out) {
    WeightSizes p = weight_sizes(s);
    const int64_t rows = int64_t(p.channels) * p.filter_h * p.filter_w, elements = rows * s.filters;
    const Tile& tile = *cheapest(wgmma ? weight_wgmma_tiles() : weight_tiles(how), rows, p.filters);
    p.positions = positions ? positions : choose_positions(p, tile, 4, 1 << 24);
    p.chunks = int(gpu::cuda::ceil_div(s.out_h * s.out_w, p.positions));
    out[0] = launch(wgmma ? weight_wgmma_kernel(p, tile, true) : weight_kernel(p, tile, how, true), p, elements * p.chunks);
    const SumSizes sum = {int(elements), p.chunks};
    if (p.chunks > 1) out[1] = launch(sum_kernel(sum), sum, elements);
    return p.chunks > 1 ? 2 : 1;
}

ConvShape shape_of(const int64_t* shape) {
    ConvShape s = {};
    s.channels = shape[0], s.height = shape[1], s.width = shape[2], s.batch = shape[3];
    s.filters = shape[4], s.filter_h = shape[5], s.filter_w = shape[6], s.groups = shape[7];
    s.out_h = shape[8], s.out_w = shape[9];
    s.stride_y = shape[10], s.stride_x = shape[11], s.pad_y = shape[12], s.pad_x = shape[13], s.flip = shape[14] != 0;
    return s;
}

}  // namespace

// op: 0 FilterActs, 1 ImageActs, 2 WeightActs. Returns how many launches stand in `out`, which has room for 2.
extern "C" int choices(int op, const int64_t* shape, int arithmetic, int wgmma, int positions, Launch* out) {
    const ConvShape s = shape_of(shape);
    const Arithmetic how = static_cast<Arithmetic>(arithmetic);
    return op == 2 ? weights(s, how, wgmma != 0, positions, out) : correlation(s, op == 1, how, wgmma != 0, out);
}

// Winograd's algorithm in tiles of m x m, with a workspace for `band_rows` rows of them: the kernels of filters and packing,
// then of each band's input, products and output. Returns how many; `out` has room for 14.
extern "C" int winograd_choices(int gradient, const int64_t* shape, int m, int band_rows, Launch* out) {
    ConvShape s = shape_of(shape);
    s.winograd = -m;
    WinogradPlan plan = plan_winograd(s, gradient != 0, int64_t(1) << 40);
    const int64_t row = (plan.floats - plan.inputs) / plan.tile_rows;
    plan = plan_winograd(s, gradient != 0, plan.inputs + band_rows * row + 64);
    WinogradSizes& p = plan.sizes;
    const int64_t elements = (m + 2) * (m + 2), outputs = int64_t(p.rows) * p.target_h * p.target_w * p.batch;
    const int floats = p.batch % 2 == 0 ? 2 : 1;
    int count = 0;
    out[count++] = launch(winograd_filter_kernel(p, m, gradient != 0), p, elements * p.depth * p.rows);
    out[count++] = launch(pack_kernel(plan.pack, plan.variant, false), plan.pack, packed_floats(plan.pack, plan.variant));
    for (const int band = p.band_rows; p.first_row < plan.tile_rows; p.first_row += band) {
        p.band_rows = std::min(band, plan.tile_rows - p.first_row);
        const int64_t tiles = int64_t(p.band_rows) * p.tiles_w * p.batch;
        out[count++] = launch(winograd_kernel("input", p, m, floats, p.depth), p, elements * p.depth * tiles);
        out[count++] = launch(winograd_products_kernel(plan), winograd_product_sizes(plan), elements * p.rows * tiles);
        out[count++] = launch(winograd_kernel("output", p, m, floats, p.rows), p, outputs);
    }
    return count;
}
