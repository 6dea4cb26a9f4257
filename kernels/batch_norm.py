"""BatchNormTrain and BatchNormTrainGrad: batch normalisation of training in c01b, and its gradient.

    BatchNormTrain()(x, scale, bias, epsilon) -> [y, mean, variance]
    BatchNormTrainGrad()(x, dy, scale, mean, invstd) -> [gx, gscale, gbias]

The first axis is the channel, and a channel is normalised over all others: in c01b order, which makes it one run of memory. What
is one number for each channel beside these, such as ``invstd = 1 / sqrt(variance + epsilon)`` and running averages, is left to
Theano's elementwise ops. `rewrites.batch_norm` puts the ops in. Meaning: `kernels.reference.batch_norm`; the C++ is in
``cpu/batch_norm.h`` and ``cpu/batch_norm_grad.h``.
"""
import numpy as np
from theano.gof import Apply, ParamsType
from theano.gradient import DisconnectedType, Rop
from theano.scalar import bool as scalar_bool
from theano.tensor import TensorType, as_tensor_variable, cast, inv, mean as average, patternbroadcast, prod, sqr, sqrt

from .base import C01bOp
from .derivatives import gradients_by, is_known
from .reference import batch_norm as reference


class _BatchNormOp(C01bOp):
    """What the two ops share: their operands, and derivatives by way of Theano's ops."""

    headers = ("batch_norm_op.h",)

    def _operands(self, ndim=None, **named):
        """The operands as float32 tensor variables of `ndim` axes, by default those of the first, which has two or more.

        Raises
        ------
        TypeError
            For another dtype or number of axes; op and operand are in the message.
        """
        variables = []
        for name, value in named.items():
            x = as_tensor_variable(value)
            axes = "two axes or more" if ndim is None else "%d axes" % ndim
            if x.dtype != "float32" or (x.ndim < 2 if ndim is None else x.ndim != ndim):
                raise TypeError("%s: %s must be a float32 tensor of %s, got %s" % (type(self).__name__, name, axes, x.type))
            variables.append(x)
            ndim = x.ndim
        return variables

    def _check_sizes(self, expected, **named):
        for name, value in named.items():
            if value.shape != expected:
                raise ValueError("%s: %s is %s, expected %s" % (type(self).__name__, name, value.shape, expected))

    def R_op(self, inputs, eval_points):
        pairs = [(x, point) for x, point in zip(inputs, eval_points) if point is not None]
        outputs = self.in_theano(*inputs)
        if not pairs:
            return [None] * len(outputs)
        return Rop(outputs, [x for x, _ in pairs], [point for _, point in pairs])


def _each(x):
    """The type of one number for each channel of `x`."""
    return TensorType("float32", x.broadcastable[:1] + (True,) * (x.ndim - 1))


def _each_shape(shape):
    return (shape[0],) + (1,) * (len(shape) - 1)


def _as_operands(gradients, operands):
    """The gradients with their operands' patterns."""
    return [patternbroadcast(g, x.broadcastable) if is_known(g) else g for g, x in zip(gradients, operands)]


