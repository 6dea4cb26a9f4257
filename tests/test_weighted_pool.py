"""Pooling by the values' own weights in c01b order: against numpy, its derivatives against finite differences, its contract."""
import functools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st

from layoutopt.kernels import WeightedMaxPool, WeightedMaxPoolGrad
from layoutopt.kernels.reference import weighted_pool as reference

from pooling import FAST, LITTLE_C, LITTLE_C_OPTIMIZED, assert_same_bits, reals, refused, zeros
from tolerance import SMALLEST, gamma


@functools.lru_cache(maxsize=None)
def compiled(op):
    inputs = [T.ftensor4() for _ in range(3 if isinstance(op, WeightedMaxPoolGrad) else 1)]
    return theano.function(inputs, op(*inputs), mode=FAST)


def two_ops(*parameters, **named):
    op = WeightedMaxPool(*parameters, **named)
    return op, op.like(WeightedMaxPoolGrad)


def geometry(op):
    return op.ds, op.stride, op.start


def expected_pool(op, x):
    with np.errstate(all="ignore"):
        return reference.weighted_max_pool(x, op.output_grid(x.shape[1:3]), *geometry(op))


def integers(rng, shape):
    """Sums are exact, often 0, and quotients rounded once, here as there."""
    return rng.randint(-1, 4, shape).astype("float32")


def weights(rng, shape):
    return abs(reals(rng, shape))


def strange(rng, shape):
    return rng.choice(np.float32([np.nan, np.inf, -np.inf, 0, 0, 0, 1, -1, -0.0]), size=shape)


shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2, 15, 16, 17, 33, 127]))
pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


