// FilterActs, and ImageActs for every stride: correlation in c01b order as a matrix product that is never laid out.
//
//                 columns: IMAGES images of Columns/IMAGES neighbouring positions, contiguous in memory
//                +--------------------------+
//   terms  16 -> |  source (c .. c+15, y, x)|  <- three stages in shared memory, filled by asynchronous copies
//                +--------------------------+
//    +-------+   +--------------------------+
//    |weights|   |                          |     steps:  for each tap (u, v) that is not pad everywhere
//  m |(c, u, |   |   sums, in registers     |                 for channels c, 16 at a time
//    | v, m) |   |                          |     each row of either tile is a piece of contiguous memory
//    +-------+   +--------------------------+
//
// Taps outside, channels inside: a tap's source rows lie batch after batch, so nothing is gathered, and a tap that falls
// on pad for the whole block is left out. Where channels are few (Flat), the reduction runs over (c, u, v) as one index
// instead, whose division is a multiplication. Rows and columns past the end are zeros on the way in and not stored.
// What bounds it is the tile's (correlate_tiles.cuh); memory traffic is 4 * 256 bytes for 2 * 128 * 128 operations.
//
// The data gradient. Pixel a gets w[u] * hid[i] wherever a + pad = i*s + u. With a + pad = s*T + r, u = r + s*n':
//     gradient[a] = sum over n' of w[r + s*n'] * hid[T - n'],    n' < ceil((filter - r) / s)
// a correlation with step 1 over positions T for each phase r < s, whose taps are flipped: q = taps - 1 - n'. filters.cuh
// lays filters out as (hid's channel, q, phase and channel), short phases with zeros in front; rows of one phase skip those.

// How one thread's part of a tile [STEP][Width] is copied: 16 bytes at chunk `column`, rows `row`, `row + rows_apart`, ...
template <int Width, int Threads>
struct Copies {
    static constexpr int chunks = Width / 4, rows_apart = Threads / chunks, count = STEP / rows_apart;
    static_assert(Threads % chunks == 0 && STEP % rows_apart == 0, "every thread copies equally much");
    int row, column;
    __device__ __forceinline__ Copies() : row(threadIdx.x / chunks), column(4 * (threadIdx.x % chunks)) {}
};

// `valid` of four floats; Floats is how many a copy may move (1: addresses are aligned to 4 bytes only).
template <int Floats>
__device__ __forceinline__ void copy_four(float* shared, const float* global, int valid) {
#pragma unroll
    for (int e = 0; e < 4; e += Floats)
        copy_async<Floats>(shared + e, e < valid ? global + e : global, min(max(valid - e, 0), Floats));
}

struct Range {
    int begin, end;
};

// The taps along one axis for which a block has a source pixel: positions first..last, `absent` taps left out in front.
__device__ __forceinline__ Range taps_of(int first, int last, int step, int pad, int taps, int absent, int pixels) {
    return {max(absent, pad - last * step), min(taps, pixels + pad - first * step)};
}

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// What a block works on, and where the images of a column lie.
template <class Tile, int IMAGES>
struct CorrelateBlock {
    int row, image, position, group;

    __device__ __forceinline__ explicit CorrelateBlock(const CorrelateSizes& p) {
        const int row_tiles = ceil_div(p.rows, Tile::Rows), image_tiles = ceil_div(p.batch, IMAGES);
        const int rest = blockIdx.x / row_tiles;
        row = blockIdx.x % row_tiles * Tile::Rows;
        image = rest % image_tiles * IMAGES;
        position = rest / image_tiles * (Tile::Columns / IMAGES);
        group = blockIdx.z;
    }
};

// Where a thread's sums go.
template <class Block, int IMAGES, bool ALIGNED>
struct CorrelateTarget {
    float* target;
    const CorrelateSizes& p;
    const Block& block;
    int channel, phase_y, phase_x;
    bool inside;

    __device__ __forceinline__ void row(int m) {
        m += block.row;
        inside = m < p.rows;
        const int phase = m / p.channels;
        channel = block.group * p.channels + m - phase * p.channels;
        phase_y = phase / p.phases_w, phase_x = phase - phase_y * p.phases_w;
    }

