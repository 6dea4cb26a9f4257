// The columns of conv_winograd.h: all tiles of all images, [tile row][tile column][image], the images of neighbouring
// tiles one after another. A block of them is read from the source and written to the target through its `runs`,
// neighbours within one vector and one row of tiles:
//
//     batch 40, vectors of 16:    | tile 0                 | tile 1                 |
//                                 |vector 0|vector 1|vector 2|vector 3|vector 4|        runs: 16 16 8+8 16 16
//
// A run that fills its vector is read and written in place, unless the tile hangs over the image; others are assembled
// lane by lane. Batches below a vector would only have such runs. There the pixels are first sorted by phase, of which
// column mod M they are in: then the j-th pixels of neighbouring tiles are neighbours too, and runs go across tiles.
//
//     batch 1, M = 2:    source  0 1 2 3 4 5 6 7     phases  0 2 4 6  1 3 5 7     j = 0: 0 2 4, j = 2: 2 4 6
//
// With a stride all of this is done for each of its own phases (winograd_phases.h).
#pragma once
#include "column_phases.h"
#include "conv_axes.h"
#include "interleave.h"
#include "stream.h"
#include "winograd.h"
#include "winograd_phases.h"

namespace c01b {

// So many floats, made an odd multiple of a line: from one point to the next, against strides of 4096 bytes.
inline int64_t line_apart(int64_t floats) { return (floats + 15) / 32 * 32 + 16; }

// [begin, end) of a tile's N pixels, `stride` apart, that are inside the source.
struct Inside {
    int64_t begin, end;
};
inline Inside inside(int64_t first, int64_t pixels, int64_t source, int64_t stride) {
    const int64_t begin = std::min(block_count(std::max<int64_t>(0, -first), stride), pixels);
    return {begin, std::max(begin, std::min(pixels, block_count(std::max<int64_t>(0, source - first), stride)))};
}

struct TileRun {
    int64_t lane, count;
    int64_t tile_row, at;  // at: tile column * batch + image
    int64_t source;        // of the tile's first pixel, from the beginning of a channel or of the phases
    Inside rows, columns;
    bool in_place;
};

struct ColumnBlock {
    int64_t first, vectors;
    int64_t begin[tile_vectors + 1];  // where each vector's runs begin
    TileRun run[tile_vectors * lanes];
};

template <int M, int R>
struct WinogradColumns {
    static constexpr int N = M + R - 1, P = Winograd<M, R>::P, square_pitch = 2 * lanes;
    static constexpr int further = (N - 1) / M;  // tiles that a tile reaches into besides its own

    const Correlation& c;
    const WinogradPhases strides;
    int64_t depth;  // channels of all phases
    int64_t rows, row_columns, tile_rows, tile_columns;
    int64_t line, columns, vectors, blocks, width;  // line: columns of a row of tiles; width: floats of a block
    bool phased;
    int64_t phase, stretch_floats;      // floats of a phase of one source row, and of a stretch
    int64_t row_step, column_step[N];  // from pixel to pixel of a tile that is read in place

    // For blocks that so many threads share out.
    explicit WinogradColumns(const Correlation& c, int threads = 1) : c(c), strides(c), depth(c.depth * strides.count) {
        rows = c.rows.span.size(), row_columns = c.columns.span.size();
        tile_rows = block_count(rows, M), tile_columns = block_count(row_columns, M);
        line = tile_columns * c.batch, columns = line * tile_rows;
        vectors = block_count(columns, lanes), blocks = block_count(vectors, tile_vectors);
        const int64_t even = block_count(blocks, threads) * threads;  // where that leaves them three quarters full
        if (4 * vectors >= 3 * tile_vectors * even) blocks = even;
        width = block_count(vectors, blocks) * lanes;
        phased = c.batch < lanes;
        phase = block_count(std::min(line, width + 2 * c.batch) + further * c.batch, lanes) * lanes + lanes;
        stretch_floats = N * M * phase;
        row_step = phased ? M * phase : strides.row_stride * c.source_w * c.batch;
        for (int j = 0; j < N; ++j)
            column_step[j] = phased ? j % M * phase + j / M * c.batch : j * strides.column_stride * c.batch;
    }

    // What the functions below need to work in.
    int64_t work_floats() const {
        const int64_t stretches = std::min(tile_rows, (width + line - 1) / line + 1);
        return N * N * square_pitch + (phased ? stretches * stretch_floats + M * phase : 0);
    }

