"""Ops that hand on what they are given, if a condition says so: branches and assertions."""
from theano.ifelse import IfElse
from theano.tensor.opt import Assert

from ..layout import BC01
from ..versions import C01B, Choice, Version, as_written, rotated_rank
from .registry import carries


def _layout(variable):
    """C01B, but BC01 for what is no tensor of rank 2 and up."""
    return rotated_rank(variable) if hasattr(variable, "ndim") else BC01


@carries(IfElse)
def branch(node, shapes):
    """IfElse(condition, *then, *else): all values in one layout. Each branch's conversions stay in that branch, and are
    as lazy as it is."""
    gives = tuple(_layout(out) for out in node.outputs)
    if C01B not in gives:
        return None

    def build(node, inputs, layouts):
        return node.op(*inputs, return_list=True)

    return Choice(as_written(node), Version((BC01,) + gives + gives, gives, build=build))


@carries(Assert)
def assertion(node, shapes):
    """Assert(value, *conditions), the conditions scalars."""
    if _layout(node.inputs[0]) == BC01:
        return None

    def build(node, inputs, layouts):
        return [node.op(*inputs)]

    needs = (C01B,) + (BC01,) * (len(node.inputs) - 1)
    return Choice(as_written(node), Version(needs, (C01B,), build=build))
