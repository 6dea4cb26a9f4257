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
from theano.sandbox.rng_mrg import mrg_uniform_base
from theano.scalar import ScalarOp
from theano.tensor.basic import (Alloc, Join, NotScalarConstantError, Rebroadcast, Reshape, ScalarFromTensor,
                                 TensorFromScalar, get_scalar_constant_value, get_vector_length)
from theano.tensor.elemwise import CAReduce, DimShuffle, Elemwise, Prod
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.opt import MakeVector
from theano.tensor.subtensor import IncSubtensor, Subtensor

from .cost import VIEW, Machine
from .layout import C01B, is_view

PROVEN, PRESENT, ASSUMED = 0, 1, 2

# What expressions for sizes are made of. Any other op is not carried out here: it may be slow, or print.
_ARITHMETIC = (Alloc, CAReduce, DimShuffle, Elemwise, Join, MakeVector, Rebroadcast, Reshape, ScalarFromTensor,
               ScalarOp, Subtensor, TensorFromScalar)


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
    clock : callable, optional
        Measures what the machine predicts (`rewrites.measured`).
    """

    def __init__(self, fgraph, machine=Machine(), assumed=Assumed(), clock=None):
        self.feature = getattr(fgraph, "shape_feature", None)
        self.machine = machine
        self.assumed = assumed
        self.clock = clock
        self.timed = {}  # (variable, layout) -> seconds of its conversion, where measured
        self._numbers = {}
        self._sizes = {}  # (variable, trust) -> its sizes, as far as the present hints tell
        self._hints = {}
        self._read = set()  # variables whose sizes were looked up, with the hints there were

    def hint(self, variable, sizes):
        """Remember sizes, None where unknown, that a convolution was told about one of its values.

        Of a value that is computed they are remembered of the input that its sizes provably come from.
        """
        if variable.owner is not None:
            known = self.present(variable)
            for axis, size in enumerate(sizes):
                origin = self.axis_origin(variable, axis) if known[axis] is None and size is not None else None
                if isinstance(origin, tuple):
                    leaf, its_axis = origin
                    self.hint(leaf, [size if i == its_axis else None for i in range(leaf.ndim)])
            return
        known = self._hints.get(variable, (None,) * variable.ndim)
        hints = tuple(new if old is None else old for old, new in zip(known, sizes))
        if hints != known:
            self._sizes.clear()
            self._hints[variable] = hints
            if variable in self._read:
                self._numbers.clear()

    def sizes(self, variable, trust):
        """Sizes of a value per axis, None where they are unknown at this level of trust."""
        if (variable, trust) not in self._sizes:
            self._sizes[variable, trust] = tuple(self._size(variable, axis, trust) for axis in range(variable.ndim))
        return self._sizes[variable, trust]

    def present(self, variable):
        """Sizes of a value per axis as they are now, None where they are unknown."""
        return self.sizes(variable, PRESENT)

    def estimate(self, variable):
        """Sizes of a value per axis: as they are now, or assumed."""
        return self.sizes(variable, ASSUMED)

    def value(self, variable):
        """An integer scalar or vector computed from sizes, estimated like these; None where it is no arithmetic of sizes."""
        return self._number(variable, ASSUMED)

    def origin(self, size):
        """What a size provably is: a number, an (input of the graph, axis) pair, or the scalar that it is computed as.

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
        size = self.symbolic(variable, axis)
        return None if size is None else self.origin(size)

    def bytes(self, variable):
        """Size of a value's data, estimated."""
        return int(np.prod(self.estimate(variable), dtype=np.int64)) * np.dtype(variable.dtype).itemsize

    def conversion_seconds(self, variable, to=C01B):
        """Time of one conversion of this value, in either layout, into the other one, `to`: measured, or predicted."""
        if is_view(variable.broadcastable):
            return VIEW
        if (variable, to) in self.timed:
            return self.timed[variable, to]
        return self.machine.conversion_seconds(self.bytes(variable), self.estimate(variable)[0], to)

    def copy_seconds(self, variable):
        """Predicted time of a copy of this value as it lies."""
        return self.machine.conversion_seconds(self.bytes(variable), batch=1)

    def strided_copy_seconds(self, variable):
        """Predicted time of numpy's copy of a transposed view of this value."""
        return self.machine.strided_copy_seconds(self.bytes(variable))

    def symbolic(self, variable, axis):
        """The scalar variable of one size, or None."""
        variable = _original(variable)
        if self.feature is None:
            return None
        drawn = _drawn_sizes(variable)
        if drawn is not None:
            return drawn[axis]
        sizes = self.feature.shape_of.get(variable)
        return None if sizes is None else sizes[axis]

    def _size(self, variable, axis, trust):
        symbolic = self.symbolic(variable, axis)
        return self._size_of(variable, axis, trust, None if symbolic is None else self._number(symbolic, trust))

    def _size_of(self, variable, axis, trust, number):
        """One size, `number` being what the expression for it gave."""
        if variable.broadcastable[axis]:
            return 1
        if number is None:
            number = self._leaf_size(variable, axis, trust)
        return None if number is None else max(0, int(number))

    def _leaf_size(self, variable, axis, trust):
        """A size that no graph computes: a hint, a shared variable's, or the assumption."""
        if trust == PROVEN:
            return None
        variable = _original(variable)
        self._read.add(variable)
        hint = self._hints.get(variable, (None,) * variable.ndim)[axis]
        if hint is not None:
            return hint
        if isinstance(variable, SharedVariable):
            return np.shape(variable.get_value(borrow=True, return_internal_type=True))[axis]
        return self.assumed.size(axis, variable.ndim) if trust == ASSUMED else None

    def _number(self, variable, trust):
        """An integer scalar or vector evaluated at this level of trust, or None.

        Not by recursion, as expressions are as deep as networks: `_evaluate` yields the variables whose numbers it needs.
        """
        value, waiting = None, [((variable, trust), self._wants(variable))]
        while waiting:
            key, steps = waiting[-1]
            try:
                wanted = steps.send(value), trust
            except StopIteration as end:
                value = self._numbers[key] = end.value
                waiting.pop()
                continue
            if wanted not in self._numbers:
                self._numbers[wanted] = None  # an expression may lead back to itself, through Shape
                waiting.append((wanted, self._evaluate(*wanted)))
            value = self._numbers[wanted]
        return value

    @staticmethod
    def _wants(variable):
        return (yield variable)

    def _evaluate(self, variable, trust):
        if isinstance(variable, Constant):
            return variable.data
        node = variable.owner
        if node is None or getattr(variable, "ndim", 0) > 1 or len(node.outputs) > 1:
            return None
        if isinstance(node.op, Shape_i):
            return (yield from self._shape_i(node, trust))
        if isinstance(node.op, Shape):
            return (yield from self._shape(node.inputs[0], trust))
        if _is_switch(node):
            condition = yield node.inputs[0]
            return None if condition is None else (yield node.inputs[1 if condition else 2])
        nearer = self._same_number(variable)
        if nearer is not variable:
            return (yield nearer)
        values = []
        for x in node.inputs:
            values.append((yield x))
        known = isinstance(node.op, _ARITHMETIC) and not any(value is None for value in values)
        return _perform(node, values) if known else None

    def _shape(self, variable, trust):
        sizes = []
        for axis in range(variable.ndim):
            symbolic = self.symbolic(variable, axis)
            number = None if symbolic is None else (yield symbolic)
            sizes.append(self._size_of(variable, axis, trust, number))
        return None if None in sizes else np.asarray(sizes, "int64")

    def _shape_i(self, node, trust):
        variable, axis = node.inputs[0], node.op.i
        symbolic = self.symbolic(variable, axis)
        if symbolic is None or symbolic.owner is node or self._leaf_of(symbolic) == (variable, axis):
            return 1 if variable.broadcastable[axis] else self._leaf_size(variable, axis, trust)
        return (yield symbolic)

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
            return self._size_expression(node.inputs[0], node.op.i, size)
        if isinstance(node.op, (TensorFromScalar, ScalarFromTensor)):
            return node.inputs[0]
        if _scalar_op(node, scalar.IntDiv):
            return _quotient(node) or size
        if _is_switch(node):
            return self._chosen(node) or size
        element = _element(node)
        if element is not None:
            vector, index = element
            vector, value = _after_sets(vector, index)
            if value is not None:
                return value
            maker = vector.owner
            if maker is not None and isinstance(maker.op, Shape):
                return self._size_expression(maker.inputs[0], index, size)
            if maker is not None and isinstance(maker.op, MakeVector) and index < len(maker.inputs):
                return maker.inputs[index]
        return size

    def _size_expression(self, variable, axis, default):
        symbolic = self.symbolic(variable, axis) if axis < variable.ndim else None
        return default if symbolic is None else symbolic

    def _chosen(self, node):
        """Of a switch on a proven condition, the branch it takes. Of a size switch(eq(r, -1), ..., r), as of a Reshape to
        r: r, if that is a size and so not -1. Else None."""
        condition, _, size = node.inputs
        proven = self._number(condition, PROVEN)
        if proven is not None:
            return node.inputs[1 if proven else 2]
        test = condition.owner
        if test is None or not isinstance(getattr(test.op, "scalar_op", None), scalar.EQ) or test.inputs[0] is not size:
            return None
        return size if isinstance(self.origin(size), tuple) else None


