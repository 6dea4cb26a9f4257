"""Zeros that a program puts around images become the pad of a convolution: when, when not, and with the same numbers.

Whether they do is seen in the graph as the optimizer meets it, which needs no compilation; the numbers are whole and must
agree to the last bit, in the graph that only was folded (Theano's CorrMM takes the pads) and in the one in c01b.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.compile import optdb
from theano.gof import Constant, FunctionGraph, Optimizer, Query
from theano.gof.graph import inputs as inputs_of
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import BaseAbstractConv, conv2d_grad_wrt_inputs
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.signal.pool import pool_2d
from theano.tensor.subtensor import IncSubtensor, Subtensor

import layoutopt
from layoutopt.kernels.base import C01bOp
from layoutopt.rewrites.cost import Machine
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.padding import fold_padding
from layoutopt.rewrites.shapes import Shapes
from layoutopt.rewrites.sites import pads_of
from layoutopt.rewrites.sums import Sums

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import conversions, images, op_count, weights, whole
from test_sites import graph_of

SHAPE = (16, 4, 9, 8)
PADDING_OPS = (T.Alloc, IncSubtensor, T.Join, T.Split)


class Folding(Optimizer):
    """The stage alone. `edits` are those of the last graph."""

    constraints = "layoutopt"

    def apply(self, fgraph):
        self.edits = Edits(fgraph)
        fold_padding(self.edits, Shapes(fgraph), self.constraints)


def early(*outputs):
    """A graph as layoutopt finds it."""
    variables = [v for v in inputs_of(outputs) if not isinstance(v, Constant)]
    fgraph = FunctionGraph(variables, list(outputs), clone=True)
    optdb.query(Query(include=["fast_run"], position_cutoff=4.9)).optimize(fgraph)
    return fgraph


def folded(*outputs):
    """A graph after the stage, and what was folded."""
    fgraph, stage = early(*outputs), Folding()
    stage.optimize(fgraph)
    return fgraph, stage.edits


def padding_ops(fgraph):
    """Ops that set, join or split images."""
    return [node for node in fgraph.apply_nodes if isinstance(node.op, PADDING_OPS) and node.outputs[0].ndim == 4]


def pads_in(fgraph):
    """The pads of the convolutions in a graph, as a set."""
    return {pads_of(node.op.border_mode, node.op.kshp[2:]) for node in fgraph.apply_nodes
            if isinstance(node.op, BaseAbstractConv)}


# ---------------------------------------------------------------------------------------------------------------------
# The ways of writing it. Each takes images and pads (top, bottom, left, right).


def set_between(x, top, bottom, left, right):
    """As Lasagne and Keras do: zeros of symbolic size, slices that end where the images end."""
    b, c, rows, columns = (x.shape[axis] for axis in range(4))
    zeros = T.zeros((b, c, rows + top + bottom, columns + left + right), dtype="float32")
    return T.set_subtensor(zeros[:, :, top:rows + top, left:columns + left], x)


def set_from_the_end(x, top, bottom, left, right):
    """Slices that end so many before the end."""
    b, c, rows, columns = (x.shape[axis] for axis in range(4))
    zeros = T.alloc(np.float32(0), b, c, rows + top + bottom, columns + left + right)
    return T.set_subtensor(zeros[:, :, top:-bottom or None, left:-right or None], x)


def set_in_zeros_like(x, top, bottom, left, right):
    """Zeros made from another value."""
    larger = T.ones((x.shape[0], x.shape[1], x.shape[2] + top + bottom, x.shape[3] + left + right), dtype="int8")
    return T.set_subtensor(T.zeros_like(larger, dtype="float32")[:, :, top:x.shape[2] + top, left:x.shape[3] + left], x)


def set_known_sizes(x, top, bottom, left, right):
    """Numbers everywhere."""
    b, c, rows, columns = SHAPE
    x = x.reshape(SHAPE)
    zeros = T.alloc(np.float32(0), b, c, rows + top + bottom, columns + left + right)
    return T.set_subtensor(zeros[:, :, top:top + rows, left:left + columns], x)


def set_in_a_constant(x, top, bottom, left, right):
    zeros = np.zeros((16, 4, 9 + top + bottom, 8 + left + right), "float32")
    return T.set_subtensor(T.constant(zeros)[:, :, top:9 + top, left:8 + left], x.reshape(SHAPE))


def joined(x, top, bottom, left, right):
    """Zeros to the sides, rows first."""
    def rows(count):
        return T.zeros((x.shape[0], x.shape[1], count, x.shape[3]), dtype="float32")

    x = T.concatenate([rows(top), x, rows(bottom)], axis=2)
    left, right = (T.zeros((x.shape[0], x.shape[1], x.shape[2], side), dtype="float32") for side in (left, right))
    return T.concatenate([left, x, right], axis=-1)


WAYS = [set_between, set_from_the_end, set_in_zeros_like, set_known_sizes, set_in_a_constant, joined]
PADS = [(1, 1, 1, 1), (2, 1, 0, 3)]


def parts(way, pads, specified=False, **kwargs):
    """A convolution of padded images and both its gradients; its filters' shape may be specified, which Theano checks."""
    x = T.TensorType("float32", (False,) * 4)("x")
    w = weights(5, 4)
    out = conv2d(way(x, *pads), T.specify_shape(w, (5, 4, 3, 3)) if specified else w, **kwargs)
    return x, [out] + T.grad((out * out).sum(), [x, w])


