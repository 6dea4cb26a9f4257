"""Conversions between the layouts, in numpy."""
import numpy as np


def to_c01b(x):
    """First axis of `x` to the end, as a contiguous array: (batch, ...) becomes (..., batch)."""
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def to_bc01(x):
    """Last axis of `x` to the front, as a contiguous array: (..., batch) becomes (batch, ...)."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


def take_to_c01b(x, rows):
    """The images (first axis) of `x` with these numbers, in c01b: (image, ...) becomes (..., image)."""
    return to_c01b(x[rows])
