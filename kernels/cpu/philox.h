// Random numbers without a state: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, 2011).
//
//     counter (number of the call: 64 bits, draw: 64 bits), key (seed: 64 bits)   ->   4 words of 32 bits
//
//     a group:   call 16 n        word 0 | word 1 | word 2 | word 3     16 calls side by side, which the compiler makes vectors
//                call 16 n + 1    word 0 | ...                          of; their results lie word after word, all words 0, then
//                ...                                                    all words 1, ..., so that each is stored as a vector
//                call 16 n + 15
//
// Bound by arithmetic: 20 products of 32 x 32 bits for 4 numbers. Which number stands where depends on no vector's width.
#pragma once
#include <cstdint>

namespace c01b {

constexpr int philox_rounds = 10, philox_calls = 16, philox_group = 4 * philox_calls;

struct Philox {
    uint64_t seed, draw;

    // The numbers of the group that begins with this call: uniform in [0, 1), multiples of 2^-24.
    void operator()(uint64_t call, float* out) const {
        constexpr uint64_t m0 = 0xD2511F53, m1 = 0xCD9E8D57;
        constexpr uint32_t weyl0 = 0x9E3779B9, weyl1 = 0xBB67AE85;
        uint32_t c[4][philox_calls];
        for (int i = 0; i < philox_calls; ++i) {
            c[0][i] = static_cast<uint32_t>(call + i);
            c[1][i] = static_cast<uint32_t>((call + i) >> 32);
            c[2][i] = static_cast<uint32_t>(draw);
            c[3][i] = static_cast<uint32_t>(draw >> 32);
        }
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < philox_rounds; ++round, k0 += weyl0, k1 += weyl1)
            for (int i = 0; i < philox_calls; ++i) {
                const uint64_t first = m0 * c[0][i], second = m1 * c[2][i];
                c[0][i] = static_cast<uint32_t>(second >> 32) ^ c[1][i] ^ k0;
                c[1][i] = static_cast<uint32_t>(second);
                c[2][i] = static_cast<uint32_t>(first >> 32) ^ c[3][i] ^ k1;
                c[3][i] = static_cast<uint32_t>(first);
            }
        for (int word = 0; word < 4; ++word)
            for (int i = 0; i < philox_calls; ++i)
                out[word * philox_calls + i] = static_cast<float>(static_cast<int32_t>(c[word][i] >> 8)) * 0x1p-24f;
    }
};

// How many numbers of whole groups it takes for `count`.
inline int64_t philox_padded(int64_t count) { return (count + philox_group - 1) / philox_group * philox_group; }

// The first `count` numbers of a row, rounded up to whole groups, in `out`.
inline void philox_row(const Philox& random, int64_t row, int64_t count, float* out) {
    const int64_t groups = philox_padded(count) / philox_group;
    for (int64_t group = 0; group < groups; ++group)
        random(static_cast<uint64_t>((row * groups + group) * philox_calls), out + group * philox_group);
}

}  // namespace c01b
