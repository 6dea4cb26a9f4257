// Matrix transposition: what a conversion between bc01 and c01b is. A bc01 array is the matrix (batch) x (c*0*1), its
// c01b counterpart the transposed one.
//
//     source (rows x columns)                          target (columns x rows)
//     +-----------------------------------+            +------------+
//     |      512 bytes                    |            |            |
//     |     +--+--+--+--+                 |  L x L     |   +--+--+  |   L = elements in a vector;
//     | 32  |0 |2 |4 |  |  tile           |  blocks    |   |0 |1 |  |   numbers: order of the blocks
//     | rows|1 |3 |  |  |                 | -------->  |   |2 |3 |  |
//     |     +--+--+--+--+                 |  in        |   |4 |  |  |
//     +-----------------------------------+  registers |   +--+--+  |
//                                                      +------------+
//
// Bound by memory: each byte is read once and written once, blocks go from registers to the target directly. Three
// things keep that at the speed of a copy:
// - While a tile is transposed, the next one is fetched. With 32 rows a tile is fast also where rows are a power of two
//   bytes apart and compete for a few places in the caches; with 128 it is not (28 and 11 GB/s at 256 KiB).
// - A vector is stored to a multiple of its size, so that each line is written whole and once; then a large target can
//   go around the caches. numpy starts arrays 16 bytes past a line: the first rows % L elements are set apart, and a
//   vector that starts near the end of a target row takes its last elements from the next one, a column further in the
//   source.
// - The block is a function of its own: inlined into the loops, GCC keeps its registers in memory (2.5 times slower).
//
// That needs target rows of whole vectors, which a batch of 500 does not give: then strips of L columns are transposed
// into a buffer in the L1 or L2 cache and leave it as long runs.
#pragma once
#include <type_traits>
#include <utility>

#include "parallel.h"
#include "stream.h"

namespace c01b {

// Targets from this size on are written around the caches, sooner than other kernels': stores along a column miss the
// caches anyway.
constexpr int64_t transpose_stream_bytes = int64_t{2} << 20;

// ---- L x L elements in registers ----------------------------------------------------------------------------------

// Swaps, between a row with bit H of its number clear and the row with it set, the halves that belong to each other;
// done for every bit H, that is a transposition.
template <int H, class V, size_t... I>
inline void swap_halves(V& a, V& b, std::index_sequence<I...>) {
    constexpr int n = sizeof...(I);
    const V low = __builtin_shuffle(a, b, V{(I & H ? n + I - H : I)...});
    const V high = __builtin_shuffle(a, b, V{(I & H ? n + I : I + H)...});
    a = low, b = high;
}

template <int H, int L, class V>
inline void transpose_registers(V (&row)[L]) {
    if constexpr (H > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
            if (!(i & H)) swap_halves<H>(row[i], row[i + H], std::make_index_sequence<L>());
        transpose_registers<H / 2>(row);
    }
}

// T is an unsigned integer of the element's size, 4 or 8 bytes: elements are moved and never interpreted.
template <class T>
struct Block {
    static constexpr int L = sizeof(vec) / sizeof(T);
    typedef T V __attribute__((vector_size(sizeof(vec)), may_alias));
    typedef T V_unaligned __attribute__((vector_size(sizeof(vec)), may_alias, aligned(sizeof(T))));

