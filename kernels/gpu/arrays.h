// Between Theano's C code and the launchers: GPU arrays in, GPU arrays out. The counterpart of cpu/numpy_glue.h.
#pragma once
#include "device.h"

namespace c01b {
namespace gpu {

// An owned reference to a C-contiguous view or copy of a borrowed array. The planner keeps values contiguous, so the
// copy is the exception.
class Contiguous {
  public:
    explicit Contiguous(PyGpuArrayObject* borrowed) : array_(borrowed) {
        if (GpuArray_CHKFLAGS(&borrowed->ga, GA_C_CONTIGUOUS | GA_ALIGNED))
            Py_INCREF(array_);
        else
            array_ = pygpu_copy(borrowed, GA_C_ORDER);
    }
    Contiguous(const Contiguous&) = delete;
    Contiguous& operator=(const Contiguous&) = delete;
    ~Contiguous() { Py_XDECREF(array_); }
    bool failed() const { return array_ == nullptr; }
    int64_t dim(int axis) const { return static_cast<int64_t>(array_->ga.dimensions[axis]); }
    Buffer buffer() const { return {array_->ga.data, array_->ga.offset}; }
    PyGpuArrayObject* get() const { return array_; }

  private:
    PyGpuArrayObject* array_;
};

inline Buffer buffer_of(PyGpuArrayObject* array) { return {array->ga.data, array->ga.offset}; }

inline bool is_empty(PyGpuArrayObject* array) {
    return std::count(array->ga.dimensions, array->ga.dimensions + array->ga.nd, size_t(0)) != 0;
}

// Makes *out a C-contiguous array of that shape, keeping the storage of an earlier call where it fits.
template <size_t ndim>
int ensure_output(const Device& device, const char* op, PyGpuArrayObject** out, const int64_t (&shape)[ndim],
                  int typecode = GA_FLOAT, size_t axes = ndim) {
    size_t dims[ndim], bytes = gpuarray_get_elsize(typecode);
    for (size_t axis = 0; axis < axes; ++axis) bytes *= dims[axis] = static_cast<size_t>(shape[axis]);
    const GpuArray* old = *out ? &(*out)->ga : nullptr;
    if (old && old->nd == axes && old->typecode == typecode && GpuArray_CHKFLAGS(old, GA_CARRAY) &&
        std::equal(dims, dims + axes, old->dimensions))
        return 0;
    Py_XDECREF(*out);
    *out = pygpu_empty(static_cast<unsigned>(axes), dims, typecode, GA_C_ORDER, device.context, Py_None);
    return *out ? 0 : out_of_memory(device, op, bytes);
}

}  // namespace gpu
}  // namespace c01b
