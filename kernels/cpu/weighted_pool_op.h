// The C entries of WeightedMaxPool and WeightedMaxPoolGrad: sizes are worked out and proven here, by the rules of pool_op.h.
#pragma once
#include "pool_op.h"
#include "weighted_pool.h"

namespace c01b {

inline int weighted_max_pool_op(PyArrayObject* x_in, PyArrayObject** out, const PoolParams& p) {
    PoolShape s;
    if (pool_shape("WeightedMaxPool", x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* y = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { weighted_max_pool(s, x.data<float>(), y, max_threads()); });
}

inline int weighted_max_pool_grad_op(PyArrayObject* x_in, PyArrayObject* y_in, PyArrayObject* gz_in, PyArrayObject** out,
                                     const PoolParams& p) {
    const char* op = "WeightedMaxPoolGrad";
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "y", y_in, outputs) || check_shape(op, "gz", gz_in, outputs)) return -1;
    const Contiguous x(x_in), y(y_in), gz(gz_in);
    if (x.failed() || y.failed() || gz.failed() || ensure_output(out, 4, images, NPY_FLOAT32)) return -1;
    float* gx = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out,
        [&] { weighted_max_pool_grad(s, x.data<float>(), y.data<float>(), gz.data<float>(), gx, max_threads()); });
}

}  // namespace c01b