    static V load(const T* p) { return *reinterpret_cast<const V_unaligned*>(p); }
    static void store(T* p, V v) { *reinterpret_cast<V_unaligned*>(p) = v; }
    static V load_first(const T* p, int64_t n) {
        return reinterpret_cast<V>(c01b::load_first(reinterpret_cast<const float*>(p), n * sizeof(T) / sizeof(float)));
    }
    static void store_first(T* p, V v, int64_t n) {
        c01b::store_first(reinterpret_cast<float*>(p), reinterpret_cast<vec>(v), n * sizeof(T) / sizeof(float));
    }
};

// A block's place: its first L rows in the source, of which those from `kept` on wrap to the next column, that is
// `wrap` elements back; its L rows in the target; and how far from the source is what to fetch.
template <class T>
struct BlockPlace {
    const T* source;
    int64_t source_step, kept, wrap;
    T* target;
    int64_t target_step, next;
};

template <class T, bool Wrapped, bool Streamed>
__attribute__((noinline)) void move_block(const BlockPlace<T>& p) {
    using B = Block<T>;
    typename B::V row[B::L];
#pragma GCC unroll 16
    for (int i = 0; i < B::L; ++i) fetch(p.source, p.next + i * p.source_step);
#pragma GCC unroll 16
    for (int i = 0; i < B::L; ++i)
        row[i] = B::load(p.source + (i * p.source_step - (Wrapped && i >= p.kept ? p.wrap : 0)));
    transpose_registers<B::L / 2>(row);
#pragma GCC unroll 16
    for (int i = 0; i < B::L; ++i) {
        T* to = p.target + i * p.target_step;
        Streamed ? stream_aligned(to, row[i]) : B::store(to, row[i]);
    }
}

// At the source's last `columns`, at most L: neither reads nor writes what lies behind them.
template <class T>
__attribute__((noinline)) void move_last_columns(const BlockPlace<T>& p, int64_t columns) {
    using B = Block<T>;
    typename B::V row[B::L];
    for (int i = 0; i < B::L; ++i) {
        const bool wrapped = i >= p.kept;
        row[i] = B::load_first(p.source + (i * p.source_step - (wrapped ? p.wrap : 0)), columns - wrapped);
    }
    transpose_registers<B::L / 2>(row);
    for (int64_t i = 0; i < columns; ++i) {
        T* to = p.target + i * p.target_step;
        i == columns - 1 ? B::store_first(to, row[i], std::min<int64_t>(p.kept, B::L)) : B::store(to, row[i]);
    }
}

// ---- target rows of whole vectors: from registers to the target ---------------------------------------------------

template <class T>
struct Matrix {
    const T* source;
    int64_t step, rows, columns;  // the source's; its rows may have gaps between them (a slice of a batch)
    T* target;
};

template <class T, bool Streamed>
void transpose_vectors(const Matrix<T>& m, int threads) {
    constexpr int64_t L = Block<T>::L, tile_rows = 32 / L ? 32 / L : 1, tile_columns = 512 / sizeof(T) / L;
    const int64_t ahead = reinterpret_cast<uintptr_t>(m.target) % sizeof(vec) / sizeof(T);
    const int64_t shift = ahead ? L - ahead : 0;
    const int64_t block_rows = m.rows / L, block_columns = (m.columns + L - 1) / L;
    const int64_t down = (block_rows + tile_rows - 1) / tile_rows;
    const int64_t across = (block_columns + tile_columns - 1) / tile_columns;

    for (int64_t i = 0; i < shift; ++i) m.target[i] = m.source[i * m.step];
    parallel_for(down * across, threads, [&](int64_t tile, int) {
        const int64_t i0 = tile % down * tile_rows, j0 = tile / down * tile_columns;
        const int64_t next_i = (tile + 1) % down * tile_rows, next_j = (tile + 1) / down * tile_columns;
        const int64_t to_next = ((next_i - i0) * m.step + next_j - j0) * L;
        for (int64_t j = j0; j < std::min(j0 + tile_columns, block_columns); ++j)
            for (int64_t i = i0; i < std::min(i0 + tile_rows, block_rows); ++i) {
                const int64_t row = i * L + shift, column = j * L, columns = m.columns - column;
                const T* from = m.source + row * m.step + column;
                const bool wrapped = row + L > m.rows;
                const BlockPlace<T> place{from,    m.step, wrapped ? m.rows - row : L, m.rows * m.step - 1,
                                          m.target + column * m.rows + row, m.rows, to_next};
                if (columns < L + wrapped)
                    move_last_columns(place, columns);
                else
                    wrapped ? move_block<T, true, Streamed>(place) : move_block<T, false, Streamed>(place);
            }
        if (Streamed) finish_streaming();
    });
}

// ---- any rows: through a buffer -----------------------------------------------------------------------------------

constexpr int64_t strip_rows = 512;

// A line's worth of columns; of elements larger than floats, as many.
template <class T>
constexpr int64_t strip_columns = sizeof(T) < 4 ? 64 / sizeof(T) : 16;

// Elements of 1 or 2 bytes, L x L of them in vectors of 16 bytes, whose interleaving is one instruction everywhere: the
// first half of the rows is interleaved with the second, log2(L) times.
template <class T>
struct SmallBlock {
    static constexpr int L = 16 / sizeof(T);
    typedef T V __attribute__((vector_size(16)));

