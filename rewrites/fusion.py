"""Bias and activation go into the last write of the convolution or max-pooling before them.

    FilterActs -> + bias -> relu, tanh or sigmoid        FilterActsBias, with the biased sums as a second output where others
                                                         read them, as relu's gradient does
    MaxPool -> + bias -> relu, tanh or sigmoid           MaxPoolBias, with the maxima as a second output where others read them,
                                                         as the pooling's gradient does

What Theano would compute in registers stays there: an activation that only one other elementwise op reads is left to Theano's
fusion with that op. Results are the same to the last bit.
"""
from typing import NamedTuple

import numpy as np
from theano import scalar
from theano.gof.opt import copy_stack_trace
from theano.tensor import NotScalarConstantError, get_scalar_constant_value
from theano.tensor.elemwise import DimShuffle, Elemwise

from layoutopt.kernels.activation import Sigmoid, Tanh
from layoutopt.kernels.conv import FilterActs
from layoutopt.kernels.epilogue import FilterActsBias, MaxPoolBias
from layoutopt.kernels.pool import MaxPool


class Fused(NamedTuple):
    """What was done to a graph.

    equal : {old variable: the same value now}.
    sites : {the convolution's or pooling's old output: the output of the node that does its work now}.
    words : {the convolution's or pooling's old output: 'fused with ...'}.
    gone : old variables whose values nobody computes any more.
    """

    equal: dict
    sites: dict
    words: dict
    gone: set

    def values_now(self, replaced):
        """(node, outputs) of the list `replaced`, with the same values as they are in the graph now, of those that are left."""
        return [(node, [self.equal.get(x, x) for x in outputs]) for node, outputs in replaced if not self.gone & set(outputs)]

    def sites_now(self, replaced, notes):
        """(node, [output of the node that does its work now]) of the nodes in `replaced` that were fused; `notes` get the words."""
        fused = [(node, outputs[0]) for node, outputs in replaced if outputs[0] in self.sites]
        notes.update((node, "; ".join(filter(None, [notes.get(node), self.words[x]]))) for node, x in fused)
        return [(node, [self.sites[x]]) for node, x in fused]


class Activated(NamedTuple):
    """An activation of a variable: which, as what, and the nodes that compute it."""

    name: str
    output: object
    nodes: list


def nothing_fused():
    return Fused({}, {}, {}, set())


def fuse(fgraph):
    """Fuse wherever it saves memory traffic; returns `Fused`."""
    fused = nothing_fused()
    for node in fgraph.toposort():
        rule = _RULES.get(type(node.op))
        if rule is not None and len(node.inputs) == _INPUTS[type(node.op)] and node in fgraph.apply_nodes:
            rule(fgraph, node, fused)
    return fused


def _fuse_convolution(fgraph, node, fused):
    added = _bias_added(node.outputs[0])
    if added is None or len(node.outputs[0].clients) > 1:
        return
    biased, bias = added
    activated = next((a for a in _activations(biased) if _pays(a, biased)), None)
    keep = activated is not None and _read_by_others(biased, activated)
    outputs = FilterActsBias(node.op, activated.name if activated else "none", keep)(*node.inputs, bias, return_list=True)
    pairs = [(biased, outputs[-1])] if keep or activated is None else []
    pairs += [(activated.output, outputs[0])] if activated is not None else []
    _replace(fgraph, node, biased, activated, pairs, fused)


def _fuse_pooling(fgraph, node, fused):
    maxima = node.outputs[0]
    added = _bias_added(maxima)
    if added is None:
        return
    biased, bias = added
    activated = next((a for a in _activations(biased) if not _read_by_others(biased, a)), None)
    if activated is None:
        return
    keep = len(_clients(maxima)) > 1
    outputs = MaxPoolBias(node.op, activated.name, keep)(*node.inputs, bias, return_list=True)
    pairs = list(zip([maxima], outputs[1:])) + [(activated.output, outputs[0])]
    _replace(fgraph, node, biased, activated, pairs, fused)


_RULES = {FilterActs: _fuse_convolution, MaxPool: _fuse_pooling}
_INPUTS = {FilterActs: 2, MaxPool: 1}  # an output_shape is not taken


