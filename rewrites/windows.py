"""Means over windows that a program writes as means over further axes become Theano's pooling.

    x.reshape((b, c, h // p, p, w // q, q)).sum(axis=(3, 5))                                     a sum over windows of p x q
    images2neibs(x, (p, q)).sum(axis=1).reshape((b, c, h // p, w // q))                          the same
    alloc(g.dimshuffle(0, 1, 2, 'x', 3, 'x'), b, c, h // p, p, w // q, q).reshape((b, c, h, w))  the gradient of either

Which are Pool and AveragePoolGrad, sites like any other. A number by which the sum is divided, where Theano knows it, makes it an
average. A reshape fails where windows do not fill the images, and a pooling leaves the rest out: where it is not proven that
they do, an assertion is left behind, of what the reshape would have checked.
"""
from theano.compile.ops import Shape_i
from theano.gof import Constant
from theano.scalar import EQ, Switch
from theano.tensor import Alloc, Reshape, constant, eq, int_div, mul
from theano.tensor.elemwise import DimShuffle, Elemwise, Sum
from theano.tensor.nnet.neighbours import Images2Neibs
from theano.tensor.opt import Assert, MakeVector
from theano.tensor.signal.pool import AveragePoolGrad, Pool

from .products import float32, number_of, same_number, scaled_by
from .sums import Sums, number

_NOTE = "a mean over windows, written as one over further axes"
_NEIGHBOURS_NOTE = "a mean over windows, written with images2neibs"
_GRADIENT_NOTE = "the gradient of a mean over windows, written by repeating pixels"
_KEPT = (0, 1, 2, 4)  # of (images, channels, rows, rows of a window, columns, columns of a window)
_UNFILLED = "windows of %d x %d do not fill the images"


class Filled(Assert):
    """An assertion in the place of an op, which raises what that did: ValueError, a reshape, or TypeError, images2neibs.

    Parameters
    ----------
    msg : str
    error : class of exceptions, one of Python's own
    """

    __props__ = ("msg", "error")

    def __init__(self, msg, error):
        super().__init__(msg)
        self.error = error

    def perform(self, node, inputs, output_storage):
        if not all(inputs[1:]):
            raise self.error(self.msg)
        output_storage[0][0] = inputs[0]

    def c_code(self, node, name, inputs, outputs, sub):
        return super().c_code(node, name, inputs, outputs, sub).replace("AssertionError", self.error.__name__)


def name_windows(edits, shapes, constraints="layoutopt"):
    """Replace sums over windows that are written with reshapes, and their gradients.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        As other stages have it; what a node is does not depend on it.
    """
    candidates = {node for node in edits.fgraph.apply_nodes if _rule_of(node)}
    sums, pooled = Sums(shapes), []
    for node in edits.fgraph.toposort() if candidates else ():
        found = _rule_of(node)(node, sums) if node in candidates else None
        if found:
            old, new, images, window, note = found
            edits.replace(old, new, note)
            pooled.append((images, window))
    for node in edits.fgraph.toposort() if pooled else ():
        new = _gradient(node, pooled, sums)
        if new is not None:
            edits.replace(node.outputs[0], new, _GRADIENT_NOTE)


def _rule_of(node):
    """How to read a node, by what it sums over; None for whatever sums no windows."""
    source = node.inputs[0].owner if isinstance(node.op, Sum) else None
    if source is None or source.inputs[0].ndim != 4 or node.outputs[0].dtype != "float32" or source.outputs[0].dtype != "float32":
        return None
    if isinstance(source.op, Reshape) and source.op.ndim == 6 and tuple(sorted(node.op.axis or ())) == (3, 5):
        return _reshaped
    return _neighbours if isinstance(source.op, Images2Neibs) and tuple(node.op.axis or ()) == (1,) else None


# ---------------------------------------------------------------------------------------------------------------------
# Each gives (old variable, new variable, images, window, note), or None where it is no pooling.


def _reshaped(node, sums):
    images, shape = node.inputs[0].owner.inputs
    entries = _entries(shape)
    if entries is None:
        return None
    kept, window = [entries[axis] for axis in _KEPT], [sums.of(entries[axis]).known for axis in (3, 5)]
    images = _filled(images, kept, window, sums, ValueError)
    if images is None:
        return None
    scaled, factor = _scaled(node.outputs[0])
    if not same_number(factor, 1 / (window[0] * window[1])):
        scaled, factor = node.outputs[0], 1.0
    return scaled, _pool(images, window, factor), images, window, _NOTE


