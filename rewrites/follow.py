"""Which nodes of a compiled function do what was planned: values are followed through the rewrites that come after ours.

Theano lowers a convolution that stays in bc01 to CorrMM, flips its filters, merges nodes that do the same. Each of these
replaces a variable by another one, and tells the graph's features so.
"""
from theano.compile.ops import DeepCopyOp, ViewOp
from theano.gof.toolbox import Feature
from theano.tensor import Rebroadcast
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.subtensor import Subtensor

from .region import SITE_OPS

# What Theano puts behind an op that it lowers another one to: flips, axes, flags and copies.
_BEHIND = (CpuContiguous, DeepCopyOp, DimShuffle, Rebroadcast, Subtensor, ViewOp)


class Followed(Feature):
    """The values that sites and conversions compute, as they are in the graph now.

    Parameters
    ----------
    sites, conversions : lists of variables
        In the order of the record's.
    """

    def __init__(self, sites, conversions):
        self._now = {}  # variable -> what it stands for: ("site" or "conversion", number)
        for kind, variables in (("site", sites), ("conversion", conversions)):
            for number, variable in enumerate(variables):
                self._now.setdefault(variable, []).append((kind, number))

    def on_change_input(self, fgraph, node, i, old, new, reason=None):
        if old in self._now and (new.owner is None or old not in new.owner.inputs):  # else something was put behind it
            self._now.setdefault(new, []).extend(self._now.pop(old))

    def __getstate__(self):
        return dict(_now={})  # a pickled function is compiled again, of other nodes

    def nodes(self):
        """{("site" or "conversion", number): theano.Apply}, of those that are known."""
        found = {}
        for variable, items in self._now.items():
            for kind, number in items:
                node = _lowered(variable.owner) if kind == "site" else variable.owner
                if node is not None:
                    found[kind, number] = node
        return found


def _lowered(node):
    """The convolution or pooling in or before `node`; None where that is something else."""
    while node is not None and isinstance(node.op, _BEHIND):
        node = node.inputs[0].owner
    return node if node is not None and type(node.op) in SITE_OPS else None
