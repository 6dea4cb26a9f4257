"""Images picked by a list of their numbers, in c01b: a minibatch is converted while it is taken from a data set."""
from theano.gof import Apply
from theano.gradient import DisconnectedType
from theano.tensor import TensorType, as_tensor_variable, discrete_dtypes
from theano.tensor.subtensor import advanced_inc_subtensor1

from .base import C01bOp
from .reference.relayout import take_to_c01b as reference_take_to_c01b
from .relayout import MOVES_ANYTHING, ToC01B, to_bc01


class TakeToC01B(C01bOp):
    """``ToC01B()(x[rows])`` in one pass.

    Parameters of a call
    --------------------
    x : tensor of any dtype with at least 2 axes (image, ...) and any strides
    rows : integer vector
        Numbers of images, below zero from the end; a number out of range raises IndexError.

    Returns
    -------
    Contiguous tensor (..., image).
    """

    __props__ = ()
    headers = ("take_op.h",)

    def make_node(self, x, rows):
        """One node.

        Raises
        ------
        TypeError
            If `x` has fewer than 2 axes, or `rows` is not a vector of integers.
        """
        x, rows = as_tensor_variable(x), as_tensor_variable(rows)
        if x.ndim < 2:
            raise TypeError("TakeToC01B: x must have at least 2 axes, got %s" % x.type)
        if rows.ndim != 1 or rows.dtype not in discrete_dtypes or rows.dtype == "bool":
            raise TypeError("TakeToC01B: rows must be a vector of integers, got %s" % rows.type)
        return Apply(self, [x, rows], [TensorType(x.dtype, x.broadcastable[1:] + rows.broadcastable)()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = reference_take_to_c01b(*inputs)

    def c_code(self, node, name, inputs, outputs, sub):
        return 'if (c01b::take_op("TakeToC01B", %s, %s, &%s)) { %s }' % (inputs[0], inputs[1], outputs[0], sub["fail"])

    def c_compile_args(self):
        return super().c_compile_args() + MOVES_ANYTHING

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        (images, *sizes), (count,) = shapes
        return [ToC01B.moved((count, *sizes))]

    def connection_pattern(self, node):
        return [[True], [False]]

    def grad(self, inputs, output_gradients):
        x, rows = inputs
        if x.dtype in discrete_dtypes:
            return [x.zeros_like(dtype="float32"), DisconnectedType()()]
        return [advanced_inc_subtensor1(x.zeros_like(), to_bc01(output_gradients[0]), rows), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0], inputs[1])]


take_to_c01b = TakeToC01B()