@pytest.mark.parametrize("pads", PADS, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_folds_forward_and_backward(way, pads):
    _, outputs = parts(way, pads)
    fgraph, edits = folded(*outputs)
    assert padding_ops(fgraph) == []
    assert pads_in(fgraph) == {pads}
    assert len(edits.notes) == 3 and all(str((pads[:2], pads[2:])) in note for note in edits.notes.values())
    assert not any(isinstance(node.op, Subtensor) and node.outputs[0].ndim == 4 for node in fgraph.apply_nodes)


@pytest.mark.parametrize("border_mode, specified, own", [
    ((1, 2), False, (1, 1, 2, 2)),
    (((0, 1), (2, 0)), False, (0, 1, 2, 0)),
    ("half", True, (1, 1, 1, 1)),
    ("full", True, (2, 2, 2, 2)),
], ids=str)
@pytest.mark.parametrize("subsample", [(1, 1), (2, 3)], ids=str)
def test_pads_add_to_the_convolutions_own(border_mode, specified, own, subsample):
    _, outputs = parts(set_between, (2, 1, 0, 3), specified, border_mode=border_mode, subsample=subsample)
    fgraph, _ = folded(*outputs)
    assert padding_ops(fgraph) == []
    assert pads_in(fgraph) == {tuple(map(sum, zip(own, (2, 1, 0, 3))))}


@pytest.mark.parametrize("told", [None, (5, 4, 3, 3)], ids=str)
@pytest.mark.parametrize("border_mode", ["half", "full"])
def test_a_named_pad_waits_for_the_filter(border_mode, told):
    """The filter's size is not known, or told and not checked: that of a shared variable may change."""
    _, outputs = parts(set_between, (1, 1, 1, 1), border_mode=border_mode, filter_shape=told)
    assert folded(*outputs)[1].notes == {}


def test_what_the_convolution_was_told_of_the_images():
    _, outputs = parts(set_between, (2, 1, 0, 3), input_shape=(16, 4, 12, None), filter_shape=(5, 4, 3, 3))
    fgraph, _ = folded(*outputs)
    told = {node.op.imshp for node in fgraph.apply_nodes if isinstance(node.op, BaseAbstractConv)}
    assert told == {(16, 4, 9, None)}


INSIDE = {
    "a convolution": lambda x: T.nnet.relu(conv2d(x, weights(4, 4))),
    "a strided convolution": lambda x: conv2d(x, weights(4, 4), subsample=(2, 3), border_mode=(1, 2)),
    "pooling": lambda x: pool_2d(x, (3, 2), stride=(2, 2), ignore_border=True),
    "pooling with what is left over": lambda x: pool_2d(x, (3, 2), stride=(2, 1), ignore_border=False),
    "a part": lambda x: x[:, :, 1:-1],
    "upsampling": lambda x: T.repeat(x, 2, axis=2),
    "a join": lambda x: T.concatenate([x, x * 2], axis=2),
    "a reshape": lambda x: x.flatten(2).reshape(x.shape),
    "padded images": lambda x: T.nnet.relu(conv2d(set_between(x, 1, 0, 2, 1), weights(4, 4))),
}


@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_sizes_are_proven_behind_other_layers(inside):
    """Theano writes the size of the zeros, of the slice and of what is set in three ways."""
    x, w = T.TensorType("float32", (False,) * 4)("x"), weights(5, 4)
    out = conv2d(set_between(inside(x), 1, 1, 1, 1), w)
    fgraph, edits = folded(out, *T.grad((out * out).sum(), [w, x]))
    assert len(edits.notes) == (5 if inside is INSIDE["padded images"] else 3)


def test_corr_made_by_hand():
    x, w = T.TensorType("float32", (False,) * 4)("x"), weights(5, 4)
    y = CorrMM("valid", (2, 1))(set_between(x, 1, 2, 0, 1), w)
    fgraph, _ = folded(y, *T.grad((y * y).sum(), [w, x]))
    convolutions = [node.op for node in fgraph.apply_nodes if isinstance(node.op, (CorrMM, CorrMM_gradInputs,
                                                                                   CorrMM_gradWeights))]
    assert [op.border_mode for op in convolutions] == 3 * [((1, 2), (0, 1))]
    assert padding_ops(fgraph) == []


def test_padded_images_that_others_read_stay_for_them():
    x, w = T.TensorType("float32", (False,) * 4)("x"), weights(5, 4)
    padded = set_between(x, 1, 1, 1, 1)
    fgraph, edits = folded(conv2d(padded, w), padded)
    assert len(edits.notes) == 1 and len(padding_ops(fgraph)) == 2  # an Alloc and an IncSubtensor


def test_a_crop_of_a_deconvolution():
    """A crop alone; it must be proven that so much is there."""
    g, w = T.TensorType("float32", (False,) * 4)("g"), weights(4, 5)
    larger = conv2d_grad_wrt_inputs(g, w, (None, 5, 12, 13), subsample=(2, 2))
    fgraph, edits = folded(larger[:, :, 1:-2, 3:])
    assert pads_in(fgraph) == {(1, 2, 3, 0)} and len(edits.notes) == 1
    for rows, folds in ((2 * g.shape[2] + 2, 1), (2 * g.shape[2] + 1, 0), (N, 0)):
        larger = conv2d_grad_wrt_inputs(g, w, (None, 5, rows, 12), subsample=(2, 2))
        assert len(folded(larger[:, :, 1:-1, 1:-1])[1].notes) == folds
        assert len(folded(larger[:, :, 1:-1, 1:-1], larger)[1].notes) == 0


@pytest.mark.parametrize("mode, becomes", [("sum", "sum"), ("average_inc_pad", "average_inc_pad"),
                                           ("average_exc_pad", "average_inc_pad")])
def test_averages(mode, becomes):
    x = T.TensorType("float32", (False,) * 4)("x")
    out = pool_2d(set_between(x, 1, 1, 2, 2), (2, 3), stride=(1, 2), ignore_border=True, mode=mode)
    fgraph, edits = folded(out, T.grad((out * out).sum(), x))
    assert padding_ops(fgraph) == []
    assert sorted(type(node.op).__name__ for node in edits.notes) == ["AveragePoolGrad", "Pool"]
    assert {(node.op.mode, tuple(node.inputs[-1].data)) for node in edits.notes} == {(becomes, (1, 2))}


@pytest.mark.parametrize("pads, kwargs", [
    ((1, 1, 1, 1), dict(mode="max")),  # which a zero may be
    ((1, 1, 0, 1), dict(mode="sum")),  # one pad for both sides
    ((3, 3, 0, 0), dict(mode="sum")),  # as large as the window, which Theano refuses
    ((1, 1, 1, 1), dict(mode="sum", pad=(1, 0))),
    ((1, 1, 1, 1), dict(mode="average_exc_pad", pad=(1, 0))),
    ((1, 1, 1, 1), dict(mode="sum", ignore_border=False)),
], ids=str)
def test_poolings_that_stay(pads, kwargs):
    x = T.TensorType("float32", (False,) * 4)("x")
    out = pool_2d(set_between(x, *pads), (3, 3), **dict(dict(ignore_border=True), **kwargs))
    assert folded(out)[1].notes == {}


# ---------------------------------------------------------------------------------------------------------------------
# What must stay.

X = T.TensorType("float32", (False,) * 4)("x")
ONE_ROW = T.TensorType("float32", (False, False, True, False))("x")
N = T.lscalar("n")


def larger(x, batch=0, channels=0, rows=2, columns=2, value=0):
    grown = [x.shape[axis] + more for axis, more in enumerate((batch, channels, rows, columns))]
    return T.alloc(np.float32(value), *grown)


NEAR_MISSES = {
    "ones": lambda: T.set_subtensor(larger(X, value=1)[:, :, 1:-1, 1:-1], X),
    "not a number is no zero": lambda: T.set_subtensor(larger(X, value=np.nan)[:, :, 1:-1, 1:-1], X),
    "an unknown value": lambda: T.set_subtensor(T.alloc(T.fscalar(), *[n + 2 for n in SHAPE])[:, :, 1:-1, 1:-1], X),
    "added": lambda: T.inc_subtensor(larger(X)[:, :, 1:-1, 1:-1], X),
    "around channels": lambda: T.set_subtensor(larger(X, channels=1)[:, 1:, 1:-1, 1:-1], X),
    "around images": lambda: T.set_subtensor(larger(X, batch=2)[1:-1, :, 1:-1, 1:-1], X),
    "every second pixel": lambda: T.set_subtensor(T.zeros((X.shape[0], X.shape[1], 2 * X.shape[2], X.shape[3]))[:, :, ::2], X),
    "backwards": lambda: T.set_subtensor(larger(X, rows=0, columns=0)[:, :, ::-1], X),
    "a step that is not known": lambda: T.set_subtensor(larger(X, columns=0)[:, :, 1:-1:N], X),
    "a start that is not known": lambda: T.set_subtensor(larger(X, columns=0)[:, :, N:N + X.shape[2]], X),
    "another size": lambda: T.set_subtensor(larger(X)[:, :, 1:, 1:-1], X),
    "an end that is not known": lambda: T.set_subtensor(larger(X)[:, :, 1:N, 1:-1], X),
    "sizes that are told of zeros alone": lambda: T.set_subtensor(T.zeros((16, 4, 11, 10))[:, :, 1:-1, 1:-1], X),
    "beyond the end": lambda: T.set_subtensor(larger(X, rows=0, columns=0)[:, :, :X.shape[2] + 1], X),
    "one row repeated": lambda: T.set_subtensor(T.zeros((X.shape[0], X.shape[1], 5, X.shape[3]))[:, :, 1:-1], ONE_ROW),
    "a number": lambda: T.set_subtensor(larger(X)[:, :, 1:-1, 1:-1], np.float32(1)),
    "fewer axes": lambda: T.set_subtensor(larger(X)[:, :, 1:-1, 1:-1], X[0]),
    "an integer index": lambda: T.set_subtensor(larger(X)[:, :, 1, 1:-1], X[:, :, 0]),
    "another type": lambda: T.set_subtensor(larger(X)[:, :, 1:-1, 1:-1], T.cast(X, "int8")),
    "in place": lambda: T.set_subtensor(larger(X)[:, :, 1:-1, 1:-1], X, inplace=True),
    "set twice": lambda: T.set_subtensor(T.set_subtensor(larger(X)[:, :, 0, :], 1)[:, :, 1:-1, 1:-1], X),
    "joined to images": lambda: T.concatenate([X, X[:, :, :1]], axis=2),
    "joined channels": lambda: T.concatenate([X, T.zeros_like(X)], axis=1),
    "joined so many": lambda: T.concatenate([X, T.zeros((X.shape[0], X.shape[1], N, X.shape[3]))], axis=2),
    "joined zeros of another size": lambda: T.concatenate([X, T.zeros((16, 4, 2, 8))], axis=2),
}


@pytest.mark.parametrize("make", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_misses_stay(make):
    padded = make()
    fgraph, edits = folded(conv2d(padded.astype("float32"), weights(5, 4)))
    assert edits.notes == {} and pads_in(fgraph) == {(0, 0, 0, 0)}


def test_a_gradient_that_is_read_whole_stays_whole():
    w = weights(5, 4)
    padded = set_between(X, 1, 1, 1, 1)
    out = conv2d(padded, w)
    whole_gradient, gradient = T.grad((out * out).sum(), [padded, X])
    fgraph, edits = folded(whole_gradient, gradient)
    assert sorted(type(node.op).__name__ for node in edits.notes) == ["AbstractConv2d"]


@pytest.mark.parametrize("dtype, kwargs", [("float32", dict(filter_dilation=(1, 2))), ("float64", {})])
def test_convolutions_that_do_not_qualify_stay(dtype, kwargs):
    padded = set_between(X, 1, 1, 1, 1).astype(dtype)
    assert folded(conv2d(padded, weights(6, 4).astype(dtype), **kwargs))[1].notes == {}


def test_the_original_kernels_take_one_pad_for_all_sides():
    for pads, count in (((1, 1, 1, 1), 1), ((1, 2, 1, 1), 0)):
        fgraph = early(conv2d(set_between(X, *pads), weights(16, 4), filter_shape=(16, 4, 3, 3)))
        stage = Folding()
        stage.constraints = "cuda_convnet"
        stage.optimize(fgraph)
        assert len(stage.edits.notes) == count


# ---------------------------------------------------------------------------------------------------------------------
# Numbers.


def all_ways():
    x, outputs = T.TensorType("float32", (False,) * 4)("x"), []
    w = weights(5, 4)
    for way, kwargs in zip(WAYS, (dict(), dict(border_mode=(0, 1)), dict(subsample=(2, 3)), dict(border_mode=((1, 0), (0, 2))),
                                  dict(filter_flip=False, subsample=(2, 2)),
                                  dict(border_mode="half"))):
        out = conv2d(way(x, 2, 1, 0, 3), T.specify_shape(w, (5, 4, 3, 3)) if "half" in kwargs.values() else w, **kwargs)
        outputs += [out] + T.grad((out * out).sum(), [x, w])
    for kind in ("sum", "average_inc_pad", "average_exc_pad"):
        out = pool_2d(set_between(x, 1, 1, 3, 3), (2, 4), stride=(1, 3), ignore_border=True, mode=kind)
        outputs += [out, T.grad((out * out).sum(), x)]
    g = whole(16, 5, 5, 5, seed=7)
    outputs.append(conv2d_grad_wrt_inputs(T.constant(g), w, (None, 4, 12, 11), subsample=(2, 2))[:, :, 1:-2, 2:])
    return x, outputs


def test_numbers(monkeypatch):
    """Folded alone, in Theano's own ops; and in c01b, where everything goes if stock is made to look slow."""
    monkeypatch.setattr(Machine, "stock_conv_seconds", lambda self, work: 1.0)
    x, outputs = all_ways()
    stock, flagged = mode(False), mode(True)
    functions = [theano.function([x], outputs, mode=chosen)
                 for chosen in (stock, stock.register((Folding(), 5.0)), flagged)]
    value = whole(*SHAPE, seed=3)
    expected, *others = [f(value) for f in functions]
    for results in others:
        for a, b in zip(expected, results):
            np.testing.assert_array_equal(a, b)
    counts = [op_count(f, IncSubtensor, T.Join, T.Split) for f in functions]
    assert counts[0] > 0 and counts[1:] == [0, 0]
    assert op_count(functions[2], CorrMM, CorrMM_gradInputs, CorrMM_gradWeights) == 0
    assert "are part of the pad: ((2, 1), (0, 3))" in str(layoutopt.explain(functions[2]))


def network(pad):
    """Two padded layers, the pad left to `pad`, which takes images, pads and filters."""
    x, _ = images()
    ws = [weights(6, 4), weights(5, 6, name="w2")]
    h = T.nnet.relu(pad(x, (1, 2, 0, 1), ws[0]))
    out = pad(h, (1, 1, 1, 1), ws[1])
    return x, [out] + T.grad(out.sum(), ws)


def test_a_network_padded_by_hand_ends_like_one_that_was_not():
    graphs = [network(lambda x, pads, w: conv2d(set_between(x, *pads), w)),
              network(lambda x, pads, w: conv2d(x, w, border_mode=(pads[:2], pads[2:])))]
    by_hand, by_mode = [theano.function([x], outputs, mode=mode(True)) for x, outputs in graphs]
    names = [sorted(str(node.op) for node in f.maker.fgraph.apply_nodes if isinstance(node.op, C01bOp))
             for f in (by_hand, by_mode)]
    assert names[0] == names[1] and conversions(by_hand) == conversions(by_mode)


def test_a_plan_that_does_not_pay_leaves_the_graph_as_it_was(monkeypatch):
    monkeypatch.setattr(Machine, "c01b_conv_seconds", lambda self, work: 1.0)
    x, outputs = network(lambda x, pads, w: conv2d(set_between(x, *pads), w))
    texts = [theano.printing.debugprint(theano.function([x], outputs, mode=mode(flagged)), file="str")
             for flagged in (False, True)]
    assert texts[0] == texts[1]
    record = layoutopt.explain(theano.function([x], outputs, mode=mode(True))).record
    assert not record.applied and [site.note for site in record.sites] == [""] * len(record.sites)
    assert all("pad 0" in site.sizes for site in record.sites)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes as sums: pairs that are proven to be equal, and pairs that must not be.

ROWS = X.shape[2]
NARROW = T.bscalar("narrow")

EQUAL = [
    (ROWS + 2, 1 + ROWS + 1),
    ((ROWS - 3) + 1 + 2, ROWS),
    (2 * (ROWS + 1), ROWS + ROWS + 2),
    (-(1 - ROWS), ROWS - 1),
    ((ROWS + 1) // 1, ROWS + 1),
    ((ROWS + 2 - 1) // 2, (1 + ROWS) // 2),
    (T.cast(T.cast(ROWS, "int64") + N, "int64"), N + ROWS),
    (T.maximum(ROWS - 1, N), T.maximum(2 + ROWS - 3, N)),
]
DIFFERENT = [
    (ROWS, X.shape[3]),
    (ROWS + 1, ROWS),
    (ROWS // 2 * 2, ROWS),
    (ROWS // 2, ROWS // 3),
    (ROWS * N, ROWS + N),
    (T.cast(NARROW + NARROW, "int64"), 2 * T.cast(NARROW, "int64")),  # 8 bits wrap around
    (T.cast(ROWS, "int8") + 0 * N, ROWS),
    (T.cast(ROWS / 2.5, "int64"), T.cast(ROWS / 2.25, "int64")),
]


@pytest.mark.parametrize("pairs, same", [(EQUAL, True), (DIFFERENT, False)], ids=["equal", "different"])
def test_sums(pairs, same):
    for pair in pairs:
        fgraph, shapes = graph_of(*pair)  # as written: Theano would make some of them one
        sums = Sums(shapes)
        first, second = (sums.of(size) for size in fgraph.outputs)
        assert (first == second) == same, (pair, first, second)
