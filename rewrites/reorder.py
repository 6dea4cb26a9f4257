"""Axes that change places for nothing, where they are reduced or merged next, stay where they are.

A reduction finds its axes wherever they stand. And T.tile(x, repetitions), by which people enlarge images, spreads x over
further axes in front of its own, Alloc, brings each behind the axis it repeats, DimShuffle, and merges the two, Reshape; its
gradient is Reshape, DimShuffle, Sum. Spread at once over axes that are where they belong, it is what T.repeat writes.
Either way a DimShuffle goes that would copy every element, and that no layout carries.
"""
import copy

from theano.tensor import Alloc, Reshape, alloc
from theano.tensor.elemwise import CAReduce, DimShuffle

from .carriers.dimshuffle import apply_pattern, moves_data
from .carriers.reduction import reduced_axes

_NOTE = "axes in their places, not exchanged first"


def keep_axes_in_place(edits, shapes, constraints="layoutopt"):
    """Replace reductions and T.tiles of axes that have changed places.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        As other stages have them; this one rests on neither.
    """
    for node in edits.fgraph.toposort():
        rule = next((rule for op_class, rule in _RULES.items() if isinstance(node.op, op_class)), None)
        new = rule(node, node.inputs[0].owner) if rule and _moves(node.inputs[0].owner) else None
        if new is not None:
            edits.replace(node.outputs[0], new, _NOTE)


def _moves(shuffle):
    return (shuffle is not None and isinstance(shuffle.op, DimShuffle)
            and moves_data(tuple(shuffle.op.new_order), shuffle.inputs[0].broadcastable))


def _spread(node, shuffle):
    """Reshape(DimShuffle(Alloc(x, sizes))) from an Alloc whose axes are in order; axes of size 1 matter to no Reshape."""
    source = shuffle.inputs[0].owner
    if source is None or not isinstance(source.op, Alloc):
        return None
    x, *sizes = source.inputs
    order = [axis for axis in shuffle.op.new_order if axis != "x" and not source.outputs[0].broadcastable[axis]]
    new_axes = len(sizes) - x.ndim
    own = [axis - new_axes if axis >= new_axes else "x" for axis in order]
    if not all(x.broadcastable[axis] for axis in set(range(x.ndim)) - set(own)):
        return None
    return Reshape(node.outputs[0].ndim)(alloc(x.dimshuffle(*own), *(sizes[axis] for axis in order)), node.inputs[1])


def _reduce(node, shuffle):
    """A reduction of DimShuffle(x) from one of x itself; what is left is put in order, where it is not."""
    x, order = shuffle.inputs[0], tuple(shuffle.op.new_order)
    reduced = reduced_axes(node)
    kept = [axis for place, axis in enumerate(order) if place not in reduced]
    axes = tuple(axis for axis in range(x.ndim) if axis not in kept)
    if not any(order[place] != "x" for place in reduced):
        return None
    op = copy.copy(node.op)
    op.axis = axes
    left = [axis for axis in range(x.ndim) if axis in kept]
    return apply_pattern(op(x), tuple(axis if axis == "x" else left.index(axis) for axis in kept))


_RULES = {Reshape: _spread, CAReduce: _reduce}
