// Probabilistic max-pooling and its gradient. Of a window's pixels at most one is on; t is what comes from above.
//
//     forward    h[pixel] = exp(z[pixel]) / D,  p = (sum of exp(z)) / D,  D = exp(-t) + sum of exp(z)
//     gradient   gz[pixel] = h (gh - s + (1-p) gp),  gt = (1-p) (s + p gp),  s = sum of h gh
//
//     z, h:  +----+----+----+----+--      t, p:  +----+----+--
//            | B  | B  | B  | B  | ...           | B  | B  |        B = the pixel's batch, contiguous
//            +----+----+----+----+--  ds = 2     +----+----+--
//            | B  | B  | B  | B  | ...
//            +----+----+----+----+--
//
// Windows lie side by side, so each vector of images of a window is finished at once, in registers and the L1 cache: the largest,
// the exponentials, which h holds meanwhile, their sum, the quotients. Pixels of no window are cleared before, where there are
// any. Exponentials are of differences to the largest. Forward is bound by arithmetic (exp takes some 20 operations), the
// gradient by memory.
#pragma once
#include "activation.h"
#include "pool_windows.h"

namespace c01b {

// exp(x) for x <= 0 and NaN; 0 below the smallest float32 number. Relative error within 2 units of the last place.
inline vec exp_of_nonpositive(vec x) {
    const Exponential e = exponential<64>(x < -105.0f ? splat(-105.0f) : x);
    return (e.scale * e.p + e.scale) * 0x1p-64f;
}

// NaN comes through the exponentials, whether it is taken for the largest or not.
template <int Rows, int Columns, bool>
struct WindowSoftmax {
    static void run(const float* z, const float* t, const Patch& patch, float* p, float* h, int64_t batch) {
        each_of_batch(batch, [&](int64_t b, auto some) {
            const vec none = -some.load(t + b);
            vec largest = none, any = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                const vec v = some.load(z + offset + b);
                largest = v > largest ? v : largest;
            });
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                const vec e = exp_of_nonpositive(some.load(z + offset + b) - largest);
                some.store(h + offset + b, e);
                any += e;
            });
            const vec whole = any + exp_of_nonpositive(none - largest);
            some.store(p + b, any / whole);
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                some.store(h + offset + b, some.load(h + offset + b) / whole);
            });
        });
    }
};

template <int Rows, int Columns, bool>
struct WindowSoftmaxGradient {
    static void run(const float* p, const float* h, const float* gp, const float* gh, const Patch& patch, float* gz, float* gt,
                    int64_t batch) {
        each_of_batch(batch, [&](int64_t b, auto some) {
            const vec on = some.load(p + b), off = 1.0f - on, of_p = some.load(gp + b);
            vec inside = zero();
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                inside += some.load(h + offset + b) * some.load(gh + offset + b);
            });
            const vec shared = inside - off * of_p;
            for_patch<Rows, Columns>(patch, [&](int64_t offset) {
                some.store(gz + offset + b, some.load(h + offset + b) * (some.load(gh + offset + b) - shared));
            });
            some.store(gt + b, off * (inside + on * of_p));
        });
    }
};

// Are there pixels that no window covers, along an axis of windows side by side?
inline bool leaves_pixels(const PoolAxis& axis, int64_t pixels, int64_t windows) {
    return axis.start > 0 || axis.start + windows * axis.size < pixels;
}

// body as for_windows has it, for each window of all channels; before that `images` are cleared if windows leave pixels out.
template <class Body>
void for_all_windows(const PoolShape& s, float* images, int threads, const Body& body) {
    const int64_t plane = s.height * s.width * s.batch;
    threads = threads_for((s.image_floats() + s.output_floats()) * int64_t{sizeof(float)}, threads);
    if (leaves_pixels(s.y, s.height, s.out_h) || leaves_pixels(s.x, s.width, s.out_w))
        parallel_for(s.channels, threads, [&](int64_t channel, int) { std::fill_n(images + channel * plane, plane, 0.0f); });
    parallel_for(s.channels * s.out_h, threads, [&](int64_t row, int) { for_windows(s, row / s.out_h, row % s.out_h, body); });
}

inline void prob_max_pool(const PoolShape& s, const float* z, const float* t, float* p, float* h, int threads) {
    for_all_windows(s, h, threads, [&](int64_t pixel, int64_t window, const Patch& patch) {
        select<WindowSoftmax, false>(patch)(z + pixel, t + window, patch, p + window, h + pixel, s.batch);
    });
}

inline void prob_max_pool_grad(const PoolShape& s, const float* p, const float* h, const float* gp, const float* gh, float* gz,
                               float* gt, int threads) {
    for_all_windows(s, gz, threads, [&](int64_t pixel, int64_t window, const Patch& patch) {
        select<WindowSoftmaxGradient, false>(patch)(p + window, h + pixel, gp + window, gh + pixel, patch, gz + pixel,
                                                    gt + window, s.batch);
    });
}

}  // namespace c01b
