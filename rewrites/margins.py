"""What a value has zeros around, and what is cut off a value: margins of images, (before, after) along an axis.

A rule per op gives (the value inside, its margins per axis), or None unless they are proven. That what is set fills its place
must be proven, too (`rewrites.sums`): an assignment of another size raises an error, or repeats a single row.
"""
import numpy as np
from theano.gof import Constant
from theano.tensor import Alloc, Join, Split
from theano.tensor.nnet.abstract_conv import AbstractConv2d_gradInputs
from theano.tensor.opt import MakeVector
from theano.tensor.subtensor import IncSubtensor, Subtensor

from .carriers.subtensor import entries_of
from .sums import number

_WHOLE = (0, 0)
NO_PADS = (_WHOLE, _WHOLE)

# ---------------------------------------------------------------------------------------------------------------------
# What zeros are around.


def is_zero(variable):
    if isinstance(variable, Constant):
        return not np.any(variable.data)
    return variable.owner is not None and isinstance(variable.owner.op, Alloc) and is_zero(variable.owner.inputs[0])


def _set_into_zeros(node, output, sums):
    return written(node, sums) if node.op.set_instead_of_inc and is_zero(node.inputs[0]) else None


def written(node, sums):
    """What an IncSubtensor sets or adds to a part of a value, and that value's margins around it; None unless proven."""
    base, part = node.inputs[:2]
    if node.op.inplace or (part.dtype, part.ndim) != (base.dtype, 4):
        return None
    margins = []
    for axis, entry in enumerate(entries_of(node, 2)):
        cut = _cut(entry, sums.size(base, axis), sums)
        if cut is None or not sums.is_size(cut[1], part, axis):
            return None
        margins.append((cut[0], cut[2]))
    return part, margins


def _joined_with_zeros(node, output, sums):
    axis, parts = sums.of(node.inputs[0]).known, node.inputs[1:]
    images = [place for place, part in enumerate(parts) if not is_zero(part)]
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
    if node is not None and type(node.op) is AbstractConv2d_gradInputs and is_made(node.inputs[2]):
        yield sizes[:2] + [sums.of(size) for size in node.inputs[2].owner.inputs]


def _split_off(node, output, sums):
    images, axis, sizes = node.inputs
    axis, place = sums.of(axis).known, node.outputs.index(output)
    unused = all(not other.clients for other in node.outputs if other is not output)
    if axis is None or images.ndim != 4 or not unused or not is_made(sizes):
        return None
    sizes = [sums.of(size).known for size in sizes.owner.inputs]
    before, after = sizes[:place], sizes[place + 1:]
    if None in before + after:
        return None
    margins = [_WHOLE] * 4
    margins[axis % 4] = sum(before), sum(after)
    return images, margins


def is_made(vector):
    return vector.owner is not None and isinstance(vector.owner.op, MakeVector)


PADS = {IncSubtensor: _set_into_zeros, Join: _joined_with_zeros}
CROPS = {Subtensor: _cut_out, Split: _split_off}


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
    pads = NO_PADS
    found = _read(PADS, variable, sums)
    while found:
        variable, pads = found[0], added(pads, found[1])
        found = _read(PADS, variable, sums)
    return variable, pads


def cropped(variable, sums):
    """What is left of a value that nobody else reads, and what is cropped off it, ((top, bottom), (left, right))."""
    pads = NO_PADS
    while True:
        users = [client for client, _ in variable.clients]
        used = [out for out in users[0].outputs if out.clients] if len(users) == 1 and users[0] != "output" else []
        found = _read(CROPS, used[0], sums) if len(used) == 1 and used[0].owner.inputs[0] is variable else None
        if not found:
            return variable, pads
        variable, pads = used[0], added(pads, found[1])


def added(first, second):
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(first, second))
