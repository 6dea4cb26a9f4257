// Hopper's own tensor core instructions (compute_90a), which four warps issue together: twice mma.sync's rate.
//
//                           columns: N; from shared memory, ready-made: rounded, or split into high and low
//                          +------------------+
//           16 terms    -> | high (, low)     |
//                          +------------------+
//     +--------+           +------------------+
//     |  rows  | 128       |                  |    The rows' fragments come from registers, so that they are rounded or split on
//     |        |           |  sums            |    the way; those of the next step while the tensor cores work on this one's.
//     +--------+           +------------------+
//
// As two products of 64 rows each. Sums of three terms are promoted as in correlate_tiles.cuh. Bound by power (1.75 GHz) and L2.

// Shared memory that a tensor core reads: core matrices of 8 columns x 4 terms, each 128 contiguous bytes, those of the next 8 columns
// behind it, those of the next 4 terms some way on.
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

// Shared memory holds 4 terms of the N columns, `Pad` floats, the next 4 terms, ..., and after all 16 the low parts likewise.
template <int N_, int Terms, int Promotion, int Pad = 0>
struct WgmmaTile {
    static constexpr int N = N_, threads = 128, parts = Terms == 1 ? 1 : 2;
    static constexpr int four_terms = 4 * N + Pad, part_floats = STEP / 4 * four_terms, column_floats = parts * part_floats;
    struct Fragments {
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
            const unsigned long long high = shared_matrix(columns + 2 * k * four_terms, 4 * four_terms);
            const unsigned long long low = shared_matrix(columns + part_floats + 2 * k * four_terms, 4 * four_terms);
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

    __device__ __forceinline__ float sum(int product, int n) const {
        if constexpr (Promotion != 0) return sums[product][n];
        else return partial[product][n];
    }
};
