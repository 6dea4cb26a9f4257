"""The samples that every carrier rule is checked on: a node each, and the layout that its c01b version is to give.

All values are whole numbers or powers of two, on which sums and products are exact in any order, so that equal means equal.
"""
import itertools
from typing import Callable, NamedTuple, Optional

import numpy as np
import theano
import theano.tensor as tt
from theano import scalar
from theano.compile.ops import Shape, Shape_i, SpecifyShape
from theano.ifelse import IfElse
from theano.tensor import Argmax, MaxAndArgmax, Rebroadcast
from theano.tensor.blas import Dot22Scalar, _dot22, gemm_no_inplace
from theano.tensor.elemwise import CAReduce, Elemwise, Prod, ProdWithoutZeros, Sum
from theano.tensor.extra_ops import CpuContiguous, RepeatOp
from theano.tensor.nnet import nnet
from theano.tensor.nnet.bn import AbstractBatchNormInference, AbstractBatchNormTrain, AbstractBatchNormTrainGrad
from theano.tensor.opt import Assert

from layoutopt.kernels.activation import sigmoid, tanh
from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum
from layoutopt.kernels.relayout import to_bc01, to_c01b
from layoutopt.rewrites.layout import BC01, C01B


class Operands:
    """Makes a sample's operands; called with a shape. An axis of size 1 is broadcastable unless it is among `plain`."""

    def __init__(self, rng):
        self.rng = rng
        self.values = {}

    def __call__(self, *shape, dtype="float32", plain=()):
        flags = [size == 1 and axis not in plain for axis, size in enumerate(shape)]
        return self.holding(self.draw(shape, dtype), flags)

    def holding(self, value, flags):
        variable = tt.TensorType(value.dtype, flags)()
        self.values[variable] = value
        return variable

    def draw(self, shape, dtype="float32"):
        """Whole numbers, of which sums are exact; few, so that maxima are found more than once."""
        least = 0 if dtype in ("bool", "uint8") else -3
        return np.asarray(self.rng.randint(least, 4, shape)).astype(dtype)

    def powers(self, *shape):
        """An operand of powers of two, of which products are exact."""
        value = (self.rng.choice([-2, -1, 0.5, 1, 2], shape)).astype("float32")
        return self.holding(value, [size == 1 for size in shape])

    def shared(self, *shape):
        return theano.shared(self.draw(shape))


class Sample(NamedTuple):
    """A node to check.

    make : (Operands) -> an output of the node; or that and the list of outputs of the graph it is part of.
    gives : layout of the outputs of its c01b version, None if there must be no such version.
    """

    name: str
    make: Callable
    gives: Optional[str]


IMAGES = (5, 4, 3, 2)


def on_images(make):
    """A sample's `make` from a function of one operand, images."""
    return lambda new: make(new(*IMAGES))


# ---------------------------------------------------------------------------------------------------------------------
# Elementwise ops.

TWO_RESULTS = Elemwise(scalar.Composite(*(lambda a, b: ([a, b], [a + b, a * b]))(scalar.float32(), scalar.float32())))
ADD_IN_PLACE = Elemwise(scalar.Add(scalar.transfer_type(0)), {0: 0})
RANKS = {1: (5,), 2: (5, 4), 3: (5, 4, 3), 4: (5, 4, 3, 2), 5: (5, 4, 3, 2, 2)}

