"""Conversions between the layouts, in numpy."""
import numpy as np


def to_c01b(x):
    """First axis of `x` to the end, as a contiguous array: (batch, ...) becomes (..., batch)."""
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def to_bc01(x):
    """Last axis of `x` to the front, as a contiguous array: (..., batch) becomes (batch, ...)."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))
