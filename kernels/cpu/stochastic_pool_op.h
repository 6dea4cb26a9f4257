// The C entry of StochasticMaxPool: sizes are worked out and proven here, by the rules of pool_op.h.
#pragma once
#include "pool_op.h"
#include "stochastic_pool.h"

namespace c01b {

// From an int64 vector (seed, draw); -1 and an exception if it has another length.
inline int read_seed(const char* op, PyArrayObject* vector, Philox* random) {
    if (PyArray_DIM(vector, 0) != 2) {
        PyErr_Format(PyExc_ValueError, "%s: seed has %lld elements, expected (seed, draw)", op,
                     (long long)PyArray_DIM(vector, 0));
        return -1;
    }
    random->seed = static_cast<uint64_t>(*static_cast<const npy_int64*>(PyArray_GETPTR1(vector, 0)));
    random->draw = static_cast<uint64_t>(*static_cast<const npy_int64*>(PyArray_GETPTR1(vector, 1)));
    return 0;
}

inline int stochastic_max_pool_op(PyArrayObject* x_in, PyArrayObject* seed, PyArrayObject** out, const PoolParams& p) {
    const char* op = "StochasticMaxPool";
    PoolShape s;
    Philox random;
    if (read_seed(op, seed, &random) || pool_shape(op, x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* z = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { stochastic_max_pool(s, random, x.data<float>(), z, max_threads()); });
}

}  // namespace c01b
