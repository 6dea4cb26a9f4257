// The C entries of MaxPool, MaxPoolGrad and MaxPoolGradGrad: sizes are worked out and proven here, once, so that the
// kernels need no check. The formula is that of kernels/geometry.py.
#pragma once
#include "max_pool_grad.h"
#include "numpy_glue.h"

namespace c01b {

// The op's parameters; outputs of 0: as many as the geometry gives.
struct PoolParams {
    PoolAxis y, x;
    int64_t outputs_y, outputs_x;
    bool ceil_mode;
};

// From Theano's ParamsType: the fields are those of _PARAMS in kernels/pool.py.
template <class Fields>
PoolParams pool_params(const Fields* f) {
    return {{f->ds_y, f->stride_y, f->start_y}, {f->ds_x, f->stride_x, f->start_x}, f->outputs_y, f->outputs_x,
            f->ceil_mode != 0};
}

inline int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

inline int64_t pool_outputs(int64_t image, const PoolAxis& axis, bool ceil_mode) {
    if (image < 1) return 0;
    const int64_t pad = std::max<int64_t>(0, -axis.start), room = image - axis.start - axis.size;
    if (!ceil_mode) return std::max<int64_t>(0, divide_down(room + pad, axis.stride) + 1);
    const int64_t hanging = std::max<int64_t>(1, -divide_down(-room, axis.stride) + 1);
    return std::max<int64_t>(0, std::min(hanging, divide_down(image - axis.start - 1, axis.stride) + 1));
}

// The count of windows along one axis, asked for or automatic; -1 and an exception if one of them would be empty.
inline int64_t checked_outputs(const char* op, const char* axis_name, int64_t image, const PoolAxis& axis,
                               int64_t outputs, bool ceil_mode) {
    const int64_t count = outputs ? outputs : pool_outputs(image, axis, ceil_mode);
    const int64_t last = axis.start + (std::max<int64_t>(count, 1) - 1) * axis.stride;
    // No window at all is right for an image without pixels, and for one smaller than a window that must lie inside.
    if (count == 0 && (image == 0 || !ceil_mode)) return 0;
    if (last < image) return count;
    PyErr_Format(PyExc_ValueError,
                 "%s: images of %lld %s: window %lld, of %lld from %lld on, would be empty (stride %lld, start %lld)",
                 op, (long long)image, axis_name, (long long)std::max<int64_t>(count, 1), (long long)axis.size,
                 (long long)last, (long long)axis.stride, (long long)axis.start);
    return -1;
}

// The outputs of a shape whose images are known.
inline int complete_outputs(const char* op, const PoolParams& p, PoolShape& s) {
    s.out_h = checked_outputs(op, "rows", s.height, p.y, p.outputs_y, p.ceil_mode);
    if (s.out_h < 0) return -1;
    s.out_w = checked_outputs(op, "columns", s.width, p.x, p.outputs_x, p.ceil_mode);
    return s.out_w < 0 ? -1 : 0;
}

inline int pool_shape(const char* op, PyArrayObject* x, const PoolParams& p, PoolShape& s) {
    const npy_intp* dims = PyArray_DIMS(x);
    s = {dims[0], dims[1], dims[2], dims[3], 0, 0, p.y, p.x};
    return complete_outputs(op, p, s);
}

inline int check_shape(const char* op, const char* name, PyArrayObject* array, const int64_t (&expected)[4]) {
    const npy_intp* d = PyArray_DIMS(array);
    if (std::equal(d, d + 4, expected)) return 0;
    const int64_t* e = expected;
    PyErr_Format(PyExc_ValueError, "%s: %s is (%lld, %lld, %lld, %lld), expected (%lld, %lld, %lld, %lld)", op, name,
                 (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], (long long)e[0], (long long)e[1],
                 (long long)e[2], (long long)e[3]);
    return -1;
}

inline int max_pool_op(PyArrayObject* x_in, PyArrayObject** out, const PoolParams& p) {
    PoolShape s;
    if (pool_shape("MaxPool", x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t shape[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(out, 4, shape, NPY_FLOAT32)) return -1;
    float* z = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out, [&] { max_pool(s, x.data<float>(), z, max_threads()); });
}

// `inplace`: the result may take the place of the images.
inline int max_pool_grad_op(PyArrayObject* x_in, PyArrayObject* z_in, PyArrayObject* gz_in, PyArrayObject** out,
                            const PoolParams& p, bool inplace) {
    const char* op = "MaxPoolGrad";
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "maxout", z_in, outputs) || check_shape(op, "gz", gz_in, outputs)) return -1;
    const Contiguous x(x_in), z(z_in), gz(gz_in);
    if (x.failed() || z.failed() || gz.failed()) return -1;
    if ((!inplace || !take_over(x_in, out)) && ensure_output(out, 4, images, NPY_FLOAT32)) return -1;
    float* gx = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out,
        [&] { max_pool_grad(s, x.data<float>(), z.data<float>(), gz.data<float>(), gx, max_threads()); });
}

inline int max_pool_grad_grad_op(PyArrayObject* x_in, PyArrayObject* z_in, PyArrayObject* ggx_in, PyArrayObject** out,
                                 const PoolParams& p) {
    const char* op = "MaxPoolGradGrad";
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "maxout", z_in, outputs) || check_shape(op, "ggx", ggx_in, images)) return -1;
    const Contiguous x(x_in), z(z_in), ggx(ggx_in);
    if (x.failed() || z.failed() || ggx.failed() || ensure_output(out, 4, outputs, NPY_FLOAT32)) return -1;
    float* gg = static_cast<float*>(PyArray_DATA(*out));
    return run_on(*out,
        [&] { max_pool_grad_grad(s, x.data<float>(), z.data<float>(), ggx.data<float>(), gg, max_threads()); });
}

}  // namespace c01b
