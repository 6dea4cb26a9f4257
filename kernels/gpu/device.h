// Between the launchers and libgpuarray: what a device can do, its kernels built when first needed, its memory.
//
// Kernels come as text (files beside this one, embedded by base.py) and are built by libgpuarray for the context at hand:
// for CUDA through NVRTC, for OpenCL by the driver. A program is built at its first launch and kept for the process,
// so that variants nobody uses cost nothing. Everything is queued on the context's stream; nothing here waits.
#pragma once
#include <Python.h>
#include <gpuarray/array.h>
#include <gpuarray/buffer.h>
#include <gpuarray/error.h>
#include <gpuarray/kernel.h>
#include <gpuarray_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

namespace c01b {
namespace gpu {

// The text of a file in this folder. Theano puts its definition, which base.py generates, behind the headers.
static const char* source(const std::string& name);

// What the context of an op can do.
struct Device {
    PyGpuContextObject* context;
    bool cuda = false;
    int compute = 0;        // capability: 90 for 9.0; 0 where it is not CUDA
    unsigned processors = 1;  // multiprocessors, or compute units
    size_t local_memory = 0;  // bytes of shared memory that a block may have

    explicit Device(PyGpuContextObject* c) : context(c) {
        cuda = PyBytes_Check(c->kind) && std::strcmp(PyBytes_AS_STRING(c->kind), "cuda") == 0;
        gpucontext_property(c->ctx, GA_CTX_PROP_NUMPROCS, &processors);
        gpucontext_property(c->ctx, GA_CTX_PROP_LMEMSIZE, &local_memory);
        processors = std::max(processors, 1u);
        if (cuda) compute = capability();
    }

  private:
    // libgpuarray tells it as "compute_90" or "sm_90", a character for each of the two numbers.
    int capability() const {
        const char* name = nullptr;
        if (gpucontext_property(context->ctx, GA_CTX_PROP_BIN_ID, &name) != GA_NO_ERROR || !name) return 0;
        const size_t length = std::strlen(name);
        return length < 2 ? 0 : 10 * (name[length - 2] - '0') + (name[length - 1] - '0');
    }
};

// Where an array begins. To a kernel these are two parameters: a pointer, and an offset in bytes (ga_size).
struct Buffer {
    gpudata* data;
    size_t offset;  // bytes
};

// A kernel: `files` are compiled one after the other as one text, after `defines`; `name` is the function in it, or in
// `instance`, a text behind the files: there for templates, whose name must tell which instance it is.
struct Program {
    std::vector<const char*> files;
    const char* name;
    std::string defines;
    int flags = 0;  // of libgpuarray: GA_USE_...
    std::string instance = {};
};

struct Grid {
    size_t blocks[3], threads[3];
    size_t shared = 0;  // bytes of shared memory besides what the kernel declares
};

// The arguments of one launch, in libgpuarray's form: type codes, and pointers to values (for a buffer, the buffer).
class Arguments {
  public:
    template <class... Args>
    explicit Arguments(const Args&... args) {
        (count(args), ...);
        values_.reserve(types_.size());  // pointers into it must stay
        (add(args), ...);
    }
    const std::vector<int>& types() const { return types_; }
    void** pointers() { return pointers_.data(); }

  private:
    void count(const Buffer&) { types_.insert(types_.end(), {GA_BUFFER, GA_SIZE}); }
    void count(int32_t) { types_.push_back(GA_INT); }
    void count(uint32_t) { types_.push_back(GA_UINT); }
    void count(int64_t) { types_.push_back(GA_LONG); }
    void count(float) { types_.push_back(GA_FLOAT); }
    // A struct by value, for CUDA alone: libgpuarray hands pointers on to cuLaunchKernel, which knows the size.
    template <class Struct>
    void count(const Struct&) {
        static_assert(std::is_class<Struct>::value && std::is_trivially_copyable<Struct>::value, "passed as bytes");
        types_.push_back(GA_BYTE);
    }

    void add(const Buffer& b) {
        pointers_.push_back(b.data);
        add(b.offset);
    }
    template <class T>
    void add(const T& value) {
        if constexpr (std::is_class<T>::value) return pointers_.push_back(const_cast<T*>(&value));
        values_.push_back(0);
        std::memcpy(&values_.back(), &value, sizeof value);
        pointers_.push_back(&values_.back());
    }

