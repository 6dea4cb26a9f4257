"""MaxPool, MaxPoolGrad and MaxPoolGradGrad: max-pooling and its derivatives on tensors in c01b order.

The ops of Krizhevsky's cuda-convnet (2012), under the names and arguments of pylearn2's wrappers, without most of their
limits: any channels, any rectangle, windows and strides of two sizes, a stride larger than the window, padding on
either side. Their meaning is `kernels.reference.pool`; the C++ is in ``cpu/max_pool.h`` and ``cpu/max_pool_grad.h``,
entered through ``cpu/pool_op.h``.

Values are Theano's bit by bit, NaN and ties included, and so are gradients: of several equal maxima in a window each
gets the full gradient. (cuda-convnet ignores NaN and loses what lies below -2e38.)
"""
from theano.gof import Apply, ParamsType
from theano.scalar import bool as scalar_bool, int64
from theano.tensor import TensorType, patternbroadcast

from .base import C01bOp, as_c01b, as_pair
from .geometry import pool_outputs
from .reference import pool as reference

# What the C++ code is told at run time, all as int64: see pool_params in cpu/pool_op.h.
_PARAMS = ("ds_y", "ds_x", "stride_y", "stride_x", "start_y", "start_x", "outputs_y", "outputs_x", "ceil_mode")

# Larger parameters could overflow an index, and no image is that large.
_LARGEST = 2 ** 31 - 1


def _pair(name, value, least):
    pair = as_pair(name, value, least)
    if max(pair) > _LARGEST:
        raise ValueError("%s must be at most %d, got %r" % (name, _LARGEST, value))
    return pair


class _PoolOp(C01bOp):
    """What the three ops share: parameters, geometry, and how one op makes the next.

    Window (i, j) covers the rows ``[start + i * stride, start + i * stride + ds)`` and the columns likewise, clipped
    to the image.

    Parameters
    ----------
    ds : int or (rows, columns)
        Size of a window, in pixels.
    stride : int or (rows, columns), optional
        Distance between windows, in pixels; by default `ds`. May be larger.
    start : int or (rows, columns)
        First pixel of the first window. Negative: a pad of that size, whose pixels belong to no window.
    outputs : int or (rows, columns)
        Count of windows; 0: as `ceil_mode` says. Any count is allowed that leaves no window empty.
    ceil_mode : bool
        True is cuda-convnet's geometry and Theano's ``ignore_border=False``: the last window may hang over the border.
        False is Theano's ``ignore_border=True``: every window lies inside the image padded by -`start` on both sides.
    openmp : bool, optional
        See `C01bOp`.

    Raises
    ------
    TypeError
        Where a number is not an integer.
    ValueError
        For a window or stride below 1, a negative count, or a `start` that leaves the first window empty.
    """

    __props__ = ("ds", "stride", "start", "outputs", "ceil_mode")
    params_type = ParamsType(**dict.fromkeys(_PARAMS, int64))
    headers = ("pool_op.h",)
    maxout = "maxout"  # what messages call the pooling's result
    more_arguments = ()  # of the C++ entry

    def __init__(self, ds, stride=None, start=0, outputs=0, ceil_mode=True, openmp=None):
        super().__init__(openmp=openmp)
        self.ds = _pair("ds", ds, 1)
        self.stride = self.ds if stride is None else _pair("stride", stride, 1)
        self.start = _pair("start", start, -_LARGEST)
        self.outputs = _pair("outputs", outputs, 0)
        self.ceil_mode = bool(ceil_mode)
        if any(first <= -size for first, size in zip(self.start, self.ds)):
            raise ValueError("start %r leaves the first window of %r empty" % (self.start, self.ds))

    def get_params(self, node):
        pairs = {"ds": self.ds, "stride": self.stride, "start": self.start, "outputs": self.outputs}
        fields = {"%s_%s" % (name, axis): value for name, pair in pairs.items() for axis, value in zip("yx", pair)}
        return self.params_type.get_params(self, ceil_mode=int(self.ceil_mode), **fields)  # others: attributes

    def like(self, op_class):
        """The op of another class with this one's parameters."""
        return op_class(self.ds, self.stride, self.start, self.outputs, self.ceil_mode, self.openmp)

    def output_grid(self, image_shape):
        """Rows and columns of the output, for images of `image_shape` (rows, columns): ints or scalar variables."""
        axes = zip(self.outputs, image_shape, self.ds, self.stride, self.start)
        return tuple(count or pool_outputs(pixels, ds, stride, start, self.ceil_mode)
                     for count, pixels, ds, stride, start in axes)

    def checked_grid(self, image_shape):
        """`output_grid` of an image in hand; ValueError with the numbers if a window would be empty."""
        grid = self.output_grid(image_shape)
        for count, pixels, ds, stride, start in zip(grid, image_shape, self.ds, self.stride, self.start):
            none_needed = count == 0 and (pixels == 0 or not self.ceil_mode)
            if not none_needed and start + (max(count, 1) - 1) * stride >= pixels:
                raise ValueError("%s: images of %d: the last of %d windows of %d would be empty (stride %d, start %d)"
                                 % (type(self).__name__, pixels, count, ds, stride, start))
        return grid

    def check_gradient_shapes(self, x, maxout, name, gradient, like):
        """ValueError with the numbers unless `maxout` fits `x` and `gradient` fits `like`."""
        expected = x.shape[:1] + self.checked_grid(x.shape[1:3]) + x.shape[3:]
        for what, array, shape in ((self.maxout, maxout, expected), (name, gradient, like.shape)):
            if array.shape != shape:
                raise ValueError("%s: %s is %s, expected %s" % (type(self).__name__, what, array.shape, shape))

    def c_code(self, node, name, inputs, outputs, sub):
        parameters = ["c01b::pool_params(%(params)s)", *self.more_arguments]
        arguments = ", ".join(inputs + ["&" + output for output in outputs] + [p % sub for p in parameters])
        return "if (c01b::%s_op(%s)) %s" % (self.kernel, arguments, sub["fail"])

    def c_code_cache_version(self):
        return super().c_code_cache_version() + (1,)


