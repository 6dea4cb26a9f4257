"""Pooling by the values' own weights, and its gradient, in c01b order in plain numpy: the definition for the kernels.

What a window gives is the expectation of what stochastic pooling draws from it: y = (sum of a^2) / (sum of a). Source: Zeiler,
Fergus: Stochastic pooling (2013), section 3.2. A window whose sum is 0 gives 0, and gradient 0. Sizes are explicit and
unchecked, dtypes are the operands'; see `kernels.reference.pool` for the arguments.
"""
import numpy as np

from .pool import _windows


def _over(values, sums):
    """values / sums, and 0 where a sum is 0."""
    return np.where(sums == 0, 0, values / np.where(sums == 0, 1, sums)).astype(values.dtype)


def weighted_max_pool(x, output_shape, ds, stride, start):
    """Array (channels, rows, columns, batch), rows and columns as `output_shape` says."""
    out = np.empty((x.shape[0],) + tuple(output_shape) + (x.shape[3],), x.dtype)
    for (i, j), pixels in _windows(output_shape, x.shape[1:3], ds, stride, start):
        values = [x[:, row, column] for row, column in pixels]
        out[:, i, j] = _over(sum(v * v for v in values), sum(values))
    return out


def weighted_max_pool_grad(x, y, gz, ds, stride, start):
    """The adjoint of pooling, at `x`: array like `x`. A pixel gets gz (2 x - y) / (sum of its window) from each window.

    Parameters
    ----------
    x : array (channels, rows, columns, batch)
    y : what `weighted_max_pool` returned
    gz : array like `y`
    """
    out = np.zeros_like(x)
    for (i, j), pixels in _windows(y.shape[1:3], x.shape[1:3], ds, stride, start):
        share = _over(gz[:, i, j], sum(x[:, row, column] for row, column in pixels))
        for row, column in pixels:
            out[:, row, column] += share * (2 * x[:, row, column] - y[:, i, j])
    return out
