"""Normalisation across channels and its gradient in plain numpy: the definition for the kernels.

Values are unchecked and dtypes are the operands'. The formulas are those of cuda-convnet's "response normalization layer
(across maps)", with Krizhevsky's names for the parameters.

The arguments that all functions share:

size : int, channels of a window
blocked : bool, windows are disjoint blocks of `size` channels, of which the last may be short; else each channel has the window
    around it, from size // 2 channels before it on, clipped to the channels there are
axis : int, the axis of the channels
"""
import numpy as np


def window_sum(z, size, blocked, axis, transposed=False):
    """The sum over each channel's window: array like `z`.

    Parameters
    ----------
    z : array
    transposed : bool
        The adjoint: over the channels in whose windows a channel is. Only even windows that are not blocks differ.
    """
    z = np.moveaxis(z, axis, 0)
    channels = len(z)
    out = np.zeros(z.shape, z.dtype)
    if blocked:
        for begin in range(0, channels, size):
            out[begin:begin + size] = z[begin:begin + size].sum(0, dtype=z.dtype)
    else:
        before = size - size // 2 - 1 if transposed else size // 2
        for offset in range(max(-before, -channels), min(size - before, channels)):
            first, last = max(0, -offset), channels - max(0, offset)
            out[first:last] += z[first + offset:last + offset]
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


def denominators(x, size, add_scale, blocked, min_div, axis):
    """d = min_div + add_scale * sum of squares over the window: array like `x`."""
    return min_div + add_scale * window_sum(x * x, size, blocked, axis)


def cross_map_norm(x, size, add_scale, pow_scale, blocked, min_div, axis):
    """x * d ** -pow_scale: array like `x`; d as in `denominators`."""
    return x * denominators(x, size, add_scale, blocked, min_div, axis) ** -pow_scale


def cross_map_norm_undo(x, gy, size, add_scale, pow_scale, blocked, min_div, axis):
    """The gradient of ``sum(gy * cross_map_norm(x))`` with respect to `x`: array like `x`."""
    d = denominators(x, size, add_scale, blocked, min_div, axis)
    scaled = gy * d ** -pow_scale
    terms = -2 * add_scale * pow_scale * scaled * x / d
    return scaled + x * window_sum(terms, size, blocked, axis, transposed=True)
