// The C entries of the convolution ops on the GPU: sizes are checked by the functions of cpu/conv_op.h, operands made
// contiguous, the output allocated; then a CUDA kernel takes the call, or the portable one.
#pragma once
#include "arrays.h"
#include "conv_op.h"
#include "conv_portable.h"
#include "cuda/select.h"

namespace c01b {
namespace gpu {

// From Theano's ParamsType, the fields of GpuConv in ops.py.
template <class Fields>
ConvCall conv_call(const Device& device, const ConvShape& s, Buffer images, Buffer filters, Buffer outputs,
                   const Fields* f) {
    const int64_t all = s.out_h * s.out_w;
    return {device, s, images, filters, outputs, f->tf32 != 0, f->split < 0 ? all : f->split, f->workspace};
}

inline int set_zero(PyGpuArrayObject* array) {
    if (is_empty(array)) return 0;
    const int error = GpuArray_memset(&array->ga, 0);
    if (error == GA_NO_ERROR) return 0;
    PyErr_Format(PyExc_RuntimeError, "layoutopt: GPU memory cannot be cleared: %s", GpuArray_error(&array->ga, error));
    return -1;
}

// By the CUDA kernels, or by the portable one.
template <class Cuda, class Portable>
int compute(const ConvCall& call, const Cuda& cuda, const Portable& portable) {
    const int result = call.device.cuda ? cuda(call) : DECLINED;
    return result == DECLINED ? portable(call) : result;
}

template <class Fields>
int filter_acts_op(PyGpuArrayObject* images_in, PyGpuArrayObject* filters_in, PyArrayObject* output_shape,
                   PyGpuArrayObject** out, const Fields* f) {
    const char* op = "FilterActs";
    const Device device(f->context);
    const Contiguous images(images_in), filters(filters_in);
    if (images.failed() || filters.failed()) return -1;
    ConvShape s{};
    if (filter_acts_shape(images, filters, output_shape, conv_params(f), s) || check_counts(op, s)) return -1;
    if (ensure_output(device, op, out, {s.filters, s.out_h, s.out_w, s.batch})) return -1;
    if (is_empty(*out) || s.channels == 0) return set_zero(*out);
    return compute(conv_call(device, s, images.buffer(), filters.buffer(), buffer_of(*out), f), cuda::filter_acts,
                   [](const ConvCall& call) { return correlate(call, true); });
}

template <class Fields>
int image_acts_op(PyGpuArrayObject* hid_in, PyGpuArrayObject* filters_in, PyArrayObject* output_shape,
                  PyGpuArrayObject** out, const Fields* f) {
    const char* op = "ImageActs";
    const Device device(f->context);
    const Contiguous hid(hid_in), filters(filters_in);
    if (hid.failed() || filters.failed()) return -1;
    ConvShape s{};
    if (image_acts_shape(hid, filters, output_shape, conv_params(f), s) || check_counts(op, s)) return -1;
    if (ensure_output(device, op, out, {s.channels, s.height, s.width, s.batch})) return -1;
    if (is_empty(*out) || s.filters == 0 || s.out_h * s.out_w == 0) return set_zero(*out);
    return compute(conv_call(device, s, buffer_of(*out), filters.buffer(), hid.buffer(), f), cuda::image_acts,
                   [](const ConvCall& call) { return correlate(call, false); });
}

// `partials` is null, or a second output that the portable kernel fills and sums up.
template <class Fields>
int weight_acts_op(PyGpuArrayObject* images_in, PyGpuArrayObject* hid_in, PyArrayObject* output_shape,
                   PyGpuArrayObject** out, PyGpuArrayObject** partials, const Fields* f) {
    const char* op = "WeightActs";
    const Device device(f->context);
    const Contiguous images(images_in), hid(hid_in);
    if (images.failed() || hid.failed()) return -1;
    ConvShape s{};
    const ConvParams p = conv_params(f);
    if (weight_acts_shape(images, hid, output_shape, p, s) || check_counts(op, s)) return -1;
    if (ensure_output(device, op, out, {s.group_channels(), s.filter_h, s.filter_w, s.filters})) return -1;
    const ConvCall call = conv_call(device, s, images.buffer(), buffer_of(*out), hid.buffer(), f);
    const bool nothing = is_empty(*out) || s.batch == 0 || s.out_h * s.out_w == 0 || s.height * s.width == 0;
    if (!partials) return nothing ? set_zero(*out) : compute(call, cuda::weight_acts, weight_sums);

    const int64_t chunks = count_chunks(s, p.partial_sum);
    if (chunks < 0 || ensure_output(device, op, partials, {chunks, s.group_channels(), s.filter_h, s.filter_w, s.filters}))
        return -1;
    if (nothing) return set_zero(*out) || set_zero(*partials) ? -1 : 0;
    return weight_partials(call, p.partial_sum, buffer_of(*partials)) ? -1 : sum_partials(call, buffer_of(*partials), chunks);
}

}  // namespace gpu
}  // namespace c01b
