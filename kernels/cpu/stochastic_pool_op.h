// The C entry of StochasticMaxPool: sizes are worked out and proven here, by the rules of pool_op.h.
#pragma once
#include "pool_op.h"
#include "stochastic_pool.h"

namespace c01b {

// From two int64 arrays without axes.
inline Philox philox_of(PyArrayObject* seed, PyArrayObject* draw) {
    return {static_cast<uint64_t>(*static_cast<const npy_int64*>(PyArray_DATA(seed))),
            static_cast<uint64_t>(*static_cast<const npy_int64*>(PyArray_DATA(draw)))};
}

inline int stochastic_max_pool_op(PyArrayObject* x_in, PyArrayObject* seed, PyArrayObject* draw, PyArrayObject** out,
                                  const PoolParams& p) {
    const Philox random = philox_of(seed, draw);
    PoolShape s;
    if (pool_shape("StochasticMaxPool", x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* z = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { stochastic_max_pool(s, random, x.data<float>(), z, max_threads()); });
}

}  // namespace c01b
