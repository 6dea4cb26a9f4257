"""Weights are converted once for good: a shared variable is stored in the layout that its updates are computed in.

What a shared variable holds is an array of sizes (filter, channel, row, column), and stays one: storing it in c01b means that
its bytes lie in the order (channel, row, column, filter), which its strides tell whoever reads it. A function that converts
weights, updates them in c01b and hands the new ones back as a transposed view pays for one conversion before its first call and
for none later; nor does any other function that reads them in c01b.

To the planner that is one more node, without an op: it takes the update and gives the weights of the next call, both in the
layout of storage. So the cut weighs all uses of the weights and of their update in a training step against each other.

Functions share weights, and one that reads them in bc01 would pay for each other's storage with a strided copy per call. So it is
remembered, per shared variable, who came first: what a convolution reads in bc01 stays stored so; what is stored in c01b is
free in c01b, and costs that copy in bc01, to each function that is compiled later.
"""
from typing import NamedTuple, Optional
from weakref import WeakKeyDictionary

import numpy as np
from theano.compile import SharedVariable
from theano.gof import Variable

from layoutopt.kernels.relayout import StoredToC01B

from .layout import BC01, C01B, bc01_order, is_view
from .versions import Choice, Version

_layouts = WeakKeyDictionary()  # containers of shared variables -> the layout in which a compiled function counts on them


class Storage(NamedTuple):
    """A shared variable and what it is updated to, as an input and an output of one graph; None where it is not updated."""

    variable: Variable
    update: Optional[Variable]


def find_storages(fgraph, variables):
    """The storages of a graph whose variable is among `variables`, where there is a choice.

    An update that is an output for another reason, too, is left alone: outputs for the program are contiguous in bc01.
    """
    updated = {fgraph.inputs[i]: fgraph.outputs[o] for o, i in (fgraph.update_mapping or {}).items()}
    shared = [v for v in variables if isinstance(v, SharedVariable) and not is_view(v.broadcastable)]
    storages = [Storage(v, updated.get(v)) for v in shared]
    return [storage for storage in storages if _can_turn(storage.update, _layouts.get(storage.variable.container))]


def _can_turn(update, layout):
    """Whether a variable with this update, that others count on in `layout`, may be stored in c01b, or is."""
    if update is None:
        return layout == C01B
    outputs = sum(client == "output" for client, _ in update.clients)
    return layout != BC01 and update.owner is not None and outputs == 1


def choice_of_storage(storage, shapes):
    """Its versions: in the layout of the update; or, already in c01b, for nothing in c01b and a strided copy in bc01."""
    if storage.update is None:
        return Choice(Version((), (BC01,), shapes.strided_copy_seconds(storage.variable)), Version((), (C01B,)))
    return Choice(Version((BC01,), (BC01,)), Version((C01B,), (C01B,)))


def stored_in_c01b(region, plan):
    """The storages that a plan has in c01b."""
    return [storage for storage, layout in zip(region.storages, plan.layouts[len(region.nodes):]) if layout == C01B]


def remember(storages, bc01_nodes):
    """Note what a function counts on: the storages that it has in c01b, and the convolutions that it leaves in bc01."""
    for storage in storages:
        _layouts[storage.variable.container] = C01B
    for variable in (v for node in bc01_nodes for v in node.inputs if isinstance(v, SharedVariable)):
        _layouts.setdefault(variable.container, BC01)


def is_stored_in_c01b(variable):
    """Whether what a shared variable holds now lies in c01b because a function has stored it so."""
    value = variable.container.storage[0]
    return _layouts.get(variable.container) == C01B and isinstance(value, np.ndarray) and not value.flags.c_contiguous


def store_now(fgraph):
    """Store the weights that a function updates in c01b, and reads so, as it will leave them: to be called before its first call.

    Otherwise that call would convert them all, and have them twice until it updates them.

    Parameters
    ----------
    fgraph : FunctionGraph
        Of the compiled function.
    """
    for i in (fgraph.update_mapping or {}).values():
        variable = fgraph.inputs[i]
        if not isinstance(variable, SharedVariable) or _layouts.get(variable.container) != C01B:
            continue
        value, read = variable.container.storage[0], [client.op for client, _ in variable.clients if client != "output"]
        if any(isinstance(op, StoredToC01B) for op in read) and isinstance(value, np.ndarray) and value.flags.c_contiguous:
            variable.container.storage[0] = np.moveaxis(np.ascontiguousarray(np.moveaxis(value, 0, -1)), -1, 0)


def stored(c01b):
    """A value in C01B as the array to store: its bytes as they are, its axes in the order of BC01."""
    return c01b.dimshuffle(*bc01_order(c01b.ndim))


def is_stored(node):
    """Whether all that a node's only output is for is to be stored."""
    clients, fgraph = node.outputs[0].clients, getattr(node, "fgraph", None)
    mapping = getattr(fgraph, "update_mapping", None) or {}
    return bool(clients) and all(client == "output" and index in mapping for client, index in clients)
