"""What is known of sizes while a graph is being optimized, and what must be guessed.

A size is sought at one of three levels of trust:

PROVEN   it follows from the graph alone. A rewrite may rest on it.
PRESENT  it follows from what shared variables hold just now, or a convolution was told (imshp, kshp). Verdicts rest on it;
         they choose between versions of an op, each of which is right for any size.
ASSUMED  nothing is known: a typical size, for costs only.

Theano's ShapeFeature has an expression for every size; these are not simplified, so they are evaluated here.
"""
from typing import NamedTuple

import numpy as np
from theano import scalar
from theano.compile import SharedVariable
from theano.compile.ops import Shape, Shape_i
from theano.gof import Constant
from theano.tensor.elemwise import Elemwise
from theano.tensor.opt import MakeVector

from .cost import Machine

PROVEN, PRESENT, ASSUMED = 0, 1, 2


class Assumed(NamedTuple):
    """Sizes of tensors that nothing is known about; `batch` is the flag layoutopt.batch."""

    batch: int = 128
    channels: int = 32
    side: int = 32
    features: int = 512

    def size(self, axis, ndim):
        if axis == 0:
            return self.batch
        return self.features if ndim < 3 else self.channels if axis == 1 else self.side


class Shapes:
    """Sizes of the values of one function graph.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
        With or without a ``shape_feature``; without one, little is known.
    machine : Machine
        Turns bytes into seconds.
    assumed : Assumed
    """

    def __init__(self, fgraph, machine=Machine(), assumed=Assumed()):
        self.feature = getattr(fgraph, "shape_feature", None)
        self.machine = machine
        self.assumed = assumed
        self._numbers = {}
        self._hints = {}

    def hint(self, variable, sizes):
        """Remember sizes, None where unknown, that a convolution was told about one of its values."""
        if variable.owner is None:
            self._hints[variable] = tuple(sizes)
            self._numbers.clear()

    def sizes(self, variable, trust):
        """Sizes of a value per axis, None where they are unknown at this level of trust."""
        return tuple(self._size(variable, axis, trust) for axis in range(variable.ndim))

    def present(self, variable):
        """Sizes of a value per axis as they are now, None where they are unknown."""
        return self.sizes(variable, PRESENT)

    def estimate(self, variable):
        """Sizes of a value per axis: as they are now, or assumed."""
        return self.sizes(variable, ASSUMED)

    def origin(self, size):
        """What a size provably is: a number, an (input of the graph, axis) pair, or None if neither can be told.

        Parameters
        ----------
        size : integer scalar variable
        """
        number = self._number(size, PROVEN)
        if number is not None:
            return int(number)
        seen = set()
        while size.owner is not None and size not in seen:
            seen.add(size)
            leaf = self._leaf_of(size)
            if leaf is not None:
                return leaf
            size = self._same_number(size)
        return size

    def axis_origin(self, variable, axis):
        """The `origin` of one size of a value; None where there is no expression for it."""
        if variable.broadcastable[axis]:
            return 1
        size = self._symbolic(variable, axis)
        return None if size is None else self.origin(size)

    def bytes(self, variable):
        """Size of a value's data, estimated."""
        return int(np.prod(self.estimate(variable), dtype=np.int64)) * np.dtype(variable.dtype).itemsize

    def conversion_seconds(self, variable):
        """Predicted time of one conversion of this value between the layouts."""
        return self.machine.conversion_seconds(self.bytes(variable))

    def strided_copy_seconds(self, variable):
        """Predicted time of numpy's copy of a transposed view of this value."""
        return self.machine.strided_copy_seconds(self.bytes(variable))

    def _symbolic(self, variable, axis):
        """The scalar variable of one size, or None."""
        if self.feature is None:
            return None
        sizes = self.feature.shape_of.get(variable)
        return None if sizes is None else sizes[axis]

    def _size(self, variable, axis, trust):
        if variable.broadcastable[axis]:
            return 1
        symbolic = self._symbolic(variable, axis)
        number = None if symbolic is None else self._number(symbolic, trust)
        if number is None:
            number = self._leaf_size(variable, axis, trust)
        return None if number is None else max(0, int(number))

    def _leaf_size(self, variable, axis, trust):
        """A size that no graph computes: a hint, a shared variable's, or the assumption."""
        if trust == PROVEN:
            return None
        hint = self._hints.get(variable, (None,) * variable.ndim)[axis]
        if hint is not None:
            return hint
        if isinstance(variable, SharedVariable):
            return np.shape(variable.get_value(borrow=True))[axis]
        return self.assumed.size(axis, variable.ndim) if trust == ASSUMED else None

    def _number(self, variable, trust):
        """An integer scalar or vector evaluated at this level of trust, or None."""
        key = variable, trust
        if key not in self._numbers:
            self._numbers[key] = None  # an expression may lead back to itself, through Shape
            self._numbers[key] = self._evaluate(variable, trust)
        return self._numbers[key]

    def _evaluate(self, variable, trust):
        if isinstance(variable, Constant):
            return variable.data
        node = variable.owner
        if node is None or getattr(variable, "ndim", 0) > 1 or len(node.outputs) > 1:
            return None
        if isinstance(node.op, Shape_i):
            return self._shape_i(node, trust)
        if isinstance(node.op, Shape):
            sizes = self.sizes(node.inputs[0], trust)
            return None if None in sizes else np.asarray(sizes, "int64")
        if isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, scalar.Switch):
            condition = self._number(node.inputs[0], trust)
            return None if condition is None else self._number(node.inputs[1 if condition else 2], trust)
        values = [self._number(x, trust) for x in node.inputs]
        return None if any(value is None for value in values) else _perform(node, values)

    def _shape_i(self, node, trust):
        variable, axis = node.inputs[0], node.op.i
        symbolic = self._symbolic(variable, axis)
        if symbolic is None or symbolic.owner is node or self._leaf_of(symbolic) == (variable, axis):
            return 1 if variable.broadcastable[axis] else self._leaf_size(variable, axis, trust)
        return self._number(symbolic, trust)

    def _leaf_of(self, size):
        """(variable, axis) where a size is read off a variable that no node computes, else None."""
        node = size.owner
        if node is not None and isinstance(node.op, Shape_i) and node.inputs[0].owner is None:
            return node.inputs[0], node.op.i
        return None

    def _same_number(self, size):
        """A scalar that provably equals `size` and is nearer to where it comes from, or `size` itself."""
        node = size.owner
        if isinstance(node.op, Shape_i):
            return self._symbolic(node.inputs[0], node.op.i) or size
        if type(node.op).__name__ in ("TensorFromScalar", "ScalarFromTensor"):
            return node.inputs[0]
        element = _element(node)
        if element is not None:
            vector, index = element
            maker = vector.owner
            if maker is not None and isinstance(maker.op, Shape):
                return self._symbolic(maker.inputs[0], index) or size
            if maker is not None and isinstance(maker.op, MakeVector):
                return maker.inputs[index]
        return size


def _element(node):
    """(vector, index) of a node that reads one element of a vector at a constant index, else None."""
    if type(node.op).__name__ != "Subtensor" or node.inputs[0].ndim != 1 or len(node.op.idx_list) != 1:
        return None
    index = node.op.idx_list[0]
    if not isinstance(index, (int, np.integer)):
        if len(node.inputs) != 2 or not isinstance(node.inputs[1], Constant) or isinstance(index, slice):
            return None
        index = node.inputs[1].data
    return node.inputs[0], int(index)


def _perform(node, values):
    """One node of a size's arithmetic, in Python, or None where its op cannot."""
    storage = [[None] for _ in node.outputs]
    values = [np.asarray(value, dtype=getattr(x.type, "dtype", None)) for x, value in zip(node.inputs, values)]
    values = [v[()] if getattr(x, "ndim", None) is None else v for x, v in zip(node.inputs, values)]
    try:
        node.op.perform(node, values, storage)
    except Exception:  # an estimate: whatever an op's Python code raises, the size stays unknown
        return None
    return storage[0][0]