def gradient_bound(op, x, y, gz):
    """The exact gradient at these operands, and what float32 may be off.

    A window of n pixels, w windows around a pixel: the share gz / sum takes n roundings, if nothing in the sum cancels, 2 x - y
    one, the product one, the sum over windows w.
    """
    x, y, gz = (array.astype("float64") for array in (x, y, gz))
    exact = reference.weighted_max_pool_grad(x, y, gz, *geometry(op))
    magnitude = reference.weighted_max_pool_grad(abs(x), -abs(y), abs(gz), *geometry(op))
    windows = np.prod([-(-size // step) for size, step in zip(op.ds, op.stride)])
    return exact, gamma(np.prod(op.ds) + windows + 3) * magnitude + SMALLEST


@settings(max_examples=80)
@given(shape=shapes, ds=pairs, stride=pairs, start=st.tuples(st.integers(-4, 2), st.integers(-4, 2)),
       ceil_mode=st.booleans(), seed=st.integers(0, 99))
def test_matches_reference(shape, ds, stride, start, ceil_mode, seed):
    start = tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))
    pool, grad = two_ops(ds, stride, start, ceil_mode=ceil_mode)
    rng = np.random.RandomState(seed)
    for kind in (integers, strange):
        x = kind(rng, shape)
        assert_same_bits(compiled(pool)(x), expected_pool(pool, x))
    x = weights(rng, shape)
    y = compiled(pool)(x)
    # Of n values that are not negative: n roundings of either sum, and one of the quotient.
    exact = expected_pool(pool, x.astype("float64"))
    assert (abs(y - exact) <= gamma(2 * np.prod(ds) + 1) * exact + SMALLEST).all()
    gz = reals(rng, y.shape)
    exact, bound = gradient_bound(grad, x, y, gz)
    assert (abs(compiled(grad)(x, y, gz) - exact) <= bound).all()


# Beyond the size from which threads are used and the caches avoided, with a batch of whole pieces, and not.
@pytest.mark.parametrize("batch", [128, 127])
@pytest.mark.parametrize("parameters", [(2, 2), (3, 2, -1), (1, 1)])
def test_large(parameters, batch):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    x = integers(rng, (26, 41, 40, batch))
    y = compiled(pool)(x)
    assert_same_bits(y, expected_pool(pool, x))
    x, gz = abs(x), reals(rng, y.shape)
    y = compiled(pool)(x)
    exact, bound = gradient_bound(grad, x, y, gz)
    assert (abs(compiled(grad)(x, y, gz) - exact) <= bound).all()


def test_windows_of_zeros_give_zeros():
    pool, grad = two_ops(2, 1)
    x = zeros(1, 3, 4, 20)
    x[0, 0, 0] = 2
    y = compiled(pool)(x)
    np.testing.assert_array_equal(y[0, :, :, 3], [[2, 0, 0], [0, 0, 0]])
    gx = compiled(grad)(x, y, np.ones_like(y))
    np.testing.assert_array_equal(gx[0, :, :, 3], [[1, -1, 0, 0], [-1, -1, 0, 0], [0, 0, 0, 0]])  # 2 a - y over 2


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives, by finite differences in float64 on the reference.

PARAMETERS = [((2, 2),), ((3, 2), (2, 1)), ((3, 3), (2, 2), (-1, -1)), ((2, 2), (3, 3))]
STEP = 1e-5


def operands(rng, op, shape=(2, 7, 6, 5)):
    x = rng.uniform(0.5, 2, shape)
    y = reference.weighted_max_pool(x, op.output_grid(shape[1:3]), *geometry(op))
    return x, y, rng.standard_normal(y.shape)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_gradient_is_the_derivative(parameters):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    x, y, gz = operands(rng, pool)
    direction = rng.standard_normal(x.shape)

    def along(sign):
        return (gz * reference.weighted_max_pool(x + sign * STEP * direction, y.shape[1:3], *geometry(pool))).sum()

    derivative = (along(1) - along(-1)) / (2 * STEP)
    gx = reference.weighted_max_pool_grad(x, y, gz, *geometry(grad))
    np.testing.assert_allclose((gx * direction).sum(), derivative, rtol=1e-6)


@functools.lru_cache(maxsize=None)
def derivatives(op):
    """The gradient of the gradient for each of its operands, and the derivative of the pooling along a direction."""
    x, y, gz, a, v = (T.ftensor4() for _ in range(5))
    gx = op.like(WeightedMaxPoolGrad)(x, y, gz)
    return theano.function([x, y, gz, a, v], T.grad(None, [x, y, gz], known_grads={gx: a}) + [T.Rop(op(x), x, v)], mode=LITTLE_C)


@pytest.mark.parametrize("parameters", PARAMETERS[1:3])
def test_second_derivatives_and_the_r_operator(parameters):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    x, y, gz = operands(rng, pool)
    a, direction = rng.standard_normal(x.shape), rng.standard_normal(x.shape)
    *seconds, along = derivatives(pool)(*(array.astype("float32") for array in (x, y, gz, a, direction)))

    for position, second in enumerate(seconds):
        change = rng.standard_normal(second.shape)

        def cost(sign):
            moved = [array + sign * STEP * change * (i == position) if array.shape == change.shape else array
                     for i, array in enumerate((x, y, gz))]
            return (a * reference.weighted_max_pool_grad(*moved, *geometry(grad))).sum()

        derivative = (cost(1) - cost(-1)) / (2 * STEP)
        np.testing.assert_allclose((second * change).sum(), derivative, rtol=1e-4)  # float32 operands

    moved = [reference.weighted_max_pool(x + sign * STEP * direction, y.shape[1:3], *geometry(pool)) for sign in (1, -1)]
    np.testing.assert_allclose(along, (moved[0] - moved[1]) / (2 * STEP), rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


def test_any_strides():
    rng = np.random.RandomState(0)
    pool, grad = two_ops(2)
    x = integers(rng, (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    y = compiled(pool)(x)
    assert_same_bits(y, compiled(pool)(x.copy()))
    gz = reals(rng, y.shape[::-1]).T
    assert_same_bits(compiled(grad)(x, y, gz), compiled(grad)(x.copy(), y, gz.copy()))


def test_perform_is_the_reference():
    x = integers(np.random.RandomState(0), (2, 7, 6, 5))
    pool, grad = two_ops(3, 2, -1)
    y = compiled(pool)(x)
    for op, arrays in ((pool, [x]), (grad, [x, y, zeros(*y.shape)])):
        cell = [None]
        op.perform(op.make_node(*[T.ftensor4() for _ in arrays]), arrays, [cell])
        assert_same_bits(cell[0], compiled(op)(*arrays))


def test_infer_shape():
    x = T.ftensor4()
    y = WeightedMaxPool(3, 2)(x)
    f = theano.function([x], [y.shape, T.Lop(y, x, T.ones_like(y)).shape], mode=LITTLE_C_OPTIMIZED)
    assert not any(isinstance(node.op, (WeightedMaxPool, WeightedMaxPoolGrad)) for node in f.maker.fgraph.toposort())
    for shape in [(2, 7, 8, 3), (1, 6, 5, 1), (2, 9, 9, 0)]:
        assert [tuple(s) for s in f(zeros(*shape))] == [compiled(WeightedMaxPool(3, 2))(zeros(*shape)).shape, shape]


def test_errors_have_the_numbers():
    pool, grad = two_ops(2, 2, 0, 4)
    message = refused(pool, compiled(pool), zeros(1, 6, 8, 2))
    assert all(number in message for number in ("WeightedMaxPool", "images of 6 rows", "window 4", "stride 2"))
    x, y, wrong = zeros(2, 6, 6, 2), zeros(2, 3, 3, 2), zeros(2, 3, 2, 2)
    grad = WeightedMaxPoolGrad(2)
    assert "y is (2, 3, 2, 2), expected (2, 3, 3, 2)" in refused(grad, compiled(grad), x, wrong, y)
    assert "gz is (2, 3, 2, 2), expected (2, 3, 3, 2)" in refused(grad, compiled(grad), x, y, wrong)
    for op, count in ((pool, 1), (grad, 3)):
        for bad in (T.dtensor4(), T.ftensor3()):
            with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
                op(*[T.ftensor4() for _ in range(count - 1)], bad)


def test_equality_and_broadcast_patterns():
    assert WeightedMaxPool(2) == WeightedMaxPool((2, 2), 2, 0, 0) and WeightedMaxPoolGrad(2) != WeightedMaxPool(2)
    assert len({WeightedMaxPool(2), WeightedMaxPool(2, 1), WeightedMaxPool(2, ceil_mode=False)}) == 3
    assert pickle.loads(pickle.dumps(WeightedMaxPool(3, 2, -1))) == WeightedMaxPool(3, 2, -1)
    x = T.TensorType("float32", (True, False, True, True))()
    assert WeightedMaxPool(2)(x).broadcastable == (True, False, False, True)
    assert T.Lop(WeightedMaxPool(2)(x), x, WeightedMaxPool(2)(x)).broadcastable == x.broadcastable
