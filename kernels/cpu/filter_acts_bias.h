// FilterActsBias: FilterActs whose loop nests finish every sum with a bias and an activation (epilogue.h).
#pragma once
#include "conv_op.h"
#include "filter_acts.h"

namespace c01b {

// The C entry; `before` is null, or the sums with their bias go there.
inline int filter_acts_bias_op(PyArrayObject* images_in, PyArrayObject* filters_in, PyArrayObject* bias_in,
                               PyArrayObject** out, PyArrayObject** before, const ConvParams& p, Activating activation) {
    const Contiguous images(images_in), filters(filters_in), bias(bias_in);
    if (images.failed() || filters.failed() || bias.failed()) return -1;
    ConvShape s{};
    if (filter_acts_shape(images, filters, nullptr, p, s)) return -1;
    if (bias.dim(0) != s.filters) {
        PyErr_Format(PyExc_ValueError, "FilterActsBias: %lld biases for %lld channels", (long long)bias.dim(0),
                     (long long)s.filters);
        return -1;
    }
    const int64_t shape[4] = {s.filters, s.out_h, s.out_w, s.batch};
    if (before && ensure_output(before, 4, shape, NPY_FLOAT32)) return -1;
    float* sums = before ? static_cast<float*>(PyArray_DATA(*before)) : nullptr;
    const auto kernel = [&](const ConvShape&, const float* x, const float* w, float* target, int threads) {
        Correlation c = forward_correlation(s, x, w, target);
        c.epilogue = {bias.data<float>(), activation, sums};
        correlate<false>(c, threads);
    };
    return run_kernel(kernel, s, images, filters, out, shape);
}

}  // namespace c01b
