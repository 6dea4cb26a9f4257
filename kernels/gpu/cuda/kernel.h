// What describes one CUDA kernel: how it multiplies, its tile, its text and its launch. Plain data, no GPU.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "conv_shape.h"

namespace c01b {
namespace gpu {
namespace cuda {

#include "sizes.cuh"

// How products are formed. Tf32x3 has float32's accuracy (split.cuh), its speed is the tensor cores'.
enum class Arithmetic { Scalar, Tf32, Tf32x3 };

struct Tile {
    int rows, columns, threads;
    int per_processor;  // blocks that a multiprocessor shall hold: bounds registers
    const char* type;   // of correlate_tiles.cuh or weight_tiles.cuh; %d: steps between promotions
    double penalty;     // time for equal work, the best tile's being 1: measured
};

// One kernel of one blocking: what to compile and how to launch it.
struct Kernel {
    std::vector<const char*> files;  // in kernels/gpu, compiled as one text
    std::string name;                // of the extern "C" function behind them; tells the variant
    std::string instance;            // that function's text
    int64_t blocks[3];
    int threads;
    int shared = 0;  // bytes of shared memory besides what it declares
};

template <class... Args>
std::string format(const char* text, Args... args) {
    char buffer[1024];
    std::snprintf(buffer, sizeof buffer, text, args...);
    return buffer;
}

// The extern "C" function around a call of one of the templates; `sizes` is the struct's name. A buffer is a pointer and an
// offset in bytes.
inline std::string instance(const std::string& name, int threads, int per_processor, const char* sizes,
                            const std::string& call) {
    return format(
        "extern \"C\" __global__ void __launch_bounds__(%d, %d)\n"
        "%s(const float* a, unsigned long long a_bytes, const float* b, unsigned long long b_bytes,\n"
        "float* target, unsigned long long target_bytes, %s p) {\n    %s(a + a_bytes / 4, b + b_bytes / 4, target + "
        "target_bytes / 4, p);\n}\n",
        threads, per_processor, name.c_str(), sizes, call.c_str());
}

// The same around a function of one array and the target.
inline std::string simple_instance(const std::string& name, const char* sizes, const std::string& call) {
    return format(
        "extern \"C\" __global__ void %s(const float* a, unsigned long long a_bytes, float* target, unsigned long long "
        "target_bytes, %s p) {\n"
        "    %s(a + a_bytes / 4, target + target_bytes / 4, p);\n}\n",
        name.c_str(), sizes, call.c_str());
}

// What float32 is made of for sums of so many terms. Short sums have little work and a small error: scalar.
inline Arithmetic float32_arithmetic(int64_t terms) { return terms < 128 ? Arithmetic::Scalar : Arithmetic::Tf32x3; }

// Steps of 16 terms between promotions: the error grows with them, a scalar sum's with its length, whose error is the limit.
inline int promotion(int64_t terms) { return terms < 1024 ? 2 : 4; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// a / b as the upper half of a * magic: exact while a * b < 2^32 (the kernels ask for a < 2^16); 0 stands for 1.
inline unsigned magic(int64_t b) { return static_cast<unsigned>(b == 1 ? 0 : ((int64_t(1) << 32) + b - 1) / b); }

struct Tiles {
    const Tile* begin;
    int count;
};

// The tile that covers rows x columns in the least time.
inline const Tile* cheapest(Tiles tiles, int64_t rows, int64_t columns) {
    const auto cost = [=](const Tile& t) {
        return t.penalty * static_cast<double>(ceil_div(rows, t.rows) * t.rows) *
               static_cast<double>(ceil_div(columns, t.columns) * t.columns);
    };
    return std::min_element(tiles.begin, tiles.begin + tiles.count,
                            [&](const Tile& a, const Tile& b) { return cost(a) < cost(b); });
}

inline const char* suffix(Arithmetic arithmetic) {
    return arithmetic == Arithmetic::Scalar ? "scalar" : arithmetic == Arithmetic::Tf32 ? "tf32" : "tf32x3";
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
