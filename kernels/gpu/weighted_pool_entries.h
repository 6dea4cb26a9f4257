// The C entries of WeightedMaxPool and WeightedMaxPoolGrad: sizes are checked by the functions of cpu/pool_op.h, then one kernel
// is queued, or two, of which the second reads what the first wrote to scratch memory of the output's size.
#pragma once
#include "pool_entries.h"

namespace c01b {
namespace gpu {

inline int weighted_max_pool_op(PyGpuArrayObject* x_in, PyGpuArrayObject** out, const PoolParams& p,
                                PyGpuContextObject* context) {
    const char* op = "WeightedMaxPool";
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(device, op, out, outputs)) return -1;
    const Program program{{"pool.cluda", "weighted_pool.cluda"}, "weighted_max_pool", "#define WEIGHTED_POOL\n"};
    return launch_pool(device, op, program, s, no_average, s.channels * s.out_h * s.out_w, x.buffer(), buffer_of(*out));
}

inline int weighted_max_pool_grad_op(PyGpuArrayObject* x_in, PyGpuArrayObject* y_in, PyGpuArrayObject* gz_in,
                                     PyGpuArrayObject** out, const PoolParams& p, PyGpuContextObject* context) {
    const char* op = "WeightedMaxPoolGrad";
    const Device device(context);
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const int64_t images[4] = {s.channels, s.height, s.width, s.batch};
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (check_shape(op, "y", y_in, outputs) || check_shape(op, "gz", gz_in, outputs)) return -1;
    const Contiguous x(x_in), y(y_in), gz(gz_in);
    if (x.failed() || y.failed() || gz.failed() || ensure_output(device, op, out, images)) return -1;
    Workspace q;
    if (q.allocate(device, static_cast<size_t>(s.output_floats()) * sizeof(float))) return -1;
    const Program shares{{"pool.cluda", "weighted_pool.cluda"}, "weighted_pool_shares", "#define WEIGHTED_POOL_SHARES\n"};
    if (launch_pool(device, op, shares, s, no_average, s.channels * s.out_h * s.out_w, x.buffer(), gz.buffer(), q.buffer()))
        return -1;
    const Program program{{"pool.cluda", "weighted_pool.cluda"}, "weighted_max_pool_grad", "#define WEIGHTED_POOL_GRAD\n"};
    return launch_pool(device, op, program, s, no_average, s.channels * s.height * s.width, x.buffer(), y.buffer(), q.buffer(),
                       buffer_of(*out));
}

}  // namespace gpu
}  // namespace c01b