    template <int From, size_t... I>
    static V interleave(V a, V b, std::index_sequence<I...>) {
        return __builtin_shuffle(a, b, V{T(From + I / 2 + I % 2 * L)...});
    }

    template <class Rows>
    __attribute__((noinline)) static void move(const Rows& source, int64_t i0, int64_t j, T* target, int64_t step) {
        V row[L], next[L];
        for (int i = 0; i < L; ++i) std::memcpy(&row[i], source(i0 + i) + j, sizeof(V));
#pragma GCC unroll 4
        for (int round = 1; round < L; round *= 2) {
#pragma GCC unroll 8
            for (int i = 0; i < L / 2; ++i) {
                next[2 * i] = interleave<0>(row[i], row[i + L / 2], std::make_index_sequence<L>());
                next[2 * i + 1] = interleave<L / 2>(row[i], row[i + L / 2], std::make_index_sequence<L>());
            }
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) row[i] = next[i];
        }
        for (int i = 0; i < L; ++i) std::memcpy(target + i * step, &row[i], sizeof(V));
    }
};

template <class T, class Rows>
void transpose_small_strip(const Rows& source, int64_t rows, int64_t columns, T* strip) {
    constexpr int L = SmallBlock<T>::L;
    const int64_t whole_rows = rows / L * L, whole_columns = columns / L * L;
    for (int64_t i = 0; i < whole_rows; i += L) {
        for (int k = 0; k < L; ++k) fetch(source(i + k), 2 * strip_columns<T>);
        for (int64_t j = 0; j < whole_columns; j += L) SmallBlock<T>::move(source, i, j, strip + j * rows + i, rows);
    }
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) strip[j * rows + i] = source(i)[j];
}

// L rows from the i-th on, L columns from the j-th on.
template <class T, class Rows>
__attribute__((noinline)) void move_strip_block(const Rows& source, int64_t i, int64_t j, T* target, int64_t step) {
    using B = Block<T>;
    typename B::V row[B::L];
#pragma GCC unroll 16
    for (int k = 0; k < B::L; ++k) fetch(source(i + k), j + 2 * strip_columns<T>);
#pragma GCC unroll 16
    for (int k = 0; k < B::L; ++k) row[k] = B::load(source(i + k) + j);
    transpose_registers<B::L / 2>(row);
#pragma GCC unroll 16
    for (int k = 0; k < B::L; ++k) B::store(target + k * step, row[k]);
}

// strip[j * rows + i] = source(i)[j] for `columns` <= strip_columns<T>. Vectors may pass the end of a strip's row, over
// what the next one then puts there; the last L rows are done in one piece, some of them again.
template <class T, class Rows>
void transpose_strip(const Rows& source, int64_t rows, int64_t columns, T* strip) {
    if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
        using B = Block<T>;
        for (int64_t j = 0; j < columns; j += B::L) {
            const int64_t width = std::min<int64_t>(B::L, columns - j);
            for (int64_t next = 0; next < rows; next += B::L) {
                const int64_t i = std::max<int64_t>(0, std::min(next, rows - B::L));
                T* to = strip + j * rows + i;
                if (rows >= B::L && width == B::L) {
                    move_strip_block(source, i, j, to, rows);
                    continue;
                }
                typename B::V row[B::L] = {};
                for (int64_t k = 0; k < std::min<int64_t>(B::L, rows); ++k)
                    row[k] = B::load_first(source(i + k) + j, width);
                transpose_registers<B::L / 2>(row);
                for (int64_t k = 0; k < width; ++k) B::store(to + k * rows, row[k]);
            }
        }
    } else if constexpr (sizeof(T) < 4) {
        transpose_small_strip(source, rows, columns, strip);
    } else {  // elements of 16 bytes are rare here
        for (int64_t j = 0; j < columns; ++j)
            for (int64_t i = 0; i < rows; ++i) strip[j * rows + i] = source(i)[j];
    }
}

