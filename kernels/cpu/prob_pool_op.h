// The C entries of ProbMaxPool and ProbMaxPoolGrad: sizes are worked out and proven here, by the rules of pool_op.h.
#pragma once
#include "pool_op.h"
#include "prob_pool.h"

namespace c01b {

inline int prob_max_pool_op(PyArrayObject* z_in, PyArrayObject* t_in, PyArrayObject** p_out, PyArrayObject** h_out,
                            const PoolParams& params) {
    const char* op = "ProbMaxPool";
    PoolShape s;
    if (pool_shape(op, z_in, params, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "top_down", t_in, outputs)) return -1;
    const Contiguous z(z_in), t(t_in);
    if (z.failed() || t.failed() || ensure_output(p_out, 4, outputs, NPY_FLOAT32) ||
        ensure_output(h_out, 4, images, NPY_FLOAT32))
        return -1;
    float* p = static_cast<float*>(PyArray_DATA(*p_out));
    float* h = static_cast<float*>(PyArray_DATA(*h_out));
    return run_on(*h_out, [&] { prob_max_pool(s, z.data<float>(), t.data<float>(), p, h, max_threads()); });
}

inline int prob_max_pool_grad_op(PyArrayObject* p_in, PyArrayObject* h_in, PyArrayObject* gp_in, PyArrayObject* gh_in,
                                 PyArrayObject** gz_out, PyArrayObject** gt_out, const PoolParams& params) {
    const char* op = "ProbMaxPoolGrad";
    PoolShape s;
    if (pool_shape(op, h_in, params, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "p", p_in, outputs) || check_shape(op, "gp", gp_in, outputs) || check_shape(op, "gh", gh_in, images))
        return -1;
    const Contiguous p(p_in), h(h_in), gp(gp_in), gh(gh_in);
    if (p.failed() || h.failed() || gp.failed() || gh.failed() || ensure_output(gz_out, 4, images, NPY_FLOAT32) ||
        ensure_output(gt_out, 4, outputs, NPY_FLOAT32))
        return -1;
    float* gz = static_cast<float*>(PyArray_DATA(*gz_out));
    float* gt = static_cast<float*>(PyArray_DATA(*gt_out));
    return run_on(*gz_out, [&] {
        prob_max_pool_grad(s, p.data<float>(), h.data<float>(), gp.data<float>(), gh.data<float>(), gz, gt, max_threads());
    });
}

}  // namespace c01b
