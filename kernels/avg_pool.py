"""AvgPool and AvgPoolGrad: sum- and average-pooling and their gradient on tensors in c01b order.

Krizhevsky's cuda-convnet (2012) has the kernels of one of the modes and no op; these ops take Theano's three. Their
meaning is `kernels.reference.avg_pool`; the C++ is in ``cpu/avg_pool.h``, entered through ``cpu/avg_pool_op.h``. Terms
are added and divided in Theano's order, so that values and gradients are Theano's bit by bit.
"""
from theano.gof import Apply, ParamsType
from theano.gradient import DisconnectedType
from theano.scalar import int64
from theano.tensor import TensorType, cast, patternbroadcast

from .base import as_c01b, as_output_shape
from .pool import _LARGEST, _PARAMS, _Pooling, _PoolOp
from .reference import avg_pool as reference


class _AvgPoolOp(_PoolOp):
    """What the two ops share: a mode besides the parameters of `_PoolOp`.

    Parameters
    ----------
    ds, stride, start, outputs, ceil_mode, openmp
        See `_PoolOp`.
    mode : {'sum', 'average_exc_pad', 'average_inc_pad'}
        What a window's sum is divided by: nothing; the number of its pixels inside the image; the number of those
        inside the image with its pad, -`start` pixels on every side. These are Theano's under its names.

    Raises
    ------
    TypeError, ValueError
        As `_PoolOp`; ValueError for another mode, too.
    """

    __props__ = _PoolOp.__props__ + ("mode",)
    params_type = ParamsType(**dict.fromkeys(_PARAMS + ("counting",), int64))
    headers = ("avg_pool_op.h",)

    def __init__(self, ds, stride=None, start=0, outputs=0, ceil_mode=True, mode="average_exc_pad", openmp=None):
        super().__init__(ds, stride, start, outputs, ceil_mode, openmp)
        if mode not in reference.MODES:
            raise ValueError("mode must be one of %s, got %r" % (", ".join(reference.MODES), mode))
        self.mode = mode

    @property
    def counting(self):
        """The mode's number, for the C++ code."""
        return reference.MODES.index(self.mode)

    def like(self, op_class):
        """The op of another class with this one's parameters."""
        return op_class(self.ds, self.stride, self.start, self.outputs, self.ceil_mode, self.mode, self.openmp)

    def c_code(self, node, name, inputs, outputs, sub):
        parameters = ["c01b::pool_params(%(params)s)" % sub, "c01b::averaging(%(params)s)" % sub]
        arguments = ", ".join(inputs + ["&" + outputs[0]] + parameters)
        return "if (c01b::%s_op(%s)) %s" % (self.kernel, arguments, sub["fail"])


class AvgPool(_Pooling, _AvgPoolOp):
    """Sum or average over each window of each channel and image.

    ``AvgPool(ds, stride)(x)``, or with all of the parameters that `_PoolOp` and `_AvgPoolOp` describe:
    ``AvgPool(ds, stride=None, start=0, outputs=0, ceil_mode=True, mode='average_exc_pad')(x)``.

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

    kernel = "avg_pool"

    def perform(self, node, inputs, output_storage, params=None):
        x, = inputs
        grid = self.checked_grid(x.shape[1:3])
        output_storage[0][0] = reference.avg_pool(x, grid, self.ds, self.stride, self.start, self.mode)

    def L_op(self, inputs, outputs, output_gradients):
        x, = inputs
        gx = self.like(AvgPoolGrad)(output_gradients[0], x.shape[1:3])
        return [patternbroadcast(gx, x.broadcastable)]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0])]


class AvgPoolGrad(_AvgPoolOp):
    """The gradient of `AvgPool`: ``gx[pixel] = sum of gz[w] / count(w) over the windows w around it``.

    ``AvgPoolGrad(ds, stride, start, outputs, ceil_mode, mode)(gz, output_shape)``, with the parameters of the
    `AvgPool`. Pixels of no window get 0. The images themselves are not needed, so that none are kept for it.

    Inputs and outputs
    ------------------
    gz : float32 (channels, rows, columns, batch)
        Gradient on the output of the pooling.
    output_shape : integer vector (rows, columns)
        The size of the images: several sizes lead to one output.
    returns : float32 (channels, *output_shape, batch)

    Raises
    ------
    ValueError
        At run time, with the numbers, if `gz` is not what such images give or a window would be empty.
    """

    kernel = "avg_pool_grad"

    def make_node(self, gz, output_shape):
        gz, output_shape = as_c01b(self, "gz", gz), cast(as_output_shape(self, output_shape), "int64")
        pattern = (gz.broadcastable[0], False, False, gz.broadcastable[3])
        return Apply(self, [gz, output_shape], [TensorType("float32", pattern)()])

    def perform(self, node, inputs, output_storage, params=None):
        gz, shape = inputs
        if shape.shape != (2,):
            raise ValueError("AvgPoolGrad: output_shape has %d elements, expected (rows, columns)" % shape.size)
        image_shape = tuple(int(pixels) for pixels in shape)
        if not all(0 <= pixels <= _LARGEST for pixels in image_shape):
            raise ValueError("AvgPoolGrad: images of %d x %d" % image_shape)
        expected = gz.shape[:1] + self.checked_grid(image_shape) + gz.shape[3:]
        if gz.shape != expected:
            raise ValueError("AvgPoolGrad: gz is %s, expected %s" % (gz.shape, expected))
        output_storage[0][0] = reference.avg_pool_grad(gz, image_shape, self.ds, self.stride, self.start, self.mode)

    def infer_shape(self, node, shapes):
        rows, columns = node.inputs[1][0], node.inputs[1][1]
        return [(shapes[0][0], rows, columns, shapes[0][3])]

    def connection_pattern(self, node):
        return [[True], [False]]

    def grad(self, inputs, output_gradients):
        gz = inputs[0]
        return [patternbroadcast(self.like(AvgPool)(output_gradients[0]), gz.broadcastable), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        return [None if eval_points[0] is None else self(eval_points[0], inputs[1])]
