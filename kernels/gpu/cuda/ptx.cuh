// The instructions that C++ has no word for: asynchronous copies to shared memory (compute capability 8.0 and up), and
// the tensor cores' product of TF32 fragments.

// Copies Floats (1 or 4, aligned so) from global to shared memory; of 16 bytes the first 4*valid are copied, the others
// become zero. With nothing valid the address is not read.
template <int Floats>
__device__ __forceinline__ void copy_async(float* shared, const float* global, int valid) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (Floats == 4)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(4 * valid));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global), "r"(4 * valid));
}

__device__ __forceinline__ void copies_issued() { asm volatile("cp.async.commit_group;"); }

// Waits until at most `Pending` of this thread's groups of copies are under way.
template <int Pending>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending));
}

// c += a * b for a 16 x 8, b 8 x 8. Lane 4g+q holds a(g, q), a(g+8, q), a(g, q+4), a(g+8, q+4); b(q, g), b(q+4, g);
// c(g, 2q), c(g, 2q+1), c(g+8, 2q), c(g+8, 2q+1). The units read the upper 19 bits of each operand.
__device__ __forceinline__ void mma(float (&c)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)), "r"(__float_as_uint(a3)),
                   "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
