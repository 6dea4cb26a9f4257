// Counts what a process allocates, whoever asks: loaded in front of glibc (LD_PRELOAD), whose malloc does the work.
// `operator new`, numpy and OpenMP end here, too. Counters are read through ctypes (tests/steady_cases.py).
#include <cerrno>
#include <cstddef>

extern "C" {

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

long allocations = 0, allocated_bytes = 0;

static void count(size_t size) {
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&allocated_bytes, static_cast<long>(size), __ATOMIC_RELAXED);
}

void* malloc(size_t size) {
    count(size);
    return __libc_malloc(size);
}

void* calloc(size_t members, size_t size) {
    count(members * size);
    return __libc_calloc(members, size);
}

void* realloc(void* block, size_t size) {
    count(size);
    return __libc_realloc(block, size);
}

void* memalign(size_t alignment, size_t size) {
    count(size);
    return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** block, size_t alignment, size_t size) {
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
}