    ColumnBlock block(int64_t index) const {
        ColumnBlock b;
        b.first = block_begin(vectors, blocks, index) * lanes;
        b.vectors = block_begin(vectors, blocks, index + 1) - b.first / lanes;
        const int64_t piece = phased ? line : c.batch;
        int64_t runs = 0, stretch = -1, tile_row = -1, first_tile = 0;
        for (int64_t v = 0; v < b.vectors; ++v) {
            b.begin[v] = runs;
            const int64_t end = std::min(b.first + (v + 1) * lanes, columns);
            for (int64_t t = b.first + v * lanes, next; t < end; t = next) {
                next = std::min(end, (t / piece + 1) * piece);
                TileRun r;
                r.lane = t - b.first - v * lanes, r.count = next - t;
                r.tile_row = t / line, r.at = t % line;
                if (r.tile_row != tile_row) ++stretch, tile_row = r.tile_row, first_tile = r.at / c.batch;
                if (phased) place_sorted(r, stretch, first_tile);
                b.run[runs++] = r;
            }
        }
        b.begin[b.vectors] = runs;
        return b;
    }

    // The transforms of channels [first, end) of all phases of a group, [point][channel][column], `point` floats from one point
    // to the next.
    void transform_images(ColumnBlock& b, int64_t group, int64_t first, int64_t end, float* work, float* panel,
                          int64_t point) const {
        for (int64_t d = first, next; d < end; panel += (next - d) * b.vectors * lanes, d = next) {
            const int64_t stride_phase = d / c.depth, channel = d % c.depth;
            next = std::min(end, d + c.depth - channel);
            if (!phased) place(b, stride_phase);
            transform_channels(b, stride_phase, group, channel, channel + next - d, work, panel, point);
        }
    }

    // The results of one filter, from [point][column] to the target; 0, or where not all of them are finite NaN.
    vec transform_outputs(const ColumnBlock& b, int64_t group, int64_t filter, const float* sums, float* work) const {
        float* target = c.target_of(group) + filter * rows * row_columns * c.batch;
        vec zeros = zero();
        for (int64_t v = 0; v < b.vectors; ++v) {
            vec y[M][M];
            interpolate_square<Winograd<M, R>::output, M, P>(sums + v * lanes, width, y);
#pragma GCC unroll 4
            for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < M; ++j) zeros += y[i][j] * 0.0f;
            if (c.epilogue) finish(b, v, c.epilogue.bias[group * c.filters + filter], y, c.before_of(target), work);
            write(b, v, y, target, work);
        }
        return zeros;
    }

private:
    // The same for channels of one phase, in which the block's runs are placed.
    void transform_channels(const ColumnBlock& b, int64_t stride_phase, int64_t group, int64_t first, int64_t end, float* work,
                            float* panel, int64_t point) const {
        float *square = work, *phases = work + N * N * square_pitch;
        int64_t step[N];
        for (int j = 0; j < N; ++j) step[j] = j * square_pitch;
        for (int64_t d = first; d < end; ++d, panel += b.vectors * lanes) {
            const float* source = c.source_of(group) + d * c.source_h * c.source_w * c.batch;
            if (phased) sort_by_phase(b, stride_phase, source, phases), source = phases;
            for (int64_t v = 0; v < b.vectors; ++v) {
                const TileRun& run = b.run[b.begin[v]];
                if (run.in_place) {
                    if (!phased && d + 1 < end) fetch_tile(source + c.source_h * c.source_w * c.batch + run.source);
                    evaluate_square<Winograd<M, R>::image, P>(source + run.source, row_step, column_step, panel + v * lanes,
                                                             point);
                    continue;
                }
                for (int64_t r = b.begin[v]; r < b.begin[v + 1]; ++r) assemble(b.run[r], source, square);
                evaluate_square<Winograd<M, R>::image, P>(square, N * square_pitch, step, panel + v * lanes, point);
            }
        }
    }

    void write(const ColumnBlock& b, int64_t v, vec (&y)[M][M], float* target, float* work) const {
        const TileRun* run = b.run + b.begin[v];
        const TileRun* end = b.run + b.begin[v + 1];
        if (!phased && run->count == lanes) write_tile(*run, y, target);
        else if (c.batch == 1) write_rows(run, end, y, target, work);
        else write_pieces(run, end, y, target, work);
    }

