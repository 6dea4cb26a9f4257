"""Sum- and average-pooling and their gradient in c01b order in plain numpy: the definition for the kernels.

Sizes are explicit and unchecked, dtypes are the operands', and windows are those of `kernels.reference.pool`. What is
divided by is Theano 1.0.5's, from the C code of ``Pool`` and ``AveragePoolGrad``; `MODES` says it for every geometry.

The arguments that all functions share:

ds, stride, start : (int, int), size of a window, distance between windows, first pixel of the first window (negative
    where there is a pad)
mode : one of `MODES`
"""
import numpy as np

from .pool import _windows

# sum: nothing is divided. average_exc_pad: by the number of the window's pixels inside the image. average_inc_pad: by
# the number inside the image with its pad, -start pixels on every side. A window never reaches beyond the pad where
# Theano's ignore_border is True, so that this is the whole window; where it is False there is no pad, and the two
# averages are the same.
MODES = ("sum", "average_exc_pad", "average_inc_pad")


def divisors(output_shape, image_shape, ds, stride, start, mode):
    """What each window's sum is divided by: integer array (rows, columns) like `output_shape`."""
    if mode == "sum":
        return np.ones(output_shape, "int64")
    axes = []
    for outputs, pixels, size, step, first in zip(output_shape, image_shape, ds, stride, start):
        margin = max(0, -first) if mode == "average_inc_pad" else 0
        begins = first + step * np.arange(outputs)
        axes.append(np.minimum(begins + size, pixels + margin) - np.maximum(begins, -margin))
    return np.outer(*axes)


def avg_pool(x, output_shape, ds, stride, start, mode):
    """Sum or average over each window: array (channels, rows, columns, batch), rows and columns as `output_shape` says.

    Parameters
    ----------
    x : array (channels, rows, columns, batch)
    output_shape : (int, int)
    """
    out = np.zeros((x.shape[0],) + tuple(output_shape) + (x.shape[3],), x.dtype)
    for (i, j), pixels in _windows(output_shape, x.shape[1:3], ds, stride, start):
        for row, column in pixels:
            out[:, i, j] += x[:, row, column]
    counts = divisors(output_shape, x.shape[1:3], ds, stride, start, mode)
    return out / counts[:, :, None].astype(x.dtype)


def avg_pool_grad(gz, image_shape, ds, stride, start, mode):
    """The adjoint of `avg_pool`: array (channels, rows, columns, batch), rows and columns as `image_shape` says.

    Parameters
    ----------
    gz : array (channels, output rows, output columns, batch)
    image_shape : (int, int)
    """
    out = np.zeros((gz.shape[0],) + tuple(image_shape) + (gz.shape[3],), gz.dtype)
    counts = divisors(gz.shape[1:3], image_shape, ds, stride, start, mode)
    shares = gz / counts[:, :, None].astype(gz.dtype)
    for (i, j), pixels in _windows(gz.shape[1:3], image_shape, ds, stride, start):
        for row, column in pixels:
            out[:, row, column] += shares[:, i, j]
    return out
