"""Conversions and contiguity copies that a program makes itself: in the right layout there is nothing to do."""
from theano.tensor.extra_ops import CpuContiguous

from layoutopt.kernels.relayout import StoredToC01B, ToBC01, ToC01B

from ..versions import BC01, C01B, Choice, Version, as_written
from .registry import carries


def _identity(node, inputs, layouts):
    return [inputs[0]]


@carries(CpuContiguous)
def contiguous(node, shapes):
    """A c01b value is contiguous as the kernels write it; should one not be, the kernels make their own copy."""
    if node.inputs[0].ndim < 2:
        return None
    return Choice(as_written(node), Version((C01B,), (C01B,), build=_identity))


@carries(ToC01B)
def to_c01b(node, shapes):
    """Gives, as the program's own value, what its operand is in c01b. Of what is stored in c01b that is free as it is."""
    if isinstance(node.op, StoredToC01B):
        return None
    return Choice(as_written(node, shapes.conversion_seconds(node.inputs[0])), Version((C01B,), (BC01,), build=_identity))


@carries(ToBC01)
def to_bc01(node, shapes):
    """The c01b layout of its result is its operand."""
    return Choice(as_written(node, shapes.conversion_seconds(node.inputs[0])), Version((BC01,), (C01B,), build=_identity))