    // What the epilogue does to results before they are written; `before` is null, or what is not activated goes there.
    void finish(const ColumnBlock& b, int64_t v, float bias, vec (&y)[M][M], float* before, float* work) const {
        vec sums[M][M];
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) sums[i][j] = y[i][j] + bias;
        with_activation(c.epilogue.activation, [&](const auto& f) {
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j) y[i][j] = f(sums[i][j]);
        });
        if (before) write(b, v, sums, before, work);
    }

    // Where a run's pixels are in the sorted phases.
    void place_sorted(TileRun& r, int64_t stretch, int64_t first_tile) const {
        r.source = stretch * stretch_floats + r.at - first_tile * c.batch;
        r.rows = r.columns = {0, N};
        r.in_place = r.count == lanes;
    }

    int64_t first_row(int64_t tile_row, int64_t stride_phase) const {
        return tile_row * M * strides.row_stride + c.rows.origin + strides.row_of(stride_phase);
    }
    int64_t first_column(int64_t tile, int64_t stride_phase) const {
        return tile * M * strides.column_stride + c.columns.origin + strides.column_of(stride_phase);
    }

    // Where the runs' pixels are in a channel, of a phase.
    void place(ColumnBlock& b, int64_t stride_phase) const {
        for (int64_t i = 0; i < b.begin[b.vectors]; ++i) {
            TileRun& r = b.run[i];
            const int64_t y = first_row(r.tile_row, stride_phase), x = first_column(r.at / c.batch, stride_phase);
            r.source = (y * c.source_w + x) * c.batch + r.at % c.batch;
            r.rows = inside(y, N, c.source_h, strides.row_stride);
            r.columns = inside(x, N, c.source_w, strides.column_stride);
            const bool whole = r.rows.end - r.rows.begin == N && r.columns.end - r.columns.begin == N;
            r.in_place = whole && r.count == lanes;
        }
    }

    // The next channel's pixels: from channel to channel the hardware finds nothing to go on.
    void fetch_tile(const float* pixels) const {
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) fetch(pixels + i * row_step + column_step[j]);
    }

    // The run's pixels to [row][column][lane]. Stores past the run's end, where the next run follows or nothing counts.
    void assemble(const TileRun& r, const float* source, float* square) const {
        for (int i = 0; i < N; ++i)
            for (int j = 0; j < N; ++j) {
                const bool in = i >= r.rows.begin && i < r.rows.end && j >= r.columns.begin && j < r.columns.end;
                store(square + (i * N + j) * square_pitch + r.lane,
                      in ? load_first(source + (r.source + i * row_step + column_step[j]), static_cast<int>(r.count))
                         : zero());
            }
    }

    void sort_by_phase(const ColumnBlock& b, int64_t stride_phase, const float* source, float* phases) const {
        const int64_t runs = b.begin[b.vectors];
        int64_t above = -1, above_last = -1;  // the tiles of the row before, whose lower pixel rows are this one's upper ones
        for (int64_t r = 0, end; r < runs; r = end, phases += stretch_floats) {
            for (end = r + 1; end < runs && b.run[end].tile_row == b.run[r].tile_row;) ++end;
            const int64_t tile = b.run[r].at / c.batch, last = (b.run[end - 1].at + b.run[end - 1].count - 1) / c.batch;
            const int known = above >= 0 && above <= tile && above_last >= last ? N - M : 0;
            for (int i = 0; i < known; ++i)
                for (int q = 0; q < M; ++q)
                    copy_floats(phases - stretch_floats + ((i + M) * M + q) * phase + (tile - above) * c.batch,
                                (last + 1 + further - tile) * c.batch, phases + (i * M + q) * phase);
            above = tile, above_last = last;
            for (int i = known; i < N; ++i) {
                const int64_t y = first_row(b.run[r].tile_row, stride_phase) + i * strides.row_stride;
                float* to = phases + i * M * phase;
                if (y < 0 || y >= c.source_h) std::fill(to, to + M * phase, 0.0f);
                else sort_row(source + y * c.source_w * c.batch, first_column(tile, stride_phase), last + 1 + further - tile, to);
            }
        }
    }

    // Pixels first, first + stride, ... of a row, M of each of `tiles`, to [column mod M][tile][image]. Stores past the end of a
    // phase, into what comes next or is room for that.
    void sort_row(const float* row, int64_t first, int64_t tiles, float* to) const {
        const int64_t stride = strides.column_stride;
        const Inside in = inside(first, tiles * M, c.source_w, stride);
        if (c.batch == 1 && stride == 1) {
            sort_single(row, {first + in.begin, first + in.end}, first, tiles, to);
            return;
        }
        if (c.batch == 1) {
            for (int q = 0; q < M; ++q)
                pick_columns(row, first + q * stride, M * stride, tiles, block_count(std::max<int64_t>(in.begin - q, 0), M),
                             block_count(std::max<int64_t>(in.end - q, 0), M), to + q * phase);
            return;
        }
        const int n = static_cast<int>(c.batch);
        for (int q = 0; q < M; ++q)
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t k = t * M + q;
                store(to + q * phase + t * n,
                      k >= in.begin && k < in.end ? load_first(row + (first + k * stride) * n, n) : zero());
            }
    }

    // Of one image, of whose row the pixels in `in` exist: M vectors of neighbouring pixels at a time.
    void sort_single(const float* row, const Inside& in, int64_t first, int64_t tiles, float* to) const {
        for (int64_t t = 0; t < tiles; t += lanes) {
            vec x[M];
#pragma GCC unroll 4
            for (int q = 0; q < M; ++q) x[q] = load_inside(row, first + t * M + q * lanes, in);
            separate(x);
#pragma GCC unroll 4
            for (int q = 0; q < M; ++q) store(to + q * phase + t, x[q]);
        }
    }

    // Pixels k, k + 1, ..., 0 for those outside.
    static vec load_inside(const float* row, int64_t k, const Inside& in) {
        if (k >= in.begin && k + lanes <= in.end) return load(row + k);
        float part[2 * lanes] = {};
        const int64_t begin = std::max<int64_t>(in.begin - k, 0), end = std::min<int64_t>(in.end - k, lanes);
        if (begin < end) store(part + begin, load_first(row + (k + begin), static_cast<int>(end - begin)));
        return load(part);
    }

    // All lanes in one tile.
    void write_tile(const TileRun& run, const vec (&y)[M][M], float* target) const {
        const int64_t row = run.tile_row * M, column = run.at / c.batch * M;
        float* to = target + (row * row_columns + column) * c.batch + run.at % c.batch;
        if (row + M <= rows && column + M <= row_columns) {
#pragma GCC unroll 4
            for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < M; ++j) store(to + (i * row_columns + j) * c.batch, y[i][j]);
            return;
        }
        for (int i = 0; i < M && row + i < rows; ++i)
            for (int j = 0; j < M && column + j < row_columns; ++j)
                store(to + (i * row_columns + j) * c.batch, y[i][j]);
    }

    // One image: a run is M contiguous rows.
    void write_rows(const TileRun* run, const TileRun* end, vec (&y)[M][M], float* target, float* work) const {
        for (int i = 0; i < M; ++i) {
            interleave(y[i]);
            for (int j = 0; j < M; ++j) store(work + (i * M + j) * lanes, y[i][j]);
        }
        for (; run < end; ++run)
            for (int i = 0; i < M && run->tile_row * M + i < rows; ++i)
                copy_floats(work + (i * lanes + run->lane) * M, std::min(run->count * M, row_columns - run->at * M),
                            target + (run->tile_row * M + i) * row_columns + run->at * M);
    }

    void write_pieces(const TileRun* run, const TileRun* end, const vec (&y)[M][M], float* target, float* work) const {
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) store(work + (i * M + j) * square_pitch, y[i][j]);
        for (; run < end; ++run)
            for (int64_t s = 0, n; s < run->count; s += n) {
                const int64_t tile = (run->at + s) / c.batch, image = (run->at + s) % c.batch;
                n = std::min(run->count - s, c.batch - image);
                for (int i = 0; i < M && run->tile_row * M + i < rows; ++i)
                    for (int j = 0; j < M && tile * M + j < row_columns; ++j)
                        store_first(target + ((run->tile_row * M + i) * row_columns + tile * M + j) * c.batch + image,
                                    load(work + (i * M + j) * square_pitch + run->lane + s), static_cast<int>(n));
            }
    }
};

}  // namespace c01b
