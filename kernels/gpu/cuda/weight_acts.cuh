// WeightActs: for each filter element and filter, the sum over images and output positions.
//
//                       columns: filters k, 16 images of hid each
//                      +----------------+
//      16 images  ->   | hid (k, i, j)  |
//                      +----------------+
//      +-----------+   +----------------+
//      | images    |   |                |     steps: for each position (i, j) of the block's chunk
//    m | (c, y, x),|   | sums, in       |                for images b, 16 at a time
//      | m =       |   | registers      |     y = i*stride + u - pad: row m = (c, u, v) reads a pixel that moves with the
//      | (c, u, v) |   |                |     position; pad reads as zeros
//      +-----------+   +----------------+
//
// There are far fewer tiles than multiprocessors, so positions are split into chunks; each chunk's sums are a partial
// result (cuda-convnet's partial_sum), added up by sum_chunks. Both operands are pieces of 64 contiguous bytes.
// Bound by what the tile is (weight_tiles.cuh), and by the addresses: each thread moves 4 rows' pixels a position.

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <int Floats>
__device__ __forceinline__ void copy_four(float* shared, const float* global, int valid) {
#pragma unroll
    for (int e = 0; e < 4; e += Floats)
        copy_async<Floats>(shared + e, e < valid ? global + e : global, min(max(valid - e, 0), Floats));
}

// How one thread's part of a tile [Height][STEP] is copied: chunk `chunk` of rows `row`, `row + rows_apart`, ...
template <int Height, int Threads>
struct Copies {
    static constexpr int rows_apart = Threads / 4, count = Height / rows_apart;
    static_assert(Height % rows_apart == 0, "every thread copies equally much");
    int row, chunk;
    __device__ __forceinline__ Copies() : row(threadIdx.x / 4), chunk(threadIdx.x % 4) {}
};

// What a block works on: filter elements (c, u, v) from `row`, filters from `column`, positions [position, last).
template <class Tile>
struct WeightBlock {
    int row, column, chunk, group;

    __device__ __forceinline__ explicit WeightBlock(const WeightSizes& p) {
        const int row_tiles = ceil_div(p.channels * p.filter_h * p.filter_w, Tile::Rows),
                  column_tiles = ceil_div(p.filters, Tile::Columns);
        const int rest = blockIdx.x / row_tiles;
        row = blockIdx.x % row_tiles * Tile::Rows;
        column = rest % column_tiles * Tile::Columns;
        chunk = rest / column_tiles;
        group = blockIdx.z;
    }
};

struct WeightTarget {
    float* target;  // of the block's chunk and group
    const WeightSizes& p;
    int row, column;

    __device__ __forceinline__ void put(int m, int n, float value) const {
        m += row, n += column;
        const int taps = p.filter_h * p.filter_w;
        if (m >= p.channels * taps || n >= p.filters) return;
        if (p.flip) {
            const int c = m / taps;
            m = c * taps + taps - 1 - (m - c * taps);
        }
        target[static_cast<long long>(m) * (p.groups * p.filters) + n] = value;
    }
};

template <class Tile, int FLOATS>
struct WeightCopies {
    const WeightSizes& p;
    Copies<Tile::Rows, Tile::threads> rows;
    Copies<Tile::Columns, Tile::threads> columns;
    int tap[Copies<Tile::Rows, Tile::threads>::count];    // y and x of each row's pixel at position (0, 0), packed
    int first[Copies<Tile::Rows, Tile::threads>::count];  // its place in images
    const float* pixel[Copies<Tile::Rows, Tile::threads>::count];
    const float *images, *hid;
    unsigned inside;  // a bit for each row
    int i, j, image, valid_rows;
    long long filter;  // distance between filters in hid

