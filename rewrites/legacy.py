"""Gradients of Theano's old ConvOp, which has no ops for them, become the gradients that they are.

ConvOp.grad writes both as further ConvOps. Let x' be x with images and channels exchanged, and f~ be f with its rows and columns
backwards; then

    image gradient              conv full(g, f'~)           of conv valid(x, f),   conv valid(g, f'~)    of conv full(x, f)
    weight gradient of valid    conv valid(x', g'~)'~
    weight gradient of full     conv valid(g', x'~)

(theano/tensor/nnet/conv.py; a stride of 2, in mode full alone, spreads g over a larger logical shape). Of the weight gradient's
operands, one has the images where channels should be and the other is a filter as large as an image: no layout suits both.
As AbstractConv2d_gradInputs and AbstractConv2d_gradWeights they are sites like any other.
"""
from theano.compile.ops import Shape_i
from theano.gof import Constant
from theano.tensor import Alloc, constant, stack
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.nnet.abstract_conv import AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.subtensor import Subtensor

from .carriers.subtensor import entries_of
from .sites import told
from .told import Told

_EXCHANGED = (1, 0, 2, 3)
_UNASSERTED = dict(add_assert_shape=False)  # ConvOp checks its sizes itself, whether conv.assert_shape is on or not: see told.py
_NOTE = "a gradient of ConvOp, written as another ConvOp"


def name_gradients(edits, shapes, constraints="layoutopt"):
    """Replace ConvOps that are gradients of ConvOps.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        As other stages have it; what a node is does not depend on it.
    """
    found = {node: rule for node, rule in ((node, _rule_of(node)) for node in edits.fgraph.apply_nodes) if rule}
    for node in edits.fgraph.toposort() if found else ():
        replacement = found[node](node, shapes) if node in found else None
        if replacement:
            old, new, insisted = replacement
            edits.replace(old, new, _NOTE, insisted)


def _rule_of(node):
    """How to read a node, by what ConvOp.grad calls it; None for whatever is no gradient."""
    op = node.op
    if type(op) is not ConvOp or (op.dx, op.dy) != (1, 1) or op.kshp_logical != op.kshp:
        return None
    if op.direction_hint == "bprop inputs":
        return _image_gradient
    return _weight_gradient if op.direction_hint == "bprop weights" and op.out_mode == "valid" else None


def _image_gradient(node, shapes):
    """(old variable, new variable, what the ConvOp insists on), or None where the node is not of this form."""
    op, (gradient, turned) = node.op, node.inputs
    filters = _original(turned, True, node)
    stride = _stride(op)
    border_mode = {"valid": "full", "full": "valid"}[op.out_mode]
    if filters is None or stride is None or (border_mode == "valid" and stride != (1, 1)):
        return None
    images, (_, of_gradient, of_turned) = (op.bsize, op.nkern) + op.outshp, told(op)
    of_filters = _exchange(of_turned)
    new = AbstractConv2d_gradInputs(images, of_filters, border_mode, stride)
    shape = _output_shape(op, gradient, filters, shapes)
    return node.outputs[0], new(filters, gradient, shape, **_UNASSERTED), Told(filters=of_filters, outputs=of_gradient)


def _weight_gradient(node, shapes):
    """(old variable, new variable, what the ConvOp insists on), or None where the node is not of this form."""
    op, stride = node.op, _stride(node.op)
    first, second = (_original(x, turned, node) for x, turned in zip(node.inputs, (False, True)))
    if first is None or second is None or stride is None:
        return None
    shape = _output_shape(op, first, second, shapes)
    of_first, of_second = map(_exchange, told(op)[1:])
    exchanged = _only_user(node.outputs[0])
    if exchanged is None or not isinstance(exchanged.op, DimShuffle) or exchanged.op.new_order != _EXCHANGED:
        new = AbstractConv2d_gradWeights(of_second, (op.bsize, op.nkern) + op.outshp, "full", stride)
        return node.outputs[0], new(second, first, shape, **_UNASSERTED), Told(images=of_second, outputs=of_first)
    if stride != (1, 1):
        return None
    backwards = _only_user(exchanged.outputs[0])
    flip = backwards is not None and _is_backwards(backwards)
    new = AbstractConv2d_gradWeights(of_first, (op.nkern, op.bsize) + op.outshp, "valid", filter_flip=flip)
    new = new(first, second, shape, **_UNASSERTED)
    return (backwards if flip else exchanged).outputs[0], new, Told(images=of_first, outputs=of_second)


