// CUDA's execution of a kernel, block after block, on one thread of the host: enough of it for the texts in kernels/gpu/cuda.
//
// A block's threads are fibers; one runs until it waits at a barrier, then the next. Asynchronous copies are done at
// once, so that races between copies and barriers do not show (compute-sanitizer looks for those), but every index does:
// copies are checked against the arrays given, and counted as violations where they read outside, lie about their
// alignment or copy too much.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(threads, blocks)

struct float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
template <class T>
T __ldg(const T* p) {
    return *p;
}
struct Index {
    int x = 0, y = 0, z = 0;
};
inline Index threadIdx, blockIdx, blockDim;
using std::max;
using std::min;
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// The threads of one block.
class Block {
  public:
    static Block& get() {
        static Block block;
        return block;
    }

    void run(int threads, const std::function<void()>& kernel) {
        kernel_ = kernel;
        alive_ = count_ = threads;
        if (fibers_.size() < size_t(threads)) fibers_.resize(threads);
        for (int t = 0; t < threads; ++t) {
            Fiber& fiber = fibers_[t];
            fiber.stack.resize(1 << 17);
            fiber.done = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.data();
            fiber.context.uc_stack.ss_size = fiber.stack.size();
            makecontext(&fiber.context, begin, 0);
        }
        current_ = threadIdx.x = 0;
        swapcontext(&outside_, &fibers_[0].context);
    }

    // Waits until all threads first..first+size-1 are here.
    void barrier(int first, int size) {
        Barrier& b = barriers_[first / 32 + (size > 32 ? 32 : 0)];
        const unsigned generation = b.generation;
        if (++b.arrived == size) {
            b.arrived = 0;
            ++b.generation;
        } else {
            while (b.generation == generation) yield();
        }
    }
    int threads() const { return count_; }

  private:
    struct Fiber {
        ucontext_t context;
        std::vector<char> stack;
        bool done;
    };
    struct Barrier {
        int arrived = 0;
        unsigned generation = 0;
    };
    static void begin() {
        Block& block = get();
        block.kernel_();
        block.fibers_[block.current_].done = true;
        if (--block.alive_ == 0) setcontext(&block.outside_);
        block.yield();
    }
    void yield() {
        const int from = current_;
        do current_ = (current_ + 1) % count_;
        while (fibers_[current_].done);
        threadIdx.x = current_;
        if (current_ != from) swapcontext(&fibers_[from].context, &fibers_[current_].context);
    }

    std::vector<Fiber> fibers_;
    Barrier barriers_[64];
    ucontext_t outside_;
    std::function<void()> kernel_;
    int count_ = 0, alive_ = 0, current_ = 0;
};
inline void __syncthreads() { Block::get().barrier(0, std::max(Block::get().threads(), 33)); }

// ---- ptx.cuh

struct Array {
    const char *begin, *end;
};
inline std::vector<Array> arrays;  // what a kernel may read
inline long violations = 0;

template <int Floats>
void copy_async(float* shared, const float* global, int valid) {
    const char* from = reinterpret_cast<const char*>(global);
    const bool inside = valid == 0 || std::any_of(arrays.begin(), arrays.end(), [&](const Array& a) {
                            return from >= a.begin && from + 4 * valid <= a.end;
                        });
    const uintptr_t addresses = reinterpret_cast<uintptr_t>(global) | reinterpret_cast<uintptr_t>(shared);
    const bool good = inside && valid >= 0 && valid <= Floats && addresses % (4 * Floats) == 0;
    violations += !good;
    for (int e = 0; e < Floats; ++e) shared[e] = good && e < valid ? global[e] : 0;
}
inline void copies_issued() {}
template <int Pending>
void copies_wait() {}

inline float as_tf32(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

inline void mma(float (&c)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
    static float a[32][32][4], b[32][32][2];  // [warp][lane]
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float mine[4] = {as_tf32(a0), as_tf32(a1), as_tf32(a2), as_tf32(a3)};
    std::copy(mine, mine + 4, a[warp][lane]);
    b[warp][lane][0] = as_tf32(b0), b[warp][lane][1] = as_tf32(b1);
    Block::get().barrier(32 * warp, 32);
    for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + 8 * (e / 2), column = 2 * (lane % 4) + e % 2;
        for (int k = 0; k < 8; ++k)
            c[e] += a[warp][4 * (row % 8) + k % 4][row / 8 + 2 * (k / 4)] * b[warp][4 * column + k % 4][k / 4];
    }
    Block::get().barrier(32 * warp, 32);
}

// ---- wgmma_ptx.cuh; an address in place of a descriptor

template <bool Packed>
unsigned long long shared_matrix(const float* tile, int first, int n) {
    return reinterpret_cast<unsigned long long>(tile + (Packed ? n : 1) * first) | (Packed ? 1 : 0);
}
inline float* launched_shared() {
    static float shared[1 << 15] __align__(1024);
    return shared;
}
inline void writes_to_tensor_cores() {}
inline void registers_to_tensor_cores() {}
inline void products_issued() {}
inline void products_wait() {}
inline void written_by_tensor_cores(float&) {}

// Term k of column n. Where not packed, 64 bytes a column, bits 4 and 5 of the address come xor bits 7 and 8.
inline float matrix_element(unsigned long long matrix, int n, int k, int columns) {
    if (matrix & 1) return reinterpret_cast<const float*>(matrix - 1)[k / 4 * 4 * columns + 4 * n + k % 4];
    const unsigned long long address = matrix + 64 * n + 4 * k;
    return *reinterpret_cast<const float*>(address ^ (address >> 7 & 3) << 4);
}

template <int Count>
void wgmma(float (&c)[Count], const float (&a)[4], unsigned long long b, bool add) {
    static float rows[128][4];
    for (int e = 0; e < 4; ++e) rows[threadIdx.x][e] = as_tf32(a[e]);
    Block::get().barrier(0, 128);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    for (int n = 0; n < Count; ++n) {
        const int half = n / 2 % 2, column = n / 4 * 8 + 2 * q + n % 2;
        if (!add) c[n] = 0;
        for (int k = 0; k < 8; ++k)
            c[n] += rows[32 * warp + 4 * g + k % 4][half + 2 * (k / 4)] * as_tf32(matrix_element(b, column, k, 2 * Count));
    }
    Block::get().barrier(0, 128);
}

// ---- Launch

template <class Kernel>
void launch_on_host(const int64_t* blocks, int threads, const Kernel& kernel) {
    blockDim.x = threads;
    for (blockIdx.z = 0; blockIdx.z < blocks[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < blocks[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < blocks[0]; ++blockIdx.x) Block::get().run(threads, kernel);
}
