"""FilterActsBias and MaxPoolBias: convolution and max-pooling that add a bias and apply an activation in their last write.

They stand for graphs of the plain ops and elementwise ones (`rewrites.fusion` puts them in, once gradients are there) and their
results equal those to the last bit: the bias is added after the whole sum, and activations are computed as they are written. The
C++ is ``cpu/epilogue.h``, which each kernel's last loop calls.
"""
from theano.gof import Apply, ParamsType
from theano.gradient import Rop
from theano.scalar import int64
from theano.tensor import TensorType, as_tensor_variable, gt, lt, switch

from .activation import sigmoid, tanh
from .base import as_c01b
from .derivatives import gradients_by
from .conv import _PARAMS as CONV_PARAMS, FilterActs
from .pool import _PARAMS as POOL_PARAMS, MaxPool
from .reference import epilogue as reference

# As ACTIVATIONS of the reference, of Theano variables.
_SYMBOLIC = {
    "none": lambda x: x,
    "half_sum": lambda x: 0.5 * (x + abs(x)),
    "positive": lambda x: switch(gt(x, 0), x, 0),
    "larger": lambda x: switch(lt(x, 0), 0, x),
    "tanh": tanh,
    "sigmoid": sigmoid,
}


class _WithEpilogue:
    """What the two ops share, beside the op that they extend: `plain_op`.

    Parameters
    ----------
    op : FilterActs or MaxPool
        Whose parameters they have.
    activation : str
        A key of `kernels.reference.epilogue.ACTIVATIONS`.
    keep : bool
        Whether there is a second output, which the class describes.

    Raises
    ------
    ValueError
        For another activation.
    """

    def _configure(self, op, activation, keep):
        if activation not in reference.ACTIVATIONS:
            raise ValueError("activation must be one of %s, got %r" % (", ".join(reference.ACTIVATIONS), activation))
        self.plain_op, self.activation, self.keep = op, activation, bool(keep)

    @property
    def activating(self):
        """The activation's number, for the C++ code."""
        return list(reference.ACTIVATIONS).index(self.activation)

    def __str__(self):
        return "%s{%s, %s%s}" % (type(self).__name__, self.plain_op, self.activation, ", keep" if self.keep else "")

    def _node(self, inputs, bias):
        bias = as_tensor_variable(bias)
        if bias.ndim != 1 or bias.dtype != "float32":
            raise TypeError("%s: bias must be a float32 vector, got %s" % (type(self).__name__, bias.type))
        pattern = self.plain_op(*inputs).broadcastable
        return Apply(self, list(inputs) + [bias], [TensorType("float32", pattern)() for _ in range(1 + self.keep)])

    def _check_bias(self, bias, channels):
        if len(bias) != channels:
            raise ValueError("%s: %d biases for %d channels" % (type(self).__name__, len(bias), channels))

    def infer_shape(self, node, shapes):
        return self.plain_op.infer_shape(node, shapes[:-1]) * len(node.outputs)

    def connection_pattern(self, node):
        return [[True] * len(node.outputs)] * (len(node.inputs) - 1) + [self._bias_reaches()[:len(node.outputs)]]

    def L_op(self, inputs, outputs, output_gradients):
        return gradients_by(self.unfused, inputs, output_gradients)

    def R_op(self, inputs, eval_points):
        known = [(x, point) for x, point in zip(inputs, eval_points) if point is not None]
        outputs = self.unfused(*inputs)
        return Rop(outputs, [x for x, _ in known], [point for _, point in known]) if known else [None] * len(outputs)


