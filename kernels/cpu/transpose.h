// Matrix transposition: what a conversion between bc01 and c01b is. A bc01 array is the matrix (batch) x (c*0*1), its
// c01b counterpart the transposed one.
//
//     source (rows x columns)               tile, in L2                     target (columns x rows)
//     +--------------------------+          +----------------+              +-------------+
//     |      tile_side columns   |   16x16  |                |    rows,     |             |
//     |     +--------+           |  blocks  |                |  as copies   +-----+-------+
//     |     |        | tile_side | -------> |                | -----------> |     |       |
//     |     |        |   rows    |    in    +----------------+              +-----+-------+
//     |     +--------+           | registers  rows padded by a                |             |
//     +--------------------------+            line                            +-------------+
//
// Bound by memory: each byte is read once and written once. Rows of either matrix are often a multiple of 4096 bytes apart,
// which puts a column of lines into one set of the L1 cache; so a block's scattered stores go to the tile, whose rows are
// padded, and the target sees runs of tile_side elements only. A large target is written around the caches.
#pragma once
#include <utility>

#include "parallel.h"
#include "stream.h"

namespace c01b {

constexpr int64_t tile_side = 128;

// ---- L x L elements in registers -------------------------------------------------------------------------------------

// Swaps, between a row with bit H of its number clear and the row with it set, the halves that belong to each other; done
// for every bit H, that is a transposition.
template <int H, class V, class Mask, size_t... I>
inline void swap_halves(V& a, V& b, std::index_sequence<I...>) {
    constexpr int n = sizeof...(I);
    const V low = __builtin_shuffle(a, b, Mask{(I & H ? n + I - H : I)...});
    const V high = __builtin_shuffle(a, b, Mask{(I & H ? n + I : I + H)...});
    a = low, b = high;
}

template <int H, int L, class V, class Mask>
inline void transpose_registers(V (&row)[L]) {
    if constexpr (H > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
            if (!(i & H)) swap_halves<H, V, Mask>(row[i], row[i + H], std::make_index_sequence<L>());
        transpose_registers<H / 2, L, V, Mask>(row);
    }
}

// An L x L block; T is an unsigned integer of the element's size, since elements are moved and never interpreted.
template <class T>
struct Block {
    static constexpr int L = sizeof(vec) / sizeof(T);
    typedef T V __attribute__((vector_size(sizeof(vec)), may_alias));
    typedef T V_unaligned __attribute__((vector_size(sizeof(vec)), may_alias, aligned(sizeof(T))));

    static void move(const T* source, int64_t source_step, T* target, int64_t target_step) {
        V row[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) row[i] = *reinterpret_cast<const V_unaligned*>(source + i * source_step);
        write(row, target, target_step);
    }

    // At the matrix' edge: reads rows x columns only, and writes the block's garbage into the tile's padding.
    static void move_part(const T* source, int64_t source_step, int64_t rows, int64_t columns, T* target,
                          int64_t target_step) {
        V row[L] = {};
        for (int64_t i = 0; i < rows; ++i) std::memcpy(&row[i], source + i * source_step, columns * sizeof(T));
        write(row, target, target_step);
    }

    static void write(V (&row)[L], T* target, int64_t target_step) {
        transpose_registers<L / 2, L, V, V>(row);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) *reinterpret_cast<V_unaligned*>(target + i * target_step) = row[i];
    }
};

// Elements of 1, 2 or 16 bytes are rare here; one at a time, they still profit from the tiles.
template <class T>
struct PlainBlock {
    static constexpr int L = 16;

    static void move(const T* source, int64_t source_step, T* target, int64_t target_step) {
        move_part(source, source_step, L, L, target, target_step);
    }
    static void move_part(const T* source, int64_t source_step, int64_t rows, int64_t columns, T* target,
                          int64_t target_step) {
        for (int64_t j = 0; j < columns; ++j)
            for (int64_t i = 0; i < rows; ++i) target[j * target_step + i] = source[i * source_step + j];
    }
};

struct Bytes16 {
    uint64_t word[2];
};

template <class T>
using BlockOf = std::conditional_t<sizeof(T) == 4 || sizeof(T) == 8, Block<T>, PlainBlock<T>>;

// ---- tiles -----------------------------------------------------------------------------------------------------------

template <class T>
constexpr int64_t tile_step = tile_side + 64 / sizeof(T);

template <class T>
void transpose_tile(const T* source, int64_t source_step, int64_t rows, int64_t columns, T* tile) {
    using B = BlockOf<T>;
    for (int64_t j = 0; j < columns; j += B::L)
        for (int64_t i = 0; i < rows; i += B::L) {
            const T* from = source + i * source_step + j;
            T* to = tile + j * tile_step<T> + i;
            if (i + B::L <= rows && j + B::L <= columns)
                B::move(from, source_step, to, tile_step<T>);
            else
                B::move_part(from, source_step, std::min<int64_t>(B::L, rows - i), std::min<int64_t>(B::L, columns - j), to,
                             tile_step<T>);
        }
}

inline void copy_run(void* target, const void* source, size_t bytes, bool streamed) {
    if (!streamed) {
        std::memcpy(target, source, bytes);
        return;
    }
#if defined(__SSE2__)
    float* to = static_cast<float*>(target);
    const float* from = static_cast<const float*>(source);
    for (size_t i = 0; i < bytes / sizeof(float); i += piece) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#endif
}

// target[j * rows + i] = source[i * source_step + j]. The source's rows may have gaps between them (a slice of a batch).
template <class T>
void transpose(const T* source, int64_t source_step, int64_t rows, int64_t columns, T* target, int threads) {
    const int64_t tiles_down = (rows + tile_side - 1) / tile_side, tiles_across = (columns + tile_side - 1) / tile_side;
    const int64_t bytes = rows * columns * int64_t{sizeof(T)};
    const bool streamed = bytes >= stream_bytes && rows * sizeof(T) % 16 == 0 && on_piece(target);
    parallel_for(tiles_down * tiles_across, threads_for(bytes, threads), [&](int64_t index, int) {
        struct Tile;
        T* tile = reinterpret_cast<T*>(scratch<Tile>(tile_side * tile_step<T> * sizeof(T) / sizeof(float)));
        const int64_t i = index % tiles_down * tile_side, j = index / tiles_down * tile_side;
        const int64_t height = std::min(tile_side, rows - i), width = std::min(tile_side, columns - j);
        transpose_tile(source + i * source_step + j, source_step, height, width, tile);
        for (int64_t row = 0; row < width; ++row)
            copy_run(target + (j + row) * rows + i, tile + row * tile_step<T>, height * sizeof(T), streamed);
        if (streamed) finish_streaming();
    });
}

}  // namespace c01b
