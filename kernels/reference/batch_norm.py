"""Batch normalisation of training and its gradient in plain numpy: the definition for the kernels.

Values are unchecked and dtypes are the operands'; averages are added up in float64. The formulas are those of Ioffe and Szegedy
(Batch normalization, 2015) as Theano's `AbstractBatchNormTrain` and `AbstractBatchNormTrainGrad` have them.

The arguments that both share:

x : array (channels, ...), two axes or more
scale, bias, mean, invstd : array (channels, 1, ..., 1), with as many axes
"""
import numpy as np


def _channels(x):
    """The axes that are averaged over."""
    return tuple(range(1, x.ndim))


def _average(x):
    with np.errstate(all="ignore"):  # 0 / 0 where there is nothing to average
        return x.sum(_channels(x), dtype="float64", keepdims=True) / np.prod(x.shape[1:], dtype="float64")


def batch_norm_train(x, scale, bias, epsilon):
    """(y, mean, variance) with y = (x - mean) * (scale / sqrt(variance + epsilon)) + bias.

    Returns
    -------
    y : array like `x`
    mean, variance : array (channels, 1, ..., 1) of its dtype; NaN where channels are empty.
    """
    with np.errstate(all="ignore"):
        exact = _average(x)
        mean = exact.astype(x.dtype)
        variance = _average((x - exact) ** 2).astype(x.dtype)
        y = (x - mean) * (scale * (1 / np.sqrt(variance + epsilon))) + bias
    return np.asarray(y, x.dtype), mean, variance


def batch_norm_train_grad(x, dy, scale, mean, invstd):
    """The gradients of ``sum(dy * y)`` with respect to `x`, `scale` and `bias`.

    With d = x - mean, averages <.> over a channel and c = dy * invstd - d * (<dy d> invstd^3) they are scale * (c - <c>), the sum
    of dy * invstd * d and the sum of dy.

    Parameters
    ----------
    dy : array like `x`

    Returns
    -------
    gx : array like `x`
    gscale, gbias : array (channels, 1, ..., 1) of its dtype
    """
    with np.errstate(all="ignore"):
        d = x.astype("float64") - mean
        c = dy * invstd.astype("float64") - d * (_average(dy * d) * invstd.astype("float64") ** 3)
        gx = scale * (c - _average(c))
        gscale = (dy * invstd.astype("float64") * d).sum(_channels(x), keepdims=True)
    return gx.astype(x.dtype), gscale.astype(x.dtype), dy.sum(_channels(x), dtype="float64", keepdims=True).astype(x.dtype)
