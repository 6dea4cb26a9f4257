// Max-pooling and its gradient for windows known when compiled: a thread makes four neighbouring images of an output (a pixel).
//
//       32 threads: 128 images           block: 8 neighbouring columns, and ROWS rows one after the other, so that what
//      +----+----+-- ... --+             neighbouring windows share is still in the L1 cache: memory is read once, but for
//      | 4b | 4b |         |             the tile's rim. All loads of a window are independent: 9 of 16 bytes in flight
//      +----+----+-- ... --+             for 3 x 3. Bound by memory.

constexpr int ROWS = 4;

template <int Floats>
struct Images;  // as many floats as one access moves
template <>
struct Images<4> {
    float x[4];
    __device__ __forceinline__ void load(const float* from) {
        const float4 v = __ldg(reinterpret_cast<const float4*>(from));
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    }
    __device__ __forceinline__ void store(float* to) const {
        *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
    }
};
template <>
struct Images<1> {
    float x[1];
    __device__ __forceinline__ void load(const float* from) { x[0] = __ldg(from); }
    __device__ __forceinline__ void store(float* to) const { *to = x[0]; }
};

// This thread's image, column and first row in an array of `rows` rows; blocks are (image tiles * column tiles, row tiles,
// channels).
template <int Floats>
struct PoolPlace {
    int image, column, row;
    __device__ __forceinline__ PoolPlace(int batch) {
        const int image_tiles = (batch + 32 * Floats - 1) / (32 * Floats);
        image = (blockIdx.x % image_tiles * 32 + threadIdx.x % 32) * Floats;
        column = blockIdx.x / image_tiles * 8 + threadIdx.x / 32;
        row = blockIdx.y * ROWS;
    }
};

// The first pixel of the window, then any later one that is greater: a NaN that comes first stays, others are passed over.
template <int SizeY, int SizeX, int StrideY, int StrideX, int Floats>
__device__ __forceinline__ void max_pool(const float* x, float* z, const PoolSizes& p) {
    const PoolPlace<Floats> place(p.batch);
    if (place.image >= p.batch || place.column >= p.out_w) return;
    x += static_cast<long long>(blockIdx.z) * p.height * p.width * p.batch + place.image;
    z += static_cast<long long>(blockIdx.z) * p.out_h * p.out_w * p.batch + place.image;
    const int left = p.start_x + place.column * StrideX;
    for (int i = place.row; i < min(place.row + ROWS, p.out_h); ++i) {
        const int top = p.start_y + i * StrideY;
        Images<Floats> best, value;
        best.load(x + static_cast<long long>(max(top, 0) * p.width + max(left, 0)) * p.batch);
#pragma unroll
        for (int u = 0; u < SizeY; ++u)
#pragma unroll
            for (int v = 0; v < SizeX; ++v) {
                const int row = top + u, column = left + v;
                if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
                value.load(x + static_cast<long long>(row * p.width + column) * p.batch);
#pragma unroll
                for (int e = 0; e < Floats; ++e) best.x[e] = value.x[e] > best.x[e] ? value.x[e] : best.x[e];
            }
        best.store(z + static_cast<long long>(i * p.out_w + place.column) * p.batch);
    }
}

// gx[pixel] = sum of gz over the windows around it whose maximum it equals, in raster order.
template <int SizeY, int SizeX, int StrideY, int StrideX, int Floats>
__device__ __forceinline__ void max_pool_grad(const float* x, const float* z, const float* gz, float* gx,
                                              const PoolSizes& p) {
    constexpr int windows_y = (SizeY + StrideY - 1) / StrideY, windows_x = (SizeX + StrideX - 1) / StrideX;
    const PoolPlace<Floats> place(p.batch);
    if (place.image >= p.batch || place.column >= p.width) return;
    const long long image = static_cast<long long>(blockIdx.z) * p.height * p.width * p.batch + place.image;
    const long long output = static_cast<long long>(blockIdx.z) * p.out_h * p.out_w * p.batch + place.image;
    const int from_left = place.column - p.start_x;  // negative: in no window
    for (int a = place.row; a < min(place.row + ROWS, p.height); ++a) {
        const int from_top = a - p.start_y;
        const long long here = image + static_cast<long long>(a * p.width + place.column) * p.batch;
        Images<Floats> pixel, sum, most, gradient;
        pixel.load(x + here);
#pragma unroll
        for (int e = 0; e < Floats; ++e) sum.x[e] = 0;
#pragma unroll
        for (int n = windows_y - 1; n >= 0; --n)
#pragma unroll
            for (int m = windows_x - 1; m >= 0; --m) {
                const int i = from_top / StrideY - n, j = from_left / StrideX - m;
                if (from_top < 0 || from_left < 0 || i < 0 || i >= p.out_h || j < 0 || j >= p.out_w) continue;
                if (from_top - i * StrideY >= SizeY || from_left - j * StrideX >= SizeX) continue;
                const long long at = output + static_cast<long long>(i * p.out_w + j) * p.batch;
                most.load(z + at), gradient.load(gz + at);
#pragma unroll
                for (int e = 0; e < Floats; ++e) sum.x[e] += pixel.x[e] == most.x[e] ? gradient.x[e] : 0.0f;
            }
        sum.store(gx + here);
    }
}
