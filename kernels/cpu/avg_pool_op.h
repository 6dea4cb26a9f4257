// The C entries of AvgPool and AvgPoolGrad: sizes are worked out and proven here, by the rules of pool_op.h.
#pragma once
#include "avg_pool.h"
#include "pool_op.h"

namespace c01b {

// From Theano's ParamsType: `counting` is the place of the op's mode in MODES of kernels/reference/avg_pool.py.
template <class Fields>
Averaging averaging(const Fields* f) {
    const bool pad_counts = f->counting == 2;
    return {f->counting != 0, pad_counts ? std::max<int64_t>(0, -f->start_y) : 0,
            pad_counts ? std::max<int64_t>(0, -f->start_x) : 0};
}

inline int avg_pool_op(PyArrayObject* x_in, PyArrayObject** out, const PoolParams& p, const Averaging& a) {
    PoolShape s;
    if (pool_shape("AvgPool", x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* z = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { avg_pool(s, a, x.data<float>(), z, max_threads()); });
}

// The (rows, columns) of an int64 vector.
inline int image_size(const char* op, PyArrayObject* vector, int64_t* height, int64_t* width) {
    if (PyArray_DIM(vector, 0) != 2) {
        PyErr_Format(PyExc_ValueError, "%s: output_shape has %lld elements, expected (rows, columns)", op,
                     (long long)PyArray_DIM(vector, 0));
        return -1;
    }
    *height = *static_cast<const npy_int64*>(PyArray_GETPTR1(vector, 0));
    *width = *static_cast<const npy_int64*>(PyArray_GETPTR1(vector, 1));
    constexpr int64_t largest = INT32_MAX;  // larger ones could overflow an index
    if (*height >= 0 && *width >= 0 && *height <= largest && *width <= largest) return 0;
    PyErr_Format(PyExc_ValueError, "%s: images of %lld x %lld", op, (long long)*height, (long long)*width);
    return -1;
}

inline int avg_pool_grad_op(PyArrayObject* gz_in, PyArrayObject* output_shape, PyArrayObject** out, const PoolParams& p,
                            const Averaging& a) {
    const char* op = "AvgPoolGrad";
    const npy_intp* dims = PyArray_DIMS(gz_in);
    PoolShape s{dims[0], 0, 0, dims[3], 0, 0, p.y, p.x};
    if (image_size(op, output_shape, &s.height, &s.width) || complete_outputs(op, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "gz", gz_in, outputs)) return -1;
    const Contiguous gz(gz_in);
    if (gz.failed() || ensure_output(out, 4, images, NPY_FLOAT32)) return -1;
    float* gx = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { avg_pool_grad(s, a, gz.data<float>(), gx, max_threads()); });
}

}  // namespace c01b
