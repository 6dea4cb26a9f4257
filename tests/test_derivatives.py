"""Gradients by way of Theano's ops: each operand by itself, also where one has been computed from another."""
import numpy as np
import theano
import theano.tensor as T
from theano.gradient import DisconnectedType

from layoutopt.kernels import CrossMapNorm
from layoutopt.kernels.derivatives import gradients_by

SLOW = theano.Mode(linker="py", optimizer=None)


def test_an_operand_computed_from_another():
    x = T.fvector()
    squares, weights = x ** 2, T.fvector()
    gradients = gradients_by(lambda a, b: [a * b, a + 0 * b], [x, squares], [weights, DisconnectedType()()])
    values = theano.function([x, weights], gradients, mode=SLOW)(np.float32([1, 2, 3]), np.float32([1, 10, 100]))
    np.testing.assert_array_equal(values, [[1, 40, 900], [1, 20, 300]])  # not 3 x ** 2


def test_an_operand_that_nothing_depends_on():
    x, y = T.fvectors(2)
    first, second = gradients_by(lambda a, b: [2 * a], [x, y], [x])
    assert isinstance(second.type, DisconnectedType) and first.type == x.type


def test_normalised_twice():
    """The second derivative of sum(y ** 2): the gradient that flows into the normalisation comes out of it."""
    x, direction = T.ftensor4s(2)
    op = CrossMapNorm(3, 0.5, 0.75)

    def second(y):
        return T.grad((T.grad((y ** 2).sum(), x) * direction).sum(), x)

    rng = np.random.RandomState(0)
    arrays = [rng.standard_normal((5, 3, 2, 4)).astype("float32") for _ in range(2)]
    ours, theirs = theano.function([x, direction], [second(op(x)[0]), second(op.in_theano(x))], mode=SLOW)(*arrays)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6 * abs(theirs).max())