def _replace(fgraph, node, biased, activated, pairs, fused):
    for old, new in pairs:
        copy_stack_trace(old, new)
        new.name = new.name or old.name
    fgraph.replace_all_validate(pairs, reason="layoutopt: bias and activation in the last write")
    inner = activated.nodes if activated is not None else []
    fused.equal.update(pairs)
    fused.gone.update(x for x in [node.outputs[0], biased] + [between.outputs[0] for between in inner]
                      if x not in fused.equal and x not in fgraph.variables)
    fused.sites[node.outputs[0]] = pairs[-1][1]
    fused.words[node.outputs[0]] = "fused with bias" + (" and " + _WORDS[activated.name] if activated is not None else "")


_WORDS = {"half_sum": "relu", "positive": "relu", "larger": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}


def _clients(variable):
    """The nodes, or 'output', that read a variable, each once."""
    return list(dict.fromkeys(client for client, _ in variable.clients))


def _scalar_op(node):
    """The class of an elementwise node's scalar op; None of other nodes, and of those that write into their operands."""
    op = getattr(node, "op", None)
    return type(op.scalar_op) if type(op) is Elemwise and not op.inplace_pattern else None


def _bias_added(x):
    """(x + a bias for each channel, the bias as a vector) if x is read so; else None. Images and bias have the same channels."""
    for node in _clients(x):
        if _scalar_op(node) is not scalar.Add or len(node.inputs) != 2:
            continue
        bias = node.inputs[1 - node.inputs.index(x)]
        fits = bias is not x and bias.broadcastable == (x.broadcastable[0], True, True, True) and bias.dtype == "float32"
        if fits and node.outputs[0].type == x.type:
            return node.outputs[0], _as_vector(bias)
    return None


def _as_vector(bias):
    node = bias.owner
    if node is not None and isinstance(node.op, DimShuffle) and tuple(node.op.new_order) == (0, "x", "x", "x"):
        return node.inputs[0]
    return bias.dimshuffle(0)


def _constant(variable, value):
    try:
        return bool(get_scalar_constant_value(variable) == np.float32(value))
    except NotScalarConstantError:
        return False


def _activations(x):
    """The activations of x that the kernels know, each an `Activated`."""
    for node in _clients(x):
        found = None
        if isinstance(getattr(node, "op", None), (Tanh, Sigmoid)) and not node.op.inplace:
            found = Activated(type(node.op).__name__.lower(), node.outputs[0], [node])
        elif _scalar_op(node) is scalar.Abs:
            found = _half_sum(x, node)
        elif _scalar_op(node) is scalar.GT and node.inputs[0] is x and _constant(node.inputs[1], 0):
            found = _switch(x, node)
        elif _scalar_op(node) is scalar.Maximum and node.inputs[0] is x and _constant(node.inputs[1], 0):
            found = Activated("larger", node.outputs[0], [node])
        if found is not None and found.output.type == x.type:
            yield found


def _half_sum(x, size):
    """0.5 * (x + |x|), `size` being |x|."""
    for total in _clients(size.outputs[0]):
        if _scalar_op(total) is scalar.Add and len(total.inputs) == 2 and set(total.inputs) == {x, size.outputs[0]}:
            for half in _clients(total.outputs[0]):
                if _scalar_op(half) is scalar.Mul and len(half.inputs) == 2 and any(_constant(y, 0.5) for y in half.inputs):
                    return Activated("half_sum", half.outputs[0], [size, total, half])
    return None


def _switch(x, positive):
    """switch(x > 0, x, 0), `positive` being x > 0."""
    for node in _clients(positive.outputs[0]):
        if _scalar_op(node) is scalar.Switch and node.inputs[1] is x and _constant(node.inputs[2], 0):
            return Activated("positive", node.outputs[0], [positive, node])
    return None


def _pays(activated, biased):
    """Whether the activation would be written anyway: other values Theano keeps in registers, in the one op that reads them."""
    clients = _clients(activated.output)
    return not _read_by_others(biased, activated) or len(clients) > 1 or _scalar_op(clients[0]) is None


def _read_by_others(biased, activated):
    """Whether somebody reads the biased values who is not gone with the activation."""
    gone = [activated.nodes[-1]]
    for node in reversed(activated.nodes[:-1]):
        if all(client in gone for client in _clients(node.outputs[0])):
            gone.append(node)
    return any(client not in gone for client in _clients(biased))
