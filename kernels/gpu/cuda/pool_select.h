// The CUDA kernels of max-pooling: which poolings they take, and their launches.
#pragma once
#include "../conv_call.h"
#include "kernel.h"
#include "pool_shape.h"

namespace c01b {
namespace gpu {
namespace cuda {

// Windows up to 8 x 8 are compiled in; indices of one channel are 32 bits wide.
inline bool takes(const Device& device, const PoolShape& s) {
    const auto small = [](const PoolAxis& a) { return a.size <= 8 && a.stride <= 1024 && std::abs(a.start) < 1 << 15; };
    const int64_t places = std::max(s.height * s.width, s.out_h * s.out_w);
    return device.compute >= 50 && small(s.y) && small(s.x) && s.channels < 65536 && places < 1 << 24 && s.batch < 1 << 24;
}

inline std::string pool_text(const char* kernel, const std::string& name, const PoolShape& s, int floats,
                             const std::vector<const char*>& arrays) {
    std::string parameters, arguments;
    for (const char* array : arrays) {
        const bool written = array == arrays.back();
        parameters += format("%sfloat* %s, unsigned long long %s_bytes, ", written ? "" : "const ", array, array);
        arguments += format("%s + %s_bytes / 4, ", array, array);
    }
    return format("extern \"C\" __global__ void %s(%sPoolSizes p) {\n    %s<%d, %d, %d, %d, %d>(%sp);\n}\n", name.c_str(),
                  parameters.c_str(), kernel, int(s.y.size), int(s.x.size), int(s.y.stride), int(s.x.stride), floats,
                  arguments.c_str());
}

// Queues `kernel` over an array of rows x columns; DECLINED if it is not for these sizes.
template <class... Buffers>
int pool(const Device& device, const char* kernel, const PoolShape& s, int64_t rows, int64_t columns,
         const std::vector<const char*>& arrays, const Buffers&... buffers) {
    if (!takes(device, s)) return DECLINED;
    const int floats = s.batch % 4 == 0 && ((buffers.offset % 16 == 0) && ...) ? 4 : 1;
    const std::string name =
        format("%s_%dx%d_s%dx%d_a%d", kernel, int(s.y.size), int(s.x.size), int(s.y.stride), int(s.x.stride), floats);
    const PoolSizes p = {int(s.height), int(s.width),   int(s.out_h),  int(s.out_w),
                         int(s.batch),  int(s.y.start), int(s.x.start)};
    const Program program{
        {"cuda/sizes.cuh", "cuda/max_pool.cuh"}, name.c_str(), "", 0, pool_text(kernel, name, s, floats, arrays)};
    const Grid grid{
        {size_t(ceil_div(s.batch, 32 * floats) * ceil_div(columns, 8)), size_t(ceil_div(rows, 4)), size_t(s.channels)},
        {256, 1, 1}};
    return launch(device, program, grid, buffers..., p);
}

inline int max_pool(const Device& device, const PoolShape& s, const Buffer& x, const Buffer& z) {
    return pool(device, "max_pool", s, s.out_h, s.out_w, {"x", "z"}, x, z);
}

inline int max_pool_grad(const Device& device, const PoolShape& s, const Buffer& x, const Buffer& z, const Buffer& gz,
                         const Buffer& gx) {
    return pool(device, "max_pool_grad", s, s.height, s.width, {"x", "z", "gz", "gx"}, x, z, gz, gx);
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