    __device__ __forceinline__ void put(int n, float4 v) const {
        const int position = block.position + n / IMAGES, image = block.image + n % IMAGES;
        const int i = position / p.grid_w, j = position - i * p.grid_w;
        const int y = i * p.phases_h + phase_y + p.first_y, x = j * p.phases_w + phase_x + p.first_x;
        if (!inside || i >= p.grid_h || image >= p.batch || y < 0 || y >= p.target_h || x < 0 || x >= p.target_w) return;
        float* to = target + ((static_cast<long long>(channel) * p.target_h + y) * p.target_w + x) * p.batch + image;
        if (ALIGNED) {
            *reinterpret_cast<float4*>(to) = v;
        } else {
            const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (image + e < p.batch) to[e] = values[e];
        }
    }
};

// What one thread copies of the weights (c, u, v, m) in each step.
template <class Tile, int FLOATS>
struct TapWeights {
    const CorrelateSizes& p;
    Copies<Tile::Rows, Tile::threads> rows;
    const float *first, *weight;  // of this thread's first row: tap 0, this step
    int valid;
    long long row;  // distance from one channel to the next

    template <class Block>
    __device__ __forceinline__ TapWeights(const CorrelateSizes& p, const Block& block, const float* weights) : p(p) {
        const int m = block.row + rows.column;
        valid = min(max(p.rows - m, 0), 4);
        row = static_cast<long long>(p.taps_h) * p.taps_w * (p.groups * p.rows);
        first = weights + block.group * p.rows + m + rows.row * row;
    }

    __device__ __forceinline__ void new_tap(int u, int v) {
        const int tap_y = p.flip ? p.taps_h - 1 - u : u, tap_x = p.flip ? p.taps_w - 1 - v : v;
        weight = first + static_cast<long long>(tap_y * p.taps_w + tap_x) * (p.groups * p.rows);
    }

    __device__ __forceinline__ void copy(float* shared, int c) {
#pragma unroll
        for (int n = 0; n < rows.count; ++n) {
            const int k = rows.row + n * rows.rows_apart;
            copy_four<FLOATS>(shared + k * Tile::Rows + Tile::place(k, rows.column), weight + n * rows.rows_apart * row,
                              c + k < p.depth ? valid : 0);
        }
        weight += STEP * row;
    }
};

// The copies of one thread, step by step: taps outside, channels inside.
template <class Tile, int IMAGES, class Weights, int COLUMN_FLOATS>
struct TapCopies {
    const CorrelateSizes& p;
    Weights weights;
    Copies<Tile::Columns, Tile::threads> columns;
    Range taps_y, taps_x;
    const float *source, *pixel;  // of this thread's first row: position (0, 0) with its image; this step
    int y, x;                     // source pixel of this thread's position under tap (0, 0)
    int valid_images, valid_pixels;
    int u, v, c;
    long long channel;  // distance from one channel to the next

    template <class Block>
    __device__ __forceinline__ TapCopies(const CorrelateSizes& p, const Block& block, const float* source_,
                                         const float* weights_)
        : p(p), weights(p, block, weights_) {
        const int image = block.image + columns.column % IMAGES;
        const int position = block.position + columns.column / IMAGES;
        const int i = position / p.grid_w, j = position - i * p.grid_w;
        y = i * p.step_y - p.pad_y, x = j * p.step_x - p.pad_x;
        valid_images = i < p.grid_h ? min(max(p.batch - image, 0), 4) : 0;
        channel = static_cast<long long>(p.source_h) * p.source_w * p.batch;
        source = source_ + (static_cast<long long>(block.group) * p.depth + columns.row) * channel + image;
        block_taps(block);
        u = taps_y.begin, v = taps_x.begin, c = 0;
        if (steps() > 0) new_tap();
    }

    __device__ __forceinline__ int steps() const {
        return max(taps_y.end - taps_y.begin, 0) * max(taps_x.end - taps_x.begin, 0) * ceil_div(p.depth, STEP);
    }

    __device__ __forceinline__ void copy(float* shared_rows, float* shared_columns) {
        weights.copy(shared_rows, c);
#pragma unroll
        for (int n = 0; n < columns.count; ++n) {
            const int k = columns.row + n * columns.rows_apart;
            copy_four<COLUMN_FLOATS>(shared_columns + k * Tile::Columns + Tile::place(k, columns.column),
                                     pixel + n * columns.rows_apart * channel, c + k < p.depth ? valid_pixels : 0);
        }
        advance();
    }