class _Pooling:
    """What the poolings themselves share: one float32 image tensor (c, 0, 1, b) in, one value per window out."""

    def make_node(self, x):
        x = as_c01b(self, "x", x)
        return Apply(self, [x], [TensorType("float32", (x.broadcastable[0], False, False, x.broadcastable[3]))()])

    def infer_shape(self, node, shapes):
        channels, rows, columns, batch = shapes[0]
        return [(channels,) + self.output_grid((rows, columns)) + (batch,)]


class MaxPool(_Pooling, _PoolOp):
    """Maximum over each window of each channel and image.

    ``MaxPool(ds, stride)(x)``, or with all of the parameters that `_PoolOp` describes:
    ``MaxPool(ds, stride=None, start=0, outputs=0, ceil_mode=True)(x)``.

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
        Need not be contiguous; another dtype or number of axes is a TypeError.
    returns : float32 (channels, output rows, output columns, batch)

    Raises
    ------
    ValueError
        At run time, with the numbers, if a window would be empty.
    """

    kernel = "max_pool"

    def perform(self, node, inputs, output_storage, params=None):
        x, = inputs
        output_storage[0][0] = reference.max_pool(x, self.checked_grid(x.shape[1:3]), self.ds, self.stride, self.start)

    def L_op(self, inputs, outputs, output_gradients):
        return [self.like(MaxPoolGrad)(inputs[0], outputs[0], output_gradients[0])]

    def R_op(self, inputs, eval_points):
        if eval_points[0] is None:
            return [None]
        return [self.like(MaxPoolGradGrad)(inputs[0], self(inputs[0]), eval_points[0])]


