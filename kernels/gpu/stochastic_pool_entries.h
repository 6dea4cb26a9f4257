// The C entry of StochasticMaxPool: sizes are checked by the functions of cpu/pool_op.h, then one kernel is queued.
#pragma once
#include "pool_entries.h"
#include "stochastic_pool_op.h"

namespace c01b {
namespace gpu {

inline int stochastic_max_pool_op(PyGpuArrayObject* x_in, PyArrayObject* seed, PyArrayObject* draw, PyGpuArrayObject** out,
                                  const PoolParams& p, PyGpuContextObject* context) {
    const char* op = "StochasticMaxPool";
    const Device device(context);
    const Philox random = philox_of(seed, draw);
    PoolShape s;
    if (pool_shape(op, x_in, p, s)) return -1;
    const Contiguous x(x_in);
    const int64_t outputs[4] = {s.channels, s.out_h, s.out_w, s.batch};
    if (x.failed() || ensure_output(device, op, out, outputs)) return -1;
    const Program program{{"pool.cluda", "stochastic_pool.cluda"}, "stochastic_max_pool", ""};
    return launch_pool(device, op, program, s, no_average, s.channels * s.out_h * s.out_w, x.buffer(), buffer_of(*out),
                       static_cast<int64_t>(random.seed), static_cast<int64_t>(random.draw));
}

}  // namespace gpu
}  // namespace c01b
