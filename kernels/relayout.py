"""Conversions between the layouts: ToC01B moves the batch axis to the end, ToBC01 back to the front.

Both are plain transpositions of a matrix, (batch) x (everything else), and copy: the result is contiguous in the new
order, which is the point of converting.
"""
import numpy as np
from theano.gof import Apply
from theano.tensor import TensorType, as_tensor_variable, discrete_dtypes

from .base import C01bOp
from .reference.relayout import to_bc01 as reference_to_bc01, to_c01b as reference_to_c01b

# Elements of every dtype are moved as unsigned integers of their size, which C++ allows under this flag alone.
MOVES_ANYTHING = ["-fno-strict-aliasing"]


class _Relayout(C01bOp):
    """What the two conversions share; subclasses say how axes move and which op undoes them."""

    __props__ = ()
    headers = ("relayout_op.h",)
    entry = "relayout_op"

    def make_node(self, x):
        """One node; see the class for what `x` may be.

        Raises
        ------
        TypeError
            If `x` has fewer than 2 axes.
        """
        x = as_tensor_variable(x)
        if x.ndim < 2:
            raise TypeError("%s: x must have at least 2 axes, got %s" % (type(self).__name__, x.type))
        return Apply(self, [x], [TensorType(x.dtype, self.moved(x.broadcastable))()])

    def perform(self, node, inputs, output_storage):
        result = self.reference(inputs[0])
        output_storage[0][0] = result.copy() if np.may_share_memory(result, inputs[0]) else result

    def c_code(self, node, name, inputs, outputs, sub):
        return 'if (c01b::%s("%s", %s, %s, &%s)) { %s }' % (
            self.entry, type(self).__name__, inputs[0], self.split(node.inputs[0].ndim), outputs[0], sub["fail"])

    def c_compile_args(self):
        return super().c_compile_args() + MOVES_ANYTHING

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        return [self.moved(shapes[0])]

    def grad(self, inputs, output_gradients):
        if inputs[0].dtype in discrete_dtypes:  # as DimShuffle: zero, and the graph stays connected
            return [inputs[0].zeros_like(dtype="float32")]
        return [self.converse()(output_gradients[0])]

    def R_op(self, inputs, eval_points):
        return [None if point is None else self(point) for point in eval_points]


class ToC01B(_Relayout):
    """Batch to the end: (batch, channel, row, column) becomes (channel, row, column, batch), contiguous.

    Takes a tensor of any dtype with at least 2 axes and any strides, and returns a contiguous copy whose last axis is
    the first one of `x`: ``x.dimshuffle(1, ..., n - 1, 0)``.
    """

    reference = staticmethod(reference_to_c01b)

    @staticmethod
    def moved(axes):
        return tuple(axes[1:]) + tuple(axes[:1])

    @staticmethod
    def split(ndim):
        return 1

    @staticmethod
    def converse():
        return to_bc01


class StoredToC01B(ToC01B):
    """`ToC01B` of a value that may be stored in c01b: then a view, else a copy.

    A shared variable of sizes (batch, channel, row, column) may hold an array whose bytes lie in the order (channel, row,
    column, batch); only its strides tell. Functions that update it leave it so (`rewrites.storage`).
    """

    entry = "view_or_relayout"
    view_map = {0: [0]}

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = self.reference(inputs[0])  # a view where that is contiguous


class ToBC01(_Relayout):
    """Batch to the front: (channel, row, column, batch) becomes (batch, channel, row, column), contiguous.

    Takes a tensor of any dtype with at least 2 axes and any strides, and returns a contiguous copy whose first axis is
    the last one of `x`: ``x.dimshuffle(n - 1, 0, ..., n - 2)``.
    """

    reference = staticmethod(reference_to_bc01)

    @staticmethod
    def moved(axes):
        return tuple(axes[-1:]) + tuple(axes[:-1])

    @staticmethod
    def split(ndim):
        return ndim - 1

    @staticmethod
    def converse():
        return to_c01b


to_c01b = ToC01B()
stored_to_c01b = StoredToC01B()
to_bc01 = ToBC01()
