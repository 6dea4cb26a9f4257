// Kernels for compute_90a: Hopper's wgmma instructions exist in code for exactly that target. libgpuarray compiles for
// compute_90, so this compiles by NVRTC itself, and loads and launches by the driver, through the same libraries and on
// the same stream as libgpuarray.
#pragma once
#include <dlfcn.h>
#include <gpuarray/extension.h>

#include "../conv_call.h"

namespace c01b {
namespace gpu {
namespace cuda {

// The functions of NVRTC, the driver and libgpuarray's CUDA extension; all types are the libraries' (pointers opaque,
// enums int).
struct HopperLibraries {
    int (*create)(void**, const char*, const char*, int, const char* const*, const char* const*);
    int (*compile)(void*, int, const char* const*);
    int (*log_size)(void*, size_t*);
    int (*log)(void*, char*);
    int (*code_size)(void*, size_t*);
    int (*code)(void*, char*);
    int (*destroy)(void**);
    int (*load)(void**, const void*);
    int (*function)(void**, void*, const char*);
    int (*set_attribute)(void*, int, int);
    int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
    void (*enter)(gpucontext*);
    void (*exit)(gpucontext*);
    void* (*stream)(void*);
    int (*wait)(gpudata*, int);
    int (*record)(gpudata*, int);
    bool complete = true;

    // Symbols by name; the libraries are loaded already where libgpuarray runs CUDA kernels.
    HopperLibraries() {
        void* nvrtc = open({"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"});
        void* driver = open({"libcuda.so.1", "libcuda.so"});
        find(create, nvrtc, "nvrtcCreateProgram"), find(compile, nvrtc, "nvrtcCompileProgram");
        find(log_size, nvrtc, "nvrtcGetProgramLogSize"), find(log, nvrtc, "nvrtcGetProgramLog");
        find(code_size, nvrtc, "nvrtcGetCUBINSize"), find(code, nvrtc, "nvrtcGetCUBIN"),
            find(destroy, nvrtc, "nvrtcDestroyProgram");
        find(load, driver, "cuModuleLoadData"), find(function, driver, "cuModuleGetFunction");
        find(set_attribute, driver, "cuFuncSetAttribute"), find(launch, driver, "cuLaunchKernel");
        extension(enter, "cuda_enter"), extension(exit, "cuda_exit"), extension(stream, "cuda_get_stream");
        extension(wait, "cuda_wait"), extension(record, "cuda_record");
    }

    static const HopperLibraries& get() {
        static const HopperLibraries libraries;
        return libraries;
    }

  private:
    static void* open(std::initializer_list<const char*> names) {
        for (const char* name : names)
            if (void* library = dlopen(name, RTLD_LAZY | RTLD_GLOBAL)) return library;
        return nullptr;
    }
    template <class Function>
    void set(Function& function, void* symbol) {
        function = reinterpret_cast<Function>(symbol);
        complete = complete && symbol;
    }
    template <class Function>
    void find(Function& function, void* library, const char* name) {
        set(function, library ? dlsym(library, name) : nullptr);
    }
    template <class Function>
    void extension(Function& function, const char* name) {
        set(function, gpuarray_get_extension(name));
    }
};

// Whether all of it is there; says so once if not.
inline bool has_hopper_libraries() {
    static bool warned = false;
    const bool complete = HopperLibraries::get().complete;
    if (!complete && !warned) {
        PyErr_WarnEx(
            PyExc_RuntimeWarning,
            "layoutopt: NVRTC or the driver's functions are not found, slower kernels than this GPU's best are taken", 1);
        PyErr_Clear();
        warned = true;
    }
    return complete;
}

// The binary of a text; empty, with the compiler's words in `log`, if it cannot be compiled.
inline std::string hopper_binary(const std::string& text, std::string& log) {
    const HopperLibraries& lib = HopperLibraries::get();
    const char* options[] = {"-arch=sm_90a"};
    void* program = nullptr;
    std::string binary;
    size_t size = 0;
    if (lib.create(&program, text.c_str(), "layoutopt.cu", 0, nullptr, nullptr)) return binary;
    if (lib.compile(program, 1, options) == 0 && lib.code_size(program, &size) == 0) {
        binary.resize(size);
        if (lib.code(program, &binary[0])) binary.clear();
    } else if (lib.log_size(program, &size) == 0) {
        log.resize(size);
        lib.log(program, &log[0]);
    }
    lib.destroy(&program);
    return binary;
}

// The function of a program in this context, built once a process; null, after one warning, if that is impossible.
inline void* hopper_function(const Device& device, const Program& program, int shared) {
    static std::map<std::pair<gpucontext*, std::string>, void*>& functions =
        *new std::map<std::pair<gpucontext*, std::string>, void*>();
    const auto place = std::make_pair(device.context->ctx, std::string(program.name));
    const auto found = functions.find(place);
    if (found != functions.end()) return found->second;

    const HopperLibraries& lib = HopperLibraries::get();
    constexpr int max_dynamic_shared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    std::string text, log;
    for (const char* file : program.files) text += source(file);
    const std::string binary = hopper_binary(text + program.instance, log);
    void *module = nullptr, *function = nullptr;
    lib.enter(device.context->ctx);
    const bool built = !binary.empty() && lib.load(&module, binary.data()) == 0 &&
                       lib.function(&function, module, program.name) == 0 &&
                       lib.set_attribute(function, max_dynamic_shared, shared) == 0;
    lib.exit(device.context->ctx);
    if (!built) {
        function = nullptr;
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                         "layoutopt: %s cannot be built for compute_90a, a slower kernel is taken: %.300s", program.name,
                         log.c_str());
        PyErr_Clear();
    }
    return functions[place] = function;
}

// Queues a kernel with parameters (a, b, target: pointer and offset each; a struct). DECLINED if it cannot be built.
template <class Sizes>
int hopper_launch(const Device& device, const Program& program, const Grid& grid, const Buffer& a, const Buffer& b,
                  const Buffer& target, const Sizes& sizes) {
    void* function = hopper_function(device, program, int(grid.shared));
    if (!function) return DECLINED;
    const HopperLibraries& lib = HopperLibraries::get();
    const Buffer buffers[] = {a, b, target};
    const void* parameters[7];
    for (int n = 0; n < 3; ++n)
        parameters[2 * n] = buffers[n].data,
                       parameters[2 * n + 1] = &buffers[n].offset;  // a gpudata begins with its address
    parameters[6] = &sizes;
    constexpr int both = GPUARRAY_CUDA_WAIT_READ | GPUARRAY_CUDA_WAIT_WRITE;
    lib.enter(device.context->ctx);
    int error = 0;
    for (const Buffer& buffer : buffers) error = error ? error : lib.wait(buffer.data, both);
    if (!error)
        error = lib.launch(function, unsigned(grid.blocks[0]), unsigned(grid.blocks[1]), unsigned(grid.blocks[2]),
                           unsigned(grid.threads[0]), 1, 1, unsigned(grid.shared), lib.stream(device.context->ctx),
                           const_cast<void**>(parameters), nullptr);
    for (const Buffer& buffer : buffers) error = error ? error : lib.record(buffer.data, both);
    lib.exit(device.context->ctx);
    if (error) PyErr_Format(PyExc_RuntimeError, "layoutopt: the GPU kernel %s failed: error %d", program.name, error);
    return error ? FAILED : DONE;
}

}  // namespace cuda
}  // namespace gpu
}  // namespace c01b
