"""Zeros that a program puts around images become the pad of the convolution that reads them.

    conv(set(alloc(0), [:, :, t:h+t, l:w+l], x), f)                =  conv with pads (t, b), (l, r) more, of (x, f)
    weight gradient(set(alloc(0), [:, :, t:h+t, l:w+l], x), g)     =  weight gradient with these pads more, of (x, g)
    image gradient(f, g)[:, :, t:h+t, l:w+l]                       =  image gradient with these pads more, of (f, g)

and the same where the zeros are joined to the images' sides, of which the gradient is a Split. The last line holds for any
crop. That x fills what is set, and that b zeros are below it, must be proven (`rewrites.sums`): an assignment of another size
raises an error, or repeats a single row, and so it must remain.

The convolution then reads x, which is smaller, and skips what it would multiply by zero. Theano's own CorrMM takes all pads,
too, so a convolution that the plan leaves in bc01 gains as well.
"""
import numpy as np
from theano.gof import Constant
from theano.tensor import Alloc, Join, Split, as_tensor_variable, stack
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.opt import MakeVector
from theano.tensor.subtensor import IncSubtensor, Subtensor

from .carriers.subtensor import entries_of
from .shapes import PROVEN
from .sites import CONV_SITES, pads_of, read_site, told
from .sums import Sums, number

# ConvOp has no pads of its own: it becomes an AbstractConv2d.
_PADDED_OPS = (AbstractConv2d, AbstractConv2d_gradWeights, AbstractConv2d_gradInputs,
               CorrMM, CorrMM_gradWeights, CorrMM_gradInputs, ConvOp)
_PARAMETERS = ("subsample", "filter_flip", "kshp", "filter_dilation", "num_groups", "unshared")
_WHOLE = (0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# What zeros are around: each rule gives (what is inside, its margins per axis) of a node's output, or None.


def _is_zero(variable):
    if isinstance(variable, Constant):
        return not np.any(variable.data)
    return variable.owner is not None and isinstance(variable.owner.op, Alloc) and _is_zero(variable.owner.inputs[0])


def _set_into_zeros(node, output, sums):
    base, part = node.inputs[:2]
    op = node.op
    if op.inplace or not op.set_instead_of_inc or not _is_zero(base) or (part.dtype, part.ndim) != (base.dtype, 4):
        return None
    margins = []
    for axis, entry in enumerate(entries_of(node, 2)):
        cut = _cut(entry, sums.size(base, axis), sums)
        if cut is None or cut[1] != sums.size(part, axis):
            return None
        margins.append((cut[0], cut[2]))
    return part, margins


def _joined_with_zeros(node, output, sums):
    axis, parts = sums.of(node.inputs[0]).known, node.inputs[1:]
    images = [place for place, part in enumerate(parts) if not _is_zero(part)]
    if axis is None or output.ndim != 4 or len(images) != 1:
        return None
    axis %= 4
    place, = images
    inner = parts[place]
    margins = [_WHOLE] * 4
    margins[axis] = _sum_of_numbers(parts[:place], axis, sums), _sum_of_numbers(parts[place + 1:], axis, sums)
    fits = all(sums.size(part, other) == sums.size(inner, other) is not None
               for part in parts for other in range(4) if other != axis)
    return (inner, margins) if fits and None not in margins[axis] and inner.dtype == output.dtype else None


def _sum_of_numbers(variables, axis, sums):
    """The sizes of values along an axis, added up; None unless they are numbers."""
    sizes = [sums.size(variable, axis) for variable in variables]
    return None if any(size is None or size.known is None for size in sizes) else sum(size.known for size in sizes)


# What is cut out: the same of a value and the node that reads it.


def _cut(entry, whole, sums):
    """(before, length, after) of a slice of an axis of size `whole`, the length as a sum and the others as numbers of at
    least 0; None if that is not proven, but for the length, which may come out below 0."""
    if not isinstance(entry, slice) or whole is None or not (entry.step is None or sums.of(entry.step).known == 1):
        return None
    before = 0 if entry.start is None else sums.of(entry.start).known
    stop = whole if entry.stop is None else sums.of(entry.stop)
    if stop.known is not None and stop.known < 0:
        stop = whole.plus(stop)
    after = whole.minus(stop).known
    if before is None or after is None or min(before, after) < 0:
        return None
    return before, stop.minus(number(before)), after


def _cut_out(node, output, sums):
    if output.ndim != 4:
        return None
    images, entries = node.inputs[0], entries_of(node, 1)
    for sizes in _ways_to_say_sizes(images, sums):
        cuts = [_cut(entry, size, sums) for entry, size in zip(entries, sizes)]
        if all(cut is not None and sums.never_negative(cut[1]) for cut in cuts):
            return images, [(before, after) for before, _, after in cuts]
    return None


def _ways_to_say_sizes(images, sums):
    """The sizes of a value: by shape inference, and of an image gradient, as it was asked for rows and columns."""
    sizes = [sums.size(images, axis) for axis in range(4)]
    yield sizes
    node = images.owner
    if node is not None and type(node.op) is AbstractConv2d_gradInputs and _is_made(node.inputs[2]):
        yield sizes[:2] + [sums.of(size) for size in node.inputs[2].owner.inputs]


def _split_off(node, output, sums):
    images, axis, sizes = node.inputs
    axis, place = sums.of(axis).known, node.outputs.index(output)
    unused = all(not other.clients for other in node.outputs if other is not output)
    if axis is None or images.ndim != 4 or not unused or not _is_made(sizes):
        return None
    sizes = [sums.of(size).known for size in sizes.owner.inputs]
    before, after = sizes[:place], sizes[place + 1:]
    if None in before + after:
        return None
    margins = [_WHOLE] * 4
    margins[axis % 4] = sum(before), sum(after)
    return images, margins


def _is_made(vector):
    return vector.owner is not None and isinstance(vector.owner.op, MakeVector)


_PADS = {IncSubtensor: _set_into_zeros, Join: _joined_with_zeros}
_CROPS = {Subtensor: _cut_out, Split: _split_off}


def _read(rules, variable, sums):
    """(inside, ((top, bottom), (left, right))) by the rule for the op that makes a value; None if there is none, or if it
    touches axes of images and channels."""
    rule = rules.get(type(variable.owner.op)) if variable.owner is not None else None
    found = rule(variable.owner, variable, sums) if rule else None
    if found is None or list(found[1][:2]) != [_WHOLE, _WHOLE]:
        return None
    return found[0], tuple(found[1][2:])


def unpadded(variable, sums):
    """The images that a value has zeros around, and their pads ((top, bottom), (left, right)), all 0 where there are none."""
    pads = (_WHOLE, _WHOLE)
    found = _read(_PADS, variable, sums)
    while found:
        variable, pads = found[0], _added(pads, found[1])
        found = _read(_PADS, variable, sums)
    return variable, pads


def cropped(variable, sums):
    """What is left of a value that nobody else reads, and what is cropped off it, ((top, bottom), (left, right))."""
    pads = (_WHOLE, _WHOLE)
    while True:
        users = [client for client, _ in variable.clients]
        used = [out for out in users[0].outputs if out.clients] if len(users) == 1 and users[0] != "output" else []
        found = _read(_CROPS, used[0], sums) if len(used) == 1 and used[0].owner.inputs[0] is variable else None
        if not found:
            return variable, pads
        variable, pads = used[0], _added(pads, found[1])


def _added(first, second):
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(first, second))


