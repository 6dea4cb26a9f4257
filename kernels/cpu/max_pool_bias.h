// MaxPoolBias: max-pooling (max_pool.h) that adds a bias and applies an activation (epilogue.h) to a row of maxima while the
// second-level cache holds it.
#pragma once
#include "epilogue.h"
#include "pool_op.h"

namespace c01b {

// y = f(z + bias), z = the maxima. `z` may be `y`.
inline void max_pool_bias(const PoolShape& s, const float* x, const float* bias, Activating activation, float* z, float* y,
                          int threads) {
    const int64_t bytes = (s.image_floats() + s.output_floats()) * int64_t{sizeof(float)}, run = s.out_w * s.batch;
    parallel_for(s.channels * s.out_h, threads_for(bytes, threads), [&](int64_t row, int) {
        const int64_t channel = row / s.out_h;
        max_pool_row<false>(s, channel, row % s.out_h, x, z);
        with_activation(activation, [&](const auto& f) {
            finish_run(f, bias[channel], z + row * run, y + row * run, nullptr, run);
        });
    });
}

// The C entry; `maxima` is null, or they go there.
inline int max_pool_bias_op(PyArrayObject* x_in, PyArrayObject* bias_in, PyArrayObject** out, PyArrayObject** maxima,
                            const PoolParams& p, Activating activation) {
    PoolShape s;
    if (pool_shape("MaxPoolBias", x_in, p, s)) return -1;
    const Contiguous x(x_in), bias(bias_in);
    if (x.failed() || bias.failed()) return -1;
    if (bias.dim(0) != s.channels) {
        PyErr_Format(PyExc_ValueError, "MaxPoolBias: %lld biases for %lld channels", (long long)bias.dim(0),
                     (long long)s.channels);
        return -1;
    }
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (ensure_output(out, 4, shape, NPY_FLOAT32) || (maxima && ensure_output(maxima, 4, shape, NPY_FLOAT32))) return -1;
    float* y = static_cast<float*>(PyArray_DATA(*out));
    float* z = maxima ? static_cast<float*>(PyArray_DATA(*maxima)) : y;
    return run_on(*out, [&] { max_pool_bias(s, x.data<float>(), bias.data<float>(), activation, z, y, max_threads()); });
}

}  // namespace c01b