  private:
    // The taps that some position of the block needs. Rows of several phases: those of the one with most taps.
    template <class Block>
    __device__ __forceinline__ void block_taps(const Block& block) {
        const int last = min(block.position + Tile::Columns / IMAGES, p.grid_h * p.grid_w) - 1;
        const int first_i = block.position / p.grid_w, last_i = last / p.grid_w;
        const bool one_row = first_i == last_i;
        const int first_j = one_row ? block.position - first_i * p.grid_w : 0,
                  last_j = one_row ? last - last_i * p.grid_w : p.grid_w - 1;
        const int phase = block.row / p.channels, last_phase = (min(block.row + Tile::Rows, p.rows) - 1) / p.channels;
        const int phase_y = phase / p.phases_w,
                  phase_x = last_phase / p.phases_w == phase_y ? phase - phase_y * p.phases_w : 0;
        taps_y = taps_of(first_i, last_i, p.step_y, p.pad_y, p.taps_h, p.taps_h - ceil_div(p.filter_h - phase_y, p.phases_h),
                         p.source_h);
        taps_x = taps_of(first_j, last_j, p.step_x, p.pad_x, p.taps_w, p.taps_w - ceil_div(p.filter_w - phase_x, p.phases_w),
                         p.source_w);
    }

    __device__ __forceinline__ void new_tap() {
        weights.new_tap(u, v);
        const bool inside = y + u >= 0 && y + u < p.source_h && x + v >= 0 && x + v < p.source_w;
        valid_pixels = inside ? valid_images : 0;
        pixel = source + (inside ? static_cast<long long>((y + u) * p.source_w + x + v) * p.batch : 0);
    }

    __device__ __forceinline__ void advance() {
        c += STEP;
        pixel += STEP * channel;
        if (c < p.depth) return;
        c = 0;
        if (++v == taps_x.end) v = taps_x.begin, ++u;
        if (u < taps_y.end) new_tap();
    }
};

// a / b for a below 2^16, by b's magic number (sizes.cuh).
__device__ __forceinline__ int divided(int a, unsigned magic) { return magic ? static_cast<int>(__umulhi(a, magic)) : a; }

// What one thread copies of the weights where (c, u, v) is one index, here that of the step's first term.
template <class Tile, int FLOATS>
struct FlatWeights {
    const CorrelateSizes& p;
    Copies<Tile::Rows, Tile::threads> rows;
    const float* weights;
    int valid;

    template <class Block>
    __device__ __forceinline__ FlatWeights(const CorrelateSizes& p, const Block& block, const float* weights_) : p(p) {
        const int m = block.row + rows.column;
        valid = min(max(p.rows - m, 0), 4);
        weights = weights_ + block.group * p.rows + m;
    }

    __device__ __forceinline__ void new_tap(int, int) {}

    __device__ __forceinline__ void copy(float* shared, int first) {
        const int taps = p.taps_h * p.taps_w;
#pragma unroll
        for (int n = 0; n < rows.count; ++n) {
            const int k = rows.row + n * rows.rows_apart, term = first + k;
            const int c = divided(term, p.taps_magic), tap = term - c * taps;
            const int row = p.flip ? c * taps + taps - 1 - tap : term;
            copy_four<FLOATS>(shared + k * Tile::Rows + Tile::place(k, rows.column),
                              weights + static_cast<long long>(row) * (p.groups * p.rows),
                              term < p.depth * taps ? valid : 0);
        }
    }
};

// The copies of one thread where (c, u, v) is one index.
template <class Tile, int IMAGES, class Weights, int COLUMN_FLOATS>
struct FlatCopies {
    const CorrelateSizes& p;
    Weights weights;
    Copies<Tile::Columns, Tile::threads> columns;
    const float* source;
    int y, x, valid_images, first;

