"""Networks with joins, parts, batch normalization, dropout, branches and ops made by hand, with and without the flag.

As in test_rewrite: whole numbers, exact equality, and no conversion but the necessary ones.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.ifelse import ifelse
from theano.sandbox.rng_mrg import MRG_RandomStreams
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import conv2d_grad_wrt_inputs
from theano.tensor.nnet.bn import batch_normalization, batch_normalization_test, batch_normalization_train
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights
from theano.tensor.shared_randomstreams import RandomStreams
from theano.tensor.signal.pool import pool_2d

from layoutopt.kernels import FilterActs, ImageActs, MaxPoolGradGrad, WeightActs
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, check as check_modes, conversions, images, layer, op_count, weights, whole

STOCK, FLAGGED = mode(False), mode(True)
SHAPE = (16, 4, 12, 12)


def check(inputs, outputs, values, **kwargs):
    return check_modes(inputs, outputs, values, modes=(STOCK, FLAGGED), **kwargs)


def same(x, w, b=None):
    """A layer that keeps rows and columns."""
    return layer(x, w, b, pool=False, border_mode="half")


def gradients_of(out, params):
    """Of a cost whose gradients are small whole numbers."""
    return T.grad((out * out).sum(), params)


def check_close(inputs, outputs, values):
    """`test_rewrite.check` for what is not exact: roots, and sums of their multiples."""
    stock = theano.function(inputs, outputs, mode=STOCK)
    flagged = theano.function(inputs, outputs, mode=FLAGGED)
    for expected, actual in zip(stock(*values), flagged(*values)):
        assert expected.shape == actual.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    return flagged


# ---------------------------------------------------------------------------------------------------------------------
# Joins.


def test_inception():
    """Four branches, of four kinds, joined along channels; their gradients come out of a split."""
    x, value = images(SHAPE)
    ws = [weights(2, 4, 1, name="w1"), weights(3, 4, 1, name="w3a"), weights(4, 3, 3, name="w3"),
          weights(2, 4, 1, name="w5a"), weights(2, 2, 5, name="w5"), weights(3, 4, 1, name="wp")]
    w1, w3a, w3, w5a, w5, wp = ws
    branches = [same(x, w1), same(same(x, w3a), w3), same(same(x, w5a), w5),
                same(pool_2d(x, (3, 3), stride=(1, 1), pad=(1, 1), ignore_border=True), wp)]
    out = pool_2d(T.concatenate(branches, axis=1), (2, 2), ignore_border=True)
    f = check([x], [out] + T.grad(out.sum(), ws), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["MaxPool"] + 6 * ["WeightActs"] + ["w1", "w3", "w3a", "w5", "w5a", "wp", "x"]


def test_dense_block():
    """Every layer reads the outputs of all layers before it."""
    x, value = images(SHAPE)
    ws = [weights(3, 4, name="w1"), weights(2, 7, name="w2"), weights(2, 9, name="w3")]
    h = x
    for w in ws:
        h = T.concatenate([h, same(h, w)], axis=1)
    f = check([x], [h] + T.grad(h.sum(), ws), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["Join"] + 3 * ["WeightActs"] + ["w1", "w2", "w3", "x"]


def test_images_joined_and_halves_apart():
    """Two inputs in one batch through shared filters, then apart: along the batch, which is the last axis in c01b."""
    x, value = images(SHAPE)
    y, other = images(SHAPE, name="y")
    h = same(T.concatenate([x, y], axis=0), weights(5, 4))
    first, second = h[:x.shape[0]], h[x.shape[0]:]
    f = check([x, y], [conv2d(first * second, weights(3, 5, name="w2"))], [value, other])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "Join", "w", "w2"]


# ---------------------------------------------------------------------------------------------------------------------
# Parts.


def test_crop_and_join_across():
    """As in a U-net: a crop of an early layer beside a late one that was made larger again."""
    x, value = images(SHAPE)
    ws = [weights(3, 4, name="w1"), weights(3, 3, name="w2"), weights(2, 6, name="w3")]
    early = same(x, ws[0])
    late = layer(early, ws[1])
    larger = T.repeat(T.repeat(late, 2, axis=2), 2, axis=3)
    out = layer(T.concatenate([early[:, :, 1:-1, 1:-1], larger], axis=1), ws[2], pool=False)
    f = check([x], [out] + T.grad(out.sum(), ws), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs"] + 3 * ["WeightActs"] + ["w1", "w2", "w3", "x"]


def test_upsampling_by_broadcasting():
    """(b, c, h, w) spread to (b, c, h, 2, w, 2) by a product with ones, then reshaped."""
    x, value = images(SHAPE)
    h = same(x, weights(3, 4))
    ones = T.ones((1, 1, 1, 2, 1, 2), dtype="float32")
    b, c, rows, columns = (h.shape[axis] for axis in range(4))
    larger = (h.dimshuffle(0, 1, 2, "x", 3, "x") * ones).reshape((b, c, 2 * rows, 2 * columns))
    f = check([x], [conv2d(larger, weights(2, 3, name="w2"))], [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "w", "w2", "x"]


def test_padding_by_hand():
    """Zeros with images set into their middle; the gradient cuts the middle out."""
    x, value = images(SHAPE)
    w, w2 = weights(3, 4), weights(2, 3, name="w2")
    h = same(x, w)
    zeros = T.zeros((h.shape[0], h.shape[1], h.shape[2] + 2, h.shape[3] + 3), dtype="float32")
    padded = T.set_subtensor(zeros[:, :, 1:-1, 2:-1], h)
    out = conv2d(padded, w2)
    f = check([x], [out] + T.grad(out.sum(), [w, w2]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w", "w2", "x"]


def test_single_images_and_channels():
    x, value = images(SHAPE)
    h = same(x, weights(6, 4))
    parts = [h[0], h[:, 2], h[-1, 1], h[:, 0, 1, 2], h[:, ::2, ::-1, 1], h[3:4], T.inc_subtensor(h[1:, 3], 2)]
    f = check([x], [conv2d(h, weights(2, 6, name="w2")).sum(axis=(0, 2, 3))] + [p.sum() for p in parts], [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["w", "w2", "x"]


def test_a_list_of_images_is_converted_as_it_is_picked():
    x, value = images(SHAPE)
    i = T.lvector("i")
    h = same(x, weights(6, 4))[i]
    f = check([x, i], [conv2d(h, weights(2, 6, name="w2"))], [value, np.array([3, 1, 1])])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "FilterActs", "w", "w2", "x"]


# ---------------------------------------------------------------------------------------------------------------------
# Batch normalization.


def scale_and_bias(channels):
    return theano.shared(whole(channels, seed=6) + 3, name="gamma"), theano.shared(whole(channels, seed=7), name="beta")


def by_elements(h, gamma, beta):
    """Written out, as Lasagne and others do it."""
    mean = h.mean(axis=(0, 2, 3), keepdims=True)
    deviation = T.inv(T.sqrt(h.var(axis=(0, 2, 3), keepdims=True) + 1e-4))
    return (h - mean) * (gamma.dimshuffle("x", 0, "x", "x") * deviation) + beta.dimshuffle("x", 0, "x", "x")


def by_elementwise_op(h, gamma, beta):
    mean, deviation = h.mean(axis=(0, 2, 3), keepdims=True), h.std(axis=(0, 2, 3), keepdims=True) + 1
    gamma, beta = (parameter.dimshuffle("x", 0, "x", "x") for parameter in (gamma, beta))
    return batch_normalization(h, gamma, beta, mean, deviation)


def by_training_op(h, gamma, beta):
    return batch_normalization_train(h, gamma, beta, axes="spatial")[0]


def by_inference_op(h, gamma, beta):
    mean = theano.shared(whole(4, seed=8), name="mean")
    return batch_normalization_test(h, gamma, beta, mean, gamma * gamma, axes="spatial")


@pytest.mark.parametrize("normalize", [by_elements, by_elementwise_op, by_training_op, by_inference_op])
def test_batch_normalization(normalize):
    x, value = images(SHAPE)
    w, w2 = weights(4, 4), weights(3, 4, name="w2")
    gamma, beta = scale_and_bias(4)
    out = conv2d(T.nnet.relu(normalize(conv2d(x, w, border_mode="half"), gamma, beta)), w2)
    f = check_close([x], [out] + gradients_of(out, [w, gamma, beta, w2]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w", "w2", "x"]


def test_running_averages():
    x, value = images(SHAPE)
    gamma, beta = scale_and_bias(4)
    averages = [theano.shared(whole(4, seed=8), name="mean"), theano.shared(whole(4, seed=9) + 3, name="variance")]
    h = conv2d(x, weights(4, 4), border_mode="half")
    outputs = batch_normalization_train(h, gamma, beta, "spatial", 1e-4, 0.25, *averages)
    f = check_close([x], [conv2d(outputs[0], weights(3, 4, name="w2"))] + list(outputs[1:]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "w", "w2", "x"]


# ---------------------------------------------------------------------------------------------------------------------
# Dropout: the values of the stream stay; its mask is converted, which is smaller or as large, never the activations.


@pytest.mark.parametrize("streams, drawn", [(MRG_RandomStreams, "Elemwise Cast{float32}"),
                                            (RandomStreams, "RandomFunction")])
def test_dropout(streams, drawn):
    x, value = images(SHAPE)
    w2 = weights(3, 5, name="w2")
    results = {}
    for chosen in (STOCK, FLAGGED):
        h = same(x, weights(5, 4))
        mask = streams(seed=5).binomial(h.shape, p=0.5, dtype="float32")
        out = conv2d(h * mask * 2, w2)
        f = theano.function([x], [out, mask] + T.grad(out.sum(), [w2]), mode=chosen)
        results[chosen] = [f(value) for _ in range(2)]
    for expected, actual in zip(results[STOCK], results[FLAGGED]):
        for a, b in zip(expected, actual):
            np.testing.assert_array_equal(a, b)
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == sorted([drawn, "FilterActs", "WeightActs", "w", "w2", "x"])


# ---------------------------------------------------------------------------------------------------------------------
# Branches and assertions.


def test_branches():
    x, value = images(SHAPE)
    c = T.bscalar("c")
    h = same(x, weights(5, 4))
    chosen = ifelse(c, T.tanh(h) * 0, h - 1)
    asserted = T.opt.Assert()(chosen, T.gt(h.shape[1], c))
    f = check([x, c], [conv2d(asserted, weights(3, 5, name="w2"))], [value, np.int8(0)])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "w", "w2", "x"]


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions and derivatives that conv2d does not make.


def test_second_derivative_of_pooling():
    x, value = images(SHAPE)
    w = weights(3, 4)
    pooled = pool_2d(conv2d(x, w), (3, 3), stride=(2, 2), ignore_border=True)
    g, = T.grad((pooled * pooled).sum(), [x])
    f = check([x], [pooled] + T.grad(g[:, :, 2:-2].sum(), [w]), [value])
    assert op_count(f, *BC01_OPS) == 0 and op_count(f, MaxPoolGradGrad) == 1
    assert conversions(f) == ["Elemwise add", "MaxPool", "w", "x"]


@pytest.mark.parametrize("border_mode", ["valid", "half", "full", ((1, 2), (0, 1))], ids=str)
def test_corr_made_by_hand(border_mode):
    """With a stride, and without rows and columns where Theano computes them."""
    x, value = images((16, 4, 12, 11))
    w = theano.shared(whole(5, 4, 3, 5, seed=1, most=1), name="w")
    strided = CorrMM(border_mode, (2, 3))(x, w)
    h = CorrMM(border_mode)(x, w)
    outputs = [strided, h, CorrMM_gradInputs(border_mode)(w, h)] + T.grad((strided * strided).sum(), [x, w])
    if border_mode != "half":
        outputs.append(CorrMM_gradWeights(border_mode)(x, h))
    f = check([x], outputs, [value])
    assert op_count(f, CorrMM, CorrMM_gradInputs, CorrMM_gradWeights) == 0
    weight_gradients = (1 if border_mode == "half" else 2) * ["WeightActs"]
    assert conversions(f) == ["FilterActs", "FilterActs", "ImageActs", "ImageActs"] + weight_gradients + ["w", "x"]


@pytest.mark.parametrize("told", [True, False])
def test_legacy_conv_op(told):
    """Forward in both modes, and a gradient, which is a ConvOp of images and channels exchanged."""
    x, value = images((16, 4, 12, 11))
    w, w2 = weights(5, 4), weights(3, 5, name="w2")
    known = dict(imshp=(4, 12, 11), kshp=(3, 3), nkern=5, bsize=16) if told else {}
    h = T.nnet.relu(ConvOp(output_mode="valid", **known)(x, w))
    known = dict(imshp=(5, 10, 9), kshp=(3, 3), nkern=3, bsize=16) if told else {}
    out = ConvOp(output_mode="full", **known)(h, w2)
    f = check([x], [out, ConvOp(dx=2, dy=3)(x, w)] + T.grad(out.sum(), [w2]), [value])
    assert op_count(f, ConvOp) == 0
    assert conversions(f) == ["FilterActs", "FilterActs", "WeightActs", "w", "w2", "x"]


def test_deconvolution():
    """The image gradient as a layer of its own, strided, and its gradients."""
    x, value = images((16, 4, 6, 6))
    w, w2 = weights(4, 3, 4), weights(2, 3, name="w2")
    larger = conv2d_grad_wrt_inputs(x, w, (None, 3, 12, 12), border_mode=(1, 1), subsample=(2, 2))
    out = conv2d(T.nnet.relu(larger), w2)
    f = check([x], [out] + T.grad(out.sum(), [w, w2]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert (op_count(f, FilterActs), op_count(f, ImageActs), op_count(f, WeightActs)) == (1, 2, 2)
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w", "w2", "x"]


def test_deconvolution_by_a_stride_larger_than_the_filter():
    """Pixels between the filters' traces are zero; pads cut unequal parts off."""
    x, value = images((16, 4, 5, 4))
    w = theano.shared(whole(4, 3, 2, 3, seed=1, most=1), name="w")
    larger = conv2d_grad_wrt_inputs(x, w, (None, 3, 14, 16), border_mode=((1, 0), (0, 2)), subsample=(3, 5))
    f = check([x], [larger] + T.grad((larger * larger).sum(), [x, w]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert (op_count(f, FilterActs), op_count(f, ImageActs), op_count(f, WeightActs)) == (1, 1, 1)
    assert conversions(f) == ["FilterActs", "ImageActs", "WeightActs", "w", "x"]


def test_gradients_of_corr_gradients_made_by_hand():
    """CorrMM_gradInputs and CorrMM_gradWeights as layers; their gradients are convolutions and each other."""
    x, value = images((16, 4, 9, 8))
    w = theano.shared(whole(5, 4, 3, 3, seed=1, most=1), name="w")
    g = theano.shared(whole(16, 5, 5, 3, seed=4, most=1), name="g")
    parameters = dict(border_mode=((1, 2), (0, 1)), subsample=(2, 3))
    smaller = CorrMM_gradInputs(**parameters)(w, g, (9, 8))
    filters = CorrMM_gradWeights(**parameters)(x, g, (3, 3))
    outputs = [smaller, filters] + T.grad((smaller * x).sum() + (filters * w).sum(), [x, w, g])
    f = check([x], outputs, [value])
    assert op_count(f, CorrMM, CorrMM_gradInputs, CorrMM_gradWeights) == 0
    # One of each, and one more for filters whose size is not told but read off w.
    assert (op_count(f, FilterActs), op_count(f, ImageActs), op_count(f, WeightActs)) == (1, 1, 2)


def test_strides_larger_than_the_filter():
    """1 x 1 filters at every second pixel, as where a ResNet halves its images."""
    x, value = images((16, 4, 13, 12))
    w, w2 = weights(5, 4, 1), weights(5, 4, name="w2")
    out = T.nnet.relu(conv2d(x, w, subsample=(2, 2)) + conv2d(x, w2, subsample=(2, 2), border_mode="half"))
    f = check([x], [out] + T.grad((out * out).sum(), [x, w, w2]), [value])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["Elemwise add", "Elemwise mul", "WeightActs", "WeightActs", "w", "w2", "x"]
