// The C entry of Tanh and Sigmoid.
#pragma once
#include "activation.h"
#include "numpy_glue.h"

namespace c01b {

// *out = Function(x), elementwise and contiguous. `inplace` allows to write to x, which happens if that is contiguous;
// otherwise the result would not be, and whoever relies on it (rewrites/tidy.py) would be wrong.
template <class Function>
int activation_op(PyArrayObject* x, bool inplace, PyArrayObject** out) {
    const float* in = static_cast<const float*>(PyArray_DATA(x));
    const bool contiguous = PyArray_ISCARRAY_RO(x);
    if (!inplace || !take_over(x, out)) {
        int64_t shape[NPY_MAXDIMS];
        for (int axis = 0; axis < PyArray_NDIM(x); ++axis) shape[axis] = PyArray_DIM(x, axis);
        if (ensure_output(out, PyArray_NDIM(x), shape, NPY_FLOAT32)) return -1;
        if (!contiguous) {  // gaps, another order of axes: bring it in order first, then work in place
            if (PyArray_CopyInto(*out, x)) return -1;
            in = static_cast<const float*>(PyArray_DATA(*out));
        }
    }
    float* result = static_cast<float*>(PyArray_DATA(*out));
    const int64_t count = PyArray_SIZE(x);
    return run_unlocked([=] { activate<Function>(in, result, count, max_threads()); });
}

}  // namespace c01b
