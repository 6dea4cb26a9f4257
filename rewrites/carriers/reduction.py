"""Reductions over any axes: the axes are renumbered; where the batch is reduced away nothing is left to lay out."""
import copy

from theano.tensor import Argmax, MaxAndArgmax
from theano.tensor.elemwise import CAReduce

from ..layout import BC01, c01b_axis
from ..versions import C01B, Choice, Version, as_written
from .registry import carries


def reduced_axes(node):
    """The BC01 axes that a reduction reduces."""
    axes = node.op.axis
    ndim = node.inputs[0].ndim
    if axes is None:
        return tuple(range(ndim))
    return tuple(sorted(axis % ndim for axis in ([axes] if isinstance(axes, int) else axes)))


def _choice(node, axes):
    """The reduction of the same elements in c01b. What is left of axes 1.. keeps their order; only a batch axis that
    survives, with others, goes last."""
    ndim = node.inputs[0].ndim
    renumbered = tuple(sorted(c01b_axis(axis, ndim) for axis in axes))

    def build(node, inputs, layouts):
        op = copy.copy(node.op)
        op.axis = renumbered
        return op(inputs[0], return_list=True)

    gives = tuple(C01B if 0 not in axes and out.ndim >= 2 else BC01 for out in node.outputs)
    return Choice(as_written(node), Version((C01B,), gives, build=build))


@carries(CAReduce)
def reduction(node, shapes):
    if node.inputs[0].ndim < 2:
        return None
    return _choice(node, reduced_axes(node))


@carries(MaxAndArgmax, Argmax, unless="its index counts through several axes, the batch among them")
def arg_reduction(node, shapes):
    """An index along one axis is the same in any layout. Over several axes it counts through them in their order, which
    c01b changes when the batch is among them; then there is no c01b version, nor where an op has its own order."""
    axes = reduced_axes(node)
    if node.inputs[0].ndim < 2 or (len(axes) > 1 and (0 in axes or axes != tuple(node.op.axis))):
        return None
    return _choice(node, axes)
