// The C entries of ToC01B, StoredToC01B and ToBC01: all move one axis from one end to the other, which transposes the matrix
// that the array is with all its other axes collapsed into one.
#pragma once
#include "numpy_glue.h"
#include "parallel.h"
#include "transpose.h"

namespace c01b {

// An array as a matrix: axes [0, split) are its rows, the others its columns; element (i, j) at data + i * step + j.
struct MatrixView {
    const char* data;
    int64_t rows, columns, step;  // step in elements
};

// Can axes [from, to) be walked as one, with `inner` bytes between neighbours of the last? Axes of size 1 do not
// matter.
inline bool collapses(PyArrayObject* x, int from, int to, int64_t inner) {
    for (int axis = to - 1; axis >= from; --axis) {
        if (PyArray_DIM(x, axis) == 1) continue;
        if (PyArray_STRIDE(x, axis) != inner) return false;
        inner *= PyArray_DIM(x, axis);
    }
    return true;
}

// Distance between rows in bytes: the stride of the innermost row axis that is longer than 1.
inline int64_t row_stride(PyArrayObject* x, int split, int64_t columns) {
    for (int axis = split - 1; axis >= 0; --axis)
        if (PyArray_DIM(x, axis) != 1) return PyArray_STRIDE(x, axis);
    return columns * PyArray_ITEMSIZE(x);
}

inline bool as_matrix(PyArrayObject* x, int split, MatrixView& view) {
    const int64_t item = PyArray_ITEMSIZE(x);
    view = {PyArray_BYTES(x), 1, 1, 0};
    for (int axis = 0; axis < PyArray_NDIM(x); ++axis)
        (axis < split ? view.rows : view.columns) *= PyArray_DIM(x, axis);
    const int64_t stride = row_stride(x, split, view.columns);
    view.step = stride / item;
    // Elements move as integers of their size, which numpy need not have aligned: complex64 is aligned as float32.
    const bool aligned = reinterpret_cast<uintptr_t>(view.data) % std::min<int64_t>(item, sizeof(uint64_t)) == 0;
    return aligned && stride >= 0 && stride % item == 0 && collapses(x, split, PyArray_NDIM(x), item) &&
           collapses(x, 0, split, stride);
}

template <class T>
void transpose_as(const MatrixView& m, char* out, int threads) {
    transpose(reinterpret_cast<const T*>(m.data), m.step, m.rows, m.columns, reinterpret_cast<T*>(out), threads);
}

inline void transpose_view(const MatrixView& m, int64_t item, char* out, int threads) {
    const bool gapless = m.columns == 1 ? m.step == 1 : m.step == m.columns;
    if (m.rows == 0 || m.columns == 0) return;
    if (m.rows == 1 || (m.columns == 1 && gapless))
        std::memcpy(out, m.data, m.rows * m.columns * item);
    else if (item == 1)
        transpose_as<uint8_t>(m, out, threads);
    else if (item == 2)
        transpose_as<uint16_t>(m, out, threads);
    else if (item == 4)
        transpose_as<uint32_t>(m, out, threads);
    else if (item == 8)
        transpose_as<uint64_t>(m, out, threads);
    else
        transpose_as<Bytes16>(m, out, threads);
}

// Moves the first `split` axes of x behind the others, into a contiguous *out: split 1 is bc01 -> c01b, ndim - 1 the
// way back. Any strides: what is not a matrix with contiguous rows is copied first.
inline int relayout_op(const char* op, PyArrayObject* x, int split, PyArrayObject** out) {
    const int ndim = PyArray_NDIM(x);
    const int64_t item = PyArray_ITEMSIZE(x);
    if (ndim < 2 || (item != 1 && item != 2 && item != 4 && item != 8 && item != 16)) {
        PyErr_Format(PyExc_ValueError, "%s: got %d axes of %lld-byte elements", op, ndim, (long long)item);
        return -1;
    }
    int64_t shape[NPY_MAXDIMS];
    for (int axis = 0; axis < ndim; ++axis) shape[axis] = PyArray_DIM(x, (axis + split) % ndim);
    if (ensure_output(out, ndim, shape, PyArray_TYPE(x))) return -1;
    MatrixView matrix;
    if (as_matrix(x, split, matrix))
        return run_unlocked([&] { transpose_view(matrix, item, PyArray_BYTES(*out), max_threads()); });
    auto* copy = reinterpret_cast<PyArrayObject*>(PyArray_NewCopy(x, NPY_CORDER));
    if (!copy) return -1;
    as_matrix(copy, split, matrix);
    const int failed = run_unlocked([&] { transpose_view(matrix, item, PyArray_BYTES(*out), max_threads()); });
    Py_DECREF(copy);
    return failed;
}

// The same, as a view of x where that is contiguous already: x is then stored in the layout that is asked for.
inline int view_or_relayout(const char* op, PyArrayObject* x, int split, PyArrayObject** out) {
    const int ndim = PyArray_NDIM(x);
    npy_intp axes[NPY_MAXDIMS];
    for (int axis = 0; axis < ndim; ++axis) axes[axis] = (axis + split) % ndim;
    PyArray_Dims order{axes, ndim};
    Py_CLEAR(*out);  // not written to again: it may be a view of an earlier x, or an earlier x of this one
    *out = reinterpret_cast<PyArrayObject*>(PyArray_Transpose(x, &order));
    if (!*out) return -1;
    if (PyArray_ISCARRAY_RO(*out)) return 0;
    Py_CLEAR(*out);
    return relayout_op(op, x, split, out);
}

}  // namespace c01b