class BatchNormTrain(_BatchNormOp):
    """``y = (x - mean) * (scale / sqrt(variance + epsilon)) + bias``, with mean and variance of each channel.

    ``BatchNormTrain()(x, scale, bias, epsilon)``. The statistics are added up in float64 and rounded once, whatever the mean; what
    follows from them is rounded as Theano's elementwise ops do.

    Parameters
    ----------
    openmp : bool, optional
        See `C01bOp`.

    Inputs and outputs
    ------------------
    x : float32 (channels, ...), two axes or more
        Need not be contiguous.
    scale, bias : float32 (channels, 1, ..., 1), as many axes
    epsilon : float32 scalar
        No gradient flows to it, as in Theano.
    returns : [y, mean, variance], float32, y like `x`, the others (channels, 1, ..., 1)
        The variance is the average of squares, and NaN of channels without elements.

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run, with the numbers, for another number of scales or biases.
    """

    __props__ = ()

    def make_node(self, x, scale, bias, epsilon):
        x, = self._operands(x=x)
        scale, bias = self._operands(x.ndim, scale=scale, bias=bias)
        epsilon, = self._operands(0, epsilon=epsilon)
        return Apply(self, [x, scale, bias, epsilon], [x.type(), _each(x)(), _each(x)()])

    def perform(self, node, inputs, output_storage, params=None):
        x, scale, bias, epsilon = inputs
        self._check_sizes(_each_shape(x.shape), scale=scale, bias=bias)
        for storage, value in zip(output_storage, reference.batch_norm_train(x, scale, bias, epsilon)):
            storage[0] = value

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = ", ".join(inputs + ["&" + output for output in outputs])
        return "if (c01b::batch_norm_train_op(%s)) { %s }" % (arguments, sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        return [shapes[0]] + [_each_shape(shapes[0])] * 2

    def connection_pattern(self, node):
        return [[True] * 3, [True, False, False], [True, False, False], [False] * 3]

    def in_theano(self, x, scale, bias, epsilon):
        """The outputs in Theano's ops."""
        axes = tuple(range(1, x.ndim))
        mean = average(x, axes, keepdims=True)
        variance = average(sqr(x - mean), axes, keepdims=True)
        return [(x - mean) * (scale * inv(sqrt(variance + epsilon))) + bias, mean, variance]

    def L_op(self, inputs, outputs, output_gradients):
        x, scale, _, epsilon = inputs
        _, mean, variance = outputs
        gy, gmean, gvariance = output_gradients
        gx, gscale, gbias = x.zeros_like(), DisconnectedType()(), DisconnectedType()()
        if is_known(gy):
            gx, gscale, gbias = batch_norm_train_grad(x, gy, scale, mean, inv(sqrt(variance + epsilon)))
        count = cast(prod(x.shape[1:]), "float32")
        if is_known(gmean):
            gx = gx + gmean / count
        if is_known(gvariance):
            gx = gx + gvariance * (np.float32(2) / count) * (x - mean)
        return _as_operands((gx, gscale, gbias), inputs) + [DisconnectedType()()]


class BatchNormTrainGrad(_BatchNormOp):
    """The gradient of `BatchNormTrain`: with d = x - mean, averages <.> over a channel and
    ``c = dy * invstd - d * (<dy d> * invstd ** 3)`` it is ``gx = scale * (c - <c>)``, ``gscale = sum of dy * invstd * d`` and
    ``gbias = sum of dy``.

    ``BatchNormTrainGrad()(x, dy, scale, mean, invstd)``. Sums are added up in float64 and rounded once.

    Parameters
    ----------
    inplace : bool, optional
        gx may take the place of `dy`; Theano's in-place stage substitutes this where it is safe (`rewrites.inplace`).
    openmp : bool, optional
        See `C01bOp`.

    Inputs and outputs
    ------------------
    x : float32 (channels, ...), two axes or more
        Need not be contiguous.
    dy : float32, like `x`
        Gradient on y.
    scale, mean, invstd : float32 (channels, 1, ..., 1), as many axes
        invstd is 1 / sqrt(variance + epsilon).
    returns : [gx, gscale, gbias], float32, gx like `x`, the others (channels, 1, ..., 1)

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        When run, with the numbers, for sizes that do not belong together.
    """

    __props__ = ("inplace",)
    params_type = ParamsType(inplace=scalar_bool)  # at run time, so that both kinds are one compiled module

    def __init__(self, inplace=False, openmp=None):
        super().__init__(openmp=openmp)
        self.inplace = bool(inplace)
        if self.inplace:
            self.destroy_map = {0: [1]}

    def in_place(self):
        """This op, allowed to overwrite `dy`."""
        return type(self)(inplace=True, openmp=self.openmp)

    def make_node(self, x, dy, scale, mean, invstd):
        operands = self._operands(x=x, dy=dy, scale=scale, mean=mean, invstd=invstd)
        # The sizes of dy are those of x; Theano wants the type of what it overwrites.
        return Apply(self, operands, [operands[1].type(), _each(operands[0])(), _each(operands[0])()])

    def perform(self, node, inputs, output_storage, params=None):
        x, dy, scale, mean, invstd = inputs
        self._check_sizes(x.shape, dy=dy)
        self._check_sizes(_each_shape(x.shape), scale=scale, mean=mean, invstd=invstd)
        for storage, value in zip(output_storage, reference.batch_norm_train_grad(x, dy, scale, mean, invstd)):
            storage[0] = value

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = ", ".join(inputs + [sub["params"] + "->inplace"] + ["&" + output for output in outputs])
        return "if (c01b::batch_norm_train_grad_op(%s)) { %s }" % (arguments, sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)

    def infer_shape(self, node, shapes):
        return [shapes[0]] + [_each_shape(shapes[0])] * 2

    def connection_pattern(self, node):
        return [[True, True, False], [True, True, True], [True, False, False], [True, True, False], [True, True, False]]

    def in_theano(self, x, dy, scale, mean, invstd):
        """The outputs in Theano's ops, for further derivatives."""
        axes = tuple(range(1, x.ndim))
        d = x - mean
        c = dy * invstd - d * (average(dy * d, axes, keepdims=True) * invstd ** 3)
        return [scale * (c - average(c, axes, keepdims=True)), (dy * invstd * d).sum(axes, keepdims=True),
                dy.sum(axes, keepdims=True)]

    def L_op(self, inputs, outputs, output_gradients):
        return _as_operands(gradients_by(self.in_theano, inputs, output_gradients), inputs)


batch_norm_train, batch_norm_train_grad = BatchNormTrain(), BatchNormTrainGrad()
