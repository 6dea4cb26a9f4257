"""CrossMapNorm: each pixel normalised by its neighbours across channels, as in AlexNet, and its gradient.

    CrossMapNorm(size, add_scale, pow_scale, blocked=False, min_div=1.0, axis=0)(images) -> [acts, denoms]
    CrossMapNormUndo(size, add_scale, pow_scale, blocked=False, min_div=1.0, axis=0)(images, gy) -> gx
    CrossMapSum(size, blocked=False, transposed=False, axis=0)(images) -> sums

`axis` is where the channels are: 0 in c01b order, 1 in bc01. The name, the first parameters and the pair of results are those of
cuda-convnet's wrapper in pylearn2. Here the two results are two nodes: one whose op is the `CrossMapNorm`, and for `denoms` a
`CrossMapSum` with elementwise ops around, which Theano drops where nobody reads it. So the usual case reads the images and
writes `acts`, nothing else; the gradient recomputes the denominators from the images for the same reason; and a gradient
that flows into `denoms` takes its own way.

Meaning: `kernels.reference.cross_map_norm`. The original demanded channels in multiples of 16, square images and at most as many
channels in a window as there are, and printed parameters with six decimals; none of this holds here.
"""
import copy

import numpy as np
from theano.gof import Apply, ParamsType
from theano.scalar import float64, int64
from theano.tensor import Rop, patternbroadcast, sqr

from .base import C01bOp, as_c01b
from .derivatives import gradients_by
from .reference import cross_map_norm as reference

_LARGEST = 2 ** 31 - 1  # larger windows could overflow an index


def _count(name, value, least, most):
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError("%s must be an integer, got %r" % (name, value))
    if not least <= value <= most:
        raise ValueError("%s must be at least %d and at most %d, got %r" % (name, least, most, value))
    return int(value)


def _number(name, value, least):
    """`value` as a float, finite and, once rounded to float32, at least `least`."""
    number = float(value)
    with np.errstate(over="ignore"):
        rounded = np.float32(number)
    if not (np.isfinite(rounded) and rounded >= least):
        raise ValueError("%s must be at least %s and finite in float32, got %r" % (name, least, value))
    return number


class _AcrossChannels(C01bOp):
    """What the ops share: windows of channels.

    Parameters
    ----------
    size : int
        Channels of a window, 1 or more; it may be more than there are.
    blocked : bool
        Windows are disjoint blocks, of which the last may be short. Otherwise each channel has a window of its own, from
        size // 2 channels before it on, clipped to the channels there are.
    axis : int
        The axis of the channels, 0 to 3.
    openmp : bool, optional
        See `C01bOp`.

    Raises
    ------
    TypeError, ValueError
        For parameters that are no such numbers.
    """

    headers = ("cross_map_norm_op.h",)

    def __init__(self, size, blocked, axis, openmp):
        super().__init__(openmp=openmp)
        self.size = _count("size", size, 1, _LARGEST)
        self.blocked = bool(blocked)
        self.axis = _count("axis", axis, 0, 3)

    def _windows(self):
        return dict(size=self.size, blocked=self.blocked, axis=self.axis)

    def along(self, axis):
        """This op for channels along another axis."""
        other = copy.copy(self)
        other.axis = _count("axis", axis, 0, 3)
        return other

    def infer_shape(self, node, shapes):
        return shapes[:1]

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = ", ".join(inputs + ["&" + outputs[0], sub["params"]])
        return "if (c01b::%s_op(%s)) { %s }" % (self.kernel, arguments, sub["fail"])


class CrossMapSum(_AcrossChannels):
    """The sum over each channel's window: ``CrossMapSum(size, blocked=False, transposed=False, axis=0)(images)``.

    Parameters
    ----------
    size, blocked, axis, openmp
        See `_AcrossChannels`.
    transposed : bool
        The adjoint: the sum over the channels in whose windows a channel is.

    Inputs and outputs
    ------------------
    images : float32, 4 axes
        Need not be contiguous; another dtype or number of axes is a TypeError.
    returns : float32, like `images`
    """

    __props__ = ("size", "blocked", "transposed", "axis")
    params_type = ParamsType(size=int64, blocked=int64, transposed=int64, axis=int64)
    kernel = "window_sum"

    def __init__(self, size, blocked=False, transposed=False, axis=0, openmp=None):
        super().__init__(size, blocked, axis, openmp)
        self.transposed = bool(transposed)

    def make_node(self, images):
        images = as_c01b(self, "images", images)
        return Apply(self, [images], [images.type()])

    def perform(self, node, inputs, output_storage, params=None):
        output_storage[0][0] = reference.window_sum(inputs[0], transposed=self.transposed, **self._windows())

    def L_op(self, inputs, outputs, output_gradients):
        adjoint = CrossMapSum(self.size, self.blocked, not self.transposed, self.axis, self.openmp)
        return [patternbroadcast(adjoint(output_gradients[0]), inputs[0].broadcastable)]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


