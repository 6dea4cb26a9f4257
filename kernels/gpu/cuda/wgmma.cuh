// Correlation on Hopper's own tensor core instructions (compute_90a), which four warps issue together: twice mma.sync's rate.
//
//                           columns: filters, N; from shared memory, as prepared by pack_filters
//                          +------------------+
//     terms 16 channels -> | high (, low)     |
//                          +------------------+
//     +--------+           +------------------+
//     | source | 128 images|                  |    Images are the rows: their fragments come from registers, so that they are
//     |        |           |  sums            |    rounded, or split in two, on the way. Filters must lie in shared memory
//     +--------+           +------------------+    ready-made: rounded or split beforehand, in the order of the copies.
//
// Steps, copies and target are correlate.cuh's. While the tensor cores work on one step, the same warps fetch and split the next
// one's images. Sums of three terms are promoted as in correlate_tiles.cuh. Bound by power (1.75 GHz) and L2.
//
// Which image stands in which row is free: warp w has rows 16w..16w+15 of two products of 64 rows; lane 4g+q holds rows g and
// g+8 of both, and lets them be images 32w + 4g + 0..3: a 16-byte load each term, 16-byte stores.

// Shared memory that a tensor core reads: core matrices of 8 filters x 16 bytes, filters' neighbours 128 bytes apart.
__device__ __forceinline__ unsigned long long shared_matrix(const float* tile, int bytes_to_next_terms) {
    const unsigned long long address = __cvta_generic_to_shared(tile);
    return (address & 0x3ffff) >> 4 | static_cast<unsigned long long>(bytes_to_next_terms >> 4) << 16 | 128ull >> 4 << 32;
}

// Ordinary writes to shared memory (copies) become visible to the tensor cores.
__device__ __forceinline__ void writes_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void registers_to_tensor_cores() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_issued() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// sums = a * b + (add ? sums : 0): 64 rows, N columns, 8 terms. sums[4*j + 2*h + e] is row 16w + g + 8h, column 8j + 2q + e.
__device__ __forceinline__ void wgmma(float (&c)[16], const float (&a)[4], unsigned long long b, bool add) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %21, 0; wgmma.mma_async.sync.aligned.m64n32k8.f32.tf32.tf32 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "{%16, %17, %18, %19}, %20, add, 1, 1; }"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
          "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])), "l"(b), "r"(int(add)));
}

__device__ __forceinline__ void wgmma(float (&c)[32], const float (&a)[4], unsigned long long b, bool add) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %37, 0; wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, add, 1, 1; }"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
          "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
          "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
          "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])), "l"(b), "r"(int(add)));
}

__device__ __forceinline__ void wgmma(float (&c)[64], const float (&a)[4], unsigned long long b, bool add) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %69, 0; wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, add, 1, 1; }"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
          "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
          "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
          "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]),
          "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]),
          "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
          "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
          "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])), "l"(b), "r"(int(add)));
}

template <int N_, int Terms, int Promotion>
struct WgmmaTile {
    static constexpr int N = N_, Columns = 128, threads = 128, parts = Terms == 1 ? 1 : 2;
    static constexpr int Rows = N, weight_floats = parts * N * STEP;
    struct Images {
        float high[STEP / 8][2][4], low[Terms == 1 ? 1 : STEP / 8][2][4];  // of each 8 terms, for each product
    };
    float partial[2][N / 2];
    float sums[Promotion ? 2 : 1][Promotion ? N / 2 : 1];
    int warp, g, q, unpromoted;

    __device__ __forceinline__ WgmmaTile() : warp(threadIdx.x / 32), g(threadIdx.x % 32 / 4), q(threadIdx.x % 4), unpromoted(0) {
#pragma unroll
        for (auto& product : partial)
#pragma unroll
            for (float& x : product) x = 0;
#pragma unroll
        for (auto& product : sums)
#pragma unroll
            for (float& x : product) x = 0;
    }

    static __device__ __forceinline__ int place(int k, int column) { return column ^ (8 * (k & 3)); }