ELEMWISE = [
    *(Sample("unary, rank %d" % n, lambda new, n=n: tt.sqr(new(*RANKS[n])), C01B) for n in (2, 3, 4, 5)),
    Sample("our tanh", lambda new: tanh(new(*RANKS[4])), C01B),
    Sample("our sigmoid", lambda new: sigmoid(new(*RANKS[4])), C01B),
    Sample("unary, rank 0", lambda new: tt.sqr(new()), None),
    Sample("unary, rank 1", lambda new: tt.sqr(new(5)), None),
    *(Sample("binary, rank %d" % n, lambda new, n=n: new(*RANKS[n]) - new(*RANKS[n]), C01B) for n in (2, 3, 4, 5)),
    *(Sample("operand %s" % (shape,), lambda new, shape=shape: new(*IMAGES) - new(*shape), C01B)
      for shape in itertools.product((1, 5), (1, 4), (1, 3), (1, 2))),
    *(Sample("operand %s of a matrix" % (shape,), lambda new, shape=shape: new(*shape) - new(5, 4), C01B)
      for shape in itertools.product((1, 5), (1, 4))),
    Sample("both operands broadcast", lambda new: new(5, 1, 3, 1) - new(1, 4, 1, 2), C01B),
    Sample("one image", lambda new: new(1, 4, 3, 2) - new(1, 4, 3, 2), C01B),
    Sample("size 1 that may grow", lambda new: new(1, 4, 1, 2, plain=(0, 2)) - new(1, 4, 1, 2, plain=(0, 2)), C01B),
    Sample("all broadcast", lambda new: new(1, 1, 1, 1) - new(1, 1, 1, 1), C01B),
    Sample("scalar variable", lambda new: new(*IMAGES) - new(), C01B),
    Sample("scalar constant", on_images(lambda x: x - np.float32(2)), C01B),
    Sample("bias vector of a matrix", lambda new: new(5, 4) - new(4), C01B),
    Sample("constant (1, 4, 1, 1)", lambda new: new(*IMAGES) - tt.constant(new.draw((1, 4, 1, 1))), C01B),
    Sample("constant (5, 4, 3, 2)", lambda new: tt.constant(new.draw((5, 4, 3, 2))) - new(*IMAGES), C01B),
    Sample("float32 and int8", lambda new: new(*IMAGES) - new(5, 4, 3, 2, dtype="int8"), C01B),
    Sample("float32 and float64", lambda new: new(*IMAGES) - new(1, 4, 1, 1, dtype="float64"), C01B),
    Sample("integers", lambda new: new(5, 4, 3, 2, dtype="int16") // new(1, 1, 3, 2, dtype="uint8"), C01B),
    Sample("comparison", lambda new: tt.gt(new(*IMAGES), new(1, 4, 1, 1)), C01B),
    Sample("booleans", lambda new: tt.and_(new(5, 4, 3, 2, dtype="bool"), new(5, 1, 1, 1, dtype="bool")), C01B),
    Sample("cast", on_images(lambda x: tt.cast(x, "int32")), C01B),
    Sample("switch", lambda new: tt.switch(new(5, 4, 3, 2, dtype="bool"), new(*IMAGES), np.float32(0)), C01B),
    Sample("switch by channel",
           lambda new: tt.switch(new(1, 4, 1, 1, dtype="bool"), new(*IMAGES), new(5, 1, 3, 2)), C01B),
    Sample("clip", lambda new: tt.clip(new(*IMAGES), np.float32(-1), new(1, 4, 1, 1)), C01B),
    Sample("fill", lambda new: tt.second(new(*IMAGES), new()), C01B),
    Sample("fill with a tensor", lambda new: tt.second(new(5, 1, 3, 1), new(*IMAGES)), C01B),
    Sample("two results", lambda new: TWO_RESULTS(new(*IMAGES), new(1, 4, 1, 1))[1], C01B),
    Sample("in place", lambda new: ADD_IN_PLACE(new(*IMAGES), new(1, 4, 1, 1)), C01B),
    Sample("five operands", lambda new: tt.add(*(new(*shape) for shape in (
        (5, 4, 3, 2), (1, 4, 1, 1), (1, 1, 1, 1), (5, 1, 1, 1), (1, 4, 3, 2)))), C01B),
]

# ---------------------------------------------------------------------------------------------------------------------
# DimShuffle. A version of one must move no data, or where none could, move what lies together along the last axis as one.


def shuffle(shape, *order):
    return lambda new: new(*shape).dimshuffle(*order)


def shuffles(gives, *table):
    return [Sample("%s by %s" % (shape, " ".join(map(str, order))), shuffle(shape, *order), gives)
            for shape, order in table]


PERMUTATIONS = sorted(set(itertools.permutations(range(4))) - {(0, 1, 2, 3), (1, 2, 3, 0), (3, 0, 1, 2)})
DIMSHUFFLE = [
    # biases and the like: one dimension among broadcast ones
    *shuffles(C01B, ((), "xx"), ((), "xxxx"), ((4,), ("x", 0)), ((4,), (0, "x")), ((4,), ("x", 0, "x", "x")),
              ((4,), (0, "x", "x", "x")), ((4,), ("x", "x", "x", 0))),
    *shuffles(None, ((), "x")),
    # new axes
    *shuffles(C01B, ((5, 4), (0, 1, "x", "x")), ((5, 4), (0, "x", 1)), ((5, 4), ("x", 0, 1)),
              ((4, 3, 2), (0, "x", 1, 2)), ((4, 3, 2), ("x", 0, 1, 2)), ((4, 3, 2), (0, 1, 2, "x")),
              ((5, 4, 3, 2), (0, "x", 1, 2, 3)), ((5, 4, 3, 2), ("x", 0, 1, 2, 3))),
    # broadcast axes dropped
    *shuffles(C01B, ((5, 4, 1, 1), (0, 1)), ((5, 4, 3, 1), (0, 1, 2)), ((5, 4, 1, 2), (0, 1, 3)),
              ((5, 1, 3, 2), (0, 2, 3)), ((5, 1, 3, 2), (0, "x", 2, 3)), ((5, 1, 3, 2), (0, 2, "x", 3)),
              ((1, 4, 1, 1), (0, 1))),
    *shuffles(BC01, ((1, 4, 3, 2), (1, 2, 3)), ((5, 1, 1, 1), (0,)), ((1, 4, 1, 1), (1,)), ((1, 1, 1, 1), ()),
              ((1, 4), (1,)), ((5, 1), (0,))),
    *shuffles(None, ((1,), ())),
    # conversions that a program writes itself
    *shuffles(BC01, ((5, 4), (1, 0)), ((5, 4, 3), (1, 2, 0)), ((5, 4, 3, 2), (1, 2, 3, 0)),
              ((5, 4, 3, 2, 2), (1, 2, 3, 4, 0))),
    *shuffles(C01B, ((5, 4, 3), (2, 0, 1)), ((5, 4, 3, 2), (3, 0, 1, 2)), ((5, 4, 3, 2, 2), (4, 0, 1, 2, 3))),
    # other permutations: data moves in any layout, in runs where an axis that is last somewhere is so before and after
    *shuffles(C01B, *(((5, 4, 3, 2), order) for order in PERMUTATIONS if order[0] in (0, 3) and order[-1] != 0)),
    *shuffles(BC01, *(((5, 4, 3, 2), order) for order in PERMUTATIONS if order[-1] == 0)),
    *shuffles(None, *(((5, 4, 3, 2), order) for order in PERMUTATIONS if order[0] in (1, 2) and order[-1] != 0)),
    *shuffles(C01B, ((5, 4, 3), (0, 2, 1))),
    *shuffles(BC01, ((5, 4, 3), (2, 1, 0))),
    *shuffles(None, ((5, 4, 3), (1, 0, 2))),
    # the same where the moved axis is broadcast
    *shuffles(BC01, ((1, 4, 3, 2), (1, 0, 2, 3))),
    *shuffles(C01B, ((5, 1, 3, 2), (0, 2, 3, 1)), ((5, 4, 3, 1), (0, 3, 1, 2))),
    # what keepdims is made of
    Sample("keepdims of a channel sum", on_images(lambda x: x.sum(axis=1, keepdims=True)), C01B),
    Sample("keepdims of a batch sum", on_images(lambda x: x.sum(axis=0, keepdims=True)), C01B),
    Sample("keepdims of a sum of all", on_images(lambda x: x.sum(keepdims=True)), C01B),
]


def feeding(product):
    """A transposed matrix, and the graph's outputs: what `product(operands, it)` makes of it."""

    def make(new):
        transposed = new(5, 4).T
        return transposed, product(new, transposed)

    return make


TRANSPOSED = [
    Sample("left of Dot", feeding(lambda new, t: [tt.dot(t, new(5, 3))]), None),
    Sample("right of Dot", feeding(lambda new, t: [tt.dot(new(3, 4), t)]), None),
    Sample("left and right", feeding(lambda new, t: [_dot22(t, new(5, 3)), _dot22(new(3, 4), t)]), None),
    Sample("left of a vector", feeding(lambda new, t: [tt.dot(t, new(5))]), None),
    Sample("in Dot22Scalar", feeding(lambda new, t: [Dot22Scalar()(t, new(5, 3), new())]), None),
    Sample("in Gemm", feeding(lambda new, t: [gemm_no_inplace(new(4, 3), new(), t, new(5, 3), new())]), None),
    Sample("added to by Gemm", feeding(lambda new, t: [gemm_no_inplace(t, new(), new(4, 3), new(3, 5), new())]), BC01),
    Sample("multiplied and returned", feeding(lambda new, t: [tt.dot(t, new(5, 3)), t]), BC01),
    Sample("multiplied and added", feeding(lambda new, t: [tt.dot(t, new(5, 3)), t + new(4, 5)]), BC01),
]

# ---------------------------------------------------------------------------------------------------------------------
# Reductions over every subset of the axes.


def subsets(ndim, least=1):
    return (axes for count in range(least, ndim + 1) for axes in itertools.combinations(range(ndim), count))


def reduced(ndim, axes):
    """The layout that a reduction gives in c01b."""
    return C01B if 0 not in axes and ndim - len(axes) >= 2 else BC01


REDUCERS = {
    "sum": lambda new, shape, axes: new(*shape).sum(axis=axes),
    "prod": lambda new, shape, axes: new.powers(*shape).prod(axis=axes),
    "max": lambda new, shape, axes: CAReduce(scalar.maximum, axes)(new(*shape)),
    "min": lambda new, shape, axes: CAReduce(scalar.minimum, axes)(new(*shape)),
    "all": lambda new, shape, axes: tt.all(new(*shape, dtype="bool"), axis=axes),
    "any": lambda new, shape, axes: tt.any(new(*shape, dtype="bool"), axis=axes),
}

REDUCTIONS = [
    *(Sample("%s of rank %d over %s" % (name, ndim, axes),
             lambda new, reduce=reduce, ndim=ndim, axes=axes: reduce(new, RANKS[ndim], axes), reduced(ndim, axes))
      for name, reduce in REDUCERS.items() for ndim in (2, 3, 4) for axes in subsets(ndim)),
    *(Sample("sum with a broadcast batch over %s" % (axes,), lambda new, axes=axes: new(1, 4, 3, 2).sum(axis=axes),
             reduced(4, axes)) for axes in subsets(4)),
    *(Sample("sum with broadcast channels over %s" % (axes,), lambda new, axes=axes: new(5, 1, 3, 2).sum(axis=axes),
             reduced(4, axes)) for axes in subsets(4)),
    Sample("sum of all", on_images(lambda x: x.sum()), BC01),
    Sample("sum over no axis", on_images(lambda x: Sum(axis=())(x)), C01B),
    Sample("sum over -1", on_images(lambda x: x.sum(axis=-1)), C01B),
    Sample("sum over -4", on_images(lambda x: x.sum(axis=-4)), BC01),
    Sample("sum over (-1, 1)", on_images(lambda x: x.sum(axis=(-1, 1))), C01B),
    Sample("sum of rank 5 over (2, 4)", lambda new: new(5, 4, 3, 2, 2).sum(axis=(2, 4)), C01B),
    Sample("sum of int8", lambda new: new(5, 4, 3, 2, dtype="int8").sum(axis=1), C01B),
    Sample("sum, dtype", on_images(lambda x: x.sum(axis=1, dtype="float64", acc_dtype="float64")), C01B),
    Sample("sum, acc_dtype", on_images(lambda x: Sum(axis=(0, 2), acc_dtype="float64")(x)), BC01),
    Sample("prod, acc_dtype", lambda new: Prod(axis=(2, 3), acc_dtype="float64")(new.powers(5, 4, 3, 2)), C01B),
    Sample("prod without zeros", lambda new: ProdWithoutZeros(axis=(1,))(new.powers(5, 4, 3, 2)), C01B),
    Sample("sum within a mean", on_images(lambda x: tt.mean(x, axis=1).owner.inputs[0]), C01B),
    Sample("division within a mean", on_images(lambda x: tt.mean(x, axis=1)), C01B),
    Sample("sum of a vector", lambda new: new(5).sum(), None),
]


def arg_samples(name, make):
    several = (axes for ndim in (2, 3, 4) for axes in subsets(ndim, 2))
    single = ((axis,) for axis in range(4))
    return [
        *(Sample("%s of rank %d over %s" % (name, ndim, axes),
                 lambda new, ndim=ndim, axes=axes: make(axes)(new(*RANKS[ndim])), reduced(ndim, axes))
          for axes in single for ndim in (2, 3, 4) if axes[0] < ndim),
        # the index counts through the axes, in an order that c01b would change
        *(Sample("%s over %s" % (name, axes), lambda new, axes=axes: make(axes)(new(*IMAGES)),
                 None if 0 in axes else reduced(4, axes)) for axes in sorted(set(several))),
        Sample("%s over (2, 1), in this order" % name, on_images(lambda x: make((2, 1))(x)), None),
        Sample("%s of a vector" % name, lambda new: make((0,))(new(5)), None),
    ]


ARG_REDUCTIONS = (arg_samples("argmax", lambda axes: Argmax(axes))
                  + arg_samples("max and argmax", lambda axes: lambda x: MaxAndArgmax(list(axes))(x)[1]))

# ---------------------------------------------------------------------------------------------------------------------
# Reshape: only where the batch provably stays.


def images(new):
    """Images whose channels, rows and columns the graph proves to be 4, 3 and 2."""
    flat = new(5, 24)
    return flat.reshape((flat.shape[0], 4, 3, 2))


def back(new, shape_of):
    """A flattened tensor made images again, with the shape that `shape_of` takes from these."""
    x = new(5, 4, 1, 2)
    return tt.sqr(x).flatten(2).reshape(shape_of(x), ndim=4)


def twice(new):
    """Reshaped to (n, 24) and then to (n, 12): the same n, yet the batch doubles, for n is -1."""
    n = new.holding(np.array(-1), ())
    return new(5, 24).reshape((n, 24)).reshape((n, 12))


RESHAPES = [
    *(Sample("flatten(2) of rank %d" % n, lambda new, n=n: new(*RANKS[n]).flatten(2), C01B) for n in (3, 4, 5)),
    Sample("flatten(3)", on_images(lambda x: x.flatten(3)), C01B),
    Sample("(shape[0], -1)", on_images(lambda x: x.reshape((x.shape[0], -1))), C01B),
    Sample("(shape[0], 24)", on_images(lambda x: x.reshape((x.shape[0], 24))), C01B),
    Sample("(shape[0], 4, -1)", on_images(lambda x: x.reshape((x.shape[0], 4, -1))), C01B),
    Sample("(shape[0], 2, 12), channels split", on_images(lambda x: x.reshape((x.shape[0], 2, 12))), C01B),
    Sample("(shape[0], shape[1] * 6)", on_images(lambda x: x.reshape((x.shape[0], x.shape[1] * 6))), C01B),
    Sample("a matrix made images", images, C01B),
    Sample("images of one row", on_images(lambda x: x.reshape((x.shape[0], 4, 1, 6))), C01B),
    Sample("another's shape[0]", on_images(lambda x: (x * 2).reshape((x.shape[0], -1))), C01B),
    Sample("back to a given shape", lambda new: back(new, lambda x: x.shape), C01B),
    Sample("back to given sizes", lambda new: back(new, lambda x: tuple(x.shape[i] for i in range(4))), C01B),
    Sample("constant, of one image", lambda new: new(1, 4, 3, 2).reshape((1, 24)), C01B),
    Sample("constant, of a constant batch", lambda new: tt.alloc(new(), 5, 4, 3, 2).reshape((5, 24)), C01B),
    Sample("(-1, 24), the rest proven", lambda new: images(new).reshape((-1, 24)), C01B),
    Sample("(-1, 6, 4), the rest proven", lambda new: images(new).reshape((-1, 6, 4)), C01B),
    Sample("(-1, half, 2)", lambda new: images(new).reshape((-1, 12, 2)), C01B),
    Sample("(-1, all else)", on_images(lambda x: x.reshape((-1, x.shape[1] * x.shape[2] * x.shape[3]))), C01B),
    Sample("(-1, shape[3], all else)", on_images(lambda x: x.reshape((-1, x.shape[3], x.shape[1] * x.shape[2]))), C01B),
    # the present sizes say so
    Sample("shared, its present size", lambda new: new.shared(5, 4, 3, 2).reshape((5, 24)), C01B),
    Sample("shared, -1", lambda new: new.shared(5, 4, 3, 2).reshape((-1, 1, 24)), C01B),
    Sample("a constant batch, after a product", lambda new: tt.dot(new(5, 3), new.shared(3, 24)).reshape((5, 4, 3, 2)), C01B),
    Sample("shared, merges", lambda new: new.shared(5, 4, 3, 2).reshape((20, 6)), None),
    # the batch changes
    Sample("(-1, 12) merges", lambda new: images(new).reshape((-1, 12)), None),
    Sample("(-1, shape[2], 2) merges", on_images(lambda x: x.reshape((-1, x.shape[2], 2))), None),
    Sample("(-1, shape[1]) merges", on_images(lambda x: x.reshape((-1, x.shape[1]))), None),
    Sample("(-1, shape[1] * 3) merges", on_images(lambda x: x.reshape((-1, x.shape[1] * 3))), None),
    Sample("(-1, 2), constant, merges", on_images(lambda x: x.reshape((-1, 2))), None),
    Sample("(shape[0] * shape[1], -1)", on_images(lambda x: x.reshape((x.shape[0] * x.shape[1], -1))), None),
    Sample("constant merges", lambda new: tt.alloc(new(), 5, 4, 3, 2).reshape((10, 12)), None),
    Sample("(shape[1], ...)", on_images(lambda x: x.reshape((x.shape[1], -1))), None),
    # it stays, but who knows
    Sample("(-1, 24), nothing proven", on_images(lambda x: x.reshape((-1, 24))), None),
    Sample("(5, 24), nothing proven", on_images(lambda x: x.reshape((5, 24))), None),
    Sample("a variable number", lambda new: new(*IMAGES).reshape((new.holding(np.int64(5)[...], ()), 24)), None),
    Sample("a variable number twice, which may be -1", twice, None),
    Sample("a variable vector",
           lambda new: new(*IMAGES).reshape(new.holding(np.array([5, 24]), (False,)), ndim=2), None),
    Sample("joined sizes", on_images(lambda x: x.reshape(tt.concatenate([x.shape[:1], [24]]), ndim=2)), None),
    # ranks in which there is no layout
    Sample("of a vector", lambda new: new(20).reshape((5, 4)), None),
    Sample("to a vector", on_images(lambda x: x.reshape((-1,))), None),
]

# ---------------------------------------------------------------------------------------------------------------------
# Products, sizes, promises, copies and conversions.

PRODUCTS = [
    Sample("Dot", lambda new: tt.Dot()(new(5, 4), new(4, 3)), C01B),
    Sample("Dot of a transposed left", lambda new: tt.Dot()(new(4, 5).T, new(4, 3)), C01B),
    Sample("Dot of a transposed right", lambda new: tt.Dot()(new(5, 4), new(3, 4).T), C01B),
    Sample("Dot with a constant", lambda new: tt.Dot()(new(5, 4), tt.constant(new.draw((4, 3)))), C01B),
    Sample("Dot of integers", lambda new: tt.Dot()(new(5, 4, dtype="int32"), new(4, 3, dtype="int8")), C01B),
    Sample("Dot, mixed", lambda new: tt.Dot()(new(5, 4), new(4, 3, dtype="float64")), C01B),
    Sample("Dot of one row", lambda new: tt.Dot()(new(1, 4), new(4, 3)), C01B),
    Sample("Dot giving one column", lambda new: tt.Dot()(new(5, 4), new(4, 1)), C01B),
    Sample("Dot with a vector", lambda new: tt.Dot()(new(5, 4), new(4)), None),
    Sample("Dot of a vector", lambda new: tt.Dot()(new(5), new(5, 4)), None),
    Sample("Dot of vectors", lambda new: tt.Dot()(new(5), new(5)), None),
    Sample("Dot22", lambda new: _dot22(new(5, 4), new(4, 3)), C01B),
    Sample("Dot22 of a square with itself", lambda new: (lambda x: _dot22(x, x))(new(4, 4)), C01B),
    Sample("Dot22 of transposed matrices", lambda new: _dot22(new(4, 5).T, new(3, 4).T), C01B),
    Sample("Dot22Scalar", lambda new: Dot22Scalar()(new(5, 4), new(4, 3), new()), C01B),
    Sample("Gemm", lambda new: gemm_no_inplace(new(5, 3), new(), new(5, 4), new(4, 3), new()), C01B),
    Sample("Gemm, constants",
           lambda new: gemm_no_inplace(new(5, 3), np.float32(2), new(5, 4), new(4, 3), np.float32(1)), C01B),
]


def row_wise(op, *more):
    """`op` of a matrix and further operands (makers of them)."""
    return lambda new: op(new(5, 4), *(make(new) for make in more))


def classes(new):
    return new.holding(np.array([3, 0, 1, 1, 2]), (False,))


def spread(new):
    """Probabilities (5, 4), powers of two."""
    return new.holding(np.array([[1, 2, 4, 1], [4, 1, 1, 2]] * 2 + [[2, 2, 2, 2]], "float32") / 8, (False, False))


ROW_WISE = [
    Sample("softmax", row_wise(nnet.Softmax()), C01B),
    Sample("logarithm of softmax", row_wise(nnet.LogSoftmax()), C01B),
    Sample("softmax with a bias", row_wise(nnet.SoftmaxWithBias(), lambda new: new(4)), C01B),
    Sample("gradient of softmax", row_wise(nnet.SoftmaxGrad(), spread), C01B),
    Sample("softmax into cross-entropy", lambda new: nnet.CrossentropySoftmaxArgmax1HotWithBias()(
        new(5, 4), new(4), classes(new), return_list=True)[1], C01B),
    Sample("its gradient", lambda new: nnet.CrossentropySoftmax1HotWithBiasDx()(new(5), spread(new), classes(new)), C01B),
    Sample("cross-entropy", lambda new: nnet.CrossentropyCategorical1Hot()(spread(new), classes(new)), None),
    Sample("gradient of cross-entropy",
           lambda new: nnet.CrossentropyCategorical1HotGrad()(new(5), spread(new), classes(new)), C01B),
]

REPEATS = [
    *(Sample("rank %d, a vector of counts along %d" % (n, axis), lambda new, axis=axis, shape=RANKS[n]: RepeatOp(axis)(
        new(*shape), new.holding(np.arange(shape[axis]), (False,))), C01B) for n in (2, 4) for axis in range(-1, n)),
    Sample("scalar count", lambda new: RepeatOp(2)(new(*IMAGES), new.holding(np.array(2), ())), C01B),
    Sample("flattened", lambda new: RepeatOp()(new(*IMAGES), new.holding(np.array(2), ())), None),
    Sample("a vector repeated", lambda new: RepeatOp(0)(new(5), new.holding(np.array(2), ())), None),
]

REBROADCASTS = [
    Sample("channels are 1", lambda new: Rebroadcast((1, True))(new(5, 1, 3, 2, plain=(1,))), C01B),
    Sample("batch is 1", lambda new: Rebroadcast((0, True))(new(1, 4, 3, 2, plain=(0,))), C01B),
    Sample("batch may grow", lambda new: Rebroadcast((0, False))(new(1, 4, 3, 2)), C01B),
    Sample("several axes", lambda new: Rebroadcast((0, False), (3, True))(new(1, 4, 3, 1, plain=(3,))), C01B),
    Sample("matrix", lambda new: Rebroadcast((1, True))(new(5, 1, plain=(1,))), C01B),
    Sample("promise about a vector", lambda new: Rebroadcast((0, True))(new(1, plain=(0,))), None),
]

ALLOCS = [
    Sample("scalar", lambda new: tt.alloc(new(), 5, 4, 3, 2), C01B),
    Sample("scalar constant", lambda new: tt.alloc(np.float32(0), 5, 4, 3, 2), C01B),
    Sample("like another", on_images(lambda x: tt.alloc(np.float32(1), *(x.shape[i] for i in range(4)))), C01B),
    Sample("with sizes of 1", lambda new: tt.alloc(new(), 1, 4, 1, 2), C01B),
    Sample("(1, 4, 1, 1) spread", lambda new: tt.alloc(new(1, 4, 1, 1), 5, 4, 3, 2), C01B),
    Sample("(5, 1, 3, 2) spread", lambda new: tt.alloc(new(5, 1, 3, 2), 5, 4, 3, 2), C01B),
    Sample("(1, 1, 1, 1) spread", lambda new: tt.alloc(new(1, 1, 1, 1), 5, 4, 3, 2), C01B),
    Sample("(1, 4) spread", lambda new: tt.alloc(new(1, 4), 5, 4), C01B),
    Sample("a plane spread", lambda new: tt.alloc(new(3, 2), 5, 4, 3, 2), C01B),
    Sample("an image spread", lambda new: tt.alloc(new(4, 3, 2), 5, 4, 3, 2), C01B),
    Sample("an image of one channel spread", lambda new: tt.alloc(new(1, 3, 2), 5, 4, 3, 2), C01B),
    Sample("a row spread", lambda new: tt.alloc(new(4), 5, 4), C01B),
    Sample("a vector of 1 spread", lambda new: tt.alloc(new(1), 5, 4, 3), C01B),
    Sample("nearest neighbours, spread", lambda new: tt.alloc(new(5, 4, 3, 1, 2, 1), 5, 4, 3, 2, 2, 2), C01B),
    Sample("repeated rows, spread",
           on_images(lambda x: tt.repeat(x, 2, axis=2).owner.inputs[0]), C01B),
    Sample("a new vector", lambda new: tt.alloc(new(), 5), None),
]

PROMISED_SIZES = [
    Sample("constant", on_images(lambda x: SpecifyShape()(x, (5, 4, 3, 2))), C01B),
    Sample("computed", on_images(lambda x: SpecifyShape()(x, tt.sqr(x).shape)), C01B),
    Sample("numbers", lambda new: SpecifyShape()(new(5, 4), tt.stack([new(5, 3).shape[0], 4])), C01B),
    Sample("of a vector", lambda new: SpecifyShape()(new(5), (5,)), None),
]

SIZES = [
    *(Sample("size %d of rank %d" % (axis, n), lambda new, axis=axis, n=n: Shape_i(axis)(new(*RANKS[n])), None)
      for n in (1, 2, 3, 4, 5) for axis in range(n)),
    *(Sample("shape, rank %d" % n, lambda new, n=n: Shape()(new(*RANKS[n])), None) for n in (1, 2, 3, 4, 5)),
    Sample("shape of a scalar", lambda new: Shape()(new()), None),
    Sample("shape with broadcast axes", lambda new: Shape()(new(1, 4, 1, 1)), None),
]

COPIES = [
    *(Sample("contiguous, rank %d" % n, lambda new, n=n: CpuContiguous()(new(*RANKS[n])), C01B) for n in (2, 4)),
    Sample("contiguous vector", lambda new: CpuContiguous()(new(5)), None),
    *(Sample("to c01b, rank %d" % n, lambda new, n=n: to_c01b(new(*RANKS[n])), BC01) for n in (2, 3, 4, 5)),
    *(Sample("to bc01, rank %d" % n, lambda new, n=n: to_bc01(new(*RANKS[n])), C01B) for n in (2, 3, 4, 5)),
    Sample("to c01b with broadcast axes", lambda new: to_c01b(new(1, 4, 1, 2)), BC01),
    Sample("to bc01 with broadcast axes", lambda new: to_bc01(new(1, 4, 1, 2)), C01B),
]

# ---------------------------------------------------------------------------------------------------------------------
# Joins and splits along every axis of every rank.


def joined(axis, *shapes, **kwargs):
    return lambda new: tt.Join()(axis, *(new(*shape, **kwargs) for shape in shapes))


def resized(shape, axis, size):
    return shape[:axis] + (size,) + shape[axis + 1:]


JOINS = [
    *(Sample("rank %d along %d" % (n, axis), joined(axis, RANKS[n], resized(RANKS[n], axis, 3), RANKS[n]), C01B)
      for n in (2, 3, 4, 5) for axis in range(n)),
    *(Sample("along %d" % axis, joined(axis, IMAGES, IMAGES), C01B) for axis in (-1, -2, -3, -4)),
    Sample("sizes of 1", joined(1, (5, 1, 3, 2), (5, 1, 3, 2)), C01B),
    Sample("single images", joined(0, (1, 4, 3, 2), (1, 4, 3, 2)), C01B),
    Sample("one flag of two", lambda new: tt.Join()(1, new(1, 4, 3, 1), new(1, 2, 3, 1, plain=(0, 3))), C01B),
    Sample("one operand", joined(1, IMAGES), C01B),
    Sample("one operand is empty", joined(1, IMAGES, (5, 0, 3, 2)), C01B),
    Sample("a view of the first", lambda new: tt.Join(view=0)(1, new(*IMAGES), new(5, 0, 3, 2)), C01B),
    Sample("integers", joined(3, IMAGES, IMAGES, dtype="int8"), C01B),
    Sample("int8 and float32", lambda new: tt.Join()(0, new(5, 4, dtype="int8"), new(3, 4)), C01B),
    Sample("a constant", lambda new: tt.Join()(1, new(*IMAGES), tt.constant(new.draw((5, 1, 3, 2)))), C01B),
    Sample("a variable axis", lambda new: tt.Join()(new.holding(np.array(1), ()), new(*IMAGES), new(*IMAGES)), None),
    Sample("vectors", joined(0, (5,), (4,)), None),
]


def splits(axis, sizes, shape):
    return lambda new: tt.Split(len(sizes))(new(*shape), axis, np.array(sizes))[1]


SPLITS = [
    *(Sample("rank %d along %d" % (n, axis), splits(axis, (1, RANKS[n][axis] - 1), RANKS[n]), C01B)
      for n in (2, 3, 4) for axis in range(n)),
    *(Sample("along %d" % axis, splits(axis, (2, IMAGES[axis] - 2), IMAGES), C01B) for axis in (-1, -2, -3, -4)),
    Sample("into three", splits(1, (1, 0, 3), IMAGES), C01B),
    Sample("variable sizes",
           lambda new: tt.Split(2)(new(*IMAGES), 1, new.holding(np.array([1, 3]), (False,)))[0], C01B),
    Sample("a variable axis",
           lambda new: tt.Split(2)(new(*IMAGES), new.holding(np.array(1), ()), np.array([1, 3]))[0], None),
    Sample("a vector", splits(0, (2, 3), (5,)), None),
]

# ---------------------------------------------------------------------------------------------------------------------
# Parts: integers and slices, constant and variable, on every axis. An integer drops its axis.

INDICES = {
    "[1]": lambda i: (1,), "[-1]": lambda i: (-1,), "[i]": lambda i: (i,), "[1:]": lambda i: (np.s_[1:],),
    "[:-1]": lambda i: (np.s_[:-1],), "[::2]": lambda i: (np.s_[::2],), "[::-1]": lambda i: (np.s_[::-1],),
    "[i:]": lambda i: (np.s_[i:],), "[:i:-1]": lambda i: (np.s_[:i:-1],), "[-i:]": lambda i: (np.s_[-i:],),
    "[5:1]": lambda i: (np.s_[5:1],),
    "[:, 1]": lambda i: np.s_[:, 1], "[:, i:]": lambda i: np.s_[:, i:], "[:, ::-1]": lambda i: np.s_[:, ::-1],
    "[1, 1]": lambda i: np.s_[1, 1], "[i:, 1]": lambda i: np.s_[i:, 1], "[1, i:]": lambda i: np.s_[1, i:],
    "[::2, ::-2]": lambda i: np.s_[::2, ::-2],
    "[..., 1]": lambda i: np.s_[..., 1], "[..., i:]": lambda i: np.s_[..., i:],
    "[1, ..., 1:]": lambda i: np.s_[1, ..., 1:], "[..., 1:, :-1]": lambda i: np.s_[..., 1:, :-1],
    "[..., 0, 1]": lambda i: np.s_[..., 0, 1], "[:, :i, 1]": lambda i: np.s_[:, :i, 1],
    "[1:, 1, i:]": lambda i: np.s_[1:, 1, i:], "[1, i, 1:]": lambda i: np.s_[1, i, 1:],
    "[i, :, i]": lambda i: np.s_[i, :, i], "[:, i, i]": lambda i: np.s_[:, i, i],
    "[:, :, 1:-1, 1:]": lambda i: np.s_[:, :, 1:-1, 1:], "[i:, ::2, 1, i]": lambda i: np.s_[i:, ::2, 1, i],
    "[1, 1, 1, 1]": lambda i: np.s_[1, 1, 1, 1], "[:, i, 1, 1]": lambda i: np.s_[:, i, 1, 1],
    "[i, :, 1, i]": lambda i: np.s_[i, :, 1, i],
}


def length(index):
    return sum(entry is not Ellipsis for entry in index)


def part(name, ndim, new):
    """The part that `INDICES` names of a new operand of rank `ndim`, with the variable index 1."""
    i = new.holding(np.array(1), ())
    return new(*RANKS[ndim])[INDICES[name](i)]


def left_by(name, ndim):
    """What the c01b version of that part is given in."""
    index = INDICES[name](1)
    dropped = sum(isinstance(entry, int) for entry in index)
    return BC01 if isinstance(index[0], int) or ndim - dropped < 2 else C01B


INDEXED = [(name, ndim) for name, index in INDICES.items() for ndim in (2, 3, 4, 5)
           if length(index(1)) <= ndim and not (index(1)[0] is Ellipsis and length(index(1)) == ndim)]

SUBTENSORS = [
    *(Sample("rank %d%s" % (ndim, name), lambda new, name=name, ndim=ndim: part(name, ndim, new), left_by(name, ndim))
      for name, ndim in INDEXED),
    Sample("one image of many", on_images(lambda x: x[:1]), C01B),
    Sample("of one image", lambda new: new(1, 4, 3, 2)[0:1], C01B),
    Sample("of one channel", lambda new: new(5, 1, 3, 2)[:, 0], C01B),
    Sample("of one channel, kept", lambda new: new(5, 1, 3, 2)[:, :1, 1:], C01B),
    Sample("of a vector", lambda new: new(5)[1:], None),
    Sample("an image of a vector of images", lambda new: new(5, 4)[1], BC01),
]


def changed(change, name, ndim, y_shape):
    """`change` of a part of a new operand by a value of the shape that `y_shape` makes of the part's own."""

    def make(new):
        whole = part(name, ndim, new)
        shape = np.zeros(RANKS[ndim])[INDICES[name](1)].shape
        return change(whole, new(*y_shape(shape)))

    return make


VALUES = {
    "alike": lambda shape: shape,
    "a number": lambda shape: (),
    "all 1": lambda shape: (1,) * len(shape),
    "lower rank": lambda shape: shape[1:],
    "a vector": lambda shape: shape[-1:],
    "one of the first axis": lambda shape: (1,) + shape[1:],
    "one of the last axis": lambda shape: shape[:-1] + (1,),
}

INC_SUBTENSORS = [
    *(Sample("%s rank %d%s, %s" % (change.__name__.split("_")[0], ndim, name, value),
             changed(change, name, ndim, VALUES[value]), C01B)
      for change, value in itertools.product((tt.set_subtensor, tt.inc_subtensor), VALUES) for name, ndim in INDEXED
      if (ndim == 4 or value == "alike") and name != "[5:1]"
      and len(np.zeros(RANKS[ndim])[INDICES[name](1)].shape) >= (value not in ("alike", "a number", "all 1"))),
    Sample("set a constant", on_images(lambda x: tt.set_subtensor(x[:, :, 1:], np.float32(0))), C01B),
    Sample("zeros around",
           lambda new: tt.set_subtensor(tt.alloc(np.float32(0), 5, 4, 5, 4)[:, :, 1:-1, 1:-1], new(*IMAGES)), C01B),
    Sample("in place", on_images(lambda x: tt.set_subtensor(x[1:], np.float32(0), inplace=True)), None),
    Sample("of a vector", lambda new: tt.inc_subtensor(new(5)[1:], new(4)), None),
]

# ---------------------------------------------------------------------------------------------------------------------
# Batch normalization, on data of which means are exact; branches and assertions.

POWERS_OF_TWO = {2: (4, 8), 3: (4, 8, 2), 4: (4, 8, 2, 1), 5: (4, 8, 2, 2, 4)}


def kept(ndim, axes):
    """The shape of what is left by normalization over `axes`."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(POWERS_OF_TWO[ndim]))


def normalized(ndim, axes, running=False):
    def make(new):
        other = kept(ndim, axes)
        op = AbstractBatchNormTrain(axes)
        averages = (new(*other), new(*other)) if running else ()
        return op(new(*POWERS_OF_TWO[ndim]), new(*other), new(*other), 2 ** -10, 0.25, *averages)[0]

    return make


def inferred(ndim, axes):
    def make(new):
        other = kept(ndim, axes)
        variance = new.holding(np.abs(new.draw(other)), [size == 1 for size in other])
        return AbstractBatchNormInference(axes)(
            new(*POWERS_OF_TWO[ndim]), *(new(*other) for _ in range(3)), variance, 2 ** -10)

    return make


def normalization_gradient(ndim, axes):
    shape = POWERS_OF_TWO[ndim]
    return lambda new: AbstractBatchNormTrainGrad(axes)(
        new(*shape), new(*shape), *(new(*kept(ndim, axes)) for _ in range(3)), 2 ** -10)[1]


NORMALIZED = [(2, (0,)), (2, (1,)), (3, (0, 2)), (3, (0,)), (4, (0, 2, 3)), (4, (0,)), (4, (1, 2, 3)), (4, (2, 3)),
              (4, (3, 0, 2)), (4, (0, 1, 2, 3)), (5, (0, 2, 3, 4))]
BATCH_NORMALIZATIONS = [
    *(Sample("%s, rank %d over %s" % (name, ndim, axes), make(ndim, axes), C01B)
      for name, make in (("training", normalized), ("inference", inferred), ("gradient", normalization_gradient))
      for ndim, axes in NORMALIZED),
    *(Sample("with running averages over %s" % (axes,), normalized(4, axes, running=True), C01B)
      for axes in ((0, 2, 3), (0,))),
    *(Sample("%s of a vector" % name, make, None) for name, make in (
        ("training", lambda new: AbstractBatchNormTrain((0,))(new(4), new(1), new(1))[0]),
        ("inference", lambda new: AbstractBatchNormInference((0,))(new(4), *(new(1) for _ in range(4)))))),
]


def branched(*shapes, condition=1):
    """The first result of a branch between two new operands of each shape."""
    return lambda new: IfElse(len(shapes))(new.holding(np.array(condition), ()),
                                           *(new(*shape) for shape in shapes + shapes), return_list=True)[0]


CONTROL = [
    *(Sample("then, rank %d" % n, branched(RANKS[n]), C01B) for n in (2, 3, 4)),
    Sample("else", branched(IMAGES, condition=0), C01B),
    Sample("several results", branched(IMAGES, (5, 4), (5, 1, 3, 2)), C01B),
    Sample("a constant of one channel", lambda new: IfElse(1)(
        new.holding(np.array(0), ()), new(5, 1, 3, 2), tt.constant(new.draw((5, 1, 3, 2)))), C01B),
    Sample("a constant of size 1 that may grow", lambda new: IfElse(1)(
        new.holding(np.array(0), ()), new(5, 1, 3, 2, plain=(1,)),
        tt.TensorConstant(tt.TensorType("float32", (False,) * 4), new.draw((5, 1, 3, 2)))), C01B),
    Sample("vectors", branched((5,)), None),
    Sample("assertion", lambda new: Assert("no")(new(*IMAGES), new.holding(np.array(1), ()), tt.constant(1)), C01B),
    Sample("assertion about sizes", on_images(lambda x: Assert()(x, tt.eq(x.shape[0], 5))), C01B),
    Sample("assertion about a vector", lambda new: Assert()(new(5), tt.constant(1)), None),
]



def taken(shape, *rows):
    return lambda new: new(*shape)[new.holding(np.array(rows, "int64"), (len(rows) == 1,))]


TAKES = [
    Sample("images, some twice, from the end", taken(IMAGES, 2, 0, 2, -1), C01B),
    Sample("rows of a matrix", taken((5, 4), 4, 1), C01B),
    Sample("none", taken(IMAGES), C01B),
    Sample("one, which has the same bytes", taken(IMAGES, 3), None),
    Sample("elements of a vector", taken((5,), 3, 1), None),
]

ACROSS_CHANNELS = [
    *(Sample("normalised along axis %d, windows of %s" % (axis, windows),
             on_images(lambda x, axis=axis, windows=windows: CrossMapNorm(windows[0], 1, 1, windows[1], axis=axis)(x)[0]), C01B)
      for axis, windows in itertools.product(range(4), ((3, False), (2, True)))),
    Sample("gradient of normalised", lambda new: CrossMapNormUndo(2, 1, 1, axis=1)(new(*IMAGES), new(*IMAGES)), C01B),
    Sample("sum over windows", on_images(CrossMapSum(2, axis=1)), C01B),
    Sample("sum over the windows around", on_images(CrossMapSum(2, False, True, axis=1)), C01B),
    Sample("normalised with one channel", lambda new: CrossMapNorm(5, 1, 1, axis=1)(new(5, 1, 3, 2))[0], C01B),
]

OTHERS = PRODUCTS + ROW_WISE + REPEATS + REBROADCASTS + ALLOCS + PROMISED_SIZES + SIZES + COPIES + ACROSS_CHANNELS
ALL_SAMPLES = (ELEMWISE + DIMSHUFFLE + TRANSPOSED + REDUCTIONS + ARG_REDUCTIONS + RESHAPES + OTHERS + JOINS + SPLITS
               + SUBTENSORS + INC_SUBTENSORS + TAKES + BATCH_NORMALIZATIONS + CONTROL)
