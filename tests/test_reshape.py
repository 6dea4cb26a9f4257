"""Reshapes whose batch no graph proves to stay: an op that looks when it runs, and the programs that need it."""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.nnet import conv2d

from layoutopt.kernels.reshape import ReshapeC01B
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from test_rewrite import BC01_OPS, check as check_modes, conversions, images, op_count, weights, whole

STOCK, FLAGGED = mode(False), mode(True)


def check(inputs, outputs, values):
    return check_modes(inputs, outputs, values, modes=(STOCK, FLAGGED))


# (sizes before, shape to take): the batch stays; it stays, by -1; it does not; nothing is there.
STAYS = [((5, 4, 3, 2), (5, 24)), ((5, 24), (5, 4, 3, 2)), ((5, 4), (-1, 2, 2)), ((5, 4, 3), (5, -1)), ((1, 4), (1, 2, 2)),
         ((0, 4, 3), (0, 12)), ((0, 4, 3), (-1, 12)), ((5, 0, 3), (5, 0))]
CHANGES = [((5, 4, 3, 2), (10, 12)), ((5, 4), (-1, 5)), ((6, 2, 3), (9, 4)), ((5, 4), (1, 20)), ((0, 4), (4, 0))]


@pytest.mark.parametrize("before, shape", STAYS + CHANGES)
@pytest.mark.parametrize("contiguous", [True, False])
def test_any_shape(before, shape, contiguous, rng):
    value = rng.randint(0, 100, before).astype("float32")
    c01b = np.moveaxis(value, 0, -1)
    x = T.TensorType("float32", (False,) * len(before))()
    op = ReshapeC01B((False,) * len(shape))
    storage = [[None]]
    operand = c01b.copy() if contiguous else c01b
    op.perform(op(x, np.array(shape)).owner, [operand, np.array(shape)], storage)
    np.testing.assert_array_equal(np.moveaxis(storage[0][0], -1, 0), value.reshape(shape))
    if contiguous and (before, shape) in STAYS and value.size:
        assert np.shares_memory(storage[0][0], operand)


@pytest.mark.parametrize("shape, complaint", [((5, 5), r"\(4, 3, 5\), the batch last, to \(5, 5\)"), ((-1, -1), "cannot"),
                                              ((5, -2), "cannot"), ((7, -1), "cannot"), ((60,), "a shape of 1 axes")])
def test_what_does_not_fit_is_refused(shape, complaint):
    op, shape = ReshapeC01B((False, False)), np.array(shape)
    x = T.ftensor3()
    with pytest.raises(ValueError, match=complaint):
        op.perform(op(x, shape).owner, [np.zeros((4, 3, 5), "float32"), shape], [[None]])


@pytest.mark.parametrize("x, shape", [(T.fvector(), [1, 2]), (T.fmatrix(), [1.0, 2.0]), (T.fmatrix(), [[1, 2]])])
def test_operands_of_the_wrong_kind_are_refused(x, shape):
    with pytest.raises(TypeError, match="ReshapeC01B takes"):
        ReshapeC01B((False, False))(x, np.array(shape))


@pytest.mark.parametrize("batch", [16, -1])
def test_a_generator_that_names_its_batch(batch):
    """Noise of any number of images; the dense layer's result becomes images of a number that the program names."""
    noise = T.fmatrix("noise")
    dense = theano.shared(whole(7, 4 * 6 * 5, seed=1), name="dense")
    ws = [dense, weights(3, 4, name="w1"), weights(2, 3, name="w2")]
    h = T.dot(noise, dense).reshape((batch, 4, 6, 5))
    out = conv2d(T.nnet.relu(conv2d(h, ws[1])), ws[2])
    f = check([noise], [out] + T.grad(out.sum(), ws), [whole(16, 7)])
    assert op_count(f, *BC01_OPS) == 0
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w1", "w2"]


def test_another_batch_than_at_first():
    """What the sizes say when the function is compiled is not so later: two halves of each image become images."""
    x, value = images((16, 4, 6, 5))
    w, noise = weights(4, 4), theano.shared(whole(16, 4, 6, 5), name="noise")
    h = T.nnet.relu(conv2d(noise * x, w, border_mode="half"))
    out = h.reshape((16, -1)).sum(axis=1)
    outputs = [out] + T.grad((out * out).sum(), [w, noise])
    f = check([x], outputs, [value])
    assert op_count(f, ReshapeC01B) > 0
    noise.set_value(whole(8, 4, 6, 5))
    stock = theano.function([x], outputs, mode=STOCK)
    for expected, actual in zip(stock(value[:8]), f(value[:8])):
        np.testing.assert_array_equal(expected, actual)


def test_a_shape_by_minus_one_after_sizes_that_were_told():
    x, value = images((16, 4, 12, 12))
    w, w2 = weights(6, 4), weights(3, 6, name="w2")
    h = conv2d(x, w, input_shape=(None, 4, 12, 12), filter_shape=(6, 4, 3, 3), border_mode="half")
    out = conv2d(h.reshape((-1, 6, 4, 36)), w2)
    f = check([x], [out] + T.grad(out.sum(), [w, w2]), [value])
    assert op_count(f, *BC01_OPS) == op_count(f, ReshapeC01B) == 0
    assert conversions(f) == ["FilterActs", "WeightActs", "WeightActs", "w", "w2", "x"]


@pytest.mark.parametrize("rest", [
    lambda h: (T.prod(h.shape[1:]),), lambda h: (h.shape[1] * h.shape[2] * h.shape[3],),
    lambda h: (h.shape[1], h.shape[2] * h.shape[3])], ids=["prod", "product", "by channels"])
def test_minus_one_and_all_else_by_name(rest):
    """Images of no known size: what is named after -1 is proven to be all else, factor by factor."""
    x, value = images((16, 4, 6, 5))
    h = T.nnet.relu(conv2d(x, weights(3, 4)))
    flat = h.reshape((-1,) + rest(h))
    out = flat.sum(axis=tuple(range(1, flat.ndim)))
    f = check([x], [out], [value])
    assert conversions(f) == ["w", "x"]