class FilterActsBias(_WithEpilogue, FilterActs):
    """``activation(FilterActs(...)(images, filters) + bias)``.

    ``FilterActsBias(FilterActs(...), activation, keep)(images, filters, bias)``.

    Parameters
    ----------
    op, activation
        See `_WithEpilogue`.
    keep : bool
        Whether the second output, the sums with their bias before the activation, is there.

    Inputs and outputs
    ------------------
    images, filters
        As of `FilterActs`; the count of outputs is the automatic one.
    bias : float32 (filters,)
    returns : float32 (filters, rows, columns, batch), one or two of them

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run, as `FilterActs`; for another number of biases.
    """

    __props__ = FilterActs.__props__ + ("activation", "keep")
    params_type = ParamsType(**dict.fromkeys(CONV_PARAMS + ("activating",), int64))
    headers = ("filter_acts_bias.h",)
    __str__ = _WithEpilogue.__str__  # Theano writes one into every class with __props__

    def __init__(self, op, activation="none", keep=False):
        FilterActs.__init__(self, op.pad, op.partial_sum, op.stride, op.flip, op.ceil_mode, op.groups, op.openmp)
        self._configure(op, activation, keep)

    def make_node(self, images, filters, bias):
        return self._node([as_c01b(self, "images", images), as_c01b(self, "filters", filters)], bias)

    def get_params(self, node):
        return self.params_type.get_params(activating=self.activating, **self.run_time_params())

    def c_code(self, node, name, inputs, outputs, sub):
        targets = ["&" + output for output in outputs] + ["nullptr"] * (2 - len(outputs))
        parameters = ["c01b::conv_params(%(params)s)" % sub, "c01b::Activating(%(params)s->activating)" % sub]
        return "if (c01b::filter_acts_bias_op(%s)) %s" % (", ".join([*inputs, *targets, *parameters]), sub["fail"])

    def perform(self, node, inputs, output_storage, params=None):
        images, filters, bias = inputs
        self._check_bias(bias, filters.shape[3])
        for storage, value in zip(output_storage, reference.finish(*self._compute(images, filters), bias, self.activation)):
            storage[0] = value

    def _bias_reaches(self):
        return [True, True]

    def unfused(self, images, filters, bias):
        """The outputs, of the plain op and elementwise ones."""
        before = self.plain_op(images, filters) + bias.dimshuffle(0, "x", "x", "x")
        return [_SYMBOLIC[self.activation](before), before][:1 + self.keep]


class MaxPoolBias(_WithEpilogue, MaxPool):
    """``activation(MaxPool(...)(x) + bias)``.

    ``MaxPoolBias(MaxPool(...), activation, keep)(x, bias)``.

    Parameters
    ----------
    op, activation
        See `_WithEpilogue`.
    keep : bool
        Whether the second output, the maxima themselves, is there: the pooling's gradient needs them.

    Inputs and outputs
    ------------------
    x
        As of `MaxPool`.
    bias : float32 (channels,)
    returns : float32 (channels, output rows, output columns, batch), one or two of them

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run, as `MaxPool`; for another number of biases.
    """

    __props__ = MaxPool.__props__ + ("activation", "keep")
    params_type = ParamsType(**dict.fromkeys(POOL_PARAMS + ("activating",), int64))
    headers = ("max_pool_bias.h",)
    __str__ = _WithEpilogue.__str__

    def __init__(self, op, activation="none", keep=False):
        MaxPool.__init__(self, op.ds, op.stride, op.start, op.outputs, op.ceil_mode, op.openmp)
        self._configure(op, activation, keep)

    def make_node(self, x, bias):
        return self._node([as_c01b(self, "x", x)], bias)

    def c_code(self, node, name, inputs, outputs, sub):
        targets = ["&" + output for output in outputs] + ["nullptr"] * (2 - len(outputs))
        parameters = ["c01b::pool_params(%(params)s)" % sub, "c01b::Activating(%(params)s->activating)" % sub]
        return "if (c01b::max_pool_bias_op(%s)) %s" % (", ".join([*inputs, *targets, *parameters]), sub["fail"])

    def perform(self, node, inputs, output_storage, params=None):
        x, bias = inputs
        self._check_bias(bias, x.shape[0])
        MaxPool.perform(self, node, [x], output_storage[-1:])
        maxima = output_storage[-1][0]
        output_storage[0][0] = reference.finish(maxima, bias, self.activation)[0]

    def _bias_reaches(self):
        return [True, False]

    def unfused(self, x, bias):
        """The outputs, of the plain op and elementwise ones."""
        maxima = self.plain_op(x)
        return [_SYMBOLIC[self.activation](maxima + bias.dimshuffle(0, "x", "x", "x")), maxima][:1 + self.keep]