    template <class Block>
    __device__ __forceinline__ WeightCopies(const WeightSizes& p, const Block& block, const float* images_,
                                            const float* hid_)
        : p(p), image(0) {
        const int position = block.chunk * p.positions, taps = p.filter_h * p.filter_w;
        i = position / p.out_w, j = position - i * p.out_w;
        filter = static_cast<long long>(p.out_h) * p.out_w * p.batch;
        images = images_ + static_cast<long long>(block.group) * p.channels * p.height * p.width * p.batch + 4 * rows.chunk;
        hid = hid_ + (static_cast<long long>(block.group) * p.filters + block.column + columns.row) * filter +
              static_cast<long long>(position) * p.batch + 4 * columns.chunk;
        valid_rows = p.filters - block.column - columns.row;
#pragma unroll
        for (int n = 0; n < rows.count; ++n) {
            const int m = block.row + rows.row + n * rows.rows_apart;
            const int c = m / taps, tap_index = m - c * taps, u = tap_index / p.filter_w, v = tap_index - u * p.filter_w;
            const int y = c < p.channels ? u - p.pad_y : far, x = v - p.pad_x;
            tap[n] = y * 65536 + (x & 0xffff);
            first[n] = (c * p.height + y) * p.width + x;
        }
        new_position();
    }

    __device__ __forceinline__ void copy(float* shared_rows, float* shared_columns) {
        const int valid = min(p.batch - image, STEP);
#pragma unroll
        for (int n = 0; n < rows.count; ++n)
            copy_four<FLOATS>(shared_rows + tile_place(rows.row + n * rows.rows_apart, rows.chunk), pixel[n] + image,
                              inside >> n & 1 ? min(max(valid - 4 * rows.chunk, 0), 4) : 0);
#pragma unroll
        for (int n = 0; n < columns.count; ++n)
            copy_four<FLOATS>(shared_columns + Tile::hid_place(columns.row + n * columns.rows_apart, columns.chunk),
                              hid + n * columns.rows_apart * filter,
                              n * columns.rows_apart < valid_rows ? min(max(valid - 4 * columns.chunk, 0), 4) : 0);
        advance(valid);
    }

  private:
    static constexpr int far = -32768;  // a row past the end: no position brings it into the image

    __device__ __forceinline__ void new_position() {
        inside = 0;
        const int y = i * p.stride_y, x = j * p.stride_x;
#pragma unroll
        for (int n = 0; n < rows.count; ++n) {
            const int row_y = (tap[n] >> 16) + y, row_x = static_cast<short>(tap[n]) + x;
            const bool in = row_y >= 0 && row_y < p.height && row_x >= 0 && row_x < p.width;
            inside |= static_cast<unsigned>(in) << n;
            pixel[n] = images + (in ? static_cast<long long>(first[n] + y * p.width + x) * p.batch : 0);
        }
    }

    __device__ __forceinline__ void advance(int valid) {
        image += STEP;
        hid += valid;
        if (image < p.batch) return;
        image = 0;
        if (++j == p.out_w) j = 0, ++i;
        if (i < p.out_h) new_position();
    }
};

template <class Tile, int FLOATS>
__device__ __forceinline__ void weight_acts(const float* images, const float* hid, float* target, const WeightSizes& p) {
    constexpr int STAGES = 3;
    __shared__ __align__(16) float rows[STAGES][STEP * Tile::Rows];
    __shared__ __align__(16) float columns[STAGES][STEP * Tile::Columns];
    const WeightBlock<Tile> block(p);
    WeightCopies<Tile, FLOATS> copies(p, block, images, hid);
    Tile tile;
    const int positions = min(p.positions, p.out_h * p.out_w - block.chunk * p.positions);
    const int steps = positions * ceil_div(p.batch, STEP);
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) copies.copy(rows[s], columns[s]);
        copies_issued();
    }
    for (int s = 0, stage = 0, unpromoted = 0; s < steps; ++s) {  // as in correlate
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
    const long long chunk = static_cast<long long>(p.channels) * p.filter_h * p.filter_w * p.groups * p.filters;
    const WeightTarget to{target + block.chunk * chunk + block.group * p.filters, p, block.row, block.column};
    tile.store(to);
}
