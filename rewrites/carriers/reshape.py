"""Reshapes that leave the first axis alone, flatten(2) above all: in c01b they reshape what precedes the batch.

Most do so provably. Where a program names a number of images, or writes -1, only the sizes at hand may say so; then an op
serves that is right in either case, and fast in this one.
"""
from collections import Counter

import numpy as np
from theano.tensor import (Constant, NotScalarConstantError, Reshape, as_tensor_variable,
                           get_scalar_constant_value)
from theano.tensor.opt import MakeVector

from layoutopt.kernels.reshape import ReshapeC01B

from ..layout import rotate
from ..shapes import PROVEN, factors
from ..sums import Sums, number
from ..versions import BC01, C01B, Choice, Version, as_written
from .registry import carries


def rotated_shape(shape, ndim):
    """The vector `shape` of a BC01 value in the order of its C01B axes."""
    if isinstance(shape, Constant):
        return as_tensor_variable(shape.data[list(rotate(range(ndim)))])
    if shape.owner is not None and isinstance(shape.owner.op, MakeVector):
        return shape.owner.op(*rotate(shape.owner.inputs))
    return MakeVector(shape.dtype)(*rotate(shape[axis] for axis in range(ndim)))  # a Join would lose which sizes are 1


def _elements(shape):
    """The scalars, numbers or variables, that a shape vector is made of, or None."""
    if isinstance(shape, Constant):
        return [int(size) for size in shape.data]
    if shape.owner is not None and isinstance(shape.owner.op, MakeVector):
        return [_number_or(x) for x in shape.owner.inputs]
    return None


def _number_or(size):
    try:
        return int(get_scalar_constant_value(size))
    except NotScalarConstantError:
        return size


def _same_factors(x, sizes, shapes):
    """Whether axes 1.. of `x` provably hold as many elements as `sizes`, numbers and scalars, have as their product."""
    sums = Sums(shapes)
    before = [sums.size(x, axis) for axis in range(1, x.ndim)]
    after = []
    for count, variables in (factors(as_tensor_variable(size)) for size in sizes):
        after += [number(count)] + [sums.of(variable) for variable in variables]
    return None not in before and _product(before) == _product(after)


def _product(sums):
    """A product of `rewrites.sums`, comparable: the numbers' product, and how often each of the others is in it."""
    return np.prod([total.known for total in sums if total.known is not None]), Counter(t for t in sums if t.known is None)


def keeps_first_axis(node, shapes):
    """Whether a Reshape provably leaves the size of axis 0 as it is."""
    x, out = node.inputs[0], node.outputs[0]
    before = shapes.axis_origin(x, 0)
    elements = _elements(node.inputs[1])
    if elements is not None and elements[0] != -1:
        after = elements[0] if isinstance(elements[0], int) else shapes.origin(elements[0])
        return before is not None and before == after
    rest = shapes.sizes(x, PROVEN)[1:]
    if elements is not None:  # (-1, ...): all else must be the same number of elements
        if None not in rest and all(isinstance(e, int) for e in elements):
            return np.prod(rest) == np.prod(elements[1:])
        if _same_factors(x, elements[1:], shapes):
            return True
    return before is not None and before == shapes.axis_origin(out, 0)


def seems_to_keep_it(node, shapes):
    """Whether axis 0 keeps its size by what is known of the present sizes: of all the others, or of itself."""
    before, after = shapes.present(node.inputs[0]), shapes.present(node.outputs[0])
    if None not in before[1:] + after[1:]:
        return np.prod(before[1:]) == np.prod(after[1:])
    return before[0] is not None and before[0] == after[0]


@carries(Reshape, unless="nothing says that the first axis keeps its size")
def reshape(node, shapes):
    """Row-major order within an image is the same before and after; so is the batch, if its size is."""
    ndim = node.outputs[0].ndim
    if node.inputs[0].ndim < 2 or ndim < 2:
        return None

    def build(node, inputs, layouts):
        return [Reshape(ndim)(inputs[0], rotated_shape(inputs[1], ndim))]

    def build_careful(node, inputs, layouts):
        return [ReshapeC01B(rotate(node.outputs[0].broadcastable))(*inputs)]

    if not keeps_first_axis(node, shapes):
        if not seems_to_keep_it(node, shapes):
            return None
        build = build_careful
    return Choice(as_written(node), Version((C01B, BC01), (C01B,), build=build))
