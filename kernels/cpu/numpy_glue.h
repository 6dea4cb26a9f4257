// Between Theano's C linker and the kernels: numpy arrays in, numpy arrays out, Python exceptions with numbers in them.
//
// The kernels themselves know nothing of Python. An op's C entry (conv_op.h, pool_op.h, relayout_op.h) takes borrowed
// references, checks every size, asks here for its output and calls the kernel. It returns 0, or -1 with an exception set.
#pragma once
#include <Python.h>
#include <numpy/arrayobject.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace c01b {

// An owned reference to a C-contiguous, aligned view or copy of a borrowed array. The planner keeps values contiguous, so
// the copy is the exception: an elementwise op may hand on a transposed array, a user's slice may have gaps.
class Contiguous {
  public:
    explicit Contiguous(PyArrayObject* borrowed)
        : array_(reinterpret_cast<PyArrayObject*>(
              PyArray_FROM_OF(reinterpret_cast<PyObject*>(borrowed), NPY_ARRAY_CARRAY_RO))) {}
    Contiguous(const Contiguous&) = delete;
    Contiguous& operator=(const Contiguous&) = delete;
    ~Contiguous() { Py_XDECREF(array_); }
    bool failed() const { return array_ == nullptr; }
    template <class T>
    const T* data() const { return static_cast<const T*>(PyArray_DATA(array_)); }
    int64_t dim(int axis) const { return PyArray_DIM(array_, axis); }
    PyArrayObject* get() const { return array_; }

  private:
    PyArrayObject* array_;
};

// ValueError with the numbers.
inline int refuse_size(int ndim, npy_intp* shape) {
    PyObject* numbers = PyArray_IntTupleFromIntp(ndim, shape);
    if (numbers) PyErr_Format(PyExc_ValueError, "a result of sizes %R would be larger than any memory", numbers);
    Py_XDECREF(numbers);
    return -1;
}

// A new C-contiguous array. Large ones begin where a cache line does, which numpy's own, often 16 bytes behind a page's beginning, seldom
// do: a vector's load or store then meets one line instead of two, and may go around the caches. Such an array is a view of one
// that is a line longer.
inline PyArrayObject* new_array(int ndim, npy_intp* dims, int typenum, int64_t bytes) {
    constexpr int64_t line = 64, large = 64 << 10;
    if (bytes < large) return reinterpret_cast<PyArrayObject*>(PyArray_EMPTY(ndim, dims, typenum, 0));
    npy_intp room = bytes + line - 1;
    PyObject* owner = PyArray_EMPTY(1, &room, NPY_UINT8, 0);
    if (!owner) return nullptr;
    const uintptr_t first = reinterpret_cast<uintptr_t>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(owner)));
    void* data = static_cast<char*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(owner))) + (line - first % line) % line;
    PyObject* view = PyArray_New(&PyArray_Type, ndim, dims, typenum, nullptr, data, 0, NPY_ARRAY_CARRAY, nullptr);
    if (!view) Py_DECREF(owner);
    else if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(view), owner) < 0) Py_CLEAR(view);  // has taken owner
    return reinterpret_cast<PyArrayObject*>(view);
}

// Makes *out a writable C-contiguous array of that shape, keeping the storage of an earlier call where it fits.
inline int ensure_output(PyArrayObject** out, int ndim, const int64_t* shape, int typenum) {
    bool fits = *out && PyArray_NDIM(*out) == ndim && PyArray_TYPE(*out) == typenum && PyArray_ISCARRAY(*out);
    for (int axis = 0; fits && axis < ndim; ++axis) fits = PyArray_DIM(*out, axis) == shape[axis];
    if (fits) return 0;
    npy_intp dims[NPY_MAXDIMS];
    double elements = 1;  // numpy would refuse too many, and not say how many they were
    int64_t bytes = 0;
    for (int axis = 0; axis < ndim; ++axis) dims[axis] = shape[axis], elements *= std::max<double>(1, shape[axis]);
    if (elements > INT64_MAX / 16) return refuse_size(ndim, dims);
    if (PyArray_Descr* type = PyArray_DescrFromType(typenum)) {
        bytes = PyArray_MultiplyList(dims, ndim) * type->elsize;
        Py_DECREF(type);
    }
    Py_XDECREF(*out);
    *out = new_array(ndim, dims, typenum, bytes);
    return *out ? 0 : -1;
}

// For an op that may overwrite its operand x: makes that *out, if it is contiguous. If not, *out is nothing: what is left there
// may be the operand of an earlier call, which is not ours any more.
inline bool take_over(PyArrayObject* x, PyArrayObject** out) {
    const bool possible = PyArray_ISCARRAY(x);
    if (possible) Py_INCREF(x);
    Py_XDECREF(*out);
    *out = possible ? x : nullptr;
    return possible;
}

// Runs a kernel without the interpreter lock, so that two Python threads compute at the same time; a failed allocation of
// scratch memory becomes MemoryError.
template <class Kernel>
int run_unlocked(const Kernel& kernel) {
    bool out_of_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        kernel();
    } catch (const std::bad_alloc&) {
        out_of_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (!out_of_memory) return 0;
    PyErr_NoMemory();
    return -1;
}

// The same for a kernel that fills `out`: where that is empty there is nothing to do, however long its other axes are.
template <class Kernel>
int run_on(PyArrayObject* out, const Kernel& kernel) { return PyArray_SIZE(out) == 0 ? 0 : run_unlocked(kernel); }

}  // namespace c01b
