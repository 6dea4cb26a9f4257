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
//        |     | tile | tile |        i-1 | x |                       | t | x |
//        v     +------+------+ ..     i   | x | -> y[i]               | t | x |   sum of t -> gx[i]
//              |      |      |        i+1 | x |                       | t | x | -> t[i+1]
//              |      |      |                                            | x |
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

// Some neighbouring vectors of a row: how they are read, kept and written around the caches or not.
template <int Count>
struct Vectors : AllLanes {
    static constexpr int count = Count;
    void store(float* p, vec v) const { c01b::store(p, v); }
    template <bool Stream>
    void write(float* p, vec v) const { Stream ? stream(p, v) : c01b::store(p, v); }
};
// One that begins with elements that another one has written.
struct LastVector : Vectors<1> {
    int written;
    template <bool Stream>
    void write(float* p, vec v) const { Stream ? stream_from(p, v, written) : c01b::store(p, v); }
};
// The only one of a row, not full.
struct PartOfVector : FirstLanes {
    static constexpr int count = 1;
    void store(float* p, vec v) const { store_first(p, v, n); }
    template <bool Stream>
    void write(float* p, vec v) const { store_first(p, v, n); }
};

// body(b, vectors) so that the vectors cover [0, width); as in along_batch, a last one that would pass the end is moved back.
template <class Body>
inline void along_tile(int64_t width, const Body& body) {
    constexpr int several = 4;
    int64_t b = 0;
    for (; b + several * lanes <= width; b += several * lanes) body(b, Vectors<several>{});
    for (; b + lanes <= width; b += lanes) body(b, Vectors<1>{});
    if (b == width) return;
    const int rest = static_cast<int>(width - b);
    width < lanes ? body(0, PartOfVector{{rest}}) : body(width - lanes, LastVector{{}, lanes - rest});
}

constexpr int64_t tile_width = 1024;   // floats: 4 kB of each channel at a time
constexpr int64_t channels_ahead = 1;  // that are fetched into the cache before they are read

// A tile of one array: its rows, one a channel, are `stride` floats apart.
template <class Float>
struct Tile {
    Float* data;
    int64_t stride;

    Float* operator[](int64_t channel) const { return data + channel * stride; }
};

// The latest rows of a tile, in scratch memory that belongs to the `Name`: of channel c until c + rows is written. Rows lie a line
// further apart than they are wide, as neighbours at a distance of 4 kB would push each other out of the L1 cache.
class Ring {
  public:
    template <class Name>
    static Ring of(int64_t rows, int64_t width) {
        const int64_t pitch = (width + 15) / 16 * 16 + 16;
        return {scratch<Name>(rows * pitch), rows, pitch};
    }

    float* operator[](int64_t channel) const { return data_ + channel % rows_ * pitch_; }

    // sums[v] = the sum over those channels, in their order, of term(sum so far, element).
    template <class Vectors, class Term>
    void sum(const Channels& channels, int64_t b, const Vectors& some, vec (&sums)[Vectors::count], const Term& term) const {
        const int64_t begin = channels.begin % rows_, end = begin + (channels.end - channels.begin);
        for (vec& sum : sums) sum = zero();
        add(begin, std::min(end, rows_), b, some, sums, term);
        add(0, end - rows_, b, some, sums, term);
    }

  private:
    Ring(float* data, int64_t rows, int64_t pitch) : data_(data), rows_(rows), pitch_(pitch) {}

    template <class Vectors, class Term>
    void add(int64_t begin, int64_t end, int64_t b, const Vectors& some, vec (&sums)[Vectors::count], const Term& term) const {
        const float* row = data_ + begin * pitch_ + b;
        for (int64_t i = begin; i < end; ++i, row += pitch_)
            for (int v = 0; v < Vectors::count; ++v) sums[v] = term(sums[v], some.load(row + v * lanes));
    }

    float* data_;
    int64_t rows_, pitch_;
};

struct Images;  // these name scratch memory
struct Terms;
struct Scaled;

// Rows of a tile of an array that come in through a ring.
class Rows {
  public:
    Rows(const Tile<const float>& tile, const Ring& ring) : tile_(tile), ring_(ring) {}

    // Brings the vectors at b of channels [first, end) into the ring.
    template <class Vectors>
    void read(int64_t first, int64_t end, int64_t b, const Vectors& some) const {
        for (int64_t channel = first; channel < end; ++channel) {
            const float* in = tile_[channel] + b;
            float* row = ring_[channel] + b;
            for (int v = 0; v < Vectors::count; ++v) {
                fetch(in, channels_ahead * tile_.stride + v * lanes);
                some.store(row + v * lanes, some.load(in + v * lanes));
            }
        }
    }

    const Ring& ring() const { return ring_; }

  private:
    Tile<const float> tile_;
    Ring ring_;
};

template <bool Stream>
void sum_tile(const ChannelWindows& windows, bool transposed, const Tile<const float>& x, const Tile<float>& z, int64_t width) {
    const Rows images(x, Ring::of<Images>(windows.most(), width));
    for (int64_t i = 0, read = 0; i < windows.channels; ++i) {
        const Channels window = transposed ? windows.holding(i) : windows.of(i);
        float* out = z[i];
        along_tile(width, [&](int64_t b, auto some) {
            images.read(read, window.end, b, some);
            vec sums[some.count];
            images.ring().sum(window, b, some, sums, [](vec sum, vec v) { return sum + v; });
            for (int v = 0; v < some.count; ++v) some.template write<Stream>(out + b + v * lanes, sums[v]);
        });
        read = window.end;
    }
}

