"""Dropout in training: random streams yield what they do without the flag, step after step, and no mask is converted twice."""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStreams
from theano.tensor.nnet import conv2d
from theano.tensor.shared_randomstreams import RandomStreams
from theano.tensor.signal.pool import pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, images, op_count, weights, whole

SHAPE, STEPS = (16, 4, 8, 8), 3


def by_binomial(streams, shape):
    return streams.binomial(shape, p=0.5, dtype="float32")


def by_uniform(streams, shape):
    return T.cast(streams.uniform(shape, dtype="float32") < np.float32(0.5), "float32")


def by_channels(streams, shape):
    """Whole channels dropped, as in Lasagne's spatial dropout."""
    mask = streams.binomial((shape[0], shape[1], 1, 1), p=0.5, dtype="float32")
    return T.addbroadcast(mask, 2, 3)


def training_step(chosen, streams, draw):
    """(function of images: masks and gradients, after which the parameters are changed)."""
    x, _ = images()
    w, w2, dense = weights(5, 4), weights(3, 5, name="w2"), theano.shared(whole(12, 2, seed=4, most=1), name="dense")
    streams, masks = streams(seed=5), []

    def drop(h):
        masks.append(draw(streams, h.shape) if h.ndim == 4 else by_binomial(streams, h.shape))
        return h * masks[-1] * 2

    h = drop(T.nnet.relu(conv2d(x, w)))
    h = pool_2d(T.nnet.relu(conv2d(h, w2)), (2, 2), ignore_border=True)
    out = T.dot(drop(h.flatten(2)), dense)
    params = [w, w2, dense]
    grads = T.grad(out.sum(), params)
    updates = [(p, p - T.sgn(g)) for p, g in zip(params, grads)]  # whole numbers stay whole and small
    return theano.function([x], masks + grads, updates=updates, mode=chosen)


@pytest.mark.parametrize("draw", [by_binomial, by_uniform, by_channels])
@pytest.mark.parametrize("streams", [MRG_RandomStreams, RandomStreams])
def test_the_same_masks_in_every_step(streams, draw):
    stock, flagged = (training_step(mode(chosen), streams, draw) for chosen in (False, True))
    masks = []
    for seed in range(STEPS):
        value = whole(*SHAPE, seed=seed, most=1)
        expected, actual = stock(value), flagged(value)
        for a, b in zip(expected, actual):
            np.testing.assert_array_equal(a, b)
        masks.append(expected[0])
    assert all(0.2 < mask.mean() < 0.8 for mask in masks) and (masks[0] != masks[1]).any()
    assert op_count(flagged, *BC01_OPS) == 0
    converted = [conversion.value for conversion in layoutopt.explain(flagged).record.conversions]
    left = [name for name in converted if name not in ("WeightActs", "dense", "w", "w2", "x") and not name.startswith("(d")]
    assert len(left) <= 2, left  # at most each mask, once
