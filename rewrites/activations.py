"""Elementwise tanh and sigmoid by our vectorised ops."""
from theano.gof.opt import copy_stack_trace
from theano.scalar.basic import Tanh as ScalarTanh
from theano.tensor import Rebroadcast, Reshape
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.nnet.sigm import ScalarSigmoid

from layoutopt.kernels.activation import sigmoid, tanh
from layoutopt.kernels.relayout import ToBC01, ToC01B

# Exact classes: UltraFastScalarSigmoid and the like are other functions.
_OURS = {ScalarTanh: tanh, ScalarSigmoid: sigmoid}

# Ops whose output is their first input with its elements in other places: they commute with activations.
_MOVES = (CpuContiguous, DimShuffle, Rebroadcast, Reshape, ToBC01, ToC01B)


def vectorise(fgraph):
    """Replace every elementwise float32 tanh and sigmoid of `fgraph`, of at least one axis, by the ops of this package.

    To be called before Theano fuses elementwise ops, which calls libm per element again. The derivatives that Theano
    built from the same values keep using them.

    Theano turns ``reshape(tanh(x))`` into ``tanh(reshape(x))``; where tanh(x) is needed as well, as for its gradient,
    it is then computed twice. Of such nodes one is kept here, and its result is moved.

    Returns
    -------
    int
        How many nodes were replaced.
    """
    nodes = [(node, op) for node, op in ((node, _ours(node)) for node in fgraph.toposort()) if op]
    values = {(op, node.inputs[0]): op(node.inputs[0]) for node, op in nodes}
    pairs = []
    for node, op in nodes:
        origin, moves = _origin(node.inputs[0], lambda x: (op, x) in values)
        old, new = node.outputs[0], _moved(values[op, origin], moves)
        copy_stack_trace(old, new)
        new.name = new.name or old.name
        pairs.append((old, new))
    fgraph.replace_all_validate(pairs, reason="layoutopt: vectorised activation")
    return len(pairs)


def _origin(variable, known):
    """The farthest variable with `known` that `variable` is moved from, and the nodes between, the last one first."""
    origin, moves, path = variable, [], []
    while variable.owner is not None and isinstance(variable.owner.op, _MOVES):
        path.append(variable.owner)
        variable = variable.owner.inputs[0]
        if known(variable):
            origin, moves = variable, list(path)
    return origin, moves


def _moved(value, moves):
    """`value` through the same ops as another variable."""
    for node in reversed(moves):
        value = node.op(value, *node.inputs[1:])
        copy_stack_trace(node.outputs[0], value)
    return value


def _ours(node):
    """Our op that does what an elementwise node does, or None."""
    op = node.op
    if type(op) is not Elemwise or op.inplace_pattern or len(node.inputs) != 1 or node.outputs[0].ndim == 0:
        return None
    if node.inputs[0].dtype != "float32" or node.outputs[0].dtype != "float32":
        return None
    return _OURS.get(type(op.scalar_op))
