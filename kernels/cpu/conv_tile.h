// Which loop nest a convolution takes: images in the lanes, or where a small batch would leave lanes empty, filters, or a whole
// row with few products, or source pixels that scatter what they contribute to a gradient; all positions where filters have one
// tap; where there is little to compute for a pixel, neither source nor sums are put anywhere else first; and Winograd's algorithm
// where what it saves in products outweighs its transforms (rewrites/cost.py knows the same choice).
#pragma once
#include <cmath>

#include "conv_batch_lanes.h"
#include "conv_filter_lanes.h"
#include "conv_pointwise.h"
#include "conv_row_lanes.h"
#include "conv_scatter.h"
#include "conv_unpacked.h"
#include "conv_winograd.h"
#include "winograd_scatter.h"

namespace c01b {

// Lanes computed for each lane wanted.
inline double padding(int64_t count) { return static_cast<double>(block_count(count, lanes) * lanes) / count; }

inline double products_of(const Correlation& c) {
    return std::max(1.0, c.depth * mean_taps(c.rows) * mean_taps(c.columns));
}

// Transposing the sums of a pixel to the target takes the time of about 60 products (measured), so a pixel with few of
// them is better off with some empty lanes.
inline bool filters_fill_lanes_better(const Correlation& c) {
    return padding(c.filters) * (1.03 + 60 / products_of(c)) < padding(c.batch);
}

// A panel pays where its pixels are read often: by many filters, or for many taps, which the fewer filters there are the
// better share their loads with neighbours (measured: even at about 25 products a pixel and filter).
inline bool packing_is_in_vain(const Correlation& c) {
    const int64_t worthwhile = 24;
    return c.filters <= tile_rows && c.depth * mean_taps(c.rows) * mean_taps(c.columns) <= worthwhile * c.filters;
}

// What kernels with images or filters in the lanes take, in multiply-adds of a vector on each thread: they reach 88% of peak, or
// a third with one to three filters (measured), and the sums of a pixel cost as much as 6 products, or 60 with filters in the
// lanes; there a gradient's weights are transposed, 3.5 for each.
inline double lanes_cost(const Correlation& c, int threads) {
    const double pixels = double(c.rows.span.size()) * c.columns.span.size() * c.batch;
    const bool filter_lanes = filters_fill_lanes_better(c);
    const double products = filter_lanes ? padding(c.filters) * (1.03 * products_of(c) * thin_tiles(c) + 60)
                                         : padding(c.batch) * (products_of(c) + 6);
    const double share = neighbours_of(c.filters) > 1 ? 0.35 : 0.88;
    const double weights = filter_lanes && c.filter_stride != 1
        ? 3.5 * c.rows.order.size() * c.columns.order.size() * c.depth * c.filters : 0;
    return c.groups * (pixels * c.filters * products / (share * lanes) + weights) / threads;
}

// The loop nests that compute every product, of which `run` takes the one that costs least, in multiply-adds of a vector on each
// thread.
class Direct {
public:
    double cost;

    Direct(const Correlation& c, int threads)
        : c(c), threads(threads), in_lanes(lanes_cost(c, threads)), row_lanes(c, threads), scatter(c, threads),
          pointwise(c, threads) {
        cost = std::min({in_lanes, row_lanes.cost, scatter.cost, pointwise.cost});
    }

    void run() const {
        if (packing_is_in_vain(c)) return correlate_unpacked(c, threads);
        if (pointwise.cost < std::min({in_lanes, row_lanes.cost, scatter.cost})) return pointwise.run(threads);
        if (scatter.cost < std::min(in_lanes, row_lanes.cost)) return scatter.run(threads);
        if (row_lanes.cost < 0.97 * in_lanes && row_lanes.run(threads)) return;
        if (filters_fill_lanes_better(c)) correlate_filter_lanes(c, threads);
        else correlate_batch_lanes(c, threads);
    }

private:
    const Correlation& c;
    int threads;
    double in_lanes;
    RowLanes row_lanes;
    Scatter scatter;
    Pointwise pointwise;
};

// Runs the cheapest of what is allowed and takes less than `least`. False: the target is not computed.
template <class... Algorithm>
bool run_cheapest(double least, int threads, const Algorithm&... algorithm) {
    const double cheapest = std::min({(algorithm.allowed() ? algorithm.cost : HUGE_VAL)...});
    if (!(cheapest < least)) return false;
    bool done = false;
    const auto run = [&](const auto& a) { return a.allowed() && a.cost == cheapest && (done = a.run(threads), true); };
    (void)(run(algorithm) || ...);
    return done;
}

template <int R, bool Gradient>
bool correlate_by_winograd(const Correlation& c, double least, int threads) {
    const ConvWinograd<2, R> two(c, threads);
    if constexpr (R == 3) return run_cheapest(least, threads, two, ConvWinograd<4, R>(c, threads));
    else if constexpr (R == 5 && Gradient)
        return run_cheapest(least, threads, two, ConvWinograd<4, R>(c, threads), WinogradScatter<2, R>(c, threads),
                            WinogradScatter<4, R>(c, threads));
    else if constexpr (R == 5) return run_cheapest(least, threads, two, ConvWinograd<4, R>(c, threads));
    else if constexpr (Gradient) return run_cheapest(least, threads, two, WinogradScatter<2, R>(c, threads));
    else return run_cheapest(least, threads, two);
}

// Prices are good to some 10%, so Winograd's has to be better than that. False: the target is not computed.
template <bool Gradient>
bool correlate_by_winograd(const Correlation& c, double direct_cost, int threads) {
    if (!c.winograd || !c.depth || phase_taps(c.rows) != phase_taps(c.columns)) return false;
    const bool asked_for = c.winograd < 0;
    if (!asked_for && packing_is_in_vain(c)) return false;
    const double least = asked_for ? HUGE_VAL : 0.9 * direct_cost;
    switch (phase_taps(c.rows)) {
        case 3: return correlate_by_winograd<3, Gradient>(c, least, threads);
        case 5: return correlate_by_winograd<5, Gradient>(c, least, threads);
        case 7: return correlate_by_winograd<7, Gradient>(c, least, threads);
        default: return false;
    }
}

// Waking a thread that sleeps takes 50 to 100 microseconds, so what takes one thread less than that has no use for another.
inline int worthwhile_threads(const Correlation& c, int threads) {
    const double worthwhile = 3.5e5;  // multiply-adds of a vector
    return lanes_cost(c, 1) < worthwhile ? 1 : std::max(threads, 1);
}

template <bool Gradient>
void correlate(const Correlation& c, int threads) {
    if (c.rows.span.empty() || c.columns.span.empty() || !c.batch || !c.filters) return;
    threads = worthwhile_threads(c, threads);
    const Direct direct(c, threads);
    if (!correlate_by_winograd<Gradient>(c, direct.cost, threads)) direct.run();
}

}  // namespace c01b