def _exchange(sizes):
    """Sizes of a value with images and channels exchanged."""
    return tuple(sizes[axis] for axis in _EXCHANGED)


def _output_shape(op, images, filters, shapes):
    """Rows and columns of a ConvOp's result. Exchanging or turning an operand changes neither."""

    def size(variable, axis):
        symbolic = None if variable.owner is None else shapes.symbolic(variable, axis)
        return Shape_i(axis)(variable) if symbolic is None else symbolic

    more = {"valid": 1, "full": -1}[op.out_mode]
    return stack([size(images, axis) - more * (size(filters, axis) - 1) if known is None else known
                  for axis, known in zip((2, 3), op.outshp)])


def _stride(op):
    """How far apart a ConvOp spreads its images, (rows, columns); None where they do not fill the logical shape so."""
    pairs = list(zip(op.imshp[1:], op.imshp_logical[1:]))
    if op.imshp == op.imshp_logical:
        return (1, 1)
    if op.imshp[0] != op.imshp_logical[0] or any(None in pair or min(pair) < 1 for pair in pairs):
        return None
    stride = tuple(-(-logical // size) for size, logical in pairs)
    return stride if all((logical - 1) // s + 1 == size for s, (size, logical) in zip(stride, pairs)) else None


def _only_user(variable):
    if len(variable.clients) != 1 or variable.clients[0][0] == "output":
        return None
    return variable.clients[0][0]


# ---------------------------------------------------------------------------------------------------------------------
# Undoing what ConvOp.grad did to an operand, also where Theano has moved it below elementwise ops.


def _original(variable, turned, reader):
    """What an operand was made of: with images and channels exchanged back and, if `turned`, rows and columns backwards.

    None where that would take more than other dimshuffles, or if elementwise ops would be computed twice, as others than
    `reader` use their results, too.
    """
    known, rebuilt = {}, {reader}

    def visit(x, turned):
        turned = turned and not all(x.broadcastable[2:])
        if (x, turned) not in known:
            known[x, turned] = undo(x, x.owner, turned)
        return known[x, turned]

    def undo(x, node, turned):
        if turned and node is not None and _is_backwards(node):
            rebuilt.add(node)
            return visit(node.inputs[0], False)
        if node is None or not isinstance(node.op, Elemwise) or len(node.outputs) != 1:
            return _exchanged(x, turned)
        rebuilt.add(node)
        operands = [visit(operand, turned) for operand in node.inputs]
        return None if None in operands else node.op(*operands)

    result = visit(variable, turned)
    twice = any(client not in rebuilt for node in rebuilt - {reader} if isinstance(node.op, Elemwise)
                for client, _ in node.outputs[0].clients)
    return None if twice else result


def _exchanged(x, turned):
    """`_original` of what is not computed by elementwise ops."""
    node = x.owner
    if all(x.broadcastable):
        return x
    if isinstance(x, Constant):
        data = x.data.transpose(_EXCHANGED)
        return constant(data[:, :, ::-1, ::-1] if turned else data)
    if node is not None and isinstance(node.op, Alloc) and all(node.inputs[0].broadcastable):
        return node.op(node.inputs[0], *[node.inputs[1 + axis] for axis in _EXCHANGED])
    if turned or node is None or not isinstance(node.op, DimShuffle):
        return None
    order, inside = tuple(node.op.new_order[axis] for axis in _EXCHANGED), node.inputs[0]
    return inside if order == tuple(range(inside.ndim)) else inside.dimshuffle(*order)


def _is_backwards(node):
    """Whether a node turns rows and columns around, and does nothing else."""
    if type(node.op) is not Subtensor or node.inputs[0].ndim != 4:
        return False
    entries = entries_of(node, 1)
    return (all(isinstance(entry, slice) and entry.start is None and entry.stop is None for entry in entries)
            and [_number(entry.step) for entry in entries] == [None, None, -1, -1])


def _number(step):
    return int(step.data) if isinstance(step, Constant) else step
