"""Reshaping c01b values, whatever the new shape does to the batch.

Where the batch keeps its size, the reshaped value in c01b is the reshaped c01b value, a view. A program may well say so in a
way that no graph proves: it names a number of images where it takes any, or -1. So the op looks when it runs.
"""
import math

import numpy as np
from theano import gof
from theano.tensor import TensorType, as_tensor_variable


class ReshapeC01B(gof.Op):
    """The c01b layout of ``reshape(x, shape)``.

    Inputs: the c01b layout of x, any dtype, (axes 1.. of x, batch); and `shape`, the BC01 sizes, integers of which one may be
    -1. Output: (sizes 1.. of `shape`, size 0 of `shape`).

    If the batch keeps its size that is a view of a contiguous input. Otherwise data moves by numpy, twice.

    Parameters
    ----------
    broadcastable : tuple of bool
        Of the output's axes, in their c01b order; at least two.

    Raises
    ------
    ValueError
        When it runs, if there is no such number of elements.
    """

    __props__ = ("broadcastable",)
    view_map = {0: [0]}

    def __init__(self, broadcastable):
        self.broadcastable = tuple(broadcastable)

    def make_node(self, x, shape):
        x, shape = as_tensor_variable(x), as_tensor_variable(shape)
        if x.ndim < 2 or shape.ndim != 1 or not shape.dtype.startswith(("int", "uint")):
            raise TypeError("ReshapeC01B takes a tensor of two axes or more and a vector of integers, got %s and %s"
                            % (x.type, shape.type))
        return gof.Apply(self, [x, shape], [TensorType(x.dtype, self.broadcastable)()])

    def perform(self, node, inputs, storage):
        x, shape = inputs
        sizes = self.sizes(x.shape, shape)
        if sizes[0] == x.shape[-1]:
            storage[0][0] = x.reshape(sizes[1:] + sizes[:1])
        else:
            storage[0][0] = np.ascontiguousarray(np.moveaxis(np.moveaxis(x, -1, 0).reshape(sizes), 0, -1))

    def sizes(self, c01b_shape, shape):
        """`shape` as a list with a number for -1, checked against the sizes of an operand in hand."""
        if len(shape) != len(self.broadcastable):
            raise ValueError("ReshapeC01B: a shape of %d axes where %d were promised" % (len(shape), len(self.broadcastable)))
        return _filled(c01b_shape, [int(size) for size in shape])

    def connection_pattern(self, node):
        return [[True], [False]]


def _filled(c01b_shape, sizes):
    """`sizes` with a number for -1; ValueError if they do not hold as many elements as `c01b_shape`."""
    elements, known = math.prod(c01b_shape), math.prod(size for size in sizes if size != -1)  # of Python's integers
    filled = [elements // known if size == -1 and known else size for size in sizes]
    if sizes.count(-1) > 1 or min(filled) < 0 or math.prod(filled) != elements:
        raise ValueError("cannot reshape %s, the batch last, to %s, the batch first" % (tuple(c01b_shape), tuple(sizes)))
    return filled