def _original(variable):
    """What a contiguity copy copies: Theano's has no shape inference."""
    while variable.owner is not None and isinstance(variable.owner.op, CpuContiguous):
        variable = variable.owner.inputs[0]
    return variable


def _drawn_sizes(variable):
    """The sizes that MRG_RandomStreams was asked for, which has no shape inference; None for any other value."""
    node = variable.owner
    if node is None or not isinstance(node.op, mrg_uniform_base) or variable is node.outputs[0]:
        return None
    size = node.inputs[1]
    return size.owner.inputs if size.owner is not None and isinstance(size.owner.op, MakeVector) else None


def _after_sets(vector, index):
    """What is read at `index` of a vector with elements set one by one, as in Split's shape inference: the vector before
    these were set and None, or the vector and the scalar that was set there."""
    while vector.owner is not None and isinstance(vector.owner.op, IncSubtensor):
        (before, value, *indices), op = vector.owner.inputs, vector.owner.op
        if not op.set_instead_of_inc or isinstance(op.idx_list[0], slice):
            break
        try:
            place = int(get_scalar_constant_value(indices[0]))
        except NotScalarConstantError:
            break
        if place < 0 or (place == index and value.ndim):
            break
        if place == index:
            return vector, value
        vector = before
    return vector, None


def _scalar_op(node, op_class):
    """Whether a node is elementwise and its scalar op of this class."""
    return isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, op_class)


