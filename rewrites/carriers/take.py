"""Images picked by a list of numbers, a shuffled minibatch above all: they are converted while they are picked.

Images that lie in c01b themselves are converted first: along the last axis any list would touch every line of memory.
"""
from theano.tensor.subtensor import AdvancedSubtensor1

from layoutopt.kernels.take import take_to_c01b

from ..layout import is_view
from ..versions import BC01, C01B, Choice, Version, as_written
from .registry import carries


@carries(AdvancedSubtensor1)
def take(node, shapes):
    """AdvancedSubtensor1(x, rows): a copy, or for the price of a conversion the conversion of that copy."""
    out = node.outputs[0]
    if out.ndim < 2 or is_view(out.broadcastable):
        return None
    c01b = Version((BC01, BC01), (C01B,), shapes.conversion_seconds(out),
                   lambda node, inputs, layouts: [take_to_c01b(*inputs)])
    return Choice(as_written(node, shapes.copy_seconds(out)), c01b)
