// Correlation by wgmma: images are the rows, filters the columns, which pack_filters prepared. Steps, copies and target are
// correlate.cuh's.
//
// Which image stands in which row of a fragment is free: warp w has rows 16w..16w+15 of both products; lane 4g+q holds
// rows g and g+8, and lets them be images 32w + 4g + 0..3: a 16-byte load each term, 16-byte stores.
template <int N, int Terms, int Promotion>
struct WgmmaImages : WgmmaTile<N, Terms, Promotion, true> {
    using Base = WgmmaTile<N, Terms, Promotion, true>;
    using Base::warp, Base::g, Base::q, Base::sum;
    using typename Base::Fragments;
    static constexpr int Rows = N, Columns = 128;  // as correlate.cuh counts them: filters, images

    static __device__ __forceinline__ int place(int k, int column) { return column ^ (8 * (k & 3)); }

    __device__ __forceinline__ void load(Fragments& f, const float* images) const {
#pragma unroll
        for (int k = 0; k < STEP / 8; ++k)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float4 v = *reinterpret_cast<const float4*>(images + (8 * k + 4 * half + q) * Columns +
                                                                  place(q, 32 * warp + 4 * g));
                const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int e = 0; e < 4; ++e) this->set(f, k, e / 2, e % 2 + 2 * half, x[e]);
            }
    }

    template <class Target>
    __device__ __forceinline__ void store(Target& target) {
#pragma unroll
        for (int j = 0; j < N / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                target.row(8 * j + 2 * q + e);
                target.put(32 * warp + 4 * g,
                           make_float4(sum(0, 4 * j + e), sum(0, 4 * j + 2 + e), sum(1, 4 * j + e), sum(1, 4 * j + 2 + e)));
            }
    }
};

// What one thread copies of packed filters: tiles of a step lie one behind the other, (group, row tile, u, v, channels /
// 16), or (group, row tile, terms / 16) where Flat.
template <class Tile, bool FLAT>
struct PackedWeights {
    const CorrelateSizes& p;
    const float *first, *weight;

    template <class Block>
    __device__ __forceinline__ PackedWeights(const CorrelateSizes& p, const Block& block, const float* weights) : p(p) {
        const int tile = block.group * ceil_div(p.rows, Tile::Rows) + block.row / Tile::Rows;
        const int taps = p.taps_h * p.taps_w, steps = FLAT ? ceil_div(p.depth * taps, STEP) : taps * ceil_div(p.depth, STEP);
        first = weights + static_cast<long long>(tile) * steps * Tile::column_floats + 4 * threadIdx.x;
    }

    __device__ __forceinline__ void new_tap(int u, int v) {
        weight = first + static_cast<long long>(u * p.taps_w + v) * ceil_div(p.depth, STEP) * Tile::column_floats;
    }

    __device__ __forceinline__ void copy(float* shared, int /*c*/) {
#pragma unroll
        for (int n = 0; n < Tile::column_floats; n += 4 * Tile::threads)
            copy_async<4>(shared + 4 * threadIdx.x + n, weight + n, 4);
        weight += Tile::column_floats;
    }
};

// Products of step s run while images of step s + 1 are fetched. Behind the barrier everyone has step s + 1's tiles and
// is done with step s - 1's, whose stage the next copies may overwrite.
template <class Tile, int IMAGES, int COLUMN_FLOATS, bool FLAT, int STAGES>
__device__ __forceinline__ void correlate_wgmma(const float* source, const float* weights, float* target,
                                                const CorrelateSizes& p) {
    float* const shared = launched_shared();
    constexpr int image_floats = STEP * Tile::Columns, stage_floats = image_floats + Tile::column_floats;
    const auto images = [&](int s) { return shared + s % STAGES * stage_floats; };
    const auto filters = [&](int s) { return shared + s % STAGES * stage_floats + image_floats; };
    using Block = CorrelateBlock<Tile, IMAGES>;
    const Block block(p);
    typename CopiesOf<FLAT, Tile, IMAGES, PackedWeights<Tile, FLAT>, COLUMN_FLOATS>::type copies(p, block, source, weights);
    Tile tile;
    const int steps = copies.steps();
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) copies.copy(filters(s), images(s));
        copies_issued();
    }
    typename Tile::Fragments even, odd;
    copies_wait<STAGES - 2>();
    writes_to_tensor_cores();
    __syncthreads();
    if (steps > 0) tile.load(even, images(0));
    const auto step = [&](int s, typename Tile::Fragments& now, typename Tile::Fragments& next) {
        tile.issue(now, filters(s));
        copies_wait<STAGES - 3>();
        writes_to_tensor_cores();
        __syncthreads();
        if (s + STAGES - 1 < steps) copies.copy(filters(s + STAGES - 1), images(s + STAGES - 1));
        copies_issued();
        if (s + 1 < steps) tile.load(next, images(s + 1));
        tile.finish(s + 1 == steps);
    };
    for (int s = 0; s < steps; s += 2) {
        step(s, even, odd);
        if (s + 1 < steps) step(s + 1, odd, even);
    }
    CorrelateTarget<Block, IMAGES, COLUMN_FLOATS == 4> to{target, p, block};
    tile.store(to);
}