    std::vector<int> types_;
    std::vector<uint64_t> values_;
    std::vector<void*> pointers_;
};

// The built kernel of a program; null with an exception set if it cannot be built. Kernels live as long as the process,
// and hold their context, so that its address stays its own.
inline GpuKernel* built(const Device& device, const Program& program, const std::vector<int>& types) {
    static std::map<std::pair<gpucontext*, std::string>, GpuKernel>& kernels =
        *new std::map<std::pair<gpucontext*, std::string>, GpuKernel>();  // never destroyed: the context may go first
    std::string key = program.defines + "\n" + program.name;
    std::vector<const char*> texts{"#include \"cluda.h\"\n", program.defines.c_str()};  // the dialect, which libgpuarray has
    for (const char* file : program.files) {
        key += std::string("\n") + file;
        texts.push_back(source(file));
    }
    texts.push_back(program.instance.c_str());
    const auto place = std::make_pair(device.context->ctx, key);
    const auto found = kernels.find(place);
    if (found != kernels.end()) return &found->second;

    GpuKernel kernel;
    char* log = nullptr;
    const int error = GpuKernel_init(&kernel, device.context->ctx, static_cast<unsigned>(texts.size()), texts.data(),
                                     nullptr, program.name, static_cast<unsigned>(types.size()), types.data(),
                                     program.flags, &log);
    if (error == GA_NO_ERROR) return &(kernels[place] = kernel);
    PyErr_Format(PyExc_RuntimeError, "layoutopt: the GPU kernel %s cannot be built: %s\n%.2000s", program.name,
                 gpucontext_error(device.context->ctx, error), log ? log : "");
    std::free(log);
    return nullptr;
}

// Queues a kernel. Returns 0, or -1 with an exception set.
template <class... Args>
int launch(const Device& device, const Program& program, const Grid& grid, const Args&... args) {
    constexpr size_t most[3] = {(size_t(1) << 31) - 1, 65535, 65535};  // blocks that CUDA takes
    for (int axis = 0; axis < 3; ++axis)
        if (grid.blocks[axis] > most[axis]) {
            PyErr_Format(PyExc_ValueError, "layoutopt: %s would need %zu blocks, the GPU takes %zu", program.name,
                         grid.blocks[axis], most[axis]);
            return -1;
        }
    Arguments arguments(args...);
    GpuKernel* kernel = built(device, program, arguments.types());
    if (!kernel) return -1;
    const int error = GpuKernel_call(kernel, 3, grid.blocks, grid.threads, grid.shared, arguments.pointers());
    if (error == GA_NO_ERROR) return 0;
    PyErr_Format(PyExc_RuntimeError, "layoutopt: the GPU kernel %s failed: %s", program.name,
                 GpuKernel_error(kernel, error));
    return -1;
}

inline int out_of_memory(const Device& device, const char* whose, size_t bytes) {
    size_t free_bytes = 0;
    gpucontext_property(device.context->ctx, GA_CTX_PROP_FREE_GMEM, &free_bytes);
    PyErr_Clear();
    PyErr_Format(PyExc_MemoryError, "%s: no %zu MB of GPU memory left (the driver reports %zu MB free)", whose,
                 bytes >> 20, free_bytes >> 20);
    return -1;
}

// Scratch memory of one launch. It goes back when the object does; libgpuarray hands it out again only to what is queued
// later, and keeps blocks for reuse.
class Workspace {
  public:
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() {
        if (data_) gpudata_release(data_);
    }

    // Returns 0, or -1 with MemoryError set.
    int allocate(const Device& device, size_t bytes) {
        int error = GA_NO_ERROR;
        data_ = gpudata_alloc(device.context->ctx, std::max<size_t>(bytes, 4), nullptr, 0, &error);
        return data_ ? 0 : out_of_memory(device, "layoutopt: workspace", bytes);
    }
    Buffer buffer() const { return {data_, 0}; }

  private:
    gpudata* data_ = nullptr;
};

}  // namespace gpu
}  // namespace c01b
