"""Normalisation across channels, its gradient, and sums over windows of channels: the axis of the channels is renumbered.

The kernels see (outer, channels, inner) and take about the same time in either layout, except where the inner axes are short; so
these nodes go along with their neighbours.
"""
from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum

from ..cost import AcrossWork
from ..layout import c01b_axis, rotate
from ..versions import C01B, Choice, Version, as_written
from .registry import carries

_KINDS = {CrossMapSum: "sum", CrossMapNorm: "norm", CrossMapNormUndo: "undo"}


def _seconds(op, axis, sizes, machine):
    """Of an op whose channels are along `axis` of an array of these sizes."""
    outer, channels, inner = 1, sizes[axis], 1
    for size in sizes[:axis]:
        outer *= size
    for size in sizes[axis + 1:]:
        inner *= size
    rooted = getattr(op, "pow_scale", 1) in (0.25, 0.5, 0.75, 1)
    return machine.across_channels_seconds(AcrossWork(_KINDS[type(op)], outer, channels, inner, op.size, rooted))


@carries(*_KINDS)
def across_channels(node, shapes):
    op, sizes = node.op, shapes.estimate(node.inputs[0])
    axis = c01b_axis(op.axis, 4)

    def build(node, inputs, layouts):
        return op.along(axis).make_node(*inputs).outputs

    c01b = Version((C01B,) * len(node.inputs), (C01B,), _seconds(op, axis, rotate(sizes), shapes.machine), build)
    return Choice(as_written(node, _seconds(op, op.axis, sizes, shapes.machine)), c01b)
