// The arithmetic of one block of weight_acts.cuh: like correlate_tiles.cuh, but the terms (images) are what lies together,
//
//       rows: [Rows][STEP]        columns: [Columns][STEP]        sums[m][n] += sum over k of rows[m][k] * columns[n][k]
//
// so that one 16-byte load brings four terms of one row. Rows are 64 bytes, two to a turn of the banks; the swizzle,
// chunk ^ (row/2 mod 4), lets 8 threads read the same chunk of 8 neighbouring rows, or all chunks of two, without conflict.

constexpr int STEP = 16;  // terms a step: four chunks

__device__ __forceinline__ int tile_place(int row, int chunk) { return row * STEP + 4 * (chunk ^ ((row >> 1) & 3)); }

__device__ __forceinline__ float4 four(const float* tile, int row, int chunk) {
    return *reinterpret_cast<const float4*>(tile + tile_place(row, chunk));
}

// Scalar multiply-adds: thread (y, x) has rows y + i*threads_y and columns x + j*threads_x. M rows' four terms are kept,
// the columns come one by one. Bound by issue slots and address work.
template <int Rows_, int Columns_, int M, int N>
struct FfmaTile {
    static constexpr int Rows = Rows_, Columns = Columns_;
    static constexpr int threads_y = Rows / M, threads_x = Columns / N, threads = threads_y * threads_x;
    static constexpr int promotion = 0;
    static constexpr auto hid_place = tile_place;
    float sums[M][N];
    int y, x;

    __device__ __forceinline__ FfmaTile() : y(threadIdx.x / threads_x), x(threadIdx.x % threads_x) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n) sums[m][n] = 0;
    }

    __device__ __forceinline__ void step(const float* rows, const float* columns) {
#pragma unroll
        for (int chunk = 0; chunk < STEP / 4; ++chunk) {
            float4 a[M];
#pragma unroll
            for (int m = 0; m < M; ++m) a[m] = four(rows, y + m * threads_y, chunk);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const float4 b = four(columns, x + n * threads_x, chunk);
#pragma unroll
                for (int m = 0; m < M; ++m)
                    sums[m][n] = fmaf(a[m].w, b.w, fmaf(a[m].z, b.z, fmaf(a[m].y, b.y, fmaf(a[m].x, b.x, sums[m][n]))));
            }
        }
    }

    __device__ __forceinline__ void promote() {}

    template <class Target>
    __device__ __forceinline__ void store(const Target& target) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n) target.put(y + m * threads_y, x + n * threads_x, sums[m][n]);
    }
};

// Tensor cores: as in correlate_tiles.cuh, Terms and Promotion likewise. Which image stands in which column of a fragment is
// free: lane 4g+q reads chunk q of row g, and its four images are terms q and q+4 of two products.
template <int Rows_, int Columns_, int WarpRows, int WarpColumns, int Terms, int Promotion>
struct MmaTile {
    static constexpr int Rows = Rows_, Columns = Columns_;
    static constexpr int warps_y = Rows / WarpRows, warps_x = Columns / WarpColumns, threads = 32 * warps_y * warps_x;
    static constexpr int promotion = Promotion;
    static constexpr int M = WarpRows / 8, N = WarpColumns / 8;
    static constexpr auto hid_place = tile_place;
    float partial[M / 2][N][4];
    float sums[Promotion ? M / 2 : 1][Promotion ? N : 1][4];
    int first_row, first_column, g, q;

    __device__ __forceinline__ MmaTile() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        first_row = warp % warps_y * WarpRows, first_column = warp / warps_y * WarpColumns;
        g = lane / 4, q = lane % 4;
        clear(partial);
        if constexpr (Promotion != 0) clear(sums);
    }

    __device__ __forceinline__ void step(const float* rows, const float* columns) {
        float4 a[M], b[N];
#pragma unroll
        for (int m = 0; m < M; ++m) a[m] = four(rows, first_row + 8 * m + g, q);
#pragma unroll
        for (int n = 0; n < N; ++n) b[n] = four(columns, first_column + 8 * n + g, q);
        float a0[M], a1[M], b0[N], b1[N];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int m = 0; m < M; ++m) a0[m] = half ? a[m].z : a[m].x, a1[m] = half ? a[m].w : a[m].y;
#pragma unroll
            for (int n = 0; n < N; ++n) b0[n] = half ? b[n].z : b[n].x, b1[n] = half ? b[n].w : b[n].y;
            if constexpr (Terms == 1) {
                round(a0), round(a1), round(b0), round(b1);
                multiply(a0, a1, b0, b1);
            } else {
                float a0_high[M], a1_high[M], b0_high[N], b1_high[N];
                split(a0, a0_high), split(a1, a1_high), split(b0, b0_high), split(b1, b1_high);
                multiply(a0, a1, b0_high, b1_high);
                multiply(a0_high, a1_high, b0, b1);
                multiply(a0_high, a1_high, b0_high, b1_high);
            }
        }
    }

    __device__ __forceinline__ void promote() {
        if constexpr (Promotion != 0) {
#pragma unroll
            for (int m = 0; m < M / 2; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int e = 0; e < 4; ++e) sums[m][n][e] += partial[m][n][e], partial[m][n][e] = 0;
        }
    }

    template <class Target>
    __device__ __forceinline__ void store(const Target& target) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    target.put(first_row + 8 * m + g, first_column + 8 * n + 2 * q + e,
                               Promotion ? sums[Promotion ? m / 2 : 0][Promotion ? n : 0][2 * (m % 2) + e]
                                         : partial[m / 2][n][2 * (m % 2) + e]);
    }

  private:
    template <class Fragments>
    static __device__ __forceinline__ void clear(Fragments& f) {
#pragma unroll
        for (auto& row : f)
#pragma unroll
            for (auto& fragment : row)
#pragma unroll
                for (float& x : fragment) x = 0;
    }

    template <int Count>
    static __device__ __forceinline__ void round(float (&x)[Count]) {
#pragma unroll
        for (float& value : x) value = rounded(value);
    }

    // Leaves the low part in x.
    template <int Count>
    static __device__ __forceinline__ void split(float (&x)[Count], float (&high)[Count]) {
#pragma unroll
        for (int i = 0; i < Count; ++i) high[i] = high_part(x[i]), x[i] -= high[i];
    }

    __device__ __forceinline__ void multiply(const float (&a0)[M], const float (&a1)[M], const float (&b0)[N],
                                             const float (&b1)[N]) {
#pragma unroll
        for (int m = 0; m < M / 2; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n) mma(partial[m][n], a0[2 * m], a0[2 * m + 1], a1[2 * m], a1[2 * m + 1], b0[n], b1[n]);
    }
};
