// Hopper's own tensor core instructions (compute_90a), which four warps issue together: twice mma.sync's rate.
//
//                           columns: N; from shared memory, ready-made: rounded, or split into high and low
//                          +------------------+
//           16 terms    -> | high (, low)     |
//                          +------------------+
//     +--------+           +------------------+
//     |  rows  | 128       |                  |    The rows' fragments come from registers, so that they are rounded or
//     |        |           |  sums            |    split on the way; the next step's while the tensor cores work on this one.
//     +--------+           +------------------+
//
// As two products of 64 rows each. Sums of three terms are promoted as in correlate_tiles.cuh. Bound by power (1.75 GHz) and
// L2.

// Behind the columns' 16 terms stand the low parts, likewise.
template <int N_, int Terms, int Promotion, bool Packed>
struct WgmmaTile {
    static constexpr int N = N_, threads = 128, parts = Terms == 1 ? 1 : 2;
    static constexpr int part_floats = STEP * N, column_floats = parts * part_floats;
    struct Fragments {
        float high[STEP / 8][2][4], low[Terms == 1 ? 1 : STEP / 8][2][4];  // of each 8 terms, for each product
    };
    float partial[2][N / 2];
    float sums[Promotion ? 2 : 1][Promotion ? N / 2 : 1];
    int warp, g, q, unpromoted;

    __device__ __forceinline__ WgmmaTile()
        : warp(threadIdx.x / 32), g(threadIdx.x % 32 / 4), q(threadIdx.x % 4), unpromoted(0) {
#pragma unroll
        for (auto& product : partial)
#pragma unroll
            for (float& x : product) x = 0;
#pragma unroll
        for (auto& product : sums)
#pragma unroll
            for (float& x : product) x = 0;
    }

    // Element `n` of a fragment: 0 and 1 are rows g and g + 8 at term q, 2 and 3 the same rows at term q + 4.
    static __device__ __forceinline__ void set(Fragments& f, int k, int product, int n, float x) {
        const float high = Terms == 1 ? rounded(x) : high_part(x);
        f.high[k][product][n] = high;
        if constexpr (Terms != 1) f.low[k][product][n] = x - high;
    }

    __device__ __forceinline__ void issue(const Fragments& f, const float* columns) {
        registers_to_tensor_cores();
        bool add = !Promotion || unpromoted != 0;
#pragma unroll
        for (int k = 0; k < STEP / 8; ++k) {
            const unsigned long long high = shared_matrix<Packed>(columns, 8 * k, N);
            const unsigned long long low = shared_matrix<Packed>(columns + part_floats, 8 * k, N);
            if constexpr (Terms != 1) {
                wgmma(partial[0], f.low[k][0], high, add), wgmma(partial[1], f.low[k][1], high, add);
                wgmma(partial[0], f.high[k][0], low, true), wgmma(partial[1], f.high[k][1], low, true);
                add = true;
            }
            wgmma(partial[0], f.high[k][0], high, add), wgmma(partial[1], f.high[k][1], high, add);
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
            for (float& x : product) written_by_tensor_cores(x);
        if constexpr (Promotion != 0) {
            if (++unpromoted < Promotion && !last) return;
            unpromoted = 0;
#pragma unroll
            for (int product = 0; product < 2; ++product)
#pragma unroll
                for (int n = 0; n < N / 2; ++n) sums[product][n] += partial[product][n];
        }
    }

    __device__ __forceinline__ float sum(int product, int n) const {
        if constexpr (Promotion != 0)
            return sums[product][n];
        else
            return partial[product][n];
    }
};