class MaxPoolGrad(_PoolOp):
    """The gradient of max-pooling: ``gx[pixel] = sum of gz[w] over the windows w around it where x == maxout[w]``.

    ``MaxPoolGrad(ds, stride, start, outputs, ceil_mode)(x, maxout, gz)``, with the parameters of the `MaxPool`.
    Pixels of no window get 0.

    Parameters
    ----------
    inplace : bool, optional
        The result may take the place of `x`; Theano's in-place stage substitutes this where it is safe
        (`rewrites.inplace`).

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
    maxout : float32 (channels, output rows, output columns, batch)
        ``MaxPool(...)(x)``.
    gz : float32, shape of `maxout`
        Gradient on the output of the pooling.
    returns : float32, shape of `x`

    Raises
    ------
    ValueError
        At run time, with the numbers, if the shapes do not belong together or a window would be empty.
    """

    __props__ = _PoolOp.__props__ + ("inplace",)
    params_type = ParamsType(inplace=scalar_bool, **dict.fromkeys(_PARAMS, int64))
    kernel = "max_pool_grad"
    more_arguments = ("%(params)s->inplace",)

    def __init__(self, ds, stride=None, start=0, outputs=0, ceil_mode=True, openmp=None, inplace=False):
        super().__init__(ds, stride, start, outputs, ceil_mode, openmp)
        self.inplace = bool(inplace)
        if self.inplace:
            self.destroy_map = {0: [0]}

    def in_place(self):
        """This op, allowed to overwrite `x`."""
        return type(self)(self.ds, self.stride, self.start, self.outputs, self.ceil_mode, self.openmp, inplace=True)

    def make_node(self, x, maxout, gz):
        x, maxout, gz = as_c01b(self, "x", x), as_c01b(self, "maxout", maxout), as_c01b(self, "gz", gz)
        return Apply(self, [x, maxout, gz], [x.type()])

    def perform(self, node, inputs, output_storage, params=None):
        x, maxout, gz = inputs
        self.check_gradient_shapes(x, maxout, "gz", gz, maxout)
        output_storage[0][0] = reference.max_pool_grad(x, maxout, gz, self.ds, self.stride, self.start)

    def infer_shape(self, node, shapes):
        return [shapes[0]]

    def grad(self, inputs, output_gradients):
        x, maxout, gz = inputs
        d_gz = self.like(MaxPoolGradGrad)(x, maxout, output_gradients[0])
        return [x.zeros_like(), maxout.zeros_like(), patternbroadcast(d_gz, gz.broadcastable)]

    def R_op(self, inputs, eval_points):
        # As for `grad`: which pixel is the maximum does not change along any direction.
        return [None if eval_points[2] is None else self(inputs[0], inputs[1], eval_points[2])]


class MaxPoolGradGrad(_PoolOp):
    """The adjoint of `MaxPoolGrad` for `gz`: ``out[w] = sum of ggx over the pixels of window w where x == maxout[w]``.

    ``MaxPoolGradGrad(ds, stride, start, outputs, ceil_mode)(x, maxout, ggx)``, with the parameters of the `MaxPool`.
    It is also the derivative of `MaxPool` along a direction `ggx` (the R operator), and Theano's
    DownsampleFactorMaxGradGrad.

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
    maxout : float32 (channels, output rows, output columns, batch)
        ``MaxPool(...)(x)``.
    ggx : float32, shape of `x`
    returns : float32, shape of `maxout`

    Raises
    ------
    ValueError
        At run time, with the numbers, if the shapes do not belong together or a window would be empty.
    """

    kernel = "max_pool_grad_grad"

    def make_node(self, x, maxout, ggx):
        x, maxout, ggx = as_c01b(self, "x", x), as_c01b(self, "maxout", maxout), as_c01b(self, "ggx", ggx)
        return Apply(self, [x, maxout, ggx], [maxout.type()])

    def perform(self, node, inputs, output_storage, params=None):
        x, maxout, ggx = inputs
        self.check_gradient_shapes(x, maxout, "ggx", ggx, x)
        output_storage[0][0] = reference.max_pool_grad_grad(x, maxout, ggx, self.ds, self.stride, self.start)

    def infer_shape(self, node, shapes):
        return [shapes[1]]

    def grad(self, inputs, output_gradients):
        x, maxout, ggx = inputs
        d_ggx = self.like(MaxPoolGrad)(x, maxout, output_gradients[0])
        return [x.zeros_like(), maxout.zeros_like(), patternbroadcast(d_ggx, ggx.broadcastable)]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[2] is None else self(inputs[0], inputs[1], eval_points[2])]


def max_pool_c01b(c01b, pool_shape, pool_stride, image_shape=None, start=0):
    """Max-pooling under the name and arguments of pylearn2's helper: ``MaxPool(pool_shape, pool_stride, start)(c01b)``.

    Parameters
    ----------
    c01b : float32 tensor variable (channels, rows, columns, batch)
    pool_shape, pool_stride : int or (rows, columns)
        Size of a window and distance between windows, in pixels.
    image_shape : (int, int), optional
        Ignored; the image's size is known at run time.
    start : int or (rows, columns)
        First pixel of the first window.

    Returns
    -------
    float32 tensor variable (channels, output rows, output columns, batch)
    """
    return MaxPool(pool_shape, pool_stride, start)(c01b)
