"""The old ConvOp: its gradients, which Theano writes as further ConvOps, become sites, and cost no more than conv2d's.

What is recognised is seen in the graph as the optimizer meets it, which needs no compilation. Numbers are whole and must agree
with those of ConvOp to the last bit.
"""
import warnings

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import Optimizer
from theano.tensor.elemwise import DimShuffle
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.kernels import FilterActs, ImageActs, WeightActs
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.legacy import name_gradients
from layoutopt.rewrites.shapes import Shapes

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_padding import early, padding_ops, set_between
from test_rewrite import BC01_OPS, bias, moving_dimshuffles, op_count, weights, whole

IMAGES, FILTERS = (16, 4, 9, 8), (5, 4, 3, 2)
GRADIENTS = (AbstractConv2d_gradWeights, AbstractConv2d_gradInputs)


def old_conv2d(x, w, images=None, filters=None, **kwargs):
    """theano.tensor.nnet.conv.conv2d."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old
        return theano.tensor.nnet.conv.conv2d(x, w, images, filters, **kwargs)


def told():
    return dict(images=IMAGES, filters=FILTERS)


class Naming(Optimizer):
    """The stage alone. `edits` are those of the last graph."""

    def apply(self, fgraph):
        self.edits = Edits(fgraph)
        name_gradients(self.edits, Shapes(fgraph))


def named(*outputs):
    """A graph after the stage, and the ops that were put in."""
    fgraph, stage = early(*outputs), Naming()
    stage.optimize(fgraph)
    return fgraph, sorted((node.op for node in stage.edits.notes), key=lambda op: type(op).__name__)


X, W = T.TensorType("float32", (False,) * 4)("x"), T.TensorType("float32", (False,) * 4)("w")

# (how it is called, the border mode and the stride that its gradients must have)
CALLS = {
    "valid": (dict(), "valid", (1, 1)),
    "full": (dict(border_mode="full"), "full", (1, 1)),
    "valid, told": (told(), "valid", (1, 1)),
    "full, told": (dict(told(), border_mode="full"), "full", (1, 1)),
    "full, strided": (dict(told(), border_mode="full", subsample=(2, 2)), "full", (2, 2)),
    "full, strided along rows": (dict(told(), border_mode="full", subsample=(2, 1)), "full", (2, 1)),
}
# What follows it decides where Theano moves dimshuffles and flips to.
COSTS = {
    "a sum": lambda y: y.sum(),
    "squares": lambda y: (y * y).sum(),
    "a rectifier": lambda y: (T.nnet.relu(y + 1) ** 2).sum(),
    "a bias": lambda y: (T.nnet.relu(y + T.arange(5, dtype="float32").dimshuffle("x", 0, "x", "x")) ** 2).sum(),
    "pooling": lambda y: (pool_2d(y, (2, 2), ignore_border=True) ** 2).sum(),
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("kwargs, border_mode, stride", CALLS.values(), ids=CALLS)
def test_both_gradients_are_recognised(kwargs, border_mode, stride, cost):
    gradients = T.grad(cost(old_conv2d(X, W, **kwargs)), [W, X])
    fgraph, ops = named(*gradients)
    assert [type(op) for op in ops] == [AbstractConv2d_gradInputs, AbstractConv2d_gradWeights]
    assert [(op.border_mode, op.subsample, op.filter_flip) for op in ops] == 2 * [(border_mode, stride, True)]
    unknown = (None,) * 4
    assert [(op.imshp, op.kshp) for op in ops] == 2 * [(IMAGES, FILTERS) if "images" in kwargs else (unknown, unknown)]
    assert not any(isinstance(node.op, DimShuffle) and node.op.new_order == (1, 0, 2, 3) for node in fgraph.apply_nodes)
    assert sum(isinstance(node.op, ConvOp) for node in fgraph.apply_nodes) <= 1


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_the_weights_gradient_alone(cost):
    """That of a first layer: with the output's gradient used once, Theano moves the dimshuffle to where it comes from."""
    _, ops = named(T.grad(cost(old_conv2d(X, W)), W))
    assert [type(op) for op in ops] == [AbstractConv2d_gradWeights]


def test_a_gradient_that_is_not_read_backwards():
    """The flip after the weight gradient, which somebody undoes."""
    gradient = T.grad((old_conv2d(X, W) ** 2).sum(), W)
    _, (op,) = named(gradient[:, :, ::-1, ::-1])
    assert (op.border_mode, op.filter_flip) == ("valid", False)


