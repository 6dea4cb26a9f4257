"""`gpu_contiguous` for host code: programs written for cuda-convnet call it before every one of its ops.

Ops of this package take any strides, so that the call is not needed; it is there so that such programs run unchanged,
and the optimizer drops it where a value is contiguous by construction.
"""
from theano.tensor.extra_ops import CpuContiguous


class HostContiguous(CpuContiguous):
    """Returns its input if that is C-contiguous, else a contiguous copy; any dtype, any number of axes.

    Theano's `CpuContiguous`, except for where a copy goes. Theano's copies into its previous output, which may be the
    previous *input*: with ``allow_gc=False``, a call with a contiguous array and then one with a transposed array of
    the same shape overwrites the first array. Here a copy is always a new array.
    """

    def c_code(self, node, name, inputs, outputs, sub):
        return """
            Py_XDECREF(%(y)s);
            %(y)s = PyArray_GETCONTIGUOUS(%(x)s);
            if (!%(y)s) %(fail)s
            """ % dict(x=inputs[0], y=outputs[0], fail=sub["fail"])

    def c_code_cache_version(self):
        return (1,)

    def infer_shape(self, node, shapes):
        return shapes

    def R_op(self, inputs, eval_points):
        return [None if point is None else self(point) for point in eval_points]


gpu_contiguous = HostContiguous()
