"""Parts of a value, by integers and slices of any step, constant or not: indices travel with their axes.

An integer drops its axis. Where that is the batch, what is left has none, and its c01b axes stand in the order of bc01.

There is no rule for AdvancedIncSubtensor1, which changes listed images: along the last axis that would touch every line of
memory, at more than a conversion. For lists of images to read see `take`.
"""
from theano.gof import Variable
from theano.tensor.subtensor import IncSubtensor, Subtensor, get_idx_list

from ..layout import BC01, C01B, EITHER, rotate
from ..versions import Choice, Version, as_written
from .broadcast import lined_up
from .registry import carries

_ALL = slice(None)


def entries_of(node, first):
    """Integer or slice of every axis, as variables; those of the inputs start at `first`."""
    entries = get_idx_list([None] + list(node.inputs[first:]), node.op.idx_list)
    return tuple(entries) + (_ALL,) * (node.inputs[0].ndim - len(entries))


def _indices(entries):
    """What an op of these entries takes as inputs."""
    return Subtensor.collapse(entries, lambda entry: isinstance(entry, Variable))


def _rotated(entries):
    """The entries of the C01B axes, without full slices at the end."""
    entries = rotate(entries)
    while len(entries) > 1 and entries[-1] == _ALL:
        entries = entries[:-1]
    return entries


def _layout(entries):
    """The layout of a part of a value in C01B."""
    rank = sum(isinstance(entry, slice) for entry in entries)
    return C01B if rank >= 2 and isinstance(entries[0], slice) else BC01


def _scatters(entries):
    """Whether neighbours along the batch are not neighbours in the part."""
    return not isinstance(entries[0], slice) or entries[0].step is not None


@carries(Subtensor)
def subtensor(node, shapes):
    """Subtensor(x, *indices): a view; of single images in c01b it has strides, and whoever reads it pays for those."""
    x, out = node.inputs[0], node.outputs[0]
    if x.ndim < 2:
        return None
    entries = entries_of(node, 1)

    def build(node, inputs, layouts):
        rotated = _rotated(entries)
        return [Subtensor(rotated)(inputs[0], *_indices(rotated))]

    needs = (C01B,) + (BC01,) * (len(node.inputs) - 1)
    seconds = shapes.strided_copy_seconds(out) if _scatters(entries) else 0.0
    return Choice(as_written(node), Version(needs, (_layout(entries),), seconds, build))


@carries(IncSubtensor, unless="it works in place")
def inc_subtensor(node, shapes):
    """IncSubtensor(x, y, *indices): y broadcasts to the part of x and may be of lower rank."""
    x, y = node.inputs[:2]
    if x.ndim < 2 or node.op.inplace:
        return None
    entries = entries_of(node, 2)
    rank = sum(isinstance(entry, slice) for entry in entries)
    whole = _layout(entries) == C01B and y.ndim == rank

    def build(node, inputs, layouts):
        rotated, y = _rotated(entries), inputs[1]
        if _layout(entries) == C01B and not whole:
            y = lined_up(y, rank)
        op = IncSubtensor(rotated, set_instead_of_inc=node.op.set_instead_of_inc)
        return [op(inputs[0], y, *_indices(rotated))]

    of_y = (EITHER if all(y.broadcastable) else C01B) if whole else BC01
    seconds = shapes.strided_copy_seconds(y) if _scatters(entries) else 0.0
    return Choice(as_written(node), Version((C01B, of_y) + (BC01,) * (len(node.inputs) - 2), (C01B,), seconds, build))
