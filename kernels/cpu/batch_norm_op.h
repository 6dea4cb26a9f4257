// The C entries of BatchNormTrain and BatchNormTrainGrad, for arrays of two axes and more.
#pragma once
#include "batch_norm.h"
#include "batch_norm_grad.h"
#include "numpy_glue.h"

namespace c01b {

// The sizes of an array in c01b, and those of one number for each of its channels, with as many axes.
struct ChannelSizes {
    int64_t all[NPY_MAXDIMS], each[NPY_MAXDIMS];
    int ndim;

    explicit ChannelSizes(PyArrayObject* x) : ndim(PyArray_NDIM(x)) {
        std::copy_n(PyArray_DIMS(x), ndim, all);
        std::fill_n(each, ndim, 1);
        each[0] = all[0];
    }
    int64_t channels() const { return all[0]; }
    int64_t count() const {  // elements of a channel
        int64_t n = 1;
        for (int axis = 1; axis < ndim; ++axis) n *= all[axis];
        return n;
    }
};

// Has an operand the sizes expected? -1 and an exception if not.
inline int check_operand(const char* op, const char* name, PyArrayObject* operand, int ndim, const int64_t* expected) {
    if (PyArray_NDIM(operand) == ndim && std::equal(expected, expected + ndim, PyArray_DIMS(operand))) return 0;
    npy_intp wanted[NPY_MAXDIMS];
    std::copy_n(expected, ndim, wanted);
    PyObject* given = PyArray_IntTupleFromIntp(PyArray_NDIM(operand), PyArray_DIMS(operand));
    PyObject* right = PyArray_IntTupleFromIntp(ndim, wanted);
    if (given && right) PyErr_Format(PyExc_ValueError, "%s: %s is %R, expected %R", op, name, given, right);
    Py_XDECREF(given);
    Py_XDECREF(right);
    return -1;
}

inline float* floats_of(PyArrayObject* array) { return static_cast<float*>(PyArray_DATA(array)); }

inline int batch_norm_train_op(PyArrayObject* x_in, PyArrayObject* scale_in, PyArrayObject* bias_in, PyArrayObject* epsilon,
                               PyArrayObject** y, PyArrayObject** mean, PyArrayObject** variance) {
    const ChannelSizes s(x_in);
    const char* op = "BatchNormTrain";
    if (check_operand(op, "scale", scale_in, s.ndim, s.each) || check_operand(op, "bias", bias_in, s.ndim, s.each)) return -1;
    const Contiguous x(x_in), scale(scale_in), bias(bias_in);
    if (x.failed() || scale.failed() || bias.failed()) return -1;
    if (ensure_output(y, s.ndim, s.all, NPY_FLOAT32) || ensure_output(mean, s.ndim, s.each, NPY_FLOAT32) ||
        ensure_output(variance, s.ndim, s.each, NPY_FLOAT32))
        return -1;
    const float added = *static_cast<const float*>(PyArray_DATA(epsilon));
    return run_on(*mean, [&] {
        batch_norm_train(s.channels(), s.count(), x.data<float>(), scale.data<float>(), bias.data<float>(), added,
                         floats_of(*y), floats_of(*mean), floats_of(*variance), max_threads());
    });
}

inline int batch_norm_train_grad_op(PyArrayObject* x_in, PyArrayObject* dy_in, PyArrayObject* scale_in, PyArrayObject* mean_in,
                                    PyArrayObject* invstd_in, bool inplace, PyArrayObject** gx, PyArrayObject** gscale,
                                    PyArrayObject** gbias) {
    const ChannelSizes s(x_in);
    const char* op = "BatchNormTrainGrad";
    if (check_operand(op, "dy", dy_in, s.ndim, s.all) || check_operand(op, "scale", scale_in, s.ndim, s.each) ||
        check_operand(op, "mean", mean_in, s.ndim, s.each) || check_operand(op, "invstd", invstd_in, s.ndim, s.each))
        return -1;
    const Contiguous x(x_in), dy(dy_in), scale(scale_in), mean(mean_in), invstd(invstd_in);
    if (x.failed() || dy.failed() || scale.failed() || mean.failed() || invstd.failed()) return -1;
    if (!(inplace && take_over(dy_in, gx)) && ensure_output(gx, s.ndim, s.all, NPY_FLOAT32)) return -1;
    if (ensure_output(gscale, s.ndim, s.each, NPY_FLOAT32) || ensure_output(gbias, s.ndim, s.each, NPY_FLOAT32)) return -1;
    return run_on(*gbias, [&] {
        batch_norm_train_grad(s.channels(), s.count(), x.data<float>(), dy.data<float>(), scale.data<float>(),
                              mean.data<float>(), invstd.data<float>(), floats_of(*gx), floats_of(*gscale), floats_of(*gbias),
                              max_threads());
    });
}

}  // namespace c01b
