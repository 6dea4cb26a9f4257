"""Filters stored in another order of axes under a dimshuffle: nothing is converted, or each value once, by one copy.

Counted are ops that copy: conversions and contiguity copies. Whole numbers must agree with stock to the last bit.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.nnet import conv2d

import layoutopt
from layoutopt.kernels import ToBC01, ToC01B
from layoutopt.kernels.relayout import StoredToC01B

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, op_count, weights, whole

SHAPE = (5, 4, 3, 2)  # of the filters in bc01
COPIES = (ToC01B, ToBC01, StoredToC01B, CpuContiguous)

# What filters are dimshuffled by: (copies of them in a forward pass, and in a training step that also updates them).
ORDERS = {
    "channel, row, column, filter": ((3, 0, 1, 2), 0, 0),
    "row, column, channel, filter": ((3, 2, 0, 1), 1, 1),
    "channel, filter, row, column": ((1, 0, 2, 3), 1, 2),
}


def filters(order, name):
    """Filters of SHAPE stored so that dimshuffle(order) gives bc01."""
    return theano.shared(whole(*SHAPE, seed=1, most=1).transpose(np.argsort(order)).copy(), name=name)


def network(order):
    """The filters between two others, so that all their neighbours are in c01b."""
    x = T.TensorType("float32", (False,) * 4)("x")
    ws = [weights(4, 3, name="first"), filters(order, "permuted"), weights(3, 5, name="last")]
    h = T.nnet.relu(conv2d(x, ws[0], border_mode="half"))
    h = T.nnet.relu(conv2d(h, ws[1].dimshuffle(*order)))
    return x, conv2d(h, ws[2]), ws


def copies(function):
    """Ops that copy the permuted filters or the gradient with regard to them, or what holds all of them."""
    found = []
    for node in function.maker.fgraph.apply_nodes:
        if isinstance(node.op, COPIES):
            value = node.inputs[0]
            while value.owner is not None and isinstance(value.owner.op, (DimShuffle,) + COPIES):
                value = value.owner.inputs[0]
            found += [value.name or str(value.owner.op)]
    return found


@pytest.mark.parametrize("order, forward, _", ORDERS.values(), ids=ORDERS)
def test_forward(order, forward, _):
    x, out, ws = network(order)
    functions = [theano.function([x], out, mode=mode(flagged)) for flagged in (False, True)]
    value = whole(16, 3, 12, 11, seed=3)
    np.testing.assert_array_equal(*[f(value) for f in functions])
    assert op_count(functions[1], *BC01_OPS) == 0
    assert copies(functions[1]).count("permuted") == forward
    assert len(copies(functions[1])) == 4 + forward  # the input, the other filters, the output


@pytest.mark.parametrize("order, _, training", ORDERS.values(), ids=ORDERS)
def test_a_training_step_in_which_the_gradient_is_read_as_it_lies(order, _, training):
    """The update is elementwise and takes a permuted gradient by its strides."""
    after = []
    for flagged in (False, True):
        x, out, ws = network(order)
        gradients = T.grad(out.sum(), ws)
        step = theano.function([x], [], updates=[(w, w - g) for w, g in zip(ws, gradients)], mode=mode(flagged))
        step(whole(16, 3, 12, 11, seed=3))
        after.append([w.get_value() for w in ws])
    for expected, actual in zip(*after):
        np.testing.assert_array_equal(expected, actual)
    assert op_count(step, *BC01_OPS) == 0
    of_permuted = [name for name in copies(step) if name not in ("first", "last", "x")]
    assert len(of_permuted) == training, of_permuted


def test_images_with_channels_last():
    """What NHWC programs do to their input: one conversion, and one copy of whole rows of images."""
    x = T.TensorType("float32", (False,) * 4)("x")
    out = conv2d(x.dimshuffle(0, 3, 1, 2), weights(5, 4)).dimshuffle(0, 2, 3, 1)
    functions = [theano.function([x], out, mode=mode(flagged)) for flagged in (False, True)]
    value = whole(32, 12, 11, 4, seed=3)
    np.testing.assert_array_equal(*[f(value) for f in functions])
    assert copies(functions[1]).count("x") == 2
    assert [c.to for c in layoutopt.explain(functions[1]).record.conversions].count("c01b") == 2  # x and the filters