// A copy whose target goes around the caches, except for what shares a line with its neighbours.
template <class T>
void stream_run(T* target, const T* source, int64_t count) {
    constexpr int64_t n = sizeof(vec) / sizeof(T);
    const int64_t ahead = reinterpret_cast<uintptr_t>(target) % sizeof(vec) / sizeof(T);
    int64_t i = ahead ? std::min<int64_t>(n - ahead, count) : 0;
    std::memcpy(target, source, i * sizeof(T));
    for (; i + n <= count; i += n) {
        vec v;
        std::memcpy(&v, source + i, sizeof v);
        stream_aligned(target + i, v);
    }
    std::memcpy(target + i, source + i, (count - i) * sizeof(T));
}

// `row_of(i)` is where the i-th row begins; of `m`, source and step are not used.
template <class T, class Rows>
void transpose_strips(const Matrix<T>& m, const Rows& row_of, bool streamed, int threads) {
    const int64_t down = (m.rows + strip_rows - 1) / strip_rows;
    const int64_t across = (m.columns + strip_columns<T> - 1) / strip_columns<T>;
    parallel_for(down * across, threads, [&](int64_t index, int) {
        struct Strip;
        const size_t bytes = strip_columns<T> * strip_rows * sizeof(T) + sizeof(vec);
        T* strip = reinterpret_cast<T*>(scratch<Strip>(bytes / sizeof(float)));
        const int64_t i = index / across * strip_rows, j = index % across * strip_columns<T>;
        const int64_t rows = std::min(strip_rows, m.rows - i), columns = std::min(strip_columns<T>, m.columns - j);
        transpose_strip([&](int64_t k) { return row_of(i + k) + j; }, rows, columns, strip);
        // Strips of whole target rows leave in one piece.
        const int64_t runs = rows == m.rows ? 1 : columns, run = rows * columns / runs;
        for (int64_t k = 0; k < runs; ++k) {
            T* to = m.target + (j + k) * m.rows + i;
            streamed ? stream_run(to, strip + k * run, run) : (void)std::memcpy(to, strip + k * run, run * sizeof(T));
        }
        if (streamed) finish_streaming();
    });
}

// target[j * rows + i] = source[i * step + j].
template <class T>
void transpose(const T* source, int64_t step, int64_t rows, int64_t columns, T* target, int threads) {
    const Matrix<T> m{source, step, rows, columns, target};
    const int64_t bytes = rows * columns * int64_t{sizeof(T)};
    const bool streamed = bytes >= transpose_stream_bytes;
    threads = threads_for(bytes, threads);
    if constexpr (sizeof(T) == 4 || sizeof(T) == 8)
        if (rows % Block<T>::L == 0) {
            streamed ? transpose_vectors<T, true>(m, threads) : transpose_vectors<T, false>(m, threads);
            return;
        }
    transpose_strips(m, [=](int64_t i) { return source + i * step; }, streamed, threads);
}

// target[j * count + i] = source[picked[i] * step + j]: rows are transposed as they are picked.
template <class T>
void transpose_picked(const T* source, int64_t step, const int64_t* picked, int64_t count, int64_t columns, T* target,
                      int threads) {
    const int64_t bytes = count * columns * int64_t{sizeof(T)};
    transpose_strips(Matrix<T>{source, step, count, columns, target}, [=](int64_t i) { return source + picked[i] * step; },
                     bytes >= transpose_stream_bytes, threads_for(bytes, threads));
}

// An element of 16 bytes: complex128.
struct Bytes16 {
    uint64_t word[2];
};

}  // namespace c01b
