// The C entry of GpuToC01B and GpuToBC01: both transpose the matrix that an array is with its axes collapsed into two.
#pragma once
#include "arrays.h"

namespace c01b {
namespace gpu {

// An array as a matrix: axes [0, split) are its rows, `step` elements apart, the others its columns, contiguous.
struct Matrix {
    int64_t rows, columns, step;
};

// Can axes [from, to) be walked as one, with `inner` bytes between neighbours of the last? Axes of size 1 do not matter.
inline bool collapses(const GpuArray& x, int from, int to, int64_t inner) {
    for (int axis = to - 1; axis >= from; --axis) {
        if (x.dimensions[axis] == 1) continue;
        if (x.strides[axis] != inner) return false;
        inner *= static_cast<int64_t>(x.dimensions[axis]);
    }
    return true;
}

inline bool as_matrix(const GpuArray& x, int split, Matrix& m) {
    const int64_t item = static_cast<int64_t>(gpuarray_get_elsize(x.typecode));
    m = {1, 1, 0};
    for (int axis = 0; axis < static_cast<int>(x.nd); ++axis)
        (axis < split ? m.rows : m.columns) *= static_cast<int64_t>(x.dimensions[axis]);
    int64_t stride = m.columns * item;  // of the innermost row axis that is longer than 1
    for (int axis = 0; axis < split; ++axis)
        if (x.dimensions[axis] != 1) stride = x.strides[axis];
    m.step = stride / item;
    return GpuArray_ISALIGNED(&x) && stride >= 0 && stride % item == 0 && x.offset % static_cast<size_t>(item) == 0 &&
           collapses(x, split, static_cast<int>(x.nd), item) && collapses(x, 0, split, stride);
}

inline int transpose(const Device& device, const char* op, const Matrix& m, int64_t item, Buffer in, Buffer out) {
    static const std::map<int64_t, const char*> elements = {{1, "ga_ubyte"}, {2, "ga_ushort"}, {4, "ga_uint"}, {8, "ga_ulong"}};
    constexpr int64_t side = 32, most = (int64_t(1) << 31) - 1;
    const int64_t row_tiles = (m.rows + side - 1) / side, column_tiles = (m.columns + side - 1) / side;
    if (row_tiles > most / std::max<int64_t>(1, column_tiles)) {
        PyErr_Format(PyExc_ValueError, "%s: %lld x %lld elements are too many for the GPU kernel", op, (long long)m.rows,
                     (long long)m.columns);
        return -1;
    }
    const Program program{{"relayout.cluda"}, "transpose", std::string("#define ELEMENT ") + elements.at(item) + "\n",
                          item < 4 ? GA_USE_SMALL : 0};
    const Grid grid{{static_cast<size_t>(row_tiles * column_tiles), 1, 1}, {side, 8, 1}};
    return launch(device, program, grid, in, out, m.rows, m.columns, m.step, static_cast<int32_t>(column_tiles));
}

// Moves the first `split` axes of x behind the others, into a contiguous *out: split 1 is bc01 -> c01b, ndim - 1 the
// way back. Any strides: what is not a matrix with contiguous rows is copied first.
inline int relayout_op(const char* op, PyGpuArrayObject* x, int split, PyGpuArrayObject** out, PyGpuContextObject* context) {
    constexpr size_t most_axes = 32;
    const Device device(context);
    const size_t ndim = x->ga.nd;
    const int64_t item = static_cast<int64_t>(gpuarray_get_elsize(x->ga.typecode));
    if (ndim < 2 || ndim > most_axes || (item != 1 && item != 2 && item != 4 && item != 8)) {
        PyErr_Format(PyExc_ValueError, "%s: got %zu axes of %lld-byte elements", op, ndim, (long long)item);
        return -1;
    }
    int64_t shape[most_axes];
    for (size_t axis = 0; axis < ndim; ++axis)
        shape[axis] = static_cast<int64_t>(x->ga.dimensions[(axis + static_cast<size_t>(split)) % ndim]);
    if (ensure_output(device, op, out, shape, x->ga.typecode, ndim)) return -1;
    if (is_empty(x)) return 0;
    Matrix matrix;
    if (as_matrix(x->ga, split, matrix)) return transpose(device, op, matrix, item, buffer_of(x), buffer_of(*out));
    PyGpuArrayObject* copy = pygpu_copy(x, GA_C_ORDER);
    if (!copy) return -1;
    as_matrix(copy->ga, split, matrix);
    const int failed = transpose(device, op, matrix, item, buffer_of(copy), buffer_of(*out));
    Py_DECREF(copy);
    return failed;
}

}  // namespace gpu
}  // namespace c01b
