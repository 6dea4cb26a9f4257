"""Max-pooling and its derivatives in c01b order in plain numpy: the definition that every kernel is measured against.

Sizes are explicit and unchecked here; which sizes fit together is the ops' business (``kernels/pool.py``). The dtype
is the operands': float64 gives a reference for a float32 kernel, and finite differences. Sources: Krizhevsky's
cuda-convnet (2012) for the windows, Theano's ``Pool`` for NaN, ties and the second derivative.

The arguments that all functions share:

x : array (channels, rows, columns, batch)
maxout : array (channels, rows, columns, batch), what `max_pool` returned
ds, stride, start : (int, int), size of a window, distance between windows, first pixel of the first window (negative
    where there is a pad)
"""
import numpy as np


def _axis(outputs, pixels, ds, stride, start):
    """The pixels of each window along one axis, clipped to the image."""
    return [range(max(0, start + j * stride), min(pixels, start + j * stride + ds)) for j in range(outputs)]


def _windows(output_shape, image_shape, ds, stride, start):
    """Every window, in raster order: its (row, column) among the outputs, and its pixels, in raster order too."""
    rows, columns = [_axis(*sizes) for sizes in zip(output_shape, image_shape, ds, stride, start)]
    for i, j in np.ndindex(*output_shape):
        yield (i, j), [(row, column) for row in rows[i] for column in columns[j]]


def max_pool(x, output_shape, ds, stride, start):
    """Maximum over each window: array (channels, rows, columns, batch), rows and columns as `output_shape` says.

    The first pixel of the window, then any later one that is greater: a NaN stays if it comes first and is passed over
    otherwise.
    """
    out = np.empty((x.shape[0],) + tuple(output_shape) + (x.shape[3],), x.dtype)
    for (i, j), pixels in _windows(output_shape, x.shape[1:3], ds, stride, start):
        best = x[:, pixels[0][0], pixels[0][1]]
        for row, column in pixels:
            best = np.where(x[:, row, column] > best, x[:, row, column], best)
        out[:, i, j] = best
    return out


def max_pool_grad(x, maxout, gz, ds, stride, start):
    """The adjoint of pooling, at `x`: array like `x`. Every pixel equal to its window's maximum gets the full `gz`."""
    out = np.zeros_like(x)
    for (i, j), pixels in _windows(maxout.shape[1:3], x.shape[1:3], ds, stride, start):
        for row, column in pixels:
            out[:, row, column] += np.where(x[:, row, column] == maxout[:, i, j], gz[:, i, j], 0)
    return out


def max_pool_grad_grad(x, maxout, ggx, ds, stride, start):
    """The adjoint of `max_pool_grad` for `gz`: array like `maxout`, the sum of `ggx` over each window's maxima."""
    out = np.zeros_like(maxout)
    for (i, j), pixels in _windows(maxout.shape[1:3], x.shape[1:3], ds, stride, start):
        for row, column in pixels:
            out[:, i, j] += np.where(x[:, row, column] == maxout[:, i, j], ggx[:, row, column], 0)
    return out
