"""Ops that look at sizes only, or make values from sizes: no layout of their operand is better than the other."""
from theano.compile.ops import Shape, Shape_i, SpecifyShape
from theano.tensor import Alloc, stack

from ..layout import BC01, C01B, EITHER, c01b_axis, rotate
from ..versions import Choice, Version, as_written
from .broadcast import lined_up
from .registry import carries
from .reshape import rotated_shape


@carries(Shape_i)
def shape_i(node, shapes):
    def build(node, inputs, layouts):
        ndim = inputs[0].ndim
        return [Shape_i(c01b_axis(node.op.i, ndim) if layouts[0] == C01B else node.op.i)(inputs[0])]

    return Choice(Version((EITHER,), (BC01,), build=build))


@carries(Shape)
def shape(node, shapes):
    def build(node, inputs, layouts):
        x, ndim = inputs[0], inputs[0].ndim
        if layouts[0] == BC01 or ndim < 2:
            return [node.op(x)]
        return [stack([Shape_i(c01b_axis(axis, ndim))(x) for axis in range(ndim)])]

    return Choice(Version((EITHER,), (BC01,), build=build))


@carries(SpecifyShape)
def specify_shape(node, shapes):
    """A promise about sizes, renumbered."""
    ndim = node.outputs[0].ndim
    if ndim < 2:
        return None

    def build(node, inputs, layouts):
        return [node.op(inputs[0], rotated_shape(inputs[1], ndim))]

    return Choice(as_written(node), Version((C01B, BC01), (C01B,), build=build))


@carries(Alloc)
def alloc(node, shapes):
    """A value spread over a shape; one of the result's rank needs its layout, one of lower rank lacks the batch."""
    value, out = node.inputs[0], node.outputs[0]
    if out.ndim < 2:
        return None
    whole = value.ndim == out.ndim
    needs = ((EITHER if all(value.broadcastable) else C01B) if whole else BC01,) + (BC01,) * out.ndim

    def build(node, inputs, layouts):
        value = inputs[0] if whole else lined_up(inputs[0], out.ndim)
        return [node.op(value, *rotate(inputs[1:]))]

    return Choice(as_written(node), Version(needs, (C01B,), build=build))
