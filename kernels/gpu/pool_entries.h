// The C entries of the pooling ops: sizes are checked by the functions of cpu/pool_op.h, then one kernel is queued.
#pragma once
#include "avg_pool_op.h"
#include "arrays.h"
#include "cuda/pool_select.h"

namespace c01b {
namespace gpu {

constexpr Averaging no_average{false, 0, 0};

inline int check_shape(const char* op, const char* name, PyGpuArrayObject* array, const int64_t (&expected)[4]) {
    const size_t* d = array->ga.dimensions;
    const int64_t* e = expected;
    if (std::equal(e, e + 4, d, [](int64_t wanted, size_t size) { return static_cast<size_t>(wanted) == size; })) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %s is (%lld, %lld, %lld, %lld), expected (%lld, %lld, %lld, %lld)", op, name,
                 (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], (long long)e[0], (long long)e[1],
                 (long long)e[2], (long long)e[3]);
    return -1;
}

// The kernel `name` of pool.cluda, whose text `define` selects.
inline Program pool_program(const char* name, const char* define) { return Program{{"pool.cluda"}, name, define}; }

// Queues a kernel with a thread for each element of an array of these places x batch. `arguments` come before SIZES.
template <class... Args>
int launch_pool(const Device& device, const char* op, const Program& program, const PoolShape& s, const Averaging& a,
                int64_t places, const Args&... arguments) {
    constexpr int64_t most = (int64_t(1) << 31) - 256;  // the last block passes the end, and counts in 32 bits
    if (std::max(places, s.batch) > most) {
        PyErr_Format(PyExc_ValueError, "%s: %lld positions of %lld images are too many for the GPU kernel", op,
                     (long long)places, (long long)s.batch);
        return -1;
    }
    if (places == 0 || s.batch == 0) return 0;
    size_t images = 8;  // threads of a block along the batch
    while (images < 128 && static_cast<int64_t>(images) < s.batch) images *= 2;
    const size_t rows = 256 / images;
    const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
    const Grid grid{{(static_cast<size_t>(places) + rows - 1) / rows, (static_cast<size_t>(s.batch) + images - 1) / images, 1},
                    {images, rows, 1}};
    return launch(device, program, grid, arguments..., i32(s.height), i32(s.width), i32(s.out_h), i32(s.out_w), i32(s.batch),
                  i32(places), s.y.size, s.x.size, s.y.stride, s.x.stride, s.y.start, s.x.start, i32(a.counts), a.margin_y,
                  a.margin_x);
}

inline int pool_shape(const char* op, PyGpuArrayObject* x, const PoolParams& p, PoolShape& s) {
    const size_t* d = x->ga.dimensions;
    s = {(int64_t)d[0], (int64_t)d[1], (int64_t)d[2], (int64_t)d[3], 0, 0, p.y, p.x};
    return complete_outputs(op, p, s);
}

// MaxPool and AvgPool. `cuda(device, s, x, z)` is tried first on CUDA.
template <class Cuda>
int forward_op(const char* op, const char* name, const char* define, PyGpuArrayObject* x_in, PyGpuArrayObject** out,
               const PoolParams& p, PyGpuContextObject* context, const Averaging& a, const Cuda& cuda) {
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(device, op, out, outputs)) return -1;
    const int done = device.cuda && !is_empty(*out) ? cuda(device, s, x.buffer(), buffer_of(*out)) : DECLINED;
    if (done != DECLINED) return done;
    return launch_pool(device, op, pool_program(name, define), s, a, s.channels * s.out_h * s.out_w, x.buffer(),
                       buffer_of(*out));
}

inline int max_pool_op(PyGpuArrayObject* x, PyGpuArrayObject** out, const PoolParams& p,
                       PyGpuContextObject* context) {
    return forward_op("MaxPool", "max_pool", "#define MAX_POOL\n", x, out, p, context, no_average, cuda::max_pool);
}

inline int avg_pool_op(PyGpuArrayObject* x, PyGpuArrayObject** out, const PoolParams& p,
                       PyGpuContextObject* context, const Averaging& a) {
    const auto declined = [](const Device&, const PoolShape&, const Buffer&, const Buffer&) { return DECLINED; };
    return forward_op("AvgPool", "avg_pool", "#define AVG_POOL\n", x, out, p, context, a, declined);
}

// MaxPoolGrad, whose third operand and result are like maxout and x, and MaxPoolGradGrad, where it is the other way.
inline int derivative_op(bool first, PyGpuArrayObject* x_in, PyGpuArrayObject* z_in, PyGpuArrayObject* g_in,
                         PyGpuArrayObject** out, const PoolParams& p, PyGpuContextObject* context) {
    const char* op = first ? "MaxPoolGrad" : "MaxPoolGradGrad";
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "maxout", z_in, outputs) ||
        (first ? check_shape(op, "gz", g_in, outputs) : check_shape(op, "ggx", g_in, images)))
        return -1;
    const Contiguous x(x_in), z(z_in), g(g_in);
    if (x.failed() || z.failed() || g.failed() || ensure_output(device, op, out, first ? images : outputs)) return -1;
    if (first && device.cuda && !is_empty(*out)) {
        const int done = cuda::max_pool_grad(device, s, x.buffer(), z.buffer(), g.buffer(), buffer_of(*out));
        if (done != DECLINED) return done;
    }
    const int64_t places = s.channels * (first ? s.height * s.width : s.out_h * s.out_w);
    const Program program = first ? pool_program("max_pool_grad", "#define MAX_POOL_GRAD\n")
                                  : pool_program("max_pool_grad_grad", "#define MAX_POOL_GRAD_GRAD\n");
    return launch_pool(device, op, program, s, no_average, places, x.buffer(), z.buffer(), g.buffer(), buffer_of(*out));
}

inline int max_pool_grad_op(PyGpuArrayObject* x, PyGpuArrayObject* z, PyGpuArrayObject* gz, PyGpuArrayObject** out,
                            const PoolParams& p, PyGpuContextObject* context) {
    return derivative_op(true, x, z, gz, out, p, context);
}

inline int max_pool_grad_grad_op(PyGpuArrayObject* x, PyGpuArrayObject* z, PyGpuArrayObject* ggx, PyGpuArrayObject** out,
                                 const PoolParams& p, PyGpuContextObject* context) {
    return derivative_op(false, x, z, ggx, out, p, context);
}

inline int avg_pool_grad_op(PyGpuArrayObject* gz_in, PyArrayObject* output_shape, PyGpuArrayObject** out, const PoolParams& p,
                            PyGpuContextObject* context, const Averaging& a) {
    const char* op = "AvgPoolGrad";
    const Device device(context);
    const size_t* d = gz_in->ga.dimensions;
    PoolShape s{(int64_t)d[0], 0, 0, (int64_t)d[3], 0, 0, p.y, p.x};
    if (image_size(op, output_shape, &s.height, &s.width) || complete_outputs(op, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "gz", gz_in, outputs)) return -1;
    const Contiguous gz(gz_in);
    if (gz.failed() || ensure_output(device, op, out, images)) return -1;
    return launch_pool(device, op, pool_program("avg_pool_grad", "#define AVG_POOL_GRAD\n"), s, a,
                       s.channels * s.height * s.width, gz.buffer(), buffer_of(*out));
}

}  // namespace gpu
}  // namespace c01b
