"""Elementwise ops of any arity: axes travel together, whatever their order."""
from theano.tensor import Rebroadcast
from theano.tensor.elemwise import Elemwise

from layoutopt.kernels.activation import Sigmoid, Tanh

from ..layout import c01b_axis
from ..versions import C01B, EITHER, Choice, Version, as_written
from .registry import carries


@carries(Elemwise, Tanh, Sigmoid)
def elemwise(node, shapes):
    """Operands have the rank of the result; one that is broadcast along every axis is the same in both layouts."""
    if node.outputs[0].ndim < 2:
        return None
    needs = tuple(EITHER if all(x.broadcastable) else C01B for x in node.inputs)
    c01b = Version(needs, (C01B,) * len(node.outputs), build=lambda node, inputs, layouts: node.op(*inputs, return_list=True))
    return Choice(as_written(node), c01b)


@carries(Rebroadcast)
def rebroadcast(node, shapes):
    """A promise about single axes, renumbered."""
    ndim = node.outputs[0].ndim
    if ndim < 2:
        return None

    def build(node, inputs, layouts):
        axes = ((c01b_axis(axis, ndim), flag) for axis, flag in node.op.axis.items())
        return [Rebroadcast(*sorted(axes))(inputs[0])]

    return Choice(as_written(node), Version((C01B,), (C01B,), build=build))
