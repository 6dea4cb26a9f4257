// The C entries of FilterActs, ImageActs and WeightActs: sizes are worked out and proven here, once, so that the
// kernels need no check. The formulas are those of kernels/geometry.py, the messages those of kernels/conv.py.
#pragma once
#include <algorithm>

#include "conv_shape.h"
#include "numpy_glue.h"
#include "parallel.h"

namespace c01b {

// One axis of the op's parameters. A leading pad of -1 stands for 'half' (filter // 2), -2 for 'full' (filter - 1):
// pads that are known only with the filter's size (Theano's border modes).
struct ConvAxis {
    int64_t stride, pad_before, pad_after;

    ConvAxis resolved(int64_t filter) const {
        if (pad_before == -1) return {stride, filter / 2, filter / 2};
        if (pad_before == -2) return {stride, filter - 1, filter - 1};
        return *this;
    }
};

struct ConvParams {
    ConvAxis y, x;
    bool flip, ceil_mode;
    int64_t partial_sum;  // 0: all output positions; only WeightActs looks at it
    int64_t groups;
    int64_t winograd;  // as in ConvShape
};

// From Theano's ParamsType: the fields are those of _PARAMS in kernels/conv.py.
template <class Fields>
ConvParams conv_params(const Fields* f) {
    return {{f->stride_y, f->pad_top, f->pad_bottom},
            {f->stride_x, f->pad_left, f->pad_right},
            f->flip != 0,
            f->ceil_mode != 0,
            f->partial_sum,
            f->groups,
            f->winograd};
}

// No image is larger, and no product of two such numbers overflows.
constexpr int64_t largest_size = (int64_t(1) << 31) - 1;

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

// Output positions along one axis of a resolved ConvAxis: floor (Theano) or ceiling (cuda-convnet; spec section 1).
inline int64_t conv_outputs(int64_t image, int64_t filter, const ConvAxis& axis, bool ceil_mode) {
    const int64_t room = image + axis.pad_before + axis.pad_after - filter;
    return (ceil_mode ? -floor_div(-room, axis.stride) : floor_div(room, axis.stride)) + 1;
}

// Does a grid of `outputs` positions belong to this axis? Theano's floor geometry is exact; cuda-convnet's takes any
// count from the floor upwards, since further windows read zeros.
inline int check_grid(const char* op, const char* axis_name, int64_t outputs, int64_t image, int64_t filter,
                      const ConvAxis& axis, bool ceil_mode) {
    const int64_t least = conv_outputs(image, filter, axis, false);
    if (ceil_mode ? outputs >= least : outputs == least) return 0;
    PyErr_Format(PyExc_ValueError,
                 "%s: %lld output %s do not fit images of %lld, filters of %lld, pad (%lld, %lld), stride %lld: "
                 "%s %lld",
                 op, (long long)outputs, axis_name, (long long)image, (long long)filter, (long long)axis.pad_before,
                 (long long)axis.pad_after, (long long)axis.stride, ceil_mode ? "at least" : "expected",
                 (long long)least);
    return -1;
}

inline int check_equal(const char* op, const char* what, int64_t a, const char* whose_a, int64_t b,
                       const char* whose_b) {
    if (a == b) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %s differ: %s have %lld, %s have %lld", op, what, whose_a, (long long)a,
                 whose_b, (long long)b);
    return -1;
}

inline int check_groups(const char* op, int64_t groups, const char* what, int64_t count) {
    if (count % groups == 0) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %lld groups do not divide %lld %s", op, (long long)groups, (long long)count,
                 what);
    return -1;
}

// Reads an output_shape argument: two non-negative integers.
inline int read_shape(const char* op, PyArrayObject* shape, int64_t* rows, int64_t* columns) {
    if (PyArray_NDIM(shape) != 1 || PyArray_DIM(shape, 0) != 2) {
        PyErr_Format(PyExc_ValueError, "%s: output_shape must be 2 integers, got %d axes and %lld elements", op,
                     PyArray_NDIM(shape), (long long)PyArray_SIZE(shape));
        return -1;
    }
    int64_t* target[2] = {rows, columns};
    for (int i = 0; i < 2; ++i) {
        PyObject* item = PyArray_GETITEM(shape, static_cast<char*>(PyArray_GETPTR1(shape, i)));
        if (!item) return -1;
        *target[i] = PyLong_AsLongLong(item);
        Py_DECREF(item);
        if (*target[i] == -1 && PyErr_Occurred()) return -1;
        if (*target[i] < 0) {
            PyErr_Format(PyExc_ValueError, "%s: output_shape has a negative size: %lld", op, (long long)*target[i]);
            return -1;
        }
        if (*target[i] > largest_size) {
            PyErr_Format(PyExc_ValueError, "%s: output_shape is too large: %lld", op, (long long)*target[i]);
            return -1;
        }
    }
    return 0;
}

