// Normalisation across channels, its gradient, and plain sums over windows of channels.
//
//     window_sum            z[i] = sum of x[j] over the channels j of the window of i
//     cross_map_norm        y[i] = x[i] d[i]^-power,  d[i] = min_div + scale (sum of x[j]^2 over the window of i)
//     cross_map_norm_undo  gx[i] = gy[i] d[i]^-power + x[i] (sum of t[j] over the channels j whose window has i)
//                           t[j] = -2 scale power gy[j] x[j] d[j]^-power / d[j]
//
// The array is (outer, channels, inner), whatever the layout: c01b has outer 1, bc01 an outer batch. A tile is a stretch of the
// inner axis; it goes down the channels once, with what the windows need in rings of rows that the L1 cache holds:
//
//               inner ->                 forward, windows of 3       gradient, a window later
//     channel  +------+------+--
//        |     | tile | tile |        i-1 | x^2 |                     | t | x^2 |
//        v     +------+------+ ..     i   | x^2 | -> y[i]             | t | x^2 |   sum of t -> gx[i]
//              |      |      |        i+1 | x^2 |                     | t | x^2 | -> t[i+1]
//              |      |      |                                            | x^2 |
//
// Bound by memory where the power is cheap (power.h): each array is read or written once, and outputs that no cache can hold
// go around the caches. Every window is summed from the terms, in the order of the channels: a running sum would carry what it
// has rounded, and an infinity, to channels that have no part in it. So time grows with the size beyond 10 channels or so.
#pragma once
#include <algorithm>

#include "parallel.h"
#include "power.h"
#include "stream.h"

namespace c01b {

// (outer, channels, inner), contiguous.
struct ChannelShape {
    int64_t outer, channels, inner;

    int64_t floats() const { return outer * channels * inner; }
};

// Channels [begin, end).
struct Channels {
    int64_t begin, end;
};

// The channels that are summed for a channel: those around it, or its block of `size`.
struct ChannelWindows {
    int64_t channels, size;
    bool blocked;

    Channels of(int64_t i) const { return blocked ? block(i) : around(i, size / 2); }
    // The channels whose windows hold a channel.
    Channels holding(int64_t i) const { return blocked ? block(i) : around(i, size - size / 2 - 1); }
    // How many there are at most.
    int64_t most() const { return std::min(size, channels); }

  private:
    Channels block(int64_t i) const { return {i - i % size, std::min(i - i % size + size, channels)}; }
    Channels around(int64_t i, int64_t before) const {
        return {std::max<int64_t>(0, i - before), std::min(i - before + size, channels)};
    }
};

struct NormScales {
    double add_scale, pow_scale, min_div;
};

// All lanes or the first few, of loads and stores.
struct EveryLane : AllLanes {
    void store(float* p, vec v) const { c01b::store(p, v); }
};
struct SomeLanes : FirstLanes {
    void store(float* p, vec v) const { store_first(p, v, n); }
};

// body(b, lanes) for vectors that cover [0, width); as in along_batch, the last one is moved back and done again.
template <class Body>
inline void along_tile(int64_t width, const Body& body) {
    int64_t b = 0;
    for (; b + lanes <= width; b += lanes) body(b, EveryLane{});
    if (b == width) return;
    width < lanes ? body(0, SomeLanes{{static_cast<int>(width)}}) : body(width - lanes, EveryLane{});
}

constexpr int64_t tile_width = 512;    // floats: 2 kB of each channel at a time
constexpr int64_t channels_ahead = 2;  // that are fetched into the cache before they are read

// A tile of one array: its rows, one a channel, are `stride` floats apart.
template <class Float>
struct Tile {
    Float* data;
    int64_t stride;

    Float* operator[](int64_t channel) const { return data + channel * stride; }
};

// The latest rows of a tile, in scratch memory that belongs to the `Name`: of channel c until c + rows is written.
class Ring {
  public:
    template <class Name>
    static Ring of(int64_t rows) { return {scratch<Name>(rows * tile_width), rows}; }

    float* operator[](int64_t channel) const { return data_ + channel % rows_ * tile_width; }

