"""Sums over all axes but the first, in numpy."""
import numpy as np


def channel_sum(x):
    """The sums of float32 `x` (channels, ...) over all axes but the first, added up in float64: float32 (channels,)."""
    return np.asarray(x.sum(tuple(range(1, x.ndim)), dtype="float64"), "float32")
