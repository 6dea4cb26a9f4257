"""tanh and the logistic sigmoid, in numpy."""
import numpy as np


def tanh(x):
    """tanh of each element of float32 `x`, as a contiguous float32 array: computed in float64 and rounded once."""
    return np.ascontiguousarray(np.tanh(x, dtype="float64"), "float32").reshape(np.shape(x))


def sigmoid(x):
    """1 / (1 + exp(-x)) of each element of float32 `x`, as a contiguous float32 array.

    Computed in float64, in which no float32 number makes a difference between overflow and the limit 0, and rounded once.
    """
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-np.asarray(x, "float64")))
    return np.ascontiguousarray(exact, "float32").reshape(np.shape(x))
