"""Matrix products take and give either layout for nothing: BLAS reads a transposed operand as fast as a straight one.

The c01b layout of a matrix is its transpose. dot(a, b) in c01b is dot(b', a'), and each operand may come in either layout.
"""
from theano.tensor.basic import Dot
from theano.tensor.blas import Dot22, Dot22Scalar, Gemm

from ..layout import BC01, C01B, EITHER
from ..versions import Choice, Version
from .registry import carries

# Where the two matrices of the product stand among the inputs.
_OPERANDS = {Dot: (0, 1), Dot22: (0, 1), Dot22Scalar: (0, 1), Gemm: (2, 3)}


def only_multiplied(variable):
    """Whether `variable`, of a function graph, is used as an operand of matrix products and nowhere else."""
    return bool(variable.clients) and all(
        client != "output" and index in _OPERANDS.get(type(client.op), ()) for client, index in variable.clients
    )


def transpose(variable):
    """The transpose of a matrix; of a transpose, the matrix itself."""
    owner = variable.owner
    if owner is not None and getattr(owner.op, "new_order", None) in ((1, 0), [1, 0]):
        return owner.inputs[0]
    return variable.dimshuffle(1, 0)


def _as(layout, variable, has):
    return variable if has == layout else transpose(variable)


@carries(Dot22, Dot22Scalar, Dot)
def product(node, shapes):
    if any(x.ndim != 2 for x in node.inputs[:2]):
        return None
    return _product(node, 0, 1)


@carries(Gemm)
def gemm(node, shapes):
    """Gemm(z, alpha, x, y, beta): z is scaled and added to, so it must be in the layout of the result."""
    return _product(node, 2, 3)


def _product(node, left, right):
    def bc01(node, inputs, layouts):
        inputs = list(inputs)
        for i in (left, right):
            inputs[i] = _as(BC01, inputs[i], layouts[i])
        return [node.op(*inputs)]

    def c01b(node, inputs, layouts):
        inputs = list(inputs)
        inputs[left], inputs[right] = (_as(C01B, inputs[i], layouts[i]) for i in (right, left))
        return [node.op(*inputs)]

    def needs(layout):
        return tuple(EITHER if i in (left, right) else layout if x.ndim == 2 else BC01 for i, x in enumerate(node.inputs))

    return Choice(Version(needs(BC01), (BC01,), build=bc01), Version(needs(C01B), (C01B,), build=c01b))
