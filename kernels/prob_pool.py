"""ProbMaxPool and ProbMaxPoolGrad: probabilistic max-pooling and its gradient on tensors in c01b order.

The ops of pylearn2's ``probabilistic_max_pooling`` under their names and arguments, for any channels and any rectangle, and with
the right gradient for what comes from above. Their meaning is `kernels.reference.prob_pool`; the C++ is in ``cpu/prob_pool.h``,
entered through ``cpu/prob_pool_op.h``.
"""
from theano.gof import Apply
from theano.gradient import DisconnectedType
from theano.tensor import TensorType, ones_like, patternbroadcast

from .avg_pool import AvgPool, AvgPoolGrad
from .base import as_c01b
from .pool import _pair, _PoolOp
from .reference import prob_pool as reference


class _ProbPoolOp(_PoolOp):
    """What the two ops share: windows that lie side by side, and rounded up, as in the original.

    Parameters
    ----------
    ds, start, outputs, openmp
        See `_PoolOp`. The distance between windows is `ds`.

    Raises
    ------
    TypeError, ValueError
        As `_PoolOp`.
    """

    __props__ = ("ds", "start", "outputs")
    headers = ("prob_pool_op.h",)

    def __init__(self, ds, start=0, outputs=0, openmp=None):
        super().__init__(ds, None, start, outputs, True, openmp)

    def like(self, op_class):
        """The op of another class with this one's parameters."""
        return op_class(self.ds, start=self.start, outputs=self.outputs, openmp=self.openmp)

    def check_shapes(self, images, **pooled):
        """ValueError with the numbers unless the arrays `pooled`, by name, have a value for each window of `images`."""
        expected = images.shape[:1] + self.checked_grid(images.shape[1:3]) + images.shape[3:]
        for name, array in pooled.items():
            self.check_shape(name, array, expected)

    def check_shape(self, name, array, expected):
        if array.shape != expected:
            raise ValueError("%s: %s is %s, expected %s" % (type(self).__name__, name, array.shape, expected))


class ProbMaxPool(_ProbPoolOp):
    """Probabilities of the pixels of each window, of which at most one is on, and of any of them being on.

    ``ProbMaxPool(ds, start=0, outputs=0)(z, top_down)``. With t the value of `top_down` at a window, and sums over its pixels:
    ``h = exp(z) / (exp(-t) + sum exp(z))`` and ``p = sum h``. Nothing overflows: exponentials are of differences to the largest.

    Inputs and outputs
    ------------------
    z : float32 (channels, rows, columns, batch)
    top_down : float32 (channels, output rows, output columns, batch)
    returns : [p, h], float32, shapes of `top_down` and `z`
        Pixels of no window are 0 in h.

    Raises
    ------
    TypeError
        From the call, for another dtype or number of axes.
    ValueError
        At run time, with the numbers, if `top_down` is not what `z` gives or a window would be empty.

    Notes
    -----
    Source: Lee, Grosse, Ranganath, Ng (2009); ``ProbMaxPool`` of pylearn2.
    """

    kernel = "prob_max_pool"

    def make_node(self, z, top_down):
        z, top_down = as_c01b(self, "z", z), as_c01b(self, "top_down", top_down)
        pattern = (z.broadcastable[0], False, False, z.broadcastable[3])
        return Apply(self, [z, top_down], [TensorType("float32", pattern)(), z.type()])

    def perform(self, node, inputs, output_storage, params=None):
        z, top_down = inputs
        self.check_shapes(z, top_down=top_down)
        output_storage[0][0], output_storage[1][0] = reference.prob_max_pool(z, top_down, self.ds, self.start)

    def infer_shape(self, node, shapes):
        channels, rows, columns, batch = shapes[0]
        return [(channels,) + self.output_grid((rows, columns)) + (batch,), shapes[0]]

    def L_op(self, inputs, outputs, output_gradients):
        of_p, of_h = (y.zeros_like() if isinstance(g.type, DisconnectedType) else g
                      for y, g in zip(outputs, output_gradients))
        gradients = self.like(ProbMaxPoolGrad)(*outputs, of_p, of_h)
        return [patternbroadcast(g, x.broadcastable) for g, x in zip(gradients, inputs)]

    def R_op(self, inputs, eval_points):
        # The derivatives of a softmax are symmetric: along a direction they are what the gradient is of it.
        z, top_down = (x.zeros_like() if v is None else v for x, v in zip(inputs, eval_points))
        along_z, along_top_down = self.like(ProbMaxPoolGrad)(*self(*inputs), top_down, z)
        return [along_top_down, along_z]


class ProbMaxPoolGrad(_ProbPoolOp):
    """The gradients of `ProbMaxPool`: ``ProbMaxPoolGrad(ds, stride, start, outputs)(p, h, gp, gh)``.

    With s = sum of h gh over a window: ``gz = h (gh - s + (1 - p) gp)`` and ``gt = (1 - p) (s + p gp)``. The original's gradient
    for `top_down` is right only where gh and gp are 0 or 1.

    Parameters
    ----------
    stride : int or (rows, columns), optional
        As in the original; no other than `ds`.

    Inputs and outputs
    ------------------
    p, h : what `ProbMaxPool` returned
    gp, gh : float32, shapes of `p` and `h`
    returns : [gz, gt], float32, shapes of `h` and `p`

    Raises
    ------
    ValueError
        For another stride. At run time, with the numbers, if the shapes do not belong together.
    """

    kernel = "prob_max_pool_grad"

    def __init__(self, ds, stride=None, start=0, outputs=0, openmp=None):
        super().__init__(ds, start, outputs, openmp)
        if stride is not None and _pair("stride", stride, 1) != self.ds:
            raise ValueError("ProbMaxPoolGrad: windows of %r lie side by side, got stride %r" % (self.ds, stride))

    def make_node(self, p, h, gp, gh):
        inputs = [as_c01b(self, name, value) for name, value in zip(("p", "h", "gp", "gh"), (p, h, gp, gh))]
        return Apply(self, inputs, [inputs[1].type(), inputs[0].type()])

    def perform(self, node, inputs, output_storage, params=None):
        p, h, gp, gh = inputs
        self.check_shapes(h, p=p, gp=gp)
        self.check_shape("gh", gh, h.shape)
        results = reference.prob_max_pool_grad(p, h, gp, gh, self.ds, self.start)
        output_storage[0][0], output_storage[1][0] = results

    def infer_shape(self, node, shapes):
        return [shapes[1], shapes[0]]

    def L_op(self, inputs, outputs, output_gradients):
        """Of the formulas above; a is the gradient on gz, b that on gt."""
        p, h, gp, gh = inputs
        a, b = (y.zeros_like() if isinstance(g.type, DisconnectedType) else g for y, g in zip(outputs, output_gradients))
        parameters = self.ds, self.ds, self.start, self.outputs, True, "sum", self.openmp

        def sums(images):
            return AvgPool(*parameters)(images)

        def spread(windows):
            return AvgPoolGrad(*parameters)(windows, h.shape[1:3])

        a = a * spread(ones_like(p))  # pixels of no window give nothing, whatever stands there
        inside, weighted = sums(h * gh), sums(a * h)
        shared = b * (1 - p) - weighted  # the gradient on s
        gradients = [b * (gp * (1 - 2 * p) - inside) - weighted * gp,
                     a * (gh - spread(inside - (1 - p) * gp)) + gh * spread(shared),
                     (1 - p) * (weighted + b * p),
                     h * (a + spread(shared))]
        return [patternbroadcast(g, x.broadcastable) for g, x in zip(gradients, inputs)]
