"""Weights are converted once for good: a shared variable is stored in the layout that its updates are computed in.

What a shared variable holds is an array of sizes (filter, channel, row, column), and stays one: storing it in c01b means that
its bytes lie in the order (channel, row, column, filter), which its strides tell whoever reads it. A function that converts
weights, updates them in c01b and hands the new ones back as a transposed view pays for one conversion in its first call and
for none later; nor does any other function that reads them in c01b.

To the planner that is one more node, without an op: it takes the update and gives the weights of the next call, both in the
layout of storage. So the cut weighs all uses of the weights and of their update in a training step against each other.
"""
from typing import NamedTuple

from theano.compile import SharedVariable
from theano.gof import Variable

from .layout import BC01, C01B, bc01_order, is_view
from .versions import Choice, Version

CHOICE = Choice(Version((BC01,), (BC01,)), Version((C01B,), (C01B,)))


class Storage(NamedTuple):
    """A shared variable and what it is updated to, as an input and an output of one graph."""

    variable: Variable
    update: Variable


def find_storages(fgraph, variables):
    """The storages of a graph whose variable is among `variables`.

    An update that is an output for another reason, too, is left alone: outputs for the program are contiguous in bc01.
    """
    updated = {fgraph.inputs[i]: fgraph.outputs[o] for o, i in (fgraph.update_mapping or {}).items()}
    return [Storage(v, updated[v]) for v in variables if v in updated and _can_turn(v, updated[v])]


def _can_turn(variable, update):
    outputs = sum(client == "output" for client, _ in update.clients)
    return (isinstance(variable, SharedVariable) and update.owner is not None and outputs == 1
            and not is_view(variable.broadcastable))


def stored(c01b):
    """A value in C01B as the array to store: its bytes as they are, its axes in the order of BC01."""
    return c01b.dimshuffle(*bc01_order(c01b.ndim))


def is_stored(node):
    """Whether all that a node's only output is for is to be stored."""
    clients, fgraph = node.outputs[0].clients, getattr(node, "fgraph", None)
    mapping = getattr(fgraph, "update_mapping", None) or {}
    return bool(clients) and all(client == "output" and index in mapping for client, index in clients)