    // out[b] = the sum over those channels of term(element), in their order.
    template <class Term>
    void sum(const Channels& channels, int64_t width, float* out, const Term& term) const {
        const int64_t begin = channels.begin % rows_, end = begin + (channels.end - channels.begin);
        const Run runs[2] = {{data_ + begin * tile_width, data_ + std::min(end, rows_) * tile_width},
                             {data_, data_ + std::max<int64_t>(0, end - rows_) * tile_width}};
        int64_t b = 0;
        for (; b + group * lanes <= width; b += group * lanes) {
            vec sums[group] = {};
            for (const Run& run : runs)
                for (const float* row = run.begin + b; row != run.end + b; row += tile_width)
                    for (int v = 0; v < group; ++v) sums[v] = term(sums[v], load(row + v * lanes));
            for (int v = 0; v < group; ++v) store(out + b + v * lanes, sums[v]);
        }
        along_tile(width - b, [&](int64_t rest, auto some) {
            vec sum = zero();
            for (const Run& run : runs)
                for (const float* row = run.begin + b; row != run.end + b; row += tile_width) sum = term(sum, some.load(row + rest));
            some.store(out + b + rest, sum);
        });
    }

  private:
    static constexpr int group = 4;  // vectors at a time
    struct Run {
        const float *begin, *end;
    };

    Ring(float* data, int64_t rows) : data_(data), rows_(rows) {}

    float* data_;
    int64_t rows_;
};

// Copies row `channel` of a tile into a ring.
inline void read_row(const Tile<const float>& tile, int64_t channel, int64_t width, const Ring& ring) {
    const float* in = tile[channel];
    float* row = ring[channel];
    along_tile(width, [&](int64_t b, auto some) {
        fetch(in + channels_ahead * tile.stride + b);
        some.store(row + b, some.load(in + b));
    });
}

struct Images;  // these name scratch memory
struct Terms;
struct Scaled;
struct Sums;
struct TermSums;

template <bool Stream>
void sum_tile(const ChannelWindows& windows, bool transposed, const Tile<const float>& x, const Tile<float>& z, int64_t width) {
    const Ring images = Ring::of<Images>(windows.most());
    float* sums = scratch<Sums>(tile_width);
    for (int64_t i = 0, next = 0; i < windows.channels; ++i) {
        const Channels window = transposed ? windows.holding(i) : windows.of(i);
        for (; next < window.end; ++next) read_row(x, next, width, images);
        images.sum(window, width, sums, [](vec sum, vec v) { return sum + v; });
        along_batch<Stream>(z[i], width, [&](int64_t b, auto some) { return some.load(sums + b); });
    }
}

// The denominators of a tile of images, channel by channel.
class Denominators {
  public:
    // `kept`: rows of images that are still to be had besides those of the window.
    Denominators(const ChannelWindows& windows, const NormScales& scales, const Tile<const float>& x, int64_t width, int64_t kept)
        : windows(windows), width(width), images(Ring::of<Images>(windows.most() + kept)),
          term_factor(static_cast<float>(-2 * scales.add_scale * scales.pow_scale)), x_(x),
          add_scale_(static_cast<float>(scales.add_scale)), min_div_(static_cast<float>(scales.min_div)),
          sums_(scratch<Sums>(tile_width)) {}

    // Moves on to those of channel i.
    void advance(int64_t i) {
        const Channels window = windows.of(i);
        for (; next_ < window.end; ++next_) read_row(x_, next_, width, images);
        images.sum(window, width, sums_, [](vec sum, vec v) { return sum + v * v; });
    }

    template <class Lanes>
    vec operator()(int64_t b, const Lanes& some) const { return min_div_ + add_scale_ * some.load(sums_ + b); }

    const ChannelWindows windows;
    const int64_t width;
    const Ring images;
    const float term_factor;

