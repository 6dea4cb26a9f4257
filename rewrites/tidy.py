"""After the rewrite: contiguity copies of values that are contiguous by construction go."""
from theano.tensor import Alloc, Reshape
from theano.tensor.elemwise import Elemwise
from theano.tensor.extra_ops import CpuContiguous

from layoutopt.kernels.base import C01bOp


def _elemwise_is(node, contiguous):
    """An elementwise op lays its result out like its full-sized operands; it takes Fortran order if all of them have it."""
    flags = node.outputs[0].broadcastable
    full = [x for x in node.inputs if x.broadcastable == flags]
    return any(contiguous(x) for x in full)


# Ops whose outputs are C-contiguous: always, or if `contiguous` says so of what they are computed from.
_RULES = {
    C01bOp: lambda node, contiguous: True,
    CpuContiguous: lambda node, contiguous: True,
    Alloc: lambda node, contiguous: True,
    Reshape: lambda node, contiguous: contiguous(node.inputs[0]),
    Elemwise: _elemwise_is,
}


class Contiguity:
    """Which values of a graph are C-contiguous by construction; call it with a variable.

    Parameters
    ----------
    rules : dict
        By class of op: a function (node, contiguous) -> bool, which may ask `contiguous` of what the node computes from.
    """

    def __init__(self, rules=_RULES):
        self._rules = rules
        self._known = {}

    def __call__(self, variable):
        if variable not in self._known:
            self._known[variable] = self._find(variable)
        return self._known[variable]

    def _find(self, variable):
        node = variable.owner
        if node is None:
            return False  # a user may pass any strides
        rule = next((self._rules[c] for c in type(node.op).__mro__ if c in self._rules), None)
        return rule is not None and rule(node, self)


def drop_copies(fgraph, copying=CpuContiguous, rules=_RULES):
    """Replace contiguity copies, nodes of class `copying`, by what they copy, where that is contiguous by construction.

    Returns
    -------
    int
        How many went.
    """
    contiguous = Contiguity(rules)
    copies = [node for node in fgraph.toposort() if isinstance(node.op, copying) and contiguous(node.inputs[0])]
    for node in copies:
        fgraph.replace_validate(node.outputs[0], node.inputs[0], reason="layoutopt: contiguous by construction")
    return len(copies)


def copies_left(fgraph):
    """How many nodes may still copy a value to make it contiguous, on the host and on a GPU, whose op exists where pygpu
    does."""
    return sum(isinstance(node.op, CpuContiguous) or type(node.op).__name__ == "GpuContiguous" for node in fgraph.apply_nodes)
