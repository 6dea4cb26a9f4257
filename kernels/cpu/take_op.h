// The C entry of TakeToC01B: images are picked by a list of numbers and converted in one pass.
//
// Bound by memory, like a conversion (transpose.h): each picked image is read once and written once, where picking and
// then converting would read and write twice.
#pragma once
#include "kept.h"
#include "relayout_op.h"

namespace c01b {

// The numbers in `list` as int64, those counted from the end as counted from the front, in the memory of `table`; null, with an
// exception set, if one is out of [-rows, rows).
inline PyArrayObject* checked_rows(const char* op, PyArrayObject* list, int64_t rows, Table<int64_t>& table) {
    npy_intp count = PyArray_SIZE(list);
    table.resize(count + 1);  // that of no number has an address, too
    int64_t* row = table.data();
    auto* picked = reinterpret_cast<PyArrayObject*>(PyArray_SimpleNewFromData(1, &count, NPY_INT64, row));
    if (!picked || PyArray_CopyInto(picked, list)) {
        Py_XDECREF(picked);
        return nullptr;
    }
    for (int64_t i = 0; i < count; ++i) {
        if (row[i] < -rows || row[i] >= rows) {
            PyErr_Format(PyExc_IndexError, "%s: index %lld is out of bounds for %lld images", op, (long long)row[i],
                         (long long)rows);
            Py_DECREF(picked);
            return nullptr;
        }
        row[i] += row[i] < 0 ? rows : 0;
    }
    return picked;
}

template <class T>
void take_as(const MatrixView& m, const int64_t* picked, int64_t count, char* out) {
    transpose_picked(reinterpret_cast<const T*>(m.data), m.step, picked, count, m.columns, reinterpret_cast<T*>(out),
                     max_threads());
}

inline void take_view(const MatrixView& m, int64_t item, const int64_t* picked, int64_t count, char* out) {
    if (count == 0 || m.columns == 0) return;
    if (item == 1)
        take_as<uint8_t>(m, picked, count, out);
    else if (item == 2)
        take_as<uint16_t>(m, picked, count, out);
    else if (item == 4)
        take_as<uint32_t>(m, picked, count, out);
    else if (item == 8)
        take_as<uint64_t>(m, picked, count, out);
    else
        take_as<Bytes16>(m, picked, count, out);
}

// *out = x[list] with the first axis last, contiguous. Images with gaps in them are picked by numpy first.
inline int take_op(const char* op, PyArrayObject* x, PyArrayObject* list, PyArrayObject** out) {
    const int ndim = PyArray_NDIM(x);
    const int64_t item = PyArray_ITEMSIZE(x);
    Table<int64_t> table;
    PyArrayObject* picked = checked_rows(op, list, PyArray_DIM(x, 0), table);
    if (!picked) return -1;
    const int64_t count = PyArray_SIZE(picked);
    MatrixView matrix;
    int failed;
    if ((item == 1 || item == 2 || item == 4 || item == 8 || item == 16) && as_matrix(x, 1, matrix)) {
        int64_t shape[NPY_MAXDIMS];
        for (int axis = 1; axis < ndim; ++axis) shape[axis - 1] = PyArray_DIM(x, axis);
        shape[ndim - 1] = count;
        const auto* rows = static_cast<const int64_t*>(PyArray_DATA(picked));
        failed = ensure_output(out, ndim, shape, PyArray_TYPE(x)) ||
                 run_unlocked([&] { take_view(matrix, item, rows, count, PyArray_BYTES(*out)); });
    } else {
        auto* taken = reinterpret_cast<PyArrayObject*>(
            PyArray_TakeFrom(x, reinterpret_cast<PyObject*>(picked), 0, nullptr, NPY_RAISE));
        failed = !taken || relayout_op(op, taken, 1, out);
        Py_XDECREF(taken);
    }
    Py_DECREF(picked);
    return failed ? -1 : 0;
}

}  // namespace c01b
