// The arithmetic of one block of correlate.cuh: a tile of rows x columns sums in registers, fed STEP terms at a time from
// two tiles in shared memory whose rows are terms, so that neighbouring filters (images) are neighbours:
//
//       rows: [STEP][Rows]        columns: [STEP][Columns]        sums[m][n] += sum over k of rows[k][m] * columns[k][n]
//
// A tile says how many threads it takes, where an element lies in shared memory (`place`), and hands its sums out in
// fours that are neighbours along the columns.

constexpr int STEP = 16;  // terms a step

// Scalar multiply-adds: each thread has M x N sums, N and M in fours that lie Rows/M*4 (Columns/N*4) apart:
//
//      thread (y, x):  m = group * (Rows/M*4) + 4*y + 0..3          lanes of a warp: 8 (or 4) y by 4 (8) x
//                      n = group * (Columns/N*4) + 4*x + 0..3
//
// so that a quarter of a warp reads neighbouring or equal 16 bytes: no bank conflict, no swizzle. Bound by issue slots:
// at 16 x 8, 128 multiply-adds come with 6 loads. 128 sums, 24 operands and the copies' addresses fill 229 of 255 registers.
template <int Rows_, int Columns_, int M, int N>
struct FfmaTile {
    static constexpr int Rows = Rows_, Columns = Columns_;
    static constexpr int threads_y = Rows / M, threads_x = Columns / N, threads = threads_y * threads_x;
    static constexpr int promotion = 0;
    float sums[M][N];
    int y, x;

    __device__ __forceinline__ FfmaTile() : y(threadIdx.x % threads_y), x(threadIdx.x / threads_y) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n) sums[m][n] = 0;
    }

    static __device__ __forceinline__ int place(int /*k*/, int column) { return column; }

    __device__ __forceinline__ void step(const float* rows, const float* columns) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            float a[M], b[N];
#pragma unroll
            for (int g = 0; g < M / 4; ++g) load(a + 4 * g, rows + k * Rows + g * (4 * threads_y) + 4 * y);
#pragma unroll
            for (int g = 0; g < N / 4; ++g) load(b + 4 * g, columns + k * Columns + g * (4 * threads_x) + 4 * x);
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n) sums[m][n] = fmaf(a[m], b[n], sums[m][n]);
        }
    }

    __device__ __forceinline__ void promote() {}

    // Calls target.row(slot, m), then target.put(slot, n, four sums) for each of its fours. Slots are constants.
    template <class Target>
    __device__ __forceinline__ void store(Target& target) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            target.row(m / 4 * (4 * threads_y) + 4 * y + m % 4);
#pragma unroll
            for (int g = 0; g < N / 4; ++g)
                target.put(g * (4 * threads_x) + 4 * x,
                           make_float4(sums[m][4 * g], sums[m][4 * g + 1], sums[m][4 * g + 2], sums[m][4 * g + 3]));
        }
    }

  private:
    static __device__ __forceinline__ void load(float* to, const float* from) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
};

// Tensor cores: each warp has WarpRows x WarpColumns sums, in products of 16 x 8 by 8 terms.
//
// Which filter stands in which row of a fragment is free. Lane 4g+q holds row g of each fragment, so let its rows be
// filters 32*J + 4*g + 0..3: one 16-byte load brings four fragments' worth of term q, and what a lane stores is four
// neighbours too. The four q of a quarter-warp read four rows of shared memory, all in the same banks: hence the swizzle,
// 16-byte chunk ^ 2*(k mod 4), after which a quarter reads 8 different chunks.
//
// Terms = 1: TF32, rounded (error 2.6e-4). Terms = 3: three products (split.cuh), smallest first. The units' accumulators
// cut instead of rounding, a bias that grows with the number of terms; so every `Promotion` steps they are added to
// ordinary sums and start from zero again, which costs as many registers once more.
// Bound by latency: 8 warps a multiprocessor is all that registers allow, issue slots and shared memory are half busy.
template <int Rows_, int Columns_, int WarpRows, int WarpColumns, int Terms, int Promotion>
struct MmaTile {
    static constexpr int Rows = Rows_, Columns = Columns_;
    static constexpr int warps_y = Rows / WarpRows, warps_x = Columns / WarpColumns, threads = 32 * warps_y * warps_x;
    static constexpr int promotion = Promotion;
    static constexpr int M = WarpRows / 8, N = WarpColumns / 8;  // values of a lane for one term; M/2 x N fragments
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

    static __device__ __forceinline__ int place(int k, int column) { return column ^ (8 * (k & 3)); }

    __device__ __forceinline__ void step(const float* rows, const float* columns) {
#pragma unroll
        for (int k = 0; k < STEP; k += 8) {
            float a[2][M], b[2][N];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                load<M>(a[half], rows + (k + 4 * half + q) * Rows, first_row);
                load<N>(b[half], columns + (k + 4 * half + q) * Columns, first_column);
            }
            if constexpr (Terms == 1) {
                for_each(a, [](float x) { return rounded(x); });
                for_each(b, [](float x) { return rounded(x); });
                multiply(a, b);
            } else {
                float a_high[2][M], b_high[2][N];
                split(a, a_high);
                split(b, b_high);
                multiply(a, b_high);
                multiply(a_high, b);
                multiply(a_high, b_high);
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
    __device__ __forceinline__ void store(Target& target) {
#pragma unroll
        for (int v = 0; v < M; ++v) {  // a lane's rows: fragment v/2, its upper or lower half
            target.row(first_row + v / 4 * 32 + 4 * g + v % 4);
#pragma unroll
            for (int block = 0; block < N / 4; ++block)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    target.put(first_column + 32 * block + 4 * (2 * q + e),
                               make_float4(sum(v, 4 * block, e), sum(v, 4 * block + 1, e), sum(v, 4 * block + 2, e),
                                           sum(v, 4 * block + 3, e)));
        }
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
    __device__ __forceinline__ void load(float (&to)[Count], const float* row, int first) const {
#pragma unroll
        for (int block = 0; block < Count / 4; ++block) {
            const float4 v = *reinterpret_cast<const float4*>(row + place(q, first + 32 * block + 4 * g));
            to[4 * block] = v.x, to[4 * block + 1] = v.y, to[4 * block + 2] = v.z, to[4 * block + 3] = v.w;
        }
    }

    template <int Count, class Function>
    static __device__ __forceinline__ void for_each(float (&x)[2][Count], Function f) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < Count; ++i) x[half][i] = f(x[half][i]);
    }

    // Leaves the low part in x.
    template <int Count>
    static __device__ __forceinline__ void split(float (&x)[2][Count], float (&high)[2][Count]) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < Count; ++i) high[half][i] = high_part(x[half][i]), x[half][i] -= high[half][i];
    }

    __device__ __forceinline__ void multiply(const float (&a)[2][M], const float (&b)[2][N]) {
#pragma unroll
        for (int m = 0; m < M / 2; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
                mma(partial[m][n], a[0][2 * m], a[0][2 * m + 1], a[1][2 * m], a[1][2 * m + 1], b[0][n], b[1][n]);
    }

    __device__ __forceinline__ float sum(int v, int n, int e) const {
        if constexpr (Promotion != 0)
            return sums[v / 2][n][2 * (v % 2) + e];
        else
            return partial[v / 2][n][2 * (v % 2) + e];
    }
};
