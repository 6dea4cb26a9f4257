"""ChannelSum: the sum over all axes but the first, vectorised. Of a tensor in c01b order that is a channel's sum over all pixels
and images: the gradient of a bias, the mean and variance of batch normalisation. The C++ is in ``cpu/channel_sum.h``.
"""
from theano.gof import Apply
from theano.tensor import TensorType, as_tensor_variable

from .base import C01bOp
from .reference import channel_sum as reference


class ChannelSum(C01bOp):
    """``ChannelSum()(x)``: ``out[c] = sum of x[c, ...]``, added up in float64 and rounded once, as Theano's Sum of float32 does.

    Theano adds one element after the other, in the latency of an addition each. Another order of summation, which does not depend
    on the number of threads, is the only difference.

    Inputs and outputs
    ------------------
    x : float32 (channels, ...), two axes or more
        Need not be contiguous.
    returns : float32 (channels,)

    Raises
    ------
    TypeError
        From the call, for another dtype or fewer axes.
    """

    __props__ = ()
    headers = ("channel_sum.h",)

    def make_node(self, x):
        x = as_tensor_variable(x)
        if x.dtype != "float32" or x.ndim < 2:
            raise TypeError("ChannelSum: x must be a float32 tensor of two axes or more, got %s" % x.type)
        return Apply(self, [x], [TensorType("float32", x.broadcastable[:1])()])

    def perform(self, node, inputs, output_storage, params=None):
        output_storage[0][0] = reference.channel_sum(inputs[0])

    def c_code(self, node, name, inputs, outputs, sub):
        return "if (c01b::channel_sum_op(%s, &%s)) { %s }" % (inputs[0], outputs[0], sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        return [shapes[0][:1]]

    def L_op(self, inputs, outputs, output_gradients):
        x, = inputs
        gradient = output_gradients[0].dimshuffle(0, *["x"] * (x.ndim - 1))
        return [x.zeros_like() + gradient]

    def R_op(self, inputs, eval_points):
        return [None if point is None else self(point) for point in eval_points]


channel_sum = ChannelSum()