class _CrossMapNormOp(_AcrossChannels):
    """What the normalisation and its gradient share.

    Parameters
    ----------
    size, blocked, axis, openmp
        See `_AcrossChannels`.
    add_scale : float
        What a window's sum of squares is multiplied by, as it is: not divided by the size. 0 or more.
    pow_scale : float
        The exponent of what is divided by, above 0.
    min_div : float
        What the sum is added to, above 0 and not subnormal.

    Raises
    ------
    TypeError, ValueError
        For parameters that are no such numbers.
    """

    __props__ = ("size", "add_scale", "pow_scale", "blocked", "min_div", "axis")
    params_type = ParamsType(size=int64, blocked=int64, axis=int64, add_scale=float64, pow_scale=float64, min_div=float64)

    def __init__(self, size, add_scale, pow_scale, blocked=False, min_div=1.0, axis=0, openmp=None):
        super().__init__(size, blocked, axis, openmp)
        least = np.finfo("float32").tiny
        self.add_scale = _number("add_scale", add_scale, 0)
        self.pow_scale = _number("pow_scale", pow_scale, least)
        self.min_div = _number("min_div", min_div, least)

    def _parameters(self):
        return dict(self._windows(), add_scale=self.add_scale, pow_scale=self.pow_scale, min_div=self.min_div)

    def like(self, op_class):
        """The op of another class with this one's parameters."""
        return op_class(self.size, self.add_scale, self.pow_scale, self.blocked, self.min_div, self.axis, self.openmp)

    def denominators(self, images):
        """``min_div + add_scale * (sum of squares over the window)`` in Theano's ops and `CrossMapSum`."""
        sums = CrossMapSum(self.size, self.blocked, False, self.axis, self.openmp)(sqr(images))
        return np.float32(self.min_div) + np.float32(self.add_scale) * sums

    def R_op(self, inputs, eval_points):
        pairs = [(x, point) for x, point in zip(inputs, eval_points) if point is not None]
        if not pairs:
            return [None]
        return [Rop(self.in_theano(*inputs), [x for x, _ in pairs], [point for _, point in pairs])]


class CrossMapNorm(_CrossMapNormOp):
    """``y = x * d ** -pow_scale`` with ``d = min_div + add_scale * (sum of x ** 2 over the channels of the window)``.

    ``CrossMapNorm(size, add_scale, pow_scale, blocked=False, min_div=1.0, axis=0)(images)``, with the parameters that
    `_CrossMapNormOp` describes.

    Inputs and outputs
    ------------------
    images : float32, 4 axes
        Need not be contiguous; another dtype or number of axes is a TypeError.
    returns : [acts, denoms], y and d, float32, like `images`
        `denoms` are computed only if they are read: they are the value of another node (see the module's text).

    Notes
    -----
    Krizhevsky's own layer divides the scale by the size before it calls his kernel; like pylearn2's op, this one does not.
    """

    kernel = "cross_map_norm"

    def __call__(self, images, **kwargs):
        images = as_c01b(self, "images", images)
        kwargs["return_list"] = True
        return super().__call__(images, **kwargs) + [self.denominators(images)]

    def make_node(self, images):
        """The node of `acts` alone."""
        images = as_c01b(self, "images", images)
        return Apply(self, [images], [images.type()])

    def in_theano(self, images):
        """`acts` in Theano's ops and `CrossMapSum`, for further derivatives."""
        return images * self.denominators(images) ** np.float32(-self.pow_scale)

    def perform(self, node, inputs, output_storage, params=None):
        output_storage[0][0] = reference.cross_map_norm(inputs[0], **self._parameters())

    def L_op(self, inputs, outputs, output_gradients):
        return [self.like(CrossMapNormUndo)(inputs[0], output_gradients[0])]


class CrossMapNormUndo(_CrossMapNormOp):
    """The gradient of `CrossMapNorm`: ``gx = gy * d ** -pow_scale + x * (sum of t over the channels whose window has this one)``
    with ``t = -2 * add_scale * pow_scale * gy * x * d ** (-pow_scale - 1)``.

    ``CrossMapNormUndo(size, add_scale, pow_scale, blocked=False, min_div=1.0, axis=0)(images, gy)``, with the
    parameters of the `CrossMapNorm`. The original took acts and denoms, too, and overwrote one; reading less is faster.

    Inputs and outputs
    ------------------
    images : float32, 4 axes
        What was normalised.
    gy : float32, like `images`
        Gradient on `acts`.
    returns : float32, like `images`

    Raises
    ------
    ValueError
        At run time, with the numbers, if `gy` has other sizes than `images`.
    """

    kernel = "cross_map_norm_undo"

    def make_node(self, images, gy):
        images, gy = as_c01b(self, "images", images), as_c01b(self, "gy", gy)
        return Apply(self, [images, gy], [images.type()])

    def in_theano(self, images, gy):
        """The result in Theano's ops and `CrossMapSum`, for further derivatives."""
        d = self.denominators(images)
        scaled = gy * d ** np.float32(-self.pow_scale)
        terms = np.float32(-2 * self.add_scale * self.pow_scale) * scaled * images / d
        return scaled + images * CrossMapSum(self.size, self.blocked, True, self.axis, self.openmp)(terms)

    def perform(self, node, inputs, output_storage, params=None):
        images, gy = inputs
        if gy.shape != images.shape:
            raise ValueError("CrossMapNormUndo: gy is %s, expected %s" % (gy.shape, images.shape))
        output_storage[0][0] = reference.cross_map_norm_undo(images, gy, **self._parameters())

    def L_op(self, inputs, outputs, output_gradients):
        gradients = gradients_by(lambda *operands: [self.in_theano(*operands)], inputs, output_gradients)
        return [patternbroadcast(g, x.broadcastable) for g, x in zip(gradients, inputs)]