// The kernel's view of checked sizes.
inline int complete(const char* op, ConvShape& s, const ConvParams& p) {
    if (check_groups(op, p.groups, "channels", s.channels) || check_groups(op, p.groups, "filters", s.filters))
        return -1;
    s.groups = p.groups;
    const ConvAxis y = p.y.resolved(s.filter_h), x = p.x.resolved(s.filter_w);
    s.stride_y = y.stride, s.stride_x = x.stride;
    s.pad_y = y.pad_before, s.pad_x = x.pad_before;
    s.flip = p.flip;
    s.winograd = p.winograd;
    return 0;
}

// Filters without rows or columns, as CorrMM has it: all sums are of nothing, and there is no gradient of such filters. To the
// kernels they have one tap, and there is no channel, or filter, to sum over: `depth` is the one of s.
inline void without_taps(ConvShape& s, int64_t& depth) {
    if (s.filter_h && s.filter_w) return;
    depth = 0;
    s.filter_h = s.filter_w = 1;
    s.pad_y = s.pad_x = 0;
}

inline int check_taps(const char* op, const ConvShape& s) {
    if (s.filter_h && s.filter_w) return 0;
    PyErr_Format(PyExc_ValueError, "%s: filters of %lld x %lld", op, (long long)s.filter_h, (long long)s.filter_w);
    return -1;
}

inline int check_grids(const char* op, const ConvShape& s, const ConvParams& p) {
    return check_grid(op, "rows", s.out_h, s.height, s.filter_h, p.y.resolved(s.filter_h), p.ceil_mode) ||
                   check_grid(op, "columns", s.out_w, s.width, s.filter_w, p.x.resolved(s.filter_w), p.ceil_mode)
               ? -1
               : 0;
}

// Sizes that the arrays at hand give; the rest stays 0. Filters have the channels of one group.
template <class Array>
void sizes_from_images(ConvShape& s, const Array& images) {
    s.channels = images.dim(0), s.height = images.dim(1), s.width = images.dim(2), s.batch = images.dim(3);
}

template <class Array>
void sizes_from_filters(ConvShape& s, const Array& filters, const ConvParams& p) {
    s.channels = filters.dim(0) * p.groups;
    s.filter_h = filters.dim(1), s.filter_w = filters.dim(2), s.filters = filters.dim(3);
}

template <class Array>
void sizes_from_outputs(ConvShape& s, const Array& hid) {
    s.filters = hid.dim(0), s.out_h = hid.dim(1), s.out_w = hid.dim(2), s.batch = hid.dim(3);
}

// The output's memory, then the kernel on it.
template <class Kernel>
int run_kernel(const Kernel& kernel, const ConvShape& s, const Contiguous& a, const Contiguous& b, PyArrayObject** out,
               const int64_t (&shape)[4]) {
    if (ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* target = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { kernel(s, a.data<float>(), b.data<float>(), target, max_threads()); });
}

// FilterActs without an output_shape: as many outputs as there are.
inline int all_outputs(ConvShape& s, const ConvParams& p) {
    s.out_h = conv_outputs(s.height, s.filter_h, p.y.resolved(s.filter_h), p.ceil_mode);
    s.out_w = conv_outputs(s.width, s.filter_w, p.x.resolved(s.filter_w), p.ceil_mode);
    if (std::min(s.out_h, s.out_w) >= 1 && std::max(s.out_h, s.out_w) <= largest_size) return 0;
    PyErr_Format(PyExc_ValueError,
                 "FilterActs: images of %lld x %lld give %lld x %lld outputs with filters of %lld x %lld, "
                 "leading pad (%lld, %lld), stride (%lld, %lld)",
                 (long long)s.height, (long long)s.width, (long long)s.out_h, (long long)s.out_w,
                 (long long)s.filter_h, (long long)s.filter_w, (long long)s.pad_y, (long long)s.pad_x,
                 (long long)s.stride_y, (long long)s.stride_x);
    return -1;
}

// ImageActs without an output_shape: the stride is 1, so the images' size follows from the outputs'.
inline int only_image(ConvShape& s, const ConvParams& p) {
    const ConvAxis y = p.y.resolved(s.filter_h), x = p.x.resolved(s.filter_w);
    s.height = s.out_h + s.filter_h - 1 - y.pad_before - y.pad_after;
    s.width = s.out_w + s.filter_w - 1 - x.pad_before - x.pad_after;
    if (s.height >= 0 && s.width >= 0) return 0;
    PyErr_Format(PyExc_ValueError, "ImageActs: images would be %lld x %lld", (long long)s.height, (long long)s.width);
    return -1;
}

// The checks of the three ops: they complete `s`, or return -1 with an exception set. An Array has `dim`, on the CPU or a GPU.
template <class Array>
int filter_acts_shape(const Array& images, const Array& filters, PyArrayObject* output_shape, const ConvParams& p,
                      ConvShape& s) {
    const char* op = "FilterActs";
    sizes_from_filters(s, filters, p);
    sizes_from_images(s, images);
    const char* channels = p.groups == 1 ? "channels" : "channels of a group";
    if (complete(op, s, p) || check_equal(op, channels, s.group_channels(), "images", filters.dim(0), "filters"))
        return -1;
    if (output_shape ? read_shape(op, output_shape, &s.out_h, &s.out_w) || check_grids(op, s, p) : all_outputs(s, p))
        return -1;
    without_taps(s, s.channels);
    return 0;
}

