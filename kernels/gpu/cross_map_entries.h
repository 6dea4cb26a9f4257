// The C entries of CrossMapNorm, CrossMapNormUndo and CrossMapSum.
#pragma once
#include "arrays.h"
#include "cross_map_norm_op.h"

namespace c01b {
namespace gpu {

// Windows of so many channels fit a thread's registers.
constexpr int64_t largest_in_registers = 16;

// What is queued: a kernel of cross_map.cluda, and the windows that it sums.
struct ChannelKernel {
    const char *name, *define;
    ChannelShape shape;
    ChannelWindows windows;
    bool transposed = false;
};

// d ** -power as a kernel's text: by roots where it can be.
inline std::string power_text(double power) {
    switch (exponent_of(power)) {
        case Exponent::quarter: return "#define POWER(d) RSQRT(sqrt(d))\n";
        case Exponent::half: return "#define POWER(d) RSQRT(d)\n";
        case Exponent::three_quarters: return "#define POWER(d) (RSQRT(d) * RSQRT(sqrt(d)))\n";
        case Exponent::one: return "#define POWER(d) (1.0f / (d))\n";
        case Exponent::any: break;
    }
    return "#define POWER(d) pow(d, -power)\n";
}

// The size as a kernel's text where windows are held in registers, else nothing.
inline std::string size_text(const ChannelWindows& windows) {
    if (windows.blocked || windows.size > largest_in_registers) return "";
    return "#define SIZE " + std::to_string(windows.size) + "\n";
}

// Channels that a thread takes: more of them share what they read, fewer make more threads.
inline int64_t channels_of_thread(const ChannelShape& s) {
    constexpr int64_t busy = int64_t(1) << 16;  // threads that fill a GPU
    return std::max<int64_t>(1, std::min<int64_t>({32, s.channels, s.floats() / busy}));
}

// Queues a kernel with a thread for some channels of each place.
template <class... Buffers>
int launch_across(const Device& device, const ChannelKernel& k, const NormScales& scales, const std::string& defines,
                  const Buffers&... buffers) {
    const ChannelShape& s = k.shape;
    const int64_t step = channels_of_thread(s), threads = s.outer * ((s.channels + step - 1) / step) * s.inner;
    const int64_t size = std::min(k.windows.size, 2 * s.channels), half = size / 2;  // larger windows see no more
    const auto f32 = [](double value) { return static_cast<float>(value); };
    const Grid grid{{(static_cast<size_t>(threads) + 255) / 256, 1, 1}, {256, 1, 1}};
    return launch(device, Program{{"cross_map.cluda"}, k.name, k.define + defines}, grid, buffers..., threads, s.channels,
                  s.inner, step, size, k.transposed ? size - half - 1 : half, static_cast<int32_t>(k.windows.blocked),
                  f32(scales.add_scale), f32(scales.min_div), f32(scales.pow_scale),
                  f32(-2 * scales.add_scale * scales.pow_scale));
}

inline int64_t size_of(PyGpuArrayObject* array, int axis) { return static_cast<int64_t>(array->ga.dimensions[axis]); }

// Makes *out as large as the images, and calls kernel(device, shape, windows, images) unless that is empty.
template <class Fields, class Kernel>
int across_channels(const char* op, PyGpuArrayObject* images_in, PyGpuArrayObject** out, const Fields* f,
                    const Kernel& kernel) {
    const Device device(f->context);
    const int64_t sizes[4] = {size_of(images_in, 0), size_of(images_in, 1), size_of(images_in, 2), size_of(images_in, 3)};
    const Contiguous images(images_in);
    if (images.failed() || ensure_output(device, op, out, sizes)) return -1;
    const ChannelShape s = channel_shape(sizes, f->axis);
    return s.floats() == 0 ? 0 : kernel(device, s, channel_windows(f, s.channels), images.buffer());
}

template <class Fields>
int window_sum_op(PyGpuArrayObject* images, PyGpuArrayObject** out, const Fields* f) {
    return across_channels("CrossMapSum", images, out, f, [&](const auto& device, const auto& s, const auto& windows, Buffer x) {
        const ChannelKernel kernel{"window_sum", "#define WINDOW_SUM\n", s, windows, f->transposed != 0};
        return launch_across(device, kernel, NormScales{}, "", x, buffer_of(*out));
    });
}

template <class Fields>
int cross_map_norm_op(PyGpuArrayObject* images, PyGpuArrayObject** out, const Fields* f) {
    const NormScales scales = norm_scales(f);
    return across_channels("CrossMapNorm", images, out, f, [&](const auto& device, const auto& s, const auto& windows, Buffer x) {
        const std::string size = size_text(windows), power = power_text(scales.pow_scale);
        const ChannelKernel small{"norm_small", "#define NORM\n", s, windows};
        const ChannelKernel large{"norm_large", "#define NORM_LARGE\n", s, windows};
        return launch_across(device, size.empty() ? large : small, scales, power + size, x, buffer_of(*out));
    });
}

inline int undo(const Device& device, const ChannelShape& s, const ChannelWindows& windows, const NormScales& scales,
                const Buffer& x, const Buffer& gy, const Buffer& gx) {
    const std::string power = power_text(scales.pow_scale), size = size_text(windows);
    if (!size.empty())
        return launch_across(device, {"undo_small", "#define UNDO\n", s, windows}, scales, power + size, x, gy, gx);
    Workspace terms;
    if (terms.allocate(device, static_cast<size_t>(s.floats()) * sizeof(float))) return -1;
    if (launch_across(device, {"undo_terms", "#define UNDO_TERMS\n", s, windows}, scales, power, x, gy, terms.buffer(), gx))
        return -1;
    return launch_across(device, {"undo_sum", "#define UNDO_SUM\n", s, windows, true}, scales, "", x, terms.buffer(), gx);
}

template <class Fields>
int cross_map_norm_undo_op(PyGpuArrayObject* images, PyGpuArrayObject* gy_in, PyGpuArrayObject** out, const Fields* f) {
    const char* op = "CrossMapNormUndo";
    const int64_t e[4] = {size_of(images, 0), size_of(images, 1), size_of(images, 2), size_of(images, 3)};
    const int64_t d[4] = {size_of(gy_in, 0), size_of(gy_in, 1), size_of(gy_in, 2), size_of(gy_in, 3)};
    if (c01b::check_sizes(op, "gy", d, e)) return -1;
    const Contiguous gy(gy_in);
    if (gy.failed()) return -1;
    return across_channels(op, images, out, f, [&](const auto& device, const auto& s, const auto& windows, Buffer x) {
        return undo(device, s, windows, norm_scales(f), x, gy.buffer(), buffer_of(*out));
    });
}

}  // namespace gpu
}  // namespace c01b