STAY = {
    "a forward ConvOp": lambda: old_conv2d(X, W),
    "one of exchanged operands": lambda: old_conv2d(X.dimshuffle(1, 0, 2, 3), W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]),
    "a gradient of which a value is read elsewhere": lambda: _used_twice(),
    "one that spreads by another step": lambda: ConvOp(
        (5, 5, 4), (3, 2), 4, 16, output_mode="valid", direction_hint="bprop inputs", imshp_logical=(5, 11, 9))(
            X, W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]),
    "filters that are not turned": lambda: ConvOp(direction_hint="bprop inputs")(X, W.dimshuffle(1, 0, 2, 3)),
    "filters backwards along columns": lambda: ConvOp(direction_hint="bprop inputs")(
        X, W.dimshuffle(1, 0, 2, 3)[:, :, :, ::-1]),
    "filters that are turned and cut": lambda: ConvOp(direction_hint="bprop inputs")(
        X, W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, 1::-1]),
    "a stride": lambda: ConvOp(dx=2, dy=2, direction_hint="bprop inputs")(X, W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]),
    "spread filters": lambda: ConvOp((4, 9, 8), (2, 2), 5, 16, kshp_logical=(3, 3), direction_hint="bprop weights")(
        X.dimshuffle(1, 0, 2, 3), W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]),
}


def _used_twice():
    """The turned tanh would be computed a second time."""
    turned = T.tanh(W.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1])
    return ConvOp(direction_hint="bprop inputs")(X, turned) + turned.sum()


@pytest.mark.parametrize("make", STAY.values(), ids=STAY)
def test_what_is_no_gradient_stays(make):
    fgraph, ops = named(make())
    assert ops == [] and sum(isinstance(node.op, ConvOp) for node in fgraph.apply_nodes) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Numbers.


def test_numbers():
    """Of the named graph in Theano's own ops, and of the graph in c01b."""
    x, outputs = X, []
    for call, (kwargs, _, _) in CALLS.items():
        w = theano.shared(whole(*FILTERS, seed=len(outputs), most=1))
        y = old_conv2d(x, w, **kwargs)
        outputs += [y] + T.grad(COSTS["a rectifier"](y), [w, x])
    functions = [theano.function([x], outputs, mode=chosen)
                 for chosen in (mode(False), mode(False).register((Naming(), 5.0)), mode(True))]
    value = whole(*IMAGES, seed=3)
    expected, *others = [f(value) for f in functions]
    for results in others:
        for a, b in zip(expected, results):
            np.testing.assert_array_equal(a, b)
    assert [op_count(f, ConvOp) for f in functions] == [3 * len(CALLS), len(CALLS), 0]
    assert [op_count(functions[2], op) for op in (FilterActs, WeightActs, ImageActs)] == 3 * [len(CALLS)]
    assert moving_dimshuffles(functions[2]) == []


def lenet(conv):
    """Two layers of convolution, pooling, bias and tanh, and a dense one: a training step."""
    x, shape = X, (16, 1, 16, 16)
    params = [weights(6, 1), bias(6), weights(5, 6, name="w2"), bias(5, "b2"),
              theano.shared(whole(5 * 2 * 2, 3, seed=5, most=1), name="dense")]
    h = pool_2d(conv(x.reshape(shape), params[0]), (2, 2), ignore_border=True)
    h = T.tanh(h + params[1].dimshuffle("x", 0, "x", "x"))
    h = T.tanh(pool_2d(conv(h, params[2]), (2, 2), ignore_border=True) + params[3].dimshuffle("x", 0, "x", "x"))
    cost = T.sqr(T.dot(h.flatten(2), params[4])).mean()
    updates = [(p, p - np.float32(0.1) * g) for p, g in zip(params, T.grad(cost, params))]
    return theano.function([x], cost, updates=updates, mode=mode(True))


def test_lenet_converts_no_more_with_conv_op_than_with_conv2d():
    functions = [lenet(old_conv2d), lenet(conv2d)]
    converted = [sorted((c.to, c.bytes) for c in layoutopt.explain(f).record.conversions) for f in functions]
    assert converted[0] == converted[1]
    for ops in (FilterActs, ImageActs, WeightActs):
        assert op_count(functions[0], ops) == op_count(functions[1], ops)
    assert op_count(functions[0], ConvOp, *BC01_OPS) == 0
    assert str(layoutopt.explain(functions[0])).count("a gradient of ConvOp") == 3
    value = whole(16, 1, 16, 16, seed=3)
    losses = np.array([[f(value) for _ in range(3)] for f in functions])
    np.testing.assert_array_equal(losses[0], losses[1])


def test_images_padded_by_hand_for_conv_op():
    """ConvOp has no pads; with the zeros folded it is an AbstractConv2d."""
    w = weights(5, 4)
    y = old_conv2d(set_between(X, 1, 1, 0, 2), w)
    f = theano.function([X], [y] + T.grad((y * y).sum(), [w, X]), mode=mode(True))
    stock = theano.function([X], [y] + T.grad((y * y).sum(), [w, X]), mode=mode(False))
    for a, b in zip(stock(whole(*IMAGES)), f(whole(*IMAGES))):
        np.testing.assert_array_equal(a, b)
    assert padding_ops(f.maker.fgraph) == [] and op_count(f, ConvOp, AbstractConv2d) == 0
    assert op_count(f, FilterActs, ImageActs, WeightActs) == 3