# ---------------------------------------------------------------------------------------------------------------------
# Folding.


def fold_padding(edits, shapes, constraints="layoutopt"):
    """Fold zeros around images into the pads of convolutions, and crops of image gradients, where the result qualifies for
    c01b.

    Parameters
    ----------
    edits : rewrites.edits.Edits
    shapes : rewrites.shapes.Shapes
    constraints : str
        See `rewrites.constraints`.
    """
    candidates = {node for node in edits.fgraph.apply_nodes if type(node.op) in _PADDED_OPS and _is_candidate(node)}
    if not candidates:
        return
    sums = Sums(shapes)
    for node in edits.fgraph.toposort():
        if node in candidates:
            _fold_into(node, edits, shapes, sums, constraints)


def _is_candidate(node):
    """Whether a convolution reads what a rule may read, or is read by such."""
    if any(x.ndim != 4 for x in node.inputs[:2] + node.outputs):
        return False
    images = CONV_SITES[type(node.op)].images
    if images == "out":
        return any(client != "output" and type(client.op) in _CROPS for client, _ in node.outputs[0].clients)
    maker = node.inputs[images].owner
    return maker is not None and type(maker.op) in _PADS


def _fold_into(node, edits, shapes, sums, constraints):
    roles, inputs, old = CONV_SITES[type(node.op)], list(node.inputs), node.outputs[0]
    if roles.images == "out":
        old, pads = cropped(old, sums)
        inputs[2:] = _smaller(inputs[2:], [sum(pad) for pad in pads])
    else:
        inputs[roles.images], pads = unpadded(inputs[roles.images], sums)
    op = _with_pads(node, roles, pads, shapes)
    if op is None:
        return
    shape = [inputs[2:]] if len(inputs) == 4 else inputs[2:]  # CorrMM takes rows and columns as one argument, two inputs
    new = op(*inputs[:2] + shape)
    if read_site(new.owner, shapes, constraints).verdict.qualifies:
        edits.replace(old, new, "zeros around the images are part of the pad: %s" % (pads,))


def _with_pads(node, roles, pads, shapes):
    """A convolution's op with these pads besides its own; None if there are none, or its own are not known."""
    op = node.op
    filters = node.outputs[0] if roles.filters == "out" else node.inputs[roles.filters]
    facts, told_images, told_filters = told(op)
    sides = [told_size or proven for told_size, proven in zip(told_filters, shapes.sizes(filters, PROVEN))][2:]
    own = pads_of(facts["border_mode"], None if None in sides else sides)
    if own is None or facts["spread"] or not any(map(any, pads)):
        return None
    border_mode = _added((own[:2], own[2:]), pads)
    smaller = tuple(None if size is None else size - sum(pad) for size, pad in zip(told_images[2:], pads))
    if type(op) is ConvOp:
        return AbstractConv2d(told_images[:2] + smaller, told_filters, border_mode, (op.dx, op.dy))
    parameters = {name: getattr(op, name) for name in _PARAMETERS if hasattr(op, name)}
    if hasattr(op, "imshp"):
        parameters["imshp"] = told_images[:2] + smaller
    return type(op)(border_mode=border_mode, **parameters)


def _smaller(shape, margins):
    """Rows and columns less these margins, as a convolution takes them: two scalars, a vector, or nothing."""
    if len(shape) != 1:
        return [size - margin for size, margin in zip(shape, margins)]
    if _is_made(shape[0]):
        return [stack([size - margin if margin else size for size, margin in zip(shape[0].owner.inputs, margins)])]
    return [as_tensor_variable(shape[0].data - margins if isinstance(shape[0], Constant) else shape[0] - margins)]