  private:
    const Tile<const float> x_;
    const float add_scale_, min_div_;
    float* const sums_;
    int64_t next_ = 0;
};

template <bool Stream, class Power>
void norm_tile(Denominators d, const Power& power, const Tile<float>& y) {
    for (int64_t i = 0; i < d.windows.channels; ++i) {
        d.advance(i);
        const float* x = d.images[i];
        along_batch<Stream>(y[i], d.width, [&](int64_t b, auto some) { return some.load(x + b) * power(d(b, some)); });
    }
}

// The terms t of channel j, and gy d^-power there.
template <class Power>
void undo_terms(Denominators& d, const Power& power, const Tile<const float>& gy, int64_t j, float* terms, float* scaled) {
    d.advance(j);
    const float *x = d.images[j], *gradient = gy[j];
    along_tile(d.width, [&](int64_t b, auto some) {
        const Quotients q = power.quotients(d(b, some));
        const vec product = some.load(gradient + b) * q.power;
        fetch(gradient + channels_ahead * gy.stride + b);
        some.store(scaled + b, product);
        some.store(terms + b, d.term_factor * product * some.load(x + b) * q.inverse);
    });
}

template <bool Stream, class Power>
void undo_tile(Denominators d, const Power& power, const Tile<const float>& gy, const Tile<float>& gx) {
    const Ring terms = Ring::of<Terms>(d.windows.most()), scaled = Ring::of<Scaled>(d.windows.most());
    float* sums = scratch<TermSums>(tile_width);
    for (int64_t i = 0, next = 0; i < d.windows.channels; ++i) {
        const Channels window = d.windows.holding(i);
        for (; next < window.end; ++next) undo_terms(d, power, gy, next, terms[next], scaled[next]);
        terms.sum(window, d.width, sums, [](vec sum, vec v) { return sum + v; });
        const float *x = d.images[i], *product = scaled[i];
        along_batch<Stream>(gx[i], d.width, [&](int64_t b, auto some) {
            return some.load(product + b) + some.load(x + b) * some.load(sums + b);
        });
    }
}

// body(first, width, streamed) for every tile: where its first row begins in the arrays, and whether to write around the caches.
template <class Body>
void for_tiles(const ChannelShape& s, int64_t arrays, const float* out, int threads, const Body& body) {
    const bool streamed = should_stream(out, s.outer * s.channels, s.inner);
    const int64_t tiles = (s.inner + tile_width - 1) / tile_width, bytes = arrays * s.floats() * int64_t{sizeof(float)};
    parallel_for(s.outer * tiles, threads_for(bytes, threads), [&](int64_t item, int) {
        const int64_t begin = item % tiles * tile_width, first = item / tiles * s.channels * s.inner + begin;
        body(first, std::min(tile_width, s.inner - begin), streamed);
        if (streamed) finish_streaming();
    });
}

// body(NegativePower<...>) for the class that computes d ** -power.
template <class Body>
void with_power(double power, const Body& body) {
    switch (exponent_of(power)) {
        case Exponent::quarter: return body(NegativePower<Exponent::quarter>(power));
        case Exponent::half: return body(NegativePower<Exponent::half>(power));
        case Exponent::three_quarters: return body(NegativePower<Exponent::three_quarters>(power));
        case Exponent::one: return body(NegativePower<Exponent::one>(power));
        case Exponent::any: return body(NegativePower<Exponent::any>(power));
    }
}

inline void window_sum(const ChannelShape& s, const ChannelWindows& windows, bool transposed, const float* x, float* z,
                       int threads) {
    for_tiles(s, 2, z, threads, [&](int64_t first, int64_t width, bool streamed) {
        const auto tile = streamed ? sum_tile<true> : sum_tile<false>;
        tile(windows, transposed, {x + first, s.inner}, {z + first, s.inner}, width);
    });
}

inline void cross_map_norm(const ChannelShape& s, const ChannelWindows& windows, const NormScales& scales, const float* x,
                           float* y, int threads) {
    with_power(scales.pow_scale, [&](const auto& power) {
        for_tiles(s, 2, y, threads, [&](int64_t first, int64_t width, bool streamed) {
            const Denominators d(windows, scales, {x + first, s.inner}, width, 0);
            streamed ? norm_tile<true>(d, power, {y + first, s.inner}) : norm_tile<false>(d, power, {y + first, s.inner});
        });
    });
}

inline void cross_map_norm_undo(const ChannelShape& s, const ChannelWindows& windows, const NormScales& scales,
                                const float* x, const float* gy, float* gx, int threads) {
    with_power(scales.pow_scale, [&](const auto& power) {
        for_tiles(s, 3, gx, threads, [&](int64_t first, int64_t width, bool streamed) {
            const Denominators d(windows, scales, {x + first, s.inner}, width, windows.most());
            const Tile<const float> gradient{gy + first, s.inner};
            const Tile<float> out{gx + first, s.inner};
            streamed ? undo_tile<true>(d, power, gradient, out) : undo_tile<false>(d, power, gradient, out);
        });
    });
}

}  // namespace c01b