template <class Array>
int image_acts_shape(const Array& hid, const Array& filters, PyArrayObject* output_shape, const ConvParams& p,
                     ConvShape& s) {
    const char* op = "ImageActs";
    sizes_from_outputs(s, hid);
    sizes_from_filters(s, filters, p);
    if (check_equal(op, "filters", hid.dim(0), "output gradients", s.filters, "filters") || complete(op, s, p))
        return -1;
    if ((output_shape ? read_shape(op, output_shape, &s.height, &s.width) : only_image(s, p)) || check_grids(op, s, p))
        return -1;
    without_taps(s, s.filters);
    return 0;
}

template <class Array>
int weight_acts_shape(const Array& images, const Array& hid, PyArrayObject* output_shape, const ConvParams& p,
                      ConvShape& s) {
    const char* op = "WeightActs";
    sizes_from_outputs(s, hid);
    sizes_from_images(s, images);
    if (check_equal(op, "batches", s.batch, "images", hid.dim(3), "output gradients") ||
        read_shape(op, output_shape, &s.filter_h, &s.filter_w) || complete(op, s, p) || check_taps(op, s))
        return -1;
    return check_grids(op, s, p);
}

template <class Kernel>
int filter_acts_op(PyArrayObject* images_in, PyArrayObject* filters_in, PyArrayObject* output_shape,
                   PyArrayObject** out, const ConvParams& p, const Kernel& kernel) {
    const Contiguous images(images_in), filters(filters_in);
    if (images.failed() || filters.failed()) return -1;
    ConvShape s{};
    if (filter_acts_shape(images, filters, output_shape, p, s)) return -1;
    return run_kernel(kernel, s, images, filters, out, {s.filters, s.out_h, s.out_w, s.batch});
}

template <class Kernel>
int image_acts_op(PyArrayObject* hid_in, PyArrayObject* filters_in, PyArrayObject* output_shape, PyArrayObject** out,
                  const ConvParams& p, const Kernel& kernel) {
    const Contiguous hid(hid_in), filters(filters_in);
    if (hid.failed() || filters.failed()) return -1;
    ConvShape s{};
    if (image_acts_shape(hid, filters, output_shape, p, s)) return -1;
    return run_kernel(kernel, s, hid, filters, out, {s.channels, s.height, s.width, s.batch});
}

// sum = partials[0] + partials[1] + ..., in this order for any number of threads.
inline void sum_partials(const float* partials, int64_t chunks, int64_t size, float* sum, int threads) {
    constexpr int64_t block = 4096;  // of the sum: stays in the first-level cache while the chunks pass by
    parallel_for((size + block - 1) / block, threads, [&](int64_t b, int) {
        const int64_t first = b * block, last = std::min(size, first + block);
        std::fill(sum + first, sum + last, 0.0f);
        for (int64_t q = 0; q < chunks; ++q)
            for (int64_t e = first; e < last; ++e) sum[e] += partials[q * size + e];
    });
}

// How many chunks of partial_sum output positions there are, or -1 with an exception set.
inline int64_t count_chunks(const ConvShape& s, int64_t partial_sum) {
    const int64_t modules = s.out_h * s.out_w;
    if (modules % partial_sum == 0) return modules / partial_sum;
    PyErr_Format(PyExc_ValueError, "WeightActs: partial_sum %lld does not divide the %lld x %lld = %lld modules",
                 (long long)partial_sum, (long long)s.out_h, (long long)s.out_w, (long long)modules);
    return -1;
}

// `partials` is null, then `kernel` computes all at once, or a second output, which `partials_kernel` fills.
template <class Kernel, class PartialsKernel>
int weight_acts_op(PyArrayObject* images_in, PyArrayObject* hid_in, PyArrayObject* output_shape, PyArrayObject** out,
                   PyArrayObject** partials, const ConvParams& p, const Kernel& kernel,
                   const PartialsKernel& partials_kernel) {
    const Contiguous images(images_in), hid(hid_in);
    if (images.failed() || hid.failed()) return -1;
    ConvShape s{};
    if (weight_acts_shape(images, hid, output_shape, p, s)) return -1;
    const int64_t filters[4] = {s.group_channels(), s.filter_h, s.filter_w, s.filters};
    if (!partials) return run_kernel(kernel, s, images, hid, out, filters);

    const int64_t chunks = count_chunks(s, p.partial_sum);
    const int64_t chunked[5] = {chunks, s.group_channels(), s.filter_h, s.filter_w, s.filters};
    if (chunks < 0 || ensure_output(partials, 5, chunked, NPY_FLOAT32)) return -1;
    float* sums = static_cast<float*>(PyArray_DATA(*partials));
    const auto both = [&](const ConvShape&, const float* x, const float* g, float* target, int threads) {
        partials_kernel(s, p.partial_sum, x, g, sums, threads);
        sum_partials(sums, chunks, s.group_channels() * s.filter_h * s.filter_w * s.filters, target, threads);
    };
    return run_kernel(both, s, images, hid, out, filters);
}

}  // namespace c01b
