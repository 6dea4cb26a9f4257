"""Operands of lower rank: they are lined up with the last axes, lack the batch and so have no layout to change."""
from ..layout import rotate


def lined_up(variable, ndim):
    """`variable`, which broadcasts to BC01 values of the higher rank `ndim`, as a view that broadcasts to C01B ones."""
    if variable.ndim == 0:
        return variable
    return variable.dimshuffle(*rotate(("x",) * (ndim - variable.ndim) + tuple(range(variable.ndim))))
