// The C entries of ProbMaxPool and ProbMaxPoolGrad: sizes are checked by the functions of cpu/pool_op.h, then one kernel is
// queued.
#pragma once
#include "pool_entries.h"
#include "prob_pool_op.h"

namespace c01b {
namespace gpu {

// Clears images if the windows leave pixels out. Returns 0, or -1 with an exception set.
inline int clear_left_out(const char* op, const PoolShape& s, PyGpuArrayObject* images) {
    if (is_empty(images) || !(leaves_pixels(s.y, s.height, s.out_h) || leaves_pixels(s.x, s.width, s.out_w))) return 0;
    const int error = GpuArray_memset(&images->ga, 0);
    if (error == GA_NO_ERROR) return 0;
    PyErr_Format(PyExc_RuntimeError, "%s: clearing failed: %s", op, GpuArray_error(&images->ga, error));
    return -1;
}

inline int prob_max_pool_op(PyGpuArrayObject* z_in, PyGpuArrayObject* t_in, PyGpuArrayObject** p, PyGpuArrayObject** h,
                            const PoolParams& params, PyGpuContextObject* context) {
    const char* op = "ProbMaxPool";
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, z_in, params, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "top_down", t_in, outputs)) return -1;
    const Contiguous z(z_in), t(t_in);
    if (z.failed() || t.failed() || ensure_output(device, op, p, outputs) || ensure_output(device, op, h, images) ||
        clear_left_out(op, s, *h))
        return -1;
    const Program program{{"pool.cluda", "prob_pool.cluda"}, "prob_max_pool", "#define PROB_POOL\n"};
    return launch_pool(device, op, program, s, no_average, s.channels * s.out_h * s.out_w, z.buffer(), t.buffer(),
                       buffer_of(*p), buffer_of(*h));
}

inline int prob_max_pool_grad_op(PyGpuArrayObject* p_in, PyGpuArrayObject* h_in, PyGpuArrayObject* gp_in,
                                 PyGpuArrayObject* gh_in, PyGpuArrayObject** gz, PyGpuArrayObject** gt,
                                 const PoolParams& params, PyGpuContextObject* context) {
    const char* op = "ProbMaxPoolGrad";
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, h_in, params, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "p", p_in, outputs) || check_shape(op, "gp", gp_in, outputs) || check_shape(op, "gh", gh_in, images))
        return -1;
    const Contiguous p(p_in), h(h_in), gp(gp_in), gh(gh_in);
    if (p.failed() || h.failed() || gp.failed() || gh.failed() || ensure_output(device, op, gz, images) ||
        ensure_output(device, op, gt, outputs) || clear_left_out(op, s, *gz))
        return -1;
    const Program program{{"pool.cluda", "prob_pool.cluda"}, "prob_max_pool_grad", "#define PROB_POOL_GRAD\n"};
    return launch_pool(device, op, program, s, no_average, s.channels * s.out_h * s.out_w, p.buffer(), h.buffer(), gp.buffer(),
                       gh.buffer(), buffer_of(*gz), buffer_of(*gt));
}

}  // namespace gpu
}  // namespace c01b
