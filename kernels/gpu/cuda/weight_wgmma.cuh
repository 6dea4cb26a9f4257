// WeightActs by wgmma: filter elements (c, u, v) are the rows, filters the columns. Steps, copies and target are
// weight_acts.cuh's.
//
// hid has no other reader that would want it prepared: when a step's copies are in, each thread splits the pieces that it
// copied, in shared memory. That and the addresses are what this kernel spends beside the products: 75 TFLOP/s where
// correlation has 107.
template <int N, int Promotion>
struct WgmmaElements : WgmmaTile<N, 3, Promotion, false> {
    using Base = WgmmaTile<N, 3, Promotion, false>;
    using Base::warp, Base::g, Base::q, Base::sum;
    using typename Base::Fragments;
    static constexpr int Rows = 128, Columns = N;

    static constexpr auto hid_place = tile_place;  // which is the swizzle that the tensor cores know

    // Row m of product m / 64 is row m % 16 of warp m / 16 % 4: conflict-free, as the swizzle spreads 8 rows over all banks.
    __device__ __forceinline__ void load(Fragments& f, const float* rows) const {
#pragma unroll
        for (int k = 0; k < STEP / 8; ++k)
#pragma unroll
            for (int product = 0; product < 2; ++product)
#pragma unroll
                for (int n = 0; n < 4; ++n)
                    this->set(f, k, product, n,
                              rows[tile_place(64 * product + 16 * warp + 8 * (n % 2) + g, 2 * k + n / 2) + q]);
    }

    __device__ __forceinline__ void prepare(float* hid) const {
        const Copies<Columns, Base::threads> mine;
#pragma unroll
        for (int n = 0; n < mine.count; ++n) {
            float4* high = reinterpret_cast<float4*>(hid + hid_place(mine.row + n * mine.rows_apart, mine.chunk));
            const float4 v = *high, h = make_float4(high_part(v.x), high_part(v.y), high_part(v.z), high_part(v.w));
            *high = h;
            high[Base::part_floats / 4] = make_float4(v.x - h.x, v.y - h.y, v.z - h.z, v.w - h.w);
        }
    }

    template <class Target>
    __device__ __forceinline__ void store(const Target& target) const {
#pragma unroll
        for (int product = 0; product < 2; ++product)
#pragma unroll
            for (int j = 0; j < N / 8; ++j)
#pragma unroll
                for (int n = 0; n < 4; ++n)
                    target.put(64 * product + 16 * warp + 8 * (n / 2) + g, 8 * j + 2 * q + n % 2, sum(product, 4 * j + n));
    }
};

// As correlate_wgmma.
template <class Tile, int FLOATS, int STAGES>
__device__ __forceinline__ void weight_acts_wgmma(const float* images, const float* hid, float* target,
                                                  const WeightSizes& p) {
    float* const shared = launched_shared();
    constexpr int row_floats = STEP * Tile::Rows, stage_floats = row_floats + Tile::column_floats;
    const auto rows = [&](int s) { return shared + s % STAGES * stage_floats; };
    const auto columns = [&](int s) { return shared + s % STAGES * stage_floats + row_floats; };
    const WeightBlock<Tile> block(p);
    WeightCopies<Tile, FLOATS> copies(p, block, images, hid);
    Tile tile;
    const int positions = min(p.positions, p.out_h * p.out_w - block.chunk * p.positions),
              steps = positions * ceil_div(p.batch, STEP);
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) copies.copy(rows(s), columns(s));
        copies_issued();
    }
    typename Tile::Fragments even, odd;
    copies_wait<STAGES - 2>();
    tile.prepare(columns(0));
    writes_to_tensor_cores();
    __syncthreads();
    tile.load(even, rows(0));
    const auto step = [&](int s, typename Tile::Fragments& now, typename Tile::Fragments& next) {
        tile.issue(now, columns(s));
        copies_wait<STAGES - 3>();
        if (s + 1 < steps) tile.prepare(columns(s + 1));
        writes_to_tensor_cores();
        __syncthreads();
        if (s + STAGES - 1 < steps) copies.copy(rows(s + STAGES - 1), columns(s + STAGES - 1));
        copies_issued();
        if (s + 1 < steps) tile.load(next, rows(s + 1));
        tile.finish(s + 1 == steps);
    };
    for (int s = 0; s < steps; s += 2) {
        step(s, even, odd);
        if (s + 1 < steps) step(s + 1, odd, even);
    }
    const long long chunk = static_cast<long long>(p.channels) * p.filter_h * p.filter_w * p.groups * p.filters;
    const WeightTarget to{target + block.chunk * chunk + block.group * p.filters, p, block.row, block.column};
    tile.store(to);
}
