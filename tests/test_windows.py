"""Means over windows, written with reshapes or images2neibs, become poolings: when, when not, and with the same numbers.

What is recognised is seen in the graph as the optimizer meets it, which needs no compilation.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import Optimizer
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.neighbours import Images2Neibs, images2neibs
from theano.tensor.signal.pool import AveragePoolGrad, Pool

from layoutopt.kernels import AvgPool, AvgPoolGrad
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.shapes import Shapes
from layoutopt.rewrites.windows import name_windows

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_padding import early
from test_rewrite import op_count, weights, whole

X = T.TensorType("float32", (False,) * 4)("x")
SHAPE = (16, 4, 6, 9)


class Naming(Optimizer):
    """The stage alone. `edits` are those of the last graph."""

    def apply(self, fgraph):
        self.edits = Edits(fgraph)
        name_windows(self.edits, Shapes(fgraph))


def named(*outputs):
    """The nodes of a graph after the stage, and the edits."""
    fgraph, stage = early(*outputs), Naming()
    stage.optimize(fgraph)
    return fgraph, stage.edits


def windows(x, rows=2, columns=3):
    b, c, h, w = x.shape
    return x.reshape((b, c, h // rows, rows, w // columns, columns))


def of_known_sizes(x, rows=2, columns=3):
    b, c, h, w = SHAPE
    same = conv2d(x, T.constant(np.eye(c, dtype="float32").reshape(c, c, 1, 1)), SHAPE, (c, c, 1, 1))
    return same.reshape((b, c, h // rows, rows, w // columns, columns))


def neighbours(x, rows=2, columns=3, step=None, mode="valid"):
    b, c, h, w = x.shape
    found = images2neibs(x, (rows, columns), step, mode=mode).mean(axis=1)
    return found.reshape((b, c, h // rows, w // columns))


# How it is written; the mode of the Pool.
FORMS = {
    "a mean": (lambda x: windows(x).mean(axis=(3, 5)), "sum"),  # Theano divides by sizes that it does not know
    "a mean of known sizes": (lambda x: of_known_sizes(x).mean(axis=(3, 5)), "average_inc_pad"),
    "a sum": (lambda x: windows(x).sum(axis=(3, 5)), "sum"),
    "a divided sum": (lambda x: windows(x).sum(axis=(5, 3)) / np.float32(6), "average_inc_pad"),
    "a sum divided by something else": (lambda x: windows(x).sum(axis=(3, 5)) / np.float32(5), "sum"),
    "images2neibs": (neighbours, "average_inc_pad"),
    "images2neibs without borders": (lambda x: neighbours(x, mode="ignore_borders"), "average_inc_pad"),
}


@pytest.mark.parametrize("form, pool_mode", FORMS.values(), ids=FORMS)
def test_every_form(form, pool_mode):
    fgraph, edits = named(form(X))
    node, = (node for node in fgraph.apply_nodes if isinstance(node.op, Pool))
    assert (node.op.mode, node.op.ignore_border) == (pool_mode, True)
    assert [tuple(v.data) for v in node.inputs[1:]] == [(2, 3), (2, 3), (0, 0)]
    assert "a mean over windows" in edits.notes[node]
    assert not any(isinstance(node.op, Images2Neibs) or node.outputs[0].ndim == 6 for node in fgraph.apply_nodes)
    edits.undo()
    assert not any(isinstance(node.op, Pool) for node in fgraph.apply_nodes)


@pytest.mark.parametrize("form", [form for form, (_, _) in zip(FORMS, FORMS.values()) if "neibs" not in form])
def test_the_gradient(form):
    y = FORMS[form][0](X)
    fgraph, _ = named(y, T.grad((y * y).sum(), X))
    nodes = [node for node in fgraph.apply_nodes if isinstance(node.op, AveragePoolGrad)]
    assert [node.op.mode for node in nodes] == ["sum"]
    assert not any(node.outputs[0].ndim == 6 for node in fgraph.apply_nodes)


OTHER = T.TensorType("float32", (False,) * 4)("other")
NEAR_MISSES = {
    "other axes summed": lambda x: windows(x).mean(axis=(2, 4)),
    "one axis more": lambda x: windows(x).mean(axis=(1, 3, 5)),
    "one axis": lambda x: windows(x).mean(axis=3),
    "a maximum": lambda x: windows(x).max(axis=(3, 5)),
    "axes in another order": lambda x: x.reshape((x.shape[0], x.shape[1], 2, x.shape[2] // 2, 3, x.shape[3] // 3)).mean((3, 5)),
    "images and channels exchanged": lambda x: x.reshape(
        (x.shape[1], x.shape[0], x.shape[2] // 2, 2, x.shape[3] // 3, 3)).mean(axis=(3, 5)),
    "rows and columns exchanged": lambda x: x.reshape(
        (x.shape[0], x.shape[1], x.shape[3] // 2, 2, x.shape[2] // 3, 3)).mean(axis=(3, 5)),
    "sizes of other images": lambda x: x.reshape(
        (x.shape[0], x.shape[1], OTHER.shape[2] // 2, 2, OTHER.shape[3] // 3, 3)).mean(axis=(3, 5)),
    "another divisor": lambda x: x.reshape((x.shape[0], x.shape[1], x.shape[2] // 4, 2, x.shape[3], 6)).mean(axis=(3, 5)),
    "sizes that are not proven": lambda x: x.reshape((16, 4, 3, 2, 3, 3)).mean(axis=(3, 5)),
    "windows of one pixel": lambda x: windows(x, 1, 1).mean(axis=(3, 5)),
    "doubles": lambda x: windows(x.astype("float64")).mean(axis=(3, 5)),
    "overlapping neighbours": lambda x: neighbours(x, 2, 2, (1, 1)),
    "neighbours that wrap around": lambda x: neighbours(x, 3, 3, (3, 3), mode="wrap_centered"),
    "neighbours in another shape": lambda x: images2neibs(x, (2, 3)).mean(axis=1).reshape(
        (x.shape[1], x.shape[0], x.shape[2] // 2, x.shape[3] // 3)),
    "neighbours' products": lambda x: images2neibs(x, (2, 3)).prod(axis=1).reshape(
        (x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 3)),
}


@pytest.mark.parametrize("make", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_misses(make):
    fgraph, edits = named(make(X))
    assert edits.notes == {} and not any(isinstance(node.op, Pool) for node in fgraph.apply_nodes)


def test_numbers():
    """Of the named graph in Theano's own ops; where the windows do not fill the images, it fails as the reshape did."""
    outputs = sum(([form(X), T.grad((form(X) ** 2).sum(), X)] for form, _ in FORMS.values()), [])
    modes = mode(False), mode(False).register((Naming(), 5.0))
    stock, flagged = (theano.function([X], outputs, mode=chosen) for chosen in modes)
    assert op_count(flagged, Pool) >= 4 and op_count(flagged, AveragePoolGrad) >= 3
    x = 36 * whole(*SHAPE)  # whole after division by 6, twice; Theano's own reduction rounds once
    for a, b in zip(stock(x), flagged(x)):
        np.testing.assert_allclose(a, b, rtol=8 * 2.0 ** -24, atol=1e-30)
    reshaped = theano.function([X], FORMS["a sum"][0](X), mode=mode(False).register((Naming(), 5.0)))
    with pytest.raises(ValueError, match="windows of 2 x 3 do not fill the images"):
        reshaped(whole(2, 3, 6, 8))
    assert reshaped(whole(0, 3, 6, 9)).shape == (0, 3, 3, 3)


def test_in_c01b():
    """A convolution, a mean over windows and another convolution: a training graph without further conversions."""
    w, v = weights(16, 4), weights(8, 16, name="v")
    y = conv2d(windows(conv2d(X, w, border_mode="half")).mean(axis=(3, 5)), v)
    outputs = [y] + T.grad((y * y).sum(), [w, v])
    stock, flagged = (theano.function([X], outputs, mode=mode(flag)) for flag in (False, True))
    assert (op_count(flagged, AvgPool), op_count(flagged, AvgPoolGrad), op_count(flagged, Pool, AveragePoolGrad)) == (1, 1, 0)
    for a, b in zip(stock(6 * whole(*SHAPE)), flagged(6 * whole(*SHAPE))):
        np.testing.assert_allclose(a, b, rtol=64 * 2.0 ** -24, atol=64 * 2.0 ** -24 * abs(a).max())
