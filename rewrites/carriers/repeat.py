"""RepeatOp: T.repeat by a vector of counts, one for each place along an axis. (By a number it is an Alloc and a Reshape.)"""
from theano.tensor.extra_ops import RepeatOp

from ..layout import BC01, C01B, c01b_axis
from ..versions import Choice, Version, as_written
from .registry import carries


@carries(RepeatOp, unless="it repeats the flattened value")
def repeat(node, shapes):
    """The axis is renumbered; without one, the op counts through the program's axes in their order."""
    axis, ndim = node.op.axis, node.inputs[0].ndim
    if ndim < 2 or axis is None:
        return None

    def build(node, inputs, layouts):
        return [RepeatOp(c01b_axis(axis % ndim, ndim))(*inputs)]

    return Choice(as_written(node), Version((C01B, BC01), (C01B,), build=build))
