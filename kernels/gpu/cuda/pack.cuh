// Filters for wgmma.cuh: rounded (Parts 1) or split (2), tiles of N rows x 16 channels in the order of the block's steps.
//
//     target[group, row tile, u, v, channels / 16][part][channels % 16 / 4][row % N][channels % 4]
//
// Where Flat, (c, u, v) is one index in the place of channels, and there is one tap. A row m is a filter, or in the data
// gradient (phase, channel) as in filters.cuh, and its taps are then the flipped ones. Rows and channels past the end are
// zeros. A thread makes four channels of a row.
template <bool Gradient>
__device__ __forceinline__ float packed_value(const float* source, const PackSizes& p, int group, int m, int d, int tap) {
    int u = tap / p.taps_w, v = tap % p.taps_w, channel = d;
    if (p.flat) {
        const int taps = p.filter_h * p.filter_w;
        channel = d / taps;
        u = d % taps / p.filter_w, v = d % taps % p.filter_w;
    }
    if (Gradient) {
        const int phase = m / p.channels;
        channel = m % p.channels;
        u = phase / p.phases_w + p.phases_h * (p.taps_h - 1 - u), v = phase % p.phases_w + p.phases_w * (p.taps_w - 1 - v);
        if (u >= p.filter_h || v >= p.filter_w) return 0;
    }
    if (p.flip) u = p.filter_h - 1 - u, v = p.filter_w - 1 - v;
    const int filters = Gradient ? p.depth : p.rows, filter = Gradient ? d : m;  // of a group
    return source[(static_cast<long long>(channel) * p.filter_h * p.filter_w + u * p.filter_w + v) * (p.groups * filters) +
                  group * filters + filter];
}

template <int N, int Parts, bool Gradient>
__device__ __forceinline__ void pack_filters(const float* source, float* target, const PackSizes& p) {
    const int row_tiles = (p.rows + N - 1) / N, taps = p.taps_h * p.taps_w, chunks = (p.depth + 15) / 16;
    int rest = blockIdx.x * blockDim.x + threadIdx.x;
    const int n = rest % N;
    rest /= N;
    const int fourth = rest % 4, step = rest / 4;  // step counts all (group, row tile, u, v, chunk)
    if (step >= p.groups * row_tiles * taps * chunks) return;
    const int chunk = step % chunks, tap = step / chunks % taps, tile = step / chunks / taps;
    const int group = tile / row_tiles, m = tile % row_tiles * N + n, d = chunk * 16 + 4 * fourth;
    float values[4];
#pragma unroll
    for (int e = 0; e < 4; ++e)
        values[e] = m < p.rows && d + e < p.depth ? packed_value<Gradient>(source, p, group, m, d + e, tap) : 0;
    float* to = target + (static_cast<long long>(step) * Parts * 4 + fourth) * (4 * N) + 4 * n;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        const float high = Parts == 1 ? rounded(values[e]) : high_part(values[e]);
        to[e] = high;
        if (Parts == 2) to[16 * N + e] = values[e] - high;
    }
}
