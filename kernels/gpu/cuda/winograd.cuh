// Winograd's algorithm F(M x M, 3 x 3) around wgmma.cuh: 3 x 3 filters, stride 1, T x T elements for M x M outputs, T = M + 2.
//
//     U = G w G'           V = B' x B            P[e] = U[e] V[e]           y = A' P A
//     (depth, T*T * rows)  (T*T * depth, tiles)  T*T products over depth    (rows, outputs)
//
// The products are one correlation of 1 x 1 filters in T*T groups. Matrices: Lavin and Gray, "Fast algorithms for
// convolutional neural networks" (2015). A thread transforms one tile of two neighbouring images, in registers; tiles' rows
// come in bands, so that V and P fit a workspace. Bound by memory: V is (T/M)^2 times the images, P as much of the outputs.

template <int M>
struct Winograd;

template <>
struct Winograd<2> {
    static constexpr int T = 4;
    static constexpr __device__ float input(int i, int j) {
        constexpr float b[T][T] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
        return b[i][j];
    }
    static constexpr __device__ float filter(int i, int j) {
        constexpr float g[T][3] = {{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}};
        return g[i][j];
    }
    static constexpr __device__ float output(int i, int j) {
        constexpr float a[2][T] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
        return a[i][j];
    }
};

template <>
struct Winograd<4> {
    static constexpr int T = 6;
    static constexpr __device__ float input(int i, int j) {
        constexpr float b[T][T] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                   {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
        return b[i][j];
    }
    static constexpr __device__ float filter(int i, int j) {
        constexpr float g[T][3] = {{1 / 4.f, 0, 0},
                                   {-1 / 6.f, -1 / 6.f, -1 / 6.f},
                                   {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                                   {1 / 24.f, 1 / 12.f, 1 / 6.f},
                                   {1 / 24.f, -1 / 12.f, 1 / 6.f},
                                   {0, 0, 1}};
        return g[i][j];
    }
    static constexpr __device__ float output(int i, int j) {
        constexpr float a[4][T] = {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
        return a[i][j];
    }
};

// Neighbouring images of one element.
template <int Floats>
struct Lanes {
    float x[Floats];
    __device__ __forceinline__ Lanes() {
#pragma unroll
        for (float& value : x) value = 0;
    }
    __device__ __forceinline__ void add(float factor, const Lanes& other) {
        if (factor == 0) return;  // known when compiled
#pragma unroll
        for (int e = 0; e < Floats; ++e) x[e] = fmaf(factor, other.x[e], x[e]);
    }
    __device__ __forceinline__ void load(const float* from) {
        if constexpr (Floats == 2) {
            const float2 v = *reinterpret_cast<const float2*>(from);
            x[0] = v.x, x[1] = v.y;
        } else {
            x[0] = *from;
        }
    }
    __device__ __forceinline__ void store(float* to) const {
        if constexpr (Floats == 2)
            *reinterpret_cast<float2*>(to) = make_float2(x[0], x[1]);
        else
            *to = x[0];
    }
};

// This thread's tile of the band and its first image; blocks are (tiles / 4, image tiles, channels) of 4 x 64 threads.
template <int Floats>
struct WinogradPlace {
    int image, tile, row, column;
    bool inside;
    __device__ __forceinline__ explicit WinogradPlace(const WinogradSizes& p) {
        image = (blockIdx.y * 64 + threadIdx.x % 64) * Floats, tile = blockIdx.x * 4 + threadIdx.x / 64;
        inside = image < p.batch && tile < p.band_rows * p.tiles_w;
        row = p.first_row + tile / p.tiles_w, column = tile % p.tiles_w;
    }
};

// V[e, c, tile, b] = B' x B, pad as zeros.
template <int M, int Floats>
__device__ __forceinline__ void winograd_input(const float* source, float* target, const WinogradSizes& p) {
    using W = Winograd<M>;
    constexpr int T = W::T;
    const WinogradPlace<Floats> place(p);
    if (!place.inside) return;
    const int c = blockIdx.z;
    source += static_cast<long long>(c) * p.source_h * p.source_w * p.batch + place.image;
    Lanes<Floats> half[T][T];
#pragma unroll
    for (int j = 0; j < T; ++j) {
        const int x = place.column * M - p.pad_x + j;
#pragma unroll
        for (int k = 0; k < T; ++k) {
            const int y = place.row * M - p.pad_y + k;
            Lanes<Floats> pixel;
            if (y >= 0 && y < p.source_h && x >= 0 && x < p.source_w)
                pixel.load(source + static_cast<long long>(y * p.source_w + x) * p.batch);
#pragma unroll
            for (int i = 0; i < T; ++i) half[i][j].add(W::input(i, k), pixel);
        }
    }
    const long long element = static_cast<long long>(p.depth) * p.band_rows * p.tiles_w * p.batch;
    target += (static_cast<long long>(c) * p.band_rows * p.tiles_w + place.tile) * p.batch + place.image;
#pragma unroll
    for (int i = 0; i < T; ++i)
#pragma unroll
        for (int j = 0; j < T; ++j) {
            Lanes<Floats> sum;
#pragma unroll
            for (int k = 0; k < T; ++k) sum.add(W::input(j, k), half[i][k]);
            sum.store(target + (i * T + j) * element);
        }
}

// y[m, i, j, b] = A' P A; outputs past the end are left out.
template <int M, int Floats>
__device__ __forceinline__ void winograd_output(const float* source, float* target, const WinogradSizes& p) {
    using W = Winograd<M>;
    constexpr int T = W::T;
    const WinogradPlace<Floats> place(p);
    if (!place.inside) return;
    const int m = blockIdx.z;
    const long long element = static_cast<long long>(p.rows) * p.band_rows * p.tiles_w * p.batch;
    source += (static_cast<long long>(m) * p.band_rows * p.tiles_w + place.tile) * p.batch + place.image;
    target += static_cast<long long>(m) * p.target_h * p.target_w * p.batch + place.image;
    Lanes<Floats> half[M][T];
#pragma unroll
    for (int j = 0; j < T; ++j)
#pragma unroll
        for (int k = 0; k < T; ++k) {
            Lanes<Floats> product;
            product.load(source + (k * T + j) * element);
#pragma unroll
            for (int i = 0; i < M; ++i) half[i][j].add(W::output(i, k), product);
        }
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < M; ++j) {
            Lanes<Floats> sum;
#pragma unroll
            for (int k = 0; k < T; ++k) sum.add(W::output(j, k), half[i][k]);
            const int y = place.row * M + i, x = place.column * M + j;
            if (y < p.target_h && x < p.target_w) sum.store(target + static_cast<long long>(y * p.target_w + x) * p.batch);
        }
}

// U[d, (e, m)] = G w G'. A row m is a filter, or in the data gradient a channel, whose taps are the flipped ones.
template <int M, bool Gradient>
__device__ __forceinline__ void winograd_filters(const float* source, float* target, const WinogradSizes& p) {
    using W = Winograd<M>;
    constexpr int T = W::T;
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= p.depth * p.rows) return;
    const int d = index / p.rows, m = index % p.rows, channel = Gradient ? m : d, filter = Gradient ? d : m;
    const int filters = Gradient ? p.depth : p.rows;
    float half[T][3] = {};
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) {
        const float w = source[(channel * 9 + (p.flip != Gradient ? 8 - tap : tap)) * filters + filter];
#pragma unroll
        for (int i = 0; i < T; ++i) half[i][tap % 3] += W::filter(i, tap / 3) * w;
    }
#pragma unroll
    for (int i = 0; i < T; ++i)
#pragma unroll
        for (int j = 0; j < T; ++j) {
            float sum = 0;
#pragma unroll
            for (int k = 0; k < 3; ++k) sum += W::filter(j, k) * half[i][k];
            target[static_cast<long long>(d) * (T * T * p.rows) + (i * T + j) * p.rows + m] = sum;
        }
}