def _neighbours(node, sums):
    source = node.inputs[0].owner
    images, window, step = source.inputs
    (scaled, factor), mode = _scaled(node.outputs[0]), source.op.mode
    reshape = _only_user(scaled)
    entries = _entries(reshape.inputs[1]) if reshape is not None and isinstance(reshape.op, Reshape) else None
    constant = all(isinstance(v, Constant) for v in (window, step)) and (window.data == step.data).all()
    if entries is None or len(entries) != 4 or not constant or mode not in ("valid", "ignore_borders"):
        return None
    window = [int(size) for size in window.data]
    images = _filled(images, entries, window, sums, TypeError if mode == "valid" else None)
    if images is None:
        return None
    return reshape.outputs[0], _pool(images, window, factor), images, window, _NEIGHBOURS_NOTE


def _entries(shape):
    """The elements of a vector of sizes, as scalar variables; None where they are not known one by one."""
    if isinstance(shape, Constant):
        return [constant(int(size), dtype="int64").clone() for size in shape.data]
    return list(shape.owner.inputs) if shape.owner is not None and isinstance(shape.owner.op, MakeVector) else None


def _filled(images, kept, window, sums, fails):
    """`images` of which `kept` are sizes (images, channels, rows of windows, columns of windows), under an assertion if reading
    them so raises `fails`, not None, where windows leave pixels out and it is not proven that they do not; None where these are
    other sizes."""
    if None in window or min(window) < 1 or window == [1, 1]:
        return None
    proven = True
    for axis, size, side in zip(range(4), kept, [1, 1] + window):
        whole, symbolic = sums.size(images, axis), sums.shapes.symbolic(images, axis)
        if whole is None or symbolic is None:
            return None
        if number(0).plus(sums.of(size), side) != whole:
            proven = False
            if side == 1 or sums.of(size) != sums.of(int_div(symbolic, side)):
                return None
    if proven or fails is None:
        return images
    sizes = [Shape_i(axis)(images) for axis in range(4)]
    return Filled(_UNFILLED % tuple(window), fails)(images, eq(mul(*kept, *window), mul(*sizes)))


def _scaled(variable):
    """(the product of a value and a number, the number) if nobody else reads the value, else (the value, 1)."""
    user = _only_user(variable)
    operand, factor = (variable, 1.0) if user is None else scaled_by(user.outputs[0])
    return (user.outputs[0], factor) if user is not None and operand is variable else (variable, 1.0)


def _only_user(variable):
    users = [client for client, _ in variable.clients]
    return users[0] if len(users) == 1 and users[0] != "output" else None


def _pool(images, window, factor):
    """`factor` times the sums over windows."""
    average = same_number(factor, 1 / (window[0] * window[1]))
    pooled = Pool(True, "average_inc_pad" if average else "sum", 2)(images, window, window, (0, 0))
    return pooled if average or factor == 1 else mul(float32(factor, 4), pooled)


# ---------------------------------------------------------------------------------------------------------------------
# The gradient.


def _gradient(node, pooled, sums):
    """The sums' gradient that a node computes for one of the pooled images, else None."""
    spread = node.inputs[0].owner if isinstance(node.op, Reshape) and node.op.ndim == 4 else None
    entries = _entries(node.inputs[1]) if spread is not None and isinstance(spread.op, Alloc) else None
    if entries is None or len(spread.inputs) != 7 or spread.inputs[0].broadcastable != (False, False, False, True, False, True):
        return None
    gradient, *sizes = spread.inputs
    for images, window in pooled:
        same = all(sums.of(entry) == sums.size(images, axis) for axis, entry in enumerate(entries))
        kept = [_asked(sizes[axis]) for axis in _KEPT]
        if same and [sums.of(sizes[axis]).known for axis in (3, 5)] == window and _filled(images, kept, window, sums, None):
            return AveragePoolGrad(True, "sum", 2)(images, _squeezed(gradient), window, window, (0, 0))
    return None


def _asked(size):
    """Of switch(eq(r, -1), ..., r), as of a reshape to r: r, to be compared with what is no -1."""
    node = size.owner
    if node is None or not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, Switch):
        return size
    test, _, asked = node.inputs
    tested = test.owner.inputs if test.owner is not None and isinstance(getattr(test.owner.op, "scalar_op", None), EQ) else ()
    return asked if tested and tested[0] is asked and number_of(tested[1]) == -1 else size


def _squeezed(variable):
    """A value of six axes without those of the windows, along which it is broadcast."""
    node = variable.owner
    if node is not None and isinstance(node.op, DimShuffle):
        order = [node.op.new_order[axis] for axis in _KEPT]
        inside = node.inputs[0]
        return inside if order == list(range(inside.ndim)) else inside.dimshuffle(*order)
    if node is not None and isinstance(node.op, Elemwise) and len(node.outputs) == 1:
        return node.op(*map(_squeezed, node.inputs))
    return variable.dimshuffle(*_KEPT)
