"""DimShuffle in all its forms, by composing permutations.

Operand and result may each be in either layout; every combination is again a dimshuffle, of another pattern. One whose
pattern leaves the axes in order moves no data: that is the c01b version to offer. So a bias (c) becomes (c, 1, 1, 1) as
readily as (1, c, 1, 1), and a program's own (1, 2, 3, 0) of a c01b value is no operation at all. Where all move data, the one
that leaves the last axis in its place is offered.
"""
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import cpu_contiguous

from ..layout import BC01, C01B, EITHER, bc01_order, c01b_axis, rotate
from ..storage import is_stored
from ..versions import Choice, Version, as_written
from .matrix_product import only_multiplied
from .registry import carries


def pattern(order, ndim, layout_in, layout_out):
    """The dimshuffle pattern `order`, written for BC01 of an operand of rank `ndim`, between the layouts given."""
    if layout_out == C01B:
        order = rotate(order)
    if layout_in == C01B:
        order = tuple(axis if axis == "x" else c01b_axis(axis, ndim) for axis in order)
    return tuple(order)


def moves_data(order, broadcastable):
    """Whether axes of more than one element change their order."""
    axes = [axis for axis in order if axis != "x" and not broadcastable[axis]]
    return axes != sorted(axes)


def apply_pattern(variable, order):
    """`variable` dimshuffled, or itself where nothing changes."""
    if tuple(order) == tuple(range(variable.ndim)):
        return variable
    return variable.dimshuffle(*order)


@carries(DimShuffle, unless="single elements change places in either layout")
def dimshuffle(node, shapes):
    x, out = node.inputs[0], node.outputs[0]
    order = tuple(node.op.new_order)
    if order == (1, 0) and only_multiplied(out):
        return _transposed_operand(node)
    moved = moves_data(order, x.broadcastable)
    # A pattern that moves data is a view, but whoever needs it contiguous pays for the copy, strided, by numpy.
    copied = moved and out.ndim > 2 and not is_stored(node)
    bc01 = as_written(node, shapes.strided_copy_seconds(out) if copied else 0.0)
    patterns = list(_patterns(x, out, order))
    for layout_in, layout_out, new_order, flags in patterns:
        if not moves_data(new_order, flags):
            return Choice(bc01, _version(layout_in, layout_out, new_order))
    for layout_in, layout_out, new_order, flags in patterns:
        if copied and _keeps_runs(new_order, flags):
            return Choice(bc01, _version(layout_in, layout_out, new_order, shapes.copy_seconds(out)))
    return Choice(bc01)


def _patterns(x, out, order):
    """(layout of the operand, of the result, pattern between them, the operand's broadcast flags), but for both in bc01."""
    for layout_in, layout_out in ((C01B, C01B), (C01B, BC01), (BC01, C01B)):
        if (layout_in == BC01 or x.ndim >= 2) and (layout_out == BC01 or out.ndim >= 2):
            flags = x.broadcastable if layout_in == BC01 else rotate(x.broadcastable)
            yield layout_in, layout_out, pattern(order, x.ndim, layout_in, layout_out), flags


def _keeps_runs(order, broadcastable):
    """Whether what lies together along the last axis is moved as one, which is a copy as fast as any: filters stored as (row,
    column, channel, filter), or images in c01b whose other axes change places."""
    axes = [axis for axis in order if axis != "x" and not broadcastable[axis]]
    return axes[-1] == max(axes)


def _version(layout_in, layout_out, order, seconds=0.0):
    """A dimshuffle between the layouts; in c01b, where the ops need it contiguous, one that moves data is copied at once."""

    def build(node, inputs, layouts):
        result = apply_pattern(inputs[0], order)
        return [cpu_contiguous(result) if seconds and layout_out == C01B else result]

    return Version((layout_in,), (layout_out,), seconds, build)


def _transposed_operand(node):
    """A matrix transposed for a matrix product: the transpose of either layout is a view, so either serves."""

    def build(node, inputs, layouts):
        return [inputs[0] if layouts[0] == C01B else inputs[0].dimshuffle(*bc01_order(2))]

    return Choice(Version((EITHER,), (BC01,), build=build))
