"""The names of ``pylearn2.sandbox.cuda_convnet``, with their order of arguments, on the ops of this package.

Programs written in c01b against pylearn2's wrappers run with these imports in place of theirs, on a CPU as on a GPU:

    from layoutopt.cuda_convnet import FilterActs, gpu_contiguous, max_pool_c01b

docs/porting.md maps every name of the originals, and says what differs. The limits of the originals are gone: channels and
filters of any number, rectangles, strides beyond the window, operands that are not contiguous.
"""
import theano.tensor as T

from layoutopt.kernels import (FilterActs, ImageActs, MaxPool, MaxPoolGrad, ProbMaxPool, ProbMaxPoolGrad, StochasticMaxPool,
                               WeightActs, WeightedMaxPool, cross_map_norm, gpu_contiguous, max_pool_c01b)

__all__ = ["CrossMapNorm", "CrossMapNormUndo", "FilterActs", "ImageActs", "MaxPool", "MaxPoolGrad", "MaxPoolRop", "ProbMaxPool",
           "ProbMaxPoolGrad", "StochasticMaxPool", "WeightActs", "WeightedMaxPool", "check_cuda", "convnet_available",
           "gpu_contiguous", "max_pool_c01b", "prob_max_pool_c01b", "stochastic_max_pool_c01b", "weighted_max_pool_c01b"]


def check_cuda(feature_name=None):
    """The original raised RuntimeError without a GPU; these ops need none, so there is nothing to check."""


def convnet_available():
    """Whether the ops can be used: always. The original compiled its CUDA sources here."""
    return True


class MaxPoolRop:
    """The derivative of max-pooling along a direction: ``MaxPoolRop(ds, stride, start=0, outputs=0)(images, evals)``.

    Of several equal maxima of a window all count, as in Theano's ``Pool``: this is the transpose of `MaxPoolGrad`. The original
    took the last.

    Parameters
    ----------
    ds, stride, start, outputs
        See `layoutopt.kernels.MaxPool`.
    """

    def __init__(self, ds, stride, start=0, outputs=0):
        self.pool = MaxPool(ds, stride, start, outputs)

    def __call__(self, images, evals):
        """float32 (channels, output rows, output columns, batch), of two float32 (channels, rows, columns, batch)."""
        return self.pool.R_op([T.as_tensor_variable(images)], [T.as_tensor_variable(evals)])[0]


def CrossMapNorm(size_f, add_scale, pow_scale, blocked):
    """`layoutopt.kernels.CrossMapNorm` by the original's name for its first parameter."""
    return cross_map_norm.CrossMapNorm(size_f, add_scale, pow_scale, blocked)


class CrossMapNormUndo:
    """The gradient of `CrossMapNorm`, called as the original: ``CrossMapNormUndo(...)(images, acts, denoms, dout)[0]``.

    Parameters
    ----------
    size_f, add_scale, pow_scale, blocked
        Those of the `CrossMapNorm`.
    inplace : bool
        Nothing is overwritten in either case.
    """

    def __init__(self, size_f, add_scale, pow_scale, blocked, inplace=False):
        self.undo = cross_map_norm.CrossMapNormUndo(size_f, add_scale, pow_scale, blocked)

    def __call__(self, images, acts, denoms, dout):
        """[gradient for the images, acts]. What the original left in the second was scratch; acts and denoms are not read."""
        return [self.undo(images, dout), acts]


def prob_max_pool_c01b(c01b, pool_shape, top_down=None):
    """Probabilistic max-pooling: [p, h], as `layoutopt.kernels.ProbMaxPool` describes them.

    Parameters
    ----------
    c01b : float32 tensor variable (channels, rows, columns, batch)
    pool_shape : int or (rows, columns)
        Size of a window, in pixels; windows lie side by side, and the last may hang over the border.
    top_down : float32 tensor variable (channels, output rows, output columns, batch), optional
        By default zeros, of the right shape also where `pool_shape` does not divide the image's.
    """
    op = ProbMaxPool(pool_shape)
    if top_down is None:
        channels, rows, columns, batch = c01b.shape
        top_down = T.zeros((channels,) + op.output_grid((rows, columns)) + (batch,), "float32")
    return op(c01b, top_down)


def stochastic_max_pool_c01b(c01b, pool_shape, pool_stride, start=0, seed=1234):
    """Stochastic pooling, for training: ``StochasticMaxPool(pool_shape, pool_stride, start, seed=seed)(c01b)``.

    Parameters
    ----------
    c01b : float32 tensor variable (channels, rows, columns, batch)
        Not negative.
    pool_shape, pool_stride : int or (rows, columns)
        Size of a window and distance between windows, in pixels.
    start : int or (rows, columns)
        First pixel of the first window.
    seed : int
        Of the stream of draws; layers of one model want different ones. The original took it for a number of outputs, which it
        ignored, and drew from 1234 always.

    Returns
    -------
    float32 tensor variable (channels, output rows, output columns, batch)
    """
    return StochasticMaxPool(pool_shape, pool_stride, start, seed=seed)(c01b)


def weighted_max_pool_c01b(c01b, pool_shape, pool_stride, start=0):
    """What stochastic pooling gives on average, for use after training: ``WeightedMaxPool(...)(c01b)``.

    Parameters
    ----------
    c01b, pool_shape, pool_stride, start
        See `stochastic_max_pool_c01b`.

    Returns
    -------
    float32 tensor variable (channels, output rows, output columns, batch)
    """
    return WeightedMaxPool(pool_shape, pool_stride, start)(c01b)
