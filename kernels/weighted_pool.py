"""WeightedMaxPool and WeightedMaxPoolGrad: pooling by the values' own weights, on tensors in c01b order.

What stochastic pooling gives on average, for use after training: pylearn2's ``WeightedMaxPool`` with a gradient and without NaN
for windows of zeros. Their meaning is `kernels.reference.weighted_pool`; the C++ is in ``cpu/weighted_pool.h``, entered through
``cpu/weighted_pool_op.h``.
"""
from theano.gof import Apply
from theano.tensor import eq, patternbroadcast, switch

from .avg_pool import AvgPool, AvgPoolGrad
from .base import as_c01b
from .pool import _Pooling, _PoolOp
from .reference import weighted_pool as reference


class _WeightedPoolOp(_PoolOp):
    """What the two ops share; parameters are those of `_PoolOp`."""

    headers = ("weighted_pool_op.h",)

    def _sums(self, images):
        """The sum over each window."""
        return AvgPool(self.ds, self.stride, self.start, self.outputs, self.ceil_mode, "sum", self.openmp)(images)

    def _spread(self, windows, image_shape):
        """For each pixel the sum over the windows around it."""
        op = AvgPoolGrad(self.ds, self.stride, self.start, self.outputs, self.ceil_mode, "sum", self.openmp)
        return op(windows, image_shape)

    def _reciprocals(self, images):
        """1 / the sum over each window, and 0 where that is 0."""
        sums = self._sums(images)
        empty = eq(sums, 0)
        return switch(empty, 0, 1 / switch(empty, 1, sums))


class WeightedMaxPool(_Pooling, _WeightedPoolOp):
    """``(sum of x^2) / (sum of x)`` over each window of each channel and image; 0 where the sum is 0.

    ``WeightedMaxPool(ds, stride=None, start=0, outputs=0, ceil_mode=True)(x)``, with the parameters of `_PoolOp`.

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
        Meant to be not negative. Need not be contiguous; another dtype or number of axes is a TypeError.
    returns : float32 (channels, output rows, output columns, batch)

    Raises
    ------
    ValueError
        At run time, with the numbers, if a window would be empty.

    Notes
    -----
    Source: Zeiler, Fergus (2013); ``WeightedMaxPool`` of pylearn2.
    """

    kernel = "weighted_max_pool"

    def perform(self, node, inputs, output_storage, params=None):
        x, = inputs
        grid = self.checked_grid(x.shape[1:3])
        output_storage[0][0] = reference.weighted_max_pool(x, grid, self.ds, self.stride, self.start)

    def L_op(self, inputs, outputs, output_gradients):
        gx = self.like(WeightedMaxPoolGrad)(inputs[0], outputs[0], output_gradients[0])
        return [patternbroadcast(gx, inputs[0].broadcastable)]

    def R_op(self, inputs, eval_points):
        (x,), (v,) = inputs, eval_points
        if v is None:
            return [None]
        return [(self._sums(2 * x * v) - self(x) * self._sums(v)) * self._reciprocals(x)]


class WeightedMaxPoolGrad(_WeightedPoolOp):
    """The gradient of `WeightedMaxPool`: ``gx = sum of gz[w] (2 x - y[w]) / (sum of w)`` over the windows w around a pixel.

    ``WeightedMaxPoolGrad(ds, stride, start, outputs, ceil_mode)(x, y, gz)``, with the parameters of the pooling. Windows whose
    sum is 0 add nothing.

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
    y : float32 (channels, output rows, output columns, batch)
        ``WeightedMaxPool(...)(x)``.
    gz : float32, shape of `y`
        Gradient on the output of the pooling.
    returns : float32, shape of `x`

    Raises
    ------
    ValueError
        At run time, with the numbers, if the shapes do not belong together or a window would be empty.
    """

    kernel = "weighted_max_pool_grad"
    maxout = "y"

    def make_node(self, x, y, gz):
        x, y, gz = as_c01b(self, "x", x), as_c01b(self, "y", y), as_c01b(self, "gz", gz)
        return Apply(self, [x, y, gz], [x.type()])

    def perform(self, node, inputs, output_storage, params=None):
        x, y, gz = inputs
        self.check_gradient_shapes(x, y, "gz", gz, y)
        output_storage[0][0] = reference.weighted_max_pool_grad(x, y, gz, self.ds, self.stride, self.start)

    def infer_shape(self, node, shapes):
        return [shapes[0]]

    def L_op(self, inputs, outputs, output_gradients):
        """Of the formula above; a is the gradient on gx."""
        (x, y, gz), (a,) = inputs, output_gradients
        size, reciprocals = x.shape[1:3], self._reciprocals(x)
        share, sums = gz * reciprocals, self._sums(a)
        on_share = self._sums(2 * a * x) - y * sums
        gradients = [2 * a * self._spread(share, size) - self._spread(on_share * share * reciprocals, size),
                     -share * sums, on_share * reciprocals]
        return [patternbroadcast(g, v.broadcastable) for g, v in zip(gradients, inputs)]
