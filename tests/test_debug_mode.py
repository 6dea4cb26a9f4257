"""Theano's DebugMode on graphs with our ops: C beside `perform`, views, in-place claims, and every rewrite beside the original.

Stock's own abstract convolutions and poolings fail in DebugMode with this numpy and scipy (they need scipy.signal.sigtools, and index
with lists), with layoutopt or without: so convolutions are CorrMM here, and poolings are written in c01b.
"""
import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.debugmode import DebugMode
from theano.tensor.nnet.corr import CorrMM

from layoutopt.kernels import (CrossMapNorm, CrossMapNormUndo, FilterActs, ImageActs, MaxPool, MaxPoolGrad, StochasticMaxPool,
                               WeightActs, WeightedMaxPool, WeightedMaxPoolGrad)
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from tolerance import whole_numbers


def checked(inputs, outputs):
    # Strides are not compared: an op may return any, and numpy's transpositions do.
    mode = DebugMode(optimizer="fast_run", stability_patience=1, require_matching_strides=False).including("layoutopt")
    return theano.function(inputs, outputs, mode=mode)


def ops_of(f):
    return {type(node.op) for node in f.maker.fgraph.apply_nodes}


def test_a_rewritten_convolution_and_its_gradients(rng):
    x = tt.TensorType("float32", (False,) * 4)("x")
    w = theano.shared(whole_numbers(rng, (16, 3, 3, 3)), "filters")
    y = CorrMM()(x, w)
    f = checked([x], [y] + tt.grad((y * y).sum(), [w, x]))
    assert {FilterActs, ImageActs, WeightActs} <= ops_of(f)
    images = whole_numbers(rng, (64, 3, 9, 9))
    for got, expected in zip(f(images), theano.function([x], [y] + tt.grad((y * y).sum(), [w, x]), mode="FAST_RUN")(images)):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("pool, ops", [
    (MaxPool((2, 2)), {MaxPool, MaxPoolGrad}), (AvgPool((2, 2)), {AvgPool, AvgPoolGrad}),
    (StochasticMaxPool((2, 2)), {StochasticMaxPool, MaxPoolGrad}),
    (WeightedMaxPool((2, 2)), {WeightedMaxPool, WeightedMaxPoolGrad})])
def test_poolings_and_their_gradients(rng, pool, ops):
    x = tt.TensorType("float32", (False,) * 4)("x")
    y = pool(x)
    f = checked([x], [y, tt.grad((y * y).sum(), x)])
    assert ops <= ops_of(f)
    images = np.ones((3, 6, 6, 20), "float32")
    np.testing.assert_array_equal(f(images)[0], 1)


def test_normalisation_across_channels_and_its_gradient(rng):
    x = tt.TensorType("float32", (False,) * 4)("x")
    y = CrossMapNorm(3, 1, 1, axis=1)(x)[0]
    f = checked([x], [y, tt.grad(y.sum(), x)])
    assert {CrossMapNorm, CrossMapNormUndo} <= ops_of(f)
    y, gx = f(np.ones((2, 4, 3, 20), "float32"))
    np.testing.assert_allclose(y[:, :, 0, 0], [[1 / 3, 1 / 4, 1 / 4, 1 / 3]] * 2, rtol=1e-6)
    # 1 / d - 2 (1 / d^2 of each channel that has this one in its window)
    np.testing.assert_allclose(gx[0, :2, 0, 0], [1 / 3 - 2 / 9 - 2 / 16, 1 / 4 - 2 / 9 - 4 / 16], rtol=1e-5)
