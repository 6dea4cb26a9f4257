"""Join and Split along any axis that is constant: the axis is renumbered, as are the axes of the operands."""
from theano.gof import Constant
from theano.tensor import Join, Split

from ..layout import BC01, C01B, c01b_axis
from ..versions import Choice, Version, as_written
from .registry import carries


def _renumbered(axis, ndim):
    return c01b_axis(int(axis.data) % ndim, ndim)


@carries(Join, unless="its axis is not constant")
def join(node, shapes):
    axis, ndim = node.inputs[0], node.outputs[0].ndim
    if ndim < 2 or not isinstance(axis, Constant):
        return None

    def build(node, inputs, layouts):
        return [node.op(_renumbered(axis, ndim), *inputs[1:])]

    needs = (BC01,) + (C01B,) * (len(node.inputs) - 1)
    return Choice(as_written(node), Version(needs, (C01B,), build=build))


@carries(Split, unless="its axis is not constant")
def split(node, shapes):
    """Split(x, axis, sizes)."""
    (x, axis, _), count = node.inputs, len(node.outputs)
    if x.ndim < 2 or not isinstance(axis, Constant):
        return None

    def build(node, inputs, layouts):
        return node.op(inputs[0], _renumbered(axis, x.ndim), inputs[2], return_list=True)

    return Choice(as_written(node), Version((C01B, BC01, BC01), (C01B,) * count, build=build))
