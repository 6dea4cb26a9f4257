"""StochasticMaxPool: one pixel of each window, drawn by the values' own weights, on tensors in c01b order.

pylearn2's op of that name with a seed that is honoured, and draws that depend on nothing but the seed, the number of the call and
the place. Its meaning is `kernels.reference.stochastic_pool`; the C++ is in ``cpu/stochastic_pool.h``, entered through
``cpu/stochastic_pool_op.h``.
"""
import numpy as np
import theano
from theano.gof import Apply
from theano.gradient import DisconnectedType
from theano.tensor import as_tensor_variable, cast, discrete_dtypes, patternbroadcast

from .pool import MaxPoolGrad, MaxPoolGradGrad, _Pooling, _PoolOp
from .reference import stochastic_pool as reference


def _checked_seed(seed):
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError("seed must be an integer, got %r" % (seed,))
    if not -2 ** 63 <= seed < 2 ** 63:
        raise ValueError("seed must have 64 bits, got %d" % seed)
    return int(seed)


def _shared(value, name):
    """A shared int64 scalar, which stays on the host: whole numbers without axes are what Theano does not move to a GPU."""
    return theano.shared(np.array(value, "int64"), name=name, target="cpu")


def _new_draws():
    """The number of the next draw, of which each call of a function takes the next."""
    draw = _shared(0, "draw")
    draw.default_update = draw + 1
    return draw


def _as_int64(name, value):
    variable = as_tensor_variable(value)
    if variable.ndim != 0 or variable.dtype not in discrete_dtypes:
        raise TypeError("StochasticMaxPool: %s must be an integer, got %s" % (name, variable.type))
    return cast(variable, "int64")


class StochasticMaxPool(_Pooling, _PoolOp):
    """One value of each window: of values a, a_i with probability ``a_i / (sum of a)``; 0 where all are 0.

    ``StochasticMaxPool(ds, stride=None, start=0, outputs=0, seed=1234, ceil_mode=True)(x)``, with the parameters of `_PoolOp`.

    Each node draws from a stream of its own, which begins with `seed`: nodes of equal seeds draw alike, call by call, for images
    of one size, whatever the number of threads and on a GPU, too. Each call of a function takes the next draw (Theano's
    ``default_update``, which ``no_default_updates`` overrides).

    Parameters
    ----------
    seed : int
        Of 64 bits. No part of the op's equality: it is the value of the node's second operand.

    Inputs and outputs
    ------------------
    x : float32 (channels, rows, columns, batch)
        Not negative. Need not be contiguous; another dtype or number of axes is a TypeError.
    seed : integer scalar, optional
        By default a new shared variable, the op's seed.
    draw : integer scalar, optional
        Which draw of the stream. By default a new shared variable, 0 at first and 1 more in each call of a function.
    returns : float32 (channels, output rows, output columns, batch)
        0 also for a window whose sum is not finite.

    Raises
    ------
    TypeError
        From the call, if `seed` or `draw` is not an integer scalar.
    ValueError
        At run time, with the numbers, if a window would be empty.

    Notes
    -----
    The gradient is that of max-pooling with the drawn value for the maximum: each pixel of a window that is equal to it gets the
    window's gradient. It uses the node's own output, hence the same draw. Sources: Zeiler, Fergus (2013); ``StochasticMaxPool``
    of pylearn2; random numbers: Salmon et al. (2011), Philox4x32-10.
    """

    kernel = "stochastic_max_pool"
    headers = ("stochastic_pool_op.h",)

    def __init__(self, ds, stride=None, start=0, outputs=0, seed=1234, ceil_mode=True, openmp=None):
        super().__init__(ds, stride, start, outputs, ceil_mode, openmp)
        self.seed = _checked_seed(seed)

    def make_node(self, x, seed=None, draw=None):
        stream = [_as_int64("seed", _shared(self.seed, "seed") if seed is None else seed),
                  _as_int64("draw", _new_draws() if draw is None else draw)]
        node = super().make_node(x)
        return Apply(self, node.inputs + stream, [node.outputs[0].type()])

    def perform(self, node, inputs, output_storage, params=None):
        x, seed, draw = inputs
        grid = self.checked_grid(x.shape[1:3])
        with np.errstate(invalid="ignore", over="ignore"):
            output_storage[0][0] = reference.stochastic_max_pool(x, grid, self.ds, self.stride, self.start, int(seed), int(draw))

    def connection_pattern(self, node):
        return [[True], [False], [False]]

    def L_op(self, inputs, outputs, output_gradients):
        gx = self.like(MaxPoolGrad)(inputs[0], outputs[0], output_gradients[0])
        return [patternbroadcast(gx, inputs[0].broadcastable), DisconnectedType()(), DisconnectedType()()]

    def R_op(self, inputs, eval_points):
        if eval_points[0] is None:
            return [None]
        return [self.like(MaxPoolGradGrad)(inputs[0], self(*inputs), eval_points[0])]