    __device__ __forceinline__ void load(Images& images, const float* columns) const {
#pragma unroll
        for (int k = 0; k < STEP / 8; ++k)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float4 v = *reinterpret_cast<const float4*>(columns + (8 * k + 4 * half + q) * Columns + place(q, 32 * warp + 4 * g));
                const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int e = 0; e < 4; ++e) {  // product e / 2, row g + 8 * (e % 2)
                    float& high = images.high[k][e / 2][e % 2 + 2 * half];
                    high = Terms == 1 ? rounded(x[e]) : high_part(x[e]);
                    if constexpr (Terms != 1) images.low[k][e / 2][e % 2 + 2 * half] = x[e] - high;
                }
            }
    }

    __device__ __forceinline__ void issue(const Images& images, const float* filters) {
        registers_to_tensor_cores();
        bool add = !Promotion || unpromoted != 0;
#pragma unroll
        for (int k = 0; k < STEP / 8; ++k) {
            const unsigned long long high = shared_matrix(filters + k * 8 * N, 16 * N), low = shared_matrix(filters + (STEP + k * 8) * N, 16 * N);
            if constexpr (Terms != 1) {
                wgmma(partial[0], images.low[k][0], high, add), wgmma(partial[1], images.low[k][1], high, add);
                wgmma(partial[0], images.high[k][0], low, true), wgmma(partial[1], images.high[k][1], low, true);
                add = true;
            }
            wgmma(partial[0], images.high[k][0], high, add), wgmma(partial[1], images.high[k][1], high, add);
            add = true;
        }
        products_issued();
    }

    // Waits for the products, and promotes their sums if it is time.
    __device__ __forceinline__ void finish(bool last) {
        products_wait();
#pragma unroll
        for (auto& product : partial)
#pragma unroll
            for (float& x : product) asm volatile("" : "+f"(x)::"memory");  // the compiler shall not use them earlier
        if constexpr (Promotion != 0) {
            if (++unpromoted < Promotion && !last) return;
            unpromoted = 0;
#pragma unroll
            for (int product = 0; product < 2; ++product)
#pragma unroll
                for (int n = 0; n < N / 2; ++n) sums[product][n] += partial[product][n];
        }
    }

    template <class Target>
    __device__ __forceinline__ void store(Target& target) {
#pragma unroll
        for (int j = 0; j < N / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                target.row(8 * j + 2 * q + e);
                target.put(32 * warp + 4 * g, make_float4(sum(0, 4 * j + e), sum(0, 4 * j + 2 + e), sum(1, 4 * j + e), sum(1, 4 * j + 2 + e)));
            }
    }

  private:
    __device__ __forceinline__ float sum(int product, int n) const {
        if constexpr (Promotion != 0) return sums[product][n];
        else return partial[product][n];
    }
};

// What one thread copies of packed filters: tiles of a step lie one behind the other, (group, row tile, u, v, channels / 16), or
// (group, row tile, terms / 16) where Flat.
template <class Tile, bool FLAT>
struct PackedWeights {
    const CorrelateSizes& p;
    const float *first, *weight;

    template <class Block>
    __device__ __forceinline__ PackedWeights(const CorrelateSizes& p, const Block& block, const float* weights) : p(p) {
        const int tile = block.group * ceil_div(p.rows, Tile::Rows) + block.row / Tile::Rows;
        const int taps = p.taps_h * p.taps_w, steps = FLAT ? ceil_div(p.depth * taps, STEP) : taps * ceil_div(p.depth, STEP);
        first = weights + static_cast<long long>(tile) * steps * Tile::weight_floats + 4 * threadIdx.x;
    }

    __device__ __forceinline__ void new_tap(int u, int v) {
        weight = first + static_cast<long long>(u * p.taps_w + v) * ceil_div(p.depth, STEP) * Tile::weight_floats;
    }

    __device__ __forceinline__ void copy(float* shared, int /*c*/) {
#pragma unroll
        for (int n = 0; n < Tile::weight_floats; n += 4 * Tile::threads) copy_async<4>(shared + 4 * threadIdx.x + n, weight + n, 4);
        weight += Tile::weight_floats;
    }
};

// Products of step s run while images of step s + 1 are fetched. Behind the barrier everyone has step s + 1's tiles and is done with
// step s - 1's, whose stage the next copies may overwrite.
template <class Tile, int IMAGES, int COLUMN_FLOATS, bool FLAT, int STAGES>
__device__ __forceinline__ void correlate_wgmma(const float* source, const float* weights, float* target, const CorrelateSizes& p) {
    extern __shared__ __align__(128) float shared[];
    constexpr int column_floats = STEP * Tile::Columns, stage_floats = column_floats + Tile::weight_floats;
    const auto columns = [&](int s) { return shared + s % STAGES * stage_floats; };
    const auto filters = [&](int s) { return shared + s % STAGES * stage_floats + column_floats; };
    using Block = CorrelateBlock<Tile, IMAGES>;
    const Block block(p);
    typename CopiesOf<FLAT, Tile, IMAGES, PackedWeights<Tile, FLAT>, COLUMN_FLOATS>::type copies(p, block, source, weights);
    Tile tile;
    const int steps = copies.steps();
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) copies.copy(filters(s), columns(s));
        copies_issued();
    }
    typename Tile::Images even, odd;
    copies_wait<STAGES - 2>();
    writes_to_tensor_cores();
    __syncthreads();
    if (steps > 0) tile.load(even, columns(0));
    const auto step = [&](int s, typename Tile::Images& now, typename Tile::Images& next) {
        tile.issue(now, filters(s));
        copies_wait<STAGES - 3>();
        writes_to_tensor_cores();
        __syncthreads();
        if (s + STAGES - 1 < steps) copies.copy(filters(s + STAGES - 1), columns(s + STAGES - 1));
        copies_issued();
        if (s + 1 < steps) tile.load(next, columns(s + 1));
        tile.finish(s + 1 == steps);
    };
    for (int s = 0; s < steps; s += 2) {
        step(s, even, odd);
        if (s + 1 < steps) step(s + 1, odd, even);
    }
    CorrelateTarget<Block, IMAGES, COLUMN_FLOATS == 4> to{target, p, block};
    tile.store(to);
}
