// Filters as the data gradient wants them (correlate.cuh): rows of (phase, channel) instead of filters, taps flipped.
//
//     target[k, q_y, q_x, (g, phase_y, phase_x, c)] = source[c, u, v, (g, k)],
//     u = phase_y + phases_h * (taps_h-1 - q_y),  v likewise,
//
// and zero where u or v is past the filter. A transposition of (c, k), in tiles of 32 x 32 through shared memory, for each tap.
// Filters are small: 4 to 7 microseconds.
__device__ __forceinline__ void transpose_filters(const float* source, float* target, const FilterSizes& p) {
    __shared__ float tile[32][33];
    const int phases = p.phases_h * p.phases_w, taps = p.taps_h * p.taps_w;
    const int group = blockIdx.z / (phases * taps), rest = blockIdx.z % (phases * taps);
    const int phase = rest / taps, tap = rest % taps;
    const int u = phase / p.phases_w + p.phases_h * (p.taps_h - 1 - tap / p.taps_w);
    const int v = phase % p.phases_w + p.phases_w * (p.taps_w - 1 - tap % p.taps_w);
    const bool inside = u < p.filter_h && v < p.filter_w;
    const int source_tap = p.flip ? (p.filter_h - 1 - u) * p.filter_w + p.filter_w - 1 - v : u * p.filter_w + v;
    const int x = threadIdx.x % 32, first_c = blockIdx.y * 32, first_k = blockIdx.x * 32;
    for (int row = threadIdx.x / 32; row < 32; row += blockDim.x / 32) {
        const int c = first_c + row, k = first_k + x;
        if (inside && c < p.channels && k < p.filters)
            tile[row][x] =
                source[(static_cast<long long>(c) * p.filter_h * p.filter_w + source_tap) * (p.groups * p.filters) +
                       group * p.filters + k];
        else
            tile[row][x] = 0;
    }
    __syncthreads();
    for (int row = threadIdx.x / 32; row < 32; row += blockDim.x / 32) {
        const int k = first_k + row, c = first_c + x;
        if (k < p.filters && c < p.channels)
            target[(static_cast<long long>(k) * taps + tap) * (p.groups * phases * p.channels) +
                   (group * phases + phase) * p.channels + c] = tile[x][row];
    }
}

// The second stage of WeightActs: target[e] = sum over q of source[q, e]. A thread an element: bound by memory.
__device__ __forceinline__ void sum_chunks(const float* source, float* target, const SumSizes& p) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= p.elements) return;
    source += e;
    float sums[4] = {0, 0, 0, 0};  // independent, so that loads overlap
    int q = 0;
    for (; q + 4 <= p.chunks; q += 4)
#pragma unroll
        for (int n = 0; n < 4; ++n) sums[n] += source[static_cast<long long>(q + n) * p.elements];
    for (; q < p.chunks; ++q) sums[0] += source[static_cast<long long>(q) * p.elements];
    target[e] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}