def _is_switch(node):
    return _scalar_op(node, scalar.Switch)


def factors(size):
    """(number, list of variables) whose product a size is."""
    if isinstance(size, Constant):
        return int(size.data), []
    if size.owner is None:
        return 1, [size]
    parts = size.owner.inputs if _scalar_op(size.owner, scalar.Mul) else _elements(size.owner)
    if not parts:
        return 1, [size]
    numbers, variables = zip(*map(factors, parts))
    return int(np.prod(numbers, dtype=np.int64)), sum(variables, [])


def _elements(node):
    """The scalars of which a node gives the product, as in prod(shape[1:]); none for any other node."""
    vector = node.inputs[0].owner if isinstance(node.op, Prod) else None
    return vector.inputs if vector is not None and isinstance(vector.op, MakeVector) else []


def _quotient(node):
    """Of (n * k) // k, as shape inference has it for a Reshape to -1: n, whatever k is. Else None."""
    (number, left), (divisor, right) = map(factors, node.inputs)
    for variable in right:
        if variable not in left:
            return None
        left.remove(variable)
    return left[0] if number == divisor != 0 and len(left) == 1 else None


def _element(node):
    """(vector, index) of a node that reads one element of a vector or of its slice at a constant index, else None."""
    index = _constant_index(node)
    if index is None or isinstance(index, slice):
        return None
    vector = node.inputs[0]
    while vector.owner is not None and isinstance(_constant_index(vector.owner), slice):
        cut = _constant_index(vector.owner)
        start = _from_front(cut.start or 0, vector.owner.inputs[0])
        if start is None or cut.step not in (None, 1):
            break
        vector, index = vector.owner.inputs[0], index + start
    return (vector, int(index)) if index >= 0 else None


def _from_front(start, vector):
    """Where a slice of a vector starts, counted from the front; None where it is counted from an end that is not known."""
    if start >= 0:
        return start
    try:
        return max(0, start + get_vector_length(vector))
    except ValueError:
        return None


def _constant_index(node):
    """The index or slice by which a node reads a vector, if that is constant; else None."""
    if type(node.op) is not Subtensor or node.inputs[0].ndim != 1:
        return None
    try:
        index, = node.op.get_constant_idx(node.inputs, only_process_constants=True)
    except (NotScalarConstantError, ValueError):  # a variable; or no index at all
        return None
    return index


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
