"""Softmax over channels or classes, in the ways that people write it: the fewest conversions, gradients too."""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.nnet import conv2d

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, conversions, images, op_count, weights, whole

STOCK, FLAGGED = mode(False), mode(True)
SHAPE, CLASSES = (16, 4, 6, 5), 3


def check(inputs, outputs, values):
    """Compile both ways and compare: exponentials and their sums are not exact, but nearly so."""
    stock = theano.function(inputs, outputs, mode=STOCK)
    flagged = theano.function(inputs, outputs, mode=FLAGGED)
    for expected, actual in zip(stock(*values), flagged(*values)):
        assert expected.shape == actual.shape and np.isfinite(expected).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert op_count(flagged, *BC01_OPS) == 0
    return flagged


def activations(f):
    """What is converted but for the images x, weights and their gradients."""
    return [name for name in conversions(f) if name not in ("WeightActs", "w1", "w2", "x") and not name.startswith("(d")]


def scores(x, ws):
    """(batch, classes, rows, columns)."""
    return conv2d(T.nnet.relu(conv2d(x, ws[0], border_mode="half")), ws[1], border_mode="half") / 8


def rows_of_pixels(s):
    """(batch * rows * columns, classes)."""
    return s.dimshuffle(0, 2, 3, 1).reshape((-1, CLASSES))


def by_softmax(s, labels):
    return T.nnet.categorical_crossentropy(T.nnet.softmax(rows_of_pixels(s)), labels.flatten()).mean()


def by_log_softmax(s, labels):
    rows = T.nnet.logsoftmax(rows_of_pixels(s))
    return -rows[T.arange(rows.shape[0]), labels.flatten()].mean()


def right_class(s, labels):
    return T.eq(T.arange(CLASSES).dimshuffle("x", 0, "x", "x"), labels.dimshuffle(0, "x", 1, 2))


def by_exponentials(s, labels):
    e = T.exp(s - s.max(axis=1, keepdims=True))
    return -(T.log(e / e.sum(axis=1, keepdims=True)) * right_class(s, labels)).sum(axis=1).mean()


def by_logarithm_of_sum(s, labels):
    s = s - s.max(axis=1, keepdims=True)
    return -((s - T.log(T.exp(s).sum(axis=1, keepdims=True))) * right_class(s, labels)).sum(axis=1).mean()


# Pixels as rows put the batch among other axes, which no layout carries: scores go there, and their gradient comes back.
# Otherwise the labels, an image themselves, are all that is converted. (Name of the loss: activations converted beside x.)
LOSSES = {by_softmax: 2, by_log_softmax: 2, by_exponentials: 1, by_logarithm_of_sum: 1}


@pytest.mark.parametrize("loss", LOSSES)
def test_of_each_pixel(loss):
    x, value = images(SHAPE)
    labels = T.itensor3("labels")
    ws = [weights(4, 4, name="w1"), weights(CLASSES, 4, name="w2")]
    cost = loss(scores(x, ws), labels)
    right = np.random.RandomState(1).randint(0, CLASSES, (16, 6, 5)).astype("int32")
    f = check([x, labels], [cost] + T.grad(cost, ws), [value, right])
    left = activations(f)
    assert len(left) == LOSSES[loss], left


def to_classes(s):
    return s.mean(axis=(2, 3))


def cross_entropy(s, labels):
    return T.nnet.categorical_crossentropy(T.nnet.softmax(s), labels).mean()


def own_cross_entropy(s, labels):
    p = T.nnet.softmax(s)
    return -T.log(p)[T.arange(labels.shape[0]), labels].mean()


def log_cross_entropy(s, labels):
    return -(T.nnet.logsoftmax(s) * T.extra_ops.to_one_hot(labels, CLASSES)).sum(axis=1).mean()


def biased(s, labels):
    bias = theano.shared(whole(CLASSES, seed=4), name="bias")
    return T.nnet.categorical_crossentropy(T.nnet.softmax(s + bias), labels).mean()


def squares(s, labels):
    return T.sqr(T.nnet.softmax(s) - T.extra_ops.to_one_hot(labels, CLASSES)).sum(axis=1).mean()


# What is converted beside x: of labels written out as a matrix, a product.
OF_IMAGES = {cross_entropy: 0, own_cross_entropy: 0, log_cross_entropy: 1, biased: 0, squares: 0}


@pytest.mark.parametrize("loss", OF_IMAGES)
def test_of_each_image(loss):
    """Rows of a matrix in c01b are columns, and Theano's softmax reads either."""
    x, value = images(SHAPE)
    labels = T.ivector("labels")
    ws = [weights(4, 4, name="w1"), weights(CLASSES, 4, name="w2")]
    cost = loss(to_classes(scores(x, ws)), labels)
    f = check([x, labels], [cost] + T.grad(cost, ws), [value, np.arange(16, dtype="int32") % CLASSES])
    left = activations(f)
    assert len(left) == OF_IMAGES[loss], left