// The denominators of a tile of images.
class Denominators {
  public:
    // `rows`: those of the images that the ring keeps.
    Denominators(const NormScales& scales, const Tile<const float>& x, int64_t rows, int64_t width)
        : images_(x, Ring::of<Images>(rows, width)), add_scale_(static_cast<float>(scales.add_scale)),
          min_div_(static_cast<float>(scales.min_div)) {}

    // Those of the channel whose window it is, when the images of the channels before `read` are in the ring.
    template <class Vectors>
    void operator()(const Channels& window, int64_t read, int64_t b, const Vectors& some, vec (&d)[Vectors::count]) const {
        images_.read(read, window.end, b, some);
        images_.ring().sum(window, b, some, d, [](vec sum, vec v) { return sum + v * v; });
        for (vec& value : d) value = min_div_ + add_scale_ * value;
    }

    const float* images(int64_t channel) const { return images_.ring()[channel]; }

  private:
    Rows images_;
    float add_scale_, min_div_;
};

template <bool Stream, class Power>
void norm_tile(const ChannelWindows& windows, const NormScales& scales, const Power& power, const Tile<const float>& x,
               const Tile<float>& y, int64_t width) {
    const Denominators denominators(scales, x, windows.most(), width);
    for (int64_t i = 0, read = 0; i < windows.channels; ++i) {
        const Channels window = windows.of(i);
        const float* images = denominators.images(i);
        float* out = y[i];
        along_tile(width, [&](int64_t b, auto some) {
            vec d[some.count];
            denominators(window, read, b, some, d);
            for (int v = 0; v < some.count; ++v)
                some.template write<Stream>(out + b + v * lanes, some.load(images + b + v * lanes) * power(d[v]));
        });
        read = window.end;
    }
}

// What a channel gives to the gradients of those in its window.
template <class Power>
class UndoTerms {
  public:
    UndoTerms(const ChannelWindows& windows, const NormScales& scales, const Power& power, const Tile<const float>& x,
              const Tile<const float>& gy, int64_t width)
        : windows_(windows), denominators_(scales, x, 2 * windows.most(), width), power_(power), gy_(gy),
          factor_(static_cast<float>(-2 * scales.add_scale * scales.pow_scale)),
          terms_(Ring::of<Terms>(windows.most(), width)), scaled_(Ring::of<Scaled>(windows.most(), width)) {}

    // t and gy d^-power of channel j, into their rings.
    template <class Vectors>
    void make(int64_t j, int64_t b, const Vectors& some) const {
        vec d[Vectors::count];
        denominators_(windows_.of(j), j == 0 ? 0 : windows_.of(j - 1).end, b, some, d);
        const float *x = images(j) + b, *gradient = gy_[j] + b;
        float *terms = terms_[j] + b, *scaled = scaled_[j] + b;
        for (int v = 0; v < Vectors::count; ++v, x += lanes, gradient += lanes, terms += lanes, scaled += lanes) {
            const Quotients q = power_.quotients(d[v]);
            const vec product = some.load(gradient) * q.power;
            fetch(gradient, channels_ahead * gy_.stride);
            some.store(scaled, product);
            some.store(terms, factor_ * product * some.load(x) * q.inverse);
        }
    }

    const Ring& terms() const { return terms_; }
    const float* images(int64_t channel) const { return denominators_.images(channel); }
    const float* scaled(int64_t channel) const { return scaled_[channel]; }

  private:
    ChannelWindows windows_;
    Denominators denominators_;
    Power power_;
    Tile<const float> gy_;
    float factor_;
    Ring terms_, scaled_;
};

template <bool Stream, class Power>
void undo_tile(const ChannelWindows& windows, const UndoTerms<Power>& undo, const Tile<float>& gx, int64_t width) {
    for (int64_t i = 0, made = 0; i < windows.channels; ++i) {
        const Channels window = windows.holding(i);
        const float *images = undo.images(i), *scaled = undo.scaled(i);
        float* out = gx[i];
        along_tile(width, [&](int64_t b, auto some) {
            for (int64_t j = made; j < window.end; ++j) undo.make(j, b, some);
            vec sums[some.count];
            undo.terms().sum(window, b, some, sums, [](vec sum, vec v) { return sum + v; });
            for (int v = 0, at = b; v < some.count; ++v, at += lanes)
                some.template write<Stream>(out + at, some.load(scaled + at) + some.load(images + at) * sums[v]);
        });
        made = window.end;
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
            const Tile<const float> images{x + first, s.inner};
            const Tile<float> out{y + first, s.inner};
            streamed ? norm_tile<true>(windows, scales, power, images, out, width)
                     : norm_tile<false>(windows, scales, power, images, out, width);
        });
    });
}

inline void cross_map_norm_undo(const ChannelShape& s, const ChannelWindows& windows, const NormScales& scales,
                                const float* x, const float* gy, float* gx, int threads) {
    with_power(scales.pow_scale, [&](const auto& power) {
        for_tiles(s, 3, gx, threads, [&](int64_t first, int64_t width, bool streamed) {
            const UndoTerms<std::decay_t<decltype(power)>> undo(windows, scales, power, {x + first, s.inner},
                                                               {gy + first, s.inner}, width);
            const Tile<float> out{gx + first, s.inner};
            streamed ? undo_tile<true>(windows, undo, out, width) : undo_tile<false>(windows, undo, out, width);
        });
    });
}

}  // namespace c01b
