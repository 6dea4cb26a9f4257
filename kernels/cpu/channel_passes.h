// Two passes over each channel of an array in c01b: one that measures it, one that writes by what was measured.
//
//     a channel    |<- block ->|<- block ->|<- rest ->|      measure -> a part for each block
//                                                            combine -> what the channel's parts come to, in order
//                                                            write   -> the channel again, from the L2 cache if it fits there
//
// Threads take whole channels, so that the second pass finds what the first one read. Where that would leave threads without
// work they share out blocks instead, first all measures, then all writes. Blocks are the same in either case and parts are
// combined in order, so results depend neither on the threads nor on the way.
#pragma once
#include <algorithm>

#include "parallel.h"
#include "stream.h"

namespace c01b {

constexpr int64_t channel_block = 4096;  // floats: the rounding of its sums is that of so many terms

struct BlockParts {};
struct ChannelTotals {};

// `count` things in scratch memory.
template <class T, class Purpose>
T* scratch_of(int64_t count) {
    static_assert(sizeof(T) % sizeof(float) == 0 && alignof(T) <= 64, "scratch memory is floats, aligned to lines");
    return reinterpret_cast<T*>(scratch<Purpose>(count * (sizeof(T) / sizeof(float))));
}

// Do whole channels keep all threads at work, but for an eighth at most?
inline bool by_channels(int64_t channels, int threads) { return channels % threads == 0 || channels >= 8 * threads; }

// measure(first, n) -> Part, of the n floats from `first` on, combine(channel, parts, blocks) -> Total, write(total, first, n).
template <class Part, class Total, class Measure, class Combine, class Write>
void channel_passes(int64_t channels, int64_t count, int threads, const Measure& measure, const Combine& combine,
                    const Write& write) {
    const int64_t blocks = (count + channel_block - 1) / channel_block;
    const auto size = [=](int64_t block) { return std::min(channel_block, count - block * channel_block); };
    if (by_channels(channels, threads)) {
        parallel_for(channels, threads, [&](int64_t channel, int) {
            Part* parts = scratch_of<Part, BlockParts>(blocks);
            for (int64_t b = 0; b < blocks; ++b) parts[b] = measure(channel * count + b * channel_block, size(b));
            write(combine(channel, parts, blocks), channel * count, count);
        });
        return;
    }
    Part* parts = scratch_of<Part, BlockParts>(channels * blocks);
    Total* totals = scratch_of<Total, ChannelTotals>(channels);
    parallel_for(channels * blocks, threads, [&](int64_t i, int) {
        parts[i] = measure(i / blocks * count + i % blocks * channel_block, size(i % blocks));
    });
    for (int64_t channel = 0; channel < channels; ++channel)
        totals[channel] = combine(channel, parts + channel * blocks, blocks);
    parallel_for(channels * blocks, threads, [&](int64_t i, int) {
        write(totals[i / blocks], i / blocks * count + i % blocks * channel_block, size(i % blocks));
    });
}

}  // namespace c01b
