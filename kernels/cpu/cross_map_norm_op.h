// The C entries of CrossMapNorm, CrossMapNormUndo and CrossMapSum.
#pragma once
#include "cross_map_norm.h"
#include "numpy_glue.h"

namespace c01b {

// An array of these sizes as (outer, channels, inner).
inline ChannelShape channel_shape(const int64_t (&sizes)[4], int64_t axis) {
    ChannelShape s{1, sizes[axis], 1};
    for (int64_t i = 0; i < axis; ++i) s.outer *= sizes[i];
    for (int64_t i = axis + 1; i < 4; ++i) s.inner *= sizes[i];
    return s;
}

// From Theano's ParamsType, as kernels/cross_map_norm.py has them.
template <class Fields>
ChannelWindows channel_windows(const Fields* f, int64_t channels) {
    return {channels, f->size, f->blocked != 0};
}

template <class Fields>
NormScales norm_scales(const Fields* f) {
    return {f->add_scale, f->pow_scale, f->min_div};
}

// Calls kernel(shape, windows, images, out) with *out as large as the images.
template <class Fields, class Kernel>
int across_channels(PyArrayObject* images_in, PyArrayObject** out, const Fields* f, const Kernel& kernel) {
    int64_t sizes[4];
    std::copy_n(PyArray_DIMS(images_in), 4, sizes);
    const Contiguous images(images_in);
    if (images.failed() || ensure_output(out, 4, sizes, NPY_FLOAT32)) return -1;
    const ChannelShape s = channel_shape(sizes, f->axis);
    if (s.floats() == 0) return 0;
    float* result = static_cast<float*>(PyArray_DATA(*out));
    return run_unlocked([&] { kernel(s, channel_windows(f, s.channels), images.data<float>(), result); });
}

template <class Fields>
int window_sum_op(PyArrayObject* images, PyArrayObject** out, const Fields* f) {
    return across_channels(images, out, f, [=](const auto& s, const auto& windows, const float* x, float* z) {
        window_sum(s, windows, f->transposed != 0, x, z, max_threads());
    });
}

template <class Fields>
int cross_map_norm_op(PyArrayObject* images, PyArrayObject** out, const Fields* f) {
    return across_channels(images, out, f, [=](const auto& s, const auto& windows, const float* x, float* y) {
        cross_map_norm(s, windows, norm_scales(f), x, y, max_threads());
    });
}

// Are these sizes of an operand those expected? -1 and an exception if not.
inline int check_sizes(const char* op, const char* name, const int64_t (&d)[4], const int64_t (&e)[4]) {
    if (std::equal(d, d + 4, e)) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %s is (%lld, %lld, %lld, %lld), expected (%lld, %lld, %lld, %lld)", op, name,
                 (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], (long long)e[0], (long long)e[1],
                 (long long)e[2], (long long)e[3]);
    return -1;
}

template <class Fields>
int cross_map_norm_undo_op(PyArrayObject* images, PyArrayObject* gy_in, PyArrayObject** out, const Fields* f) {
    int64_t given[4], expected[4];
    std::copy_n(PyArray_DIMS(gy_in), 4, given);
    std::copy_n(PyArray_DIMS(images), 4, expected);
    if (check_sizes("CrossMapNormUndo", "gy", given, expected)) return -1;
    const Contiguous gy(gy_in);
    if (gy.failed()) return -1;
    return across_channels(images, out, f, [&](const auto& s, const auto& windows, const float* x, float* gx) {
        cross_map_norm_undo(s, windows, norm_scales(f), x, gy.data<float>(), gx, max_threads());
    });
}

}  // namespace c01b
