"""Images enlarged, and pooled over as a whole, in the ways that people write: each crosses in c01b, its gradient too."""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import bilinear_upsampling

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, check as check_modes, conversions, images, op_count, weights

MODES = mode(False), mode(True)
SHAPE = (16, 4, 6, 5)


def spread(h, *rest):
    return h.dimshuffle(0, 1, 2, "x", 3, "x"), (h.shape[0], h.shape[1], 2 * h.shape[2], 3 * h.shape[3])


def repeated(h):
    """T.repeat twice: Keras's resize_images and Lasagne's Upscale2DLayer."""
    return T.repeat(T.repeat(h, 2, axis=2), 3, axis=3)


def dilated(h):
    """Lasagne's Upscale2DLayer in mode dilate."""
    zeros = T.zeros((h.shape[0], h.shape[1], 2 * h.shape[2], 3 * h.shape[3]), dtype=h.dtype)
    return T.set_subtensor(zeros[:, :, ::2, ::3], h)


def tiled(h):
    spread_out, shape = spread(h)
    return T.tile(spread_out, (1, 1, 1, 2, 1, 3)).reshape(shape)


def allocated(h):
    spread_out, shape = spread(h)
    return T.alloc(spread_out, h.shape[0], h.shape[1], h.shape[2], 2, h.shape[3], 3).reshape(shape)


def multiplied(h):
    spread_out, shape = spread(h)
    return (spread_out * T.ones((1, 1, 1, 2, 1, 3), dtype=h.dtype)).reshape(shape)


def stacked(h):
    h = T.stack([T.stack([h] * 3, axis=4)] * 2, axis=3)
    return h.reshape((h.shape[0], h.shape[1], 2 * h.shape[2], 3 * h.shape[4]))


def copies_side_by_side(h):
    return T.tile(h, (1, 1, 2, 3))


WAYS = [repeated, dilated, tiled, allocated, multiplied, stacked, copies_side_by_side]


@pytest.mark.parametrize("enlarge", WAYS)
def test_enlarged(enlarge):
    x, value = images(SHAPE)
    ws = [weights(3, 4, name="w1"), weights(2, 3, name="w2")]
    larger = enlarge(T.nnet.relu(conv2d(x, ws[0], border_mode="half")))
    out = conv2d(larger, ws[1])
    f = check_modes([x], [out] + T.grad(out.sum(), ws), [value], modes=MODES)
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w1", "w2", "x"]


def test_rows_repeated_by_a_vector():
    """Each row as often as a vector says; T.repeat has no gradient of that."""
    x, value = images(SHAPE)
    w, w2 = weights(3, 4), weights(2, 3, name="w2")
    counts = T.lvector("counts")
    out = conv2d(T.repeat(T.nnet.relu(conv2d(x, w)), counts, axis=2), w2)
    f = check_modes([x, counts], [out], [value, np.array([1, 0, 3, 2])], modes=MODES)
    assert conversions(f) == ["FilterActs", "w", "w2", "x"]


def test_bilinear():
    """Theano's makes an image of each channel, which no layout carries: it is converted at either side of its two passes."""
    x, value = images(SHAPE)
    w, w2 = weights(3, 4), weights(2, 3, name="w2")
    h = bilinear_upsampling(conv2d(x, w, border_mode="half"), 2, batch_size=16, num_input_channels=3)
    stock, flagged = (theano.function([x], conv2d(h, w2), mode=chosen) for chosen in MODES)
    np.testing.assert_array_equal(stock(value), flagged(value))  # weights are halves and quarters
    assert op_count(flagged, *BC01_OPS) == 0
    activations = [name for name in conversions(flagged) if name not in ("w", "w2", "x")]
    assert len(activations) <= 5, activations  # the result among them


def divided(h):
    return h.sum(axis=[2, 3]) / (h.shape[2] * h.shape[3])


# Spellings of the mean of each channel's pixels, of 8 x 4 pixels.
MEANS = {
    "both axes": lambda h: h.mean(axis=(2, 3)),
    "negative axes, kept": lambda h: h.mean(axis=(-1, -2), keepdims=True).flatten(2),
    "one after the other": lambda h: h.mean(axis=3).mean(axis=2),
    "flattened": lambda h: h.flatten(3).mean(axis=2),
    "reshaped": lambda h: h.reshape((h.shape[0], h.shape[1], -1)).mean(axis=2),
    "sum and division": divided,
    "channels last": lambda h: h.dimshuffle(0, 2, 3, 1).mean(axis=(1, 2)),
}


@pytest.mark.parametrize("name", MEANS)
def test_global_average(name):
    """Into a dense layer, whose product takes either layout: nothing is converted but what comes in and what is learnt."""
    x, value = images((16, 4, 8, 4))
    w = weights(3, 4)
    dense = theano.shared(np.eye(3, 5, dtype="float32"), name="dense")
    h = T.nnet.relu(conv2d(x, w, border_mode="half"))
    out = T.dot(MEANS[name](h), dense).sum(axis=0)
    f = check_modes([x], [out] + T.grad((out * 32).sum(), [w, dense]), [value], modes=MODES)
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["WeightActs", "w", "x"]


@pytest.mark.parametrize("axis", [0, 1, (0, 1), (2, 3), (0, 2, 3), None], ids=str)
def test_maxima_and_where_they_are(axis):
    """Indices count through the axes in the program's order and name the first of equal maxima, in any layout."""
    x, value = images(SHAPE)
    w = weights(3, 4)
    h = T.nnet.relu(conv2d(x, w))
    largest, where = T.max_and_argmax(h, axis=axis, keepdims=True)
    f = check_modes([x], [largest, where, T.argmax(h, axis=axis), T.grad((h - largest).sum(), w)], [value], modes=MODES)
    assert op_count(f, *BC01_OPS) == 0