    template <class Block>
    __device__ __forceinline__ FlatCopies(const CorrelateSizes& p, const Block& block, const float* source_,
                                          const float* weights_)
        : p(p), weights(p, block, weights_), first(0) {
        const int image = block.image + columns.column % IMAGES;
        const int position = block.position + columns.column / IMAGES;
        const int i = position / p.grid_w, j = position - i * p.grid_w;
        y = i * p.step_y - p.pad_y, x = j * p.step_x - p.pad_x;
        valid_images = i < p.grid_h ? min(max(p.batch - image, 0), 4) : 0;
        source = source_ + static_cast<long long>(block.group) * p.depth * p.source_h * p.source_w * p.batch + image;
        weights.new_tap(0, 0);
    }

    __device__ __forceinline__ int terms() const { return p.depth * p.taps_h * p.taps_w; }
    __device__ __forceinline__ int steps() const { return ceil_div(terms(), STEP); }

    __device__ __forceinline__ void copy(float* shared_rows, float* shared_columns) {
        weights.copy(shared_rows, first);
#pragma unroll
        for (int n = 0; n < columns.count; ++n) {
            const int k = columns.row + n * columns.rows_apart, term = first + k;
            const int c = divided(term, p.taps_magic), tap = term - c * (p.taps_h * p.taps_w);
            const int u = divided(tap, p.width_magic), v = tap - u * p.taps_w;
            const bool inside = term < terms() && y + u >= 0 && y + u < p.source_h && x + v >= 0 && x + v < p.source_w;
            const long long pixel = (c * p.source_h + y + u) * p.source_w + x + v;
            copy_four<COLUMN_FLOATS>(shared_columns + k * Tile::Columns + Tile::place(k, columns.column),
                                     source + (inside ? pixel * p.batch : 0), inside ? valid_images : 0);
        }
        first += STEP;
    }
};

// The copies for one order of terms, and what weights go with them.
template <bool FLAT, class Tile, int IMAGES, class Weights, int COLUMN_FLOATS>
struct CopiesOf {
    using type = TapCopies<Tile, IMAGES, Weights, COLUMN_FLOATS>;
};
template <class Tile, int IMAGES, class Weights, int COLUMN_FLOATS>
struct CopiesOf<true, Tile, IMAGES, Weights, COLUMN_FLOATS> {
    using type = FlatCopies<Tile, IMAGES, Weights, COLUMN_FLOATS>;
};

template <bool FLAT, class Tile, int ROW_FLOATS>
struct WeightsOf {
    using type = TapWeights<Tile, ROW_FLOATS>;
};
template <class Tile, int ROW_FLOATS>
struct WeightsOf<true, Tile, ROW_FLOATS> {
    using type = FlatWeights<Tile, ROW_FLOATS>;
};

// One barrier a step: behind it everyone has the step's tiles (each waited for its own copies) and is done with those of
// the step before, whose stage the next copies may overwrite.
template <class Tile, int IMAGES, int ROW_FLOATS, int COLUMN_FLOATS, bool FLAT>
__device__ __forceinline__ void correlate(const float* source, const float* weights, float* target,
                                          const CorrelateSizes& p) {
    constexpr int STAGES = 3;
    __shared__ __align__(16) float rows[STAGES][STEP * Tile::Rows];
    __shared__ __align__(16) float columns[STAGES][STEP * Tile::Columns];
    using Block = CorrelateBlock<Tile, IMAGES>;
    const Block block(p);
    typename CopiesOf<FLAT, Tile, IMAGES, typename WeightsOf<FLAT, Tile, ROW_FLOATS>::type, COLUMN_FLOATS>::type copies(
        p, block, source, weights);
    Tile tile;
    const int steps = copies.steps();
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) copies.copy(rows[s], columns[s]);
        copies_issued();
    }
    for (int s = 0, stage = 0, unpromoted = 0; s < steps; ++s) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        const int next = stage == 0 ? STAGES - 1 : stage - 1;
        if (s + STAGES - 1 < steps) copies.copy(rows[next], columns[next]);
        copies_issued();
        tile.step(rows[stage], columns[stage]);
        if (Tile::promotion && ++unpromoted == Tile::promotion) tile.promote(), unpromoted = 0;
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    tile.promote();
    CorrelateTarget<Block, IMAGES, COLUMN_FLOATS == 4> to{target, p, block};
    tile.store(to);
}
