"""Probabilistic max-pooling in c01b order: what it means, numpy, its derivatives by finite differences, its contract."""
import functools
import itertools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st

from layoutopt.kernels import ProbMaxPool, ProbMaxPoolGrad
from layoutopt.kernels.reference import prob_pool as reference

from pooling import FAST, LITTLE_C, LITTLE_C_OPTIMIZED, assert_same_bits, reals, refused, zeros
from tolerance import SMALLEST, UNIT_ROUNDOFF, gamma


@functools.lru_cache(maxsize=None)
def compiled(op):
    inputs = [T.ftensor4() for _ in range(4 if isinstance(op, ProbMaxPoolGrad) else 2)]
    return theano.function(inputs, op(*inputs), mode=FAST)


def two_ops(*parameters, **named):
    op = ProbMaxPool(*parameters, **named)
    return op, op.like(ProbMaxPoolGrad)


def like_pooled(rng, op, shape):
    return reals(rng, shape[:1] + op.output_grid(shape[1:3]) + shape[3:])


def covered(op, image_shape):
    """Which pixels lie in a window: boolean array (rows, columns, 1), after the definition of windows."""
    axes = []
    for pixels, size, first, count in zip(image_shape, op.ds, op.start, op.output_grid(image_shape)):
        axes.append(np.array([any(first + j * size <= a < first + (j + 1) * size for j in range(count)) for a in range(pixels)],
                             dtype=bool))
    return np.outer(*axes)[:, :, None]


# ---------------------------------------------------------------------------------------------------------------------
# What it means.


def test_probabilities_of_an_energy_model():
    """By enumeration of the states of a window, none or one pixel on, with energies -z of a pixel and t of none."""
    rng = np.random.RandomState(0)
    z, t = 3 * rng.standard_normal((1, 2, 2, 1)), rng.standard_normal((1, 1, 1, 1))
    p, h = reference.prob_max_pool(z, t, (2, 2), (0, 0))
    weights = {state: 0 if sum(state) > 1 else np.exp(np.dot(state, z.ravel()) if any(state) else -t.item())
               for state in itertools.product((0, 1), repeat=4)}
    whole = sum(weights.values())
    np.testing.assert_allclose(p.item(), 1 - weights[0, 0, 0, 0] / whole, rtol=1e-12)
    for i in range(4):
        np.testing.assert_allclose(h.ravel()[i], sum(w for state, w in weights.items() if state[i]) / whole, rtol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# The reference.

shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2, 15, 16, 17, 33, 127]))
pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


def probability_bound(op):
    """How far float32 may be off, absolutely, for probabilities of windows of n pixels.

    A difference to the largest, x <= 0, takes a rounding of |x| u, which exp makes a relative one; exp itself is within 4 units
    of the last place on any device, 8 u. So e^x is off by at most (|x| e^x + 8 e^x) u <= 9 u, a sum of n + 1 of them, which is
    at least 1, by 9 (n + 1) u and n roundings, and a quotient of the two by all of that and one more rounding.
    """
    n = np.prod(op.ds)
    return (9 + 9 * (n + 1) + n + 1) * UNIT_ROUNDOFF + SMALLEST


def gradient_bounds(op, p, h, gp, gh):
    """How far the gradients may be off, given these operands: their terms, each with n + 5 roundings of float32."""
    n = np.prod(op.ds)
    largest = abs(gp).max(initial=0) + abs(gh).max(initial=0)  # h, p and 1 - p are at most 1, the sum of h at most 1
    return gamma(n + 5) * 3 * largest + SMALLEST


@settings(max_examples=80)
@given(shape=shapes, ds=pairs, start=st.tuples(st.integers(-3, 2), st.integers(-3, 2)), fewer=st.integers(0, 2),
       scale=st.sampled_from([1, 30, 1000]), seed=st.integers(0, 99))
def test_matches_reference(shape, ds, start, fewer, scale, seed):
    start = tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))
    grid = ProbMaxPool(ds, start).output_grid(shape[1:3])
    pool, grad = two_ops(ds, start, outputs=tuple(max(1, count - fewer) for count in grid))
    rng = np.random.RandomState(seed)
    z, t = scale * reals(rng, shape), like_pooled(rng, pool, shape)
    p, h = compiled(pool)(z, t)
    exact = reference.prob_max_pool(z.astype("float64"), t.astype("float64"), pool.ds, pool.start)
    for value, right in zip((p, h), exact):
        assert value.shape == right.shape
        assert (abs(value - right) <= probability_bound(pool)).all()
    gp, gh = like_pooled(rng, pool, shape), reals(rng, shape)
    results = compiled(grad)(p, h, gp, gh)
    exact = reference.prob_max_pool_grad(*(v.astype("float64") for v in (p, h, gp, gh)), pool.ds, pool.start)
    for value, right in zip(results, exact):
        assert value.shape == right.shape
        assert (abs(value - right) <= gradient_bounds(grad, p, h, gp, gh)).all()


@pytest.mark.parametrize("start, outputs", [(0, 0), (1, 0), ((0, 1), 0), (0, 2), (-1, (0, 2))])
def test_pixels_of_no_window_are_zero(start, outputs):
    """Whatever lay in memory before."""
    pool, grad = two_ops(2, start, outputs=outputs)
    rng = np.random.RandomState(0)
    z = reals(rng, (3, 7, 8, 37))
    inside = covered(pool, z.shape[1:3])
    np.full(z.shape, np.nan, "float32")  # freed at once: the next array of this size often gets its memory
    p, h = compiled(pool)(z, like_pooled(rng, pool, z.shape))
    np.testing.assert_array_equal(h > 0, np.broadcast_to(inside, h.shape))
    np.full(z.shape, np.nan, "float32")
    gz, _ = compiled(grad)(p, h, p, z)
    np.testing.assert_array_equal(gz != 0, np.broadcast_to(inside, h.shape))


@pytest.mark.parametrize("batch", [128, 127])
@pytest.mark.parametrize("parameters", [(2,), (3, -1), (2, 1, (19, 18))])
def test_large(parameters, batch):
    """Beyond the size from which threads are used; some pixels in no window."""
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    z = 4 * reals(rng, (26, 41, 40, batch))
    p, h = compiled(pool)(z, like_pooled(rng, pool, z.shape))
    for value, right in zip(compiled(grad)(p, h, 2 * p, h), reference.prob_max_pool_grad(p, h, 2 * p, h, pool.ds, pool.start)):
        assert (abs(value - right) <= 2 * gradient_bounds(grad, p, h, 2 * p, h)).all()
    np.testing.assert_array_equal(h != 0, np.broadcast_to(covered(pool, z.shape[1:3]), h.shape))
    sums = np.ones(p.shape)  # of the probabilities of a window's pixels
    for (i, j), pixels in reference._windows(p.shape[1:3], z.shape[1:3], pool.ds, pool.ds, pool.start):
        sums[:, i, j] = sum(h[:, row, column].astype("float64") for row, column in pixels)
    assert (abs(p - sums) <= 10 * probability_bound(pool)).all()


def test_extreme_values():
    """Nothing overflows; NaN and infinity stay in their window, as in numpy."""
    pool, _ = two_ops(2)
    z, t = zeros(1, 2, 10, 20), zeros(1, 1, 5, 20)
    z[:, 0, 0] = 3e38
    z[:, 1, 2:4], t[:, :, 1] = -3e38, -3e38
    z[:, 1, 4] = np.nan
    z[:, 0, 7] = np.inf
    t[:, :, 4] = 3e38
    p, h = compiled(pool)(z, t)
    with np.errstate(all="ignore"):
        for value, right in zip((p, h), reference.prob_max_pool(z, t, (2, 2), (0, 0))):
            np.testing.assert_allclose(value, right, atol=1e-6)
    assert h[0, 0, 0, 5] == 1 and p[0, 0, 1, 5] == 0 and np.isnan(p[0, 0, 2:4, 5]).all() and p[0, 0, 4, 5] == 1


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives, by finite differences in float64 on the reference.

PARAMETERS = [((2, 2),), ((3, 2), (1, 0)), ((2, 3), (-1, -2))]
STEP = 1e-5


def operands(rng, op, shape=(2, 7, 6, 3)):
    z, t = rng.standard_normal(shape), like_pooled(rng, op, shape).astype("float64")
    return (z, t), reference.prob_max_pool(z, t, op.ds, op.start)


def difference(function, arrays, directions):
    """The derivative of a function of float64 arrays along directions, by a central difference."""
    return (function(*(a + STEP * d for a, d in zip(arrays, directions)))
            - function(*(a - STEP * d for a, d in zip(arrays, directions)))) / (2 * STEP)


@pytest.mark.parametrize("only", ["p", "h", "both"])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_gradients_are_the_derivatives(parameters, only):
    """Those for what comes from above, too, which in the original is right only for sums of p and h."""
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    (z, t), (p, h) = operands(rng, pool)
    gp, gh = (rng.standard_normal(v.shape) * (only in (name, "both")) for name, v in (("p", p), ("h", h)))

    def cost(z, t):
        p, h = reference.prob_max_pool(z, t, pool.ds, pool.start)
        return (gp * p).sum() + (gh * h).sum()

    gradients = reference.prob_max_pool_grad(p, h, gp, gh, grad.ds, grad.start)
    for position, gradient in enumerate(gradients):
        directions = [rng.standard_normal(v.shape) * (i == position) for i, v in enumerate((z, t))]
        np.testing.assert_allclose((gradient * directions[position]).sum(), difference(cost, (z, t), directions), rtol=1e-6)


@functools.lru_cache(maxsize=None)
def derivatives(op):
    """In Theano: gradients for z and t of p alone, of h alone and of both; those of the gradients; and along a direction."""
    z, t, gp, gh = (T.ftensor4() for _ in range(4))
    p, h = op(z, t)
    costs = [(gp * p).sum(), (gh * h).sum()]
    first = [T.grad(cost, [z, t]) for cost in costs + [sum(costs)]]
    inputs = [T.ftensor4() for _ in range(4)]
    a, b = T.ftensor4(), T.ftensor4()
    gz, gt = op.like(ProbMaxPoolGrad)(*inputs)
    second = T.Lop([gz, gt], inputs, [a, b])
    one = T.Lop(gt, inputs, b)
    return (theano.function([z, t, gp, gh], sum(first, []), mode=LITTLE_C),
            theano.function(inputs + [a, b], list(second) + list(one), mode=LITTLE_C),
            theano.function([z, t, gp, gh], T.Rop([p, h], [z, t], [gh, gp]), mode=LITTLE_C))


def float32(*arrays):
    return [array.astype("float32") for array in arrays]


@pytest.mark.parametrize("parameters", PARAMETERS[1:2])
def test_gradients_are_wired(parameters):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    (z, t), (p, h) = operands(rng, pool)
    gp, gh = rng.standard_normal(p.shape), rng.standard_normal(h.shape)
    results = derivatives(pool)[0](*float32(z, t, gp, gh))
    for i, (of_p, of_h) in enumerate([(gp, 0 * gh), (0 * gp, gh), (gp, gh)]):
        for value, right in zip(results[2 * i:], reference.prob_max_pool_grad(p, h, of_p, of_h, pool.ds, pool.start)):
            np.testing.assert_allclose(value, right, atol=1e-5)

    along = derivatives(pool)[2](*float32(z, t, gp, gh))
    for position, value in enumerate(along):
        def forward(z, t):
            return reference.prob_max_pool(z, t, pool.ds, pool.start)[position]
        np.testing.assert_allclose(value, difference(forward, (z, t), (gh, gp)), atol=1e-5)


@pytest.mark.parametrize("parameters", PARAMETERS[1:2])
def test_second_derivatives(parameters):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    _, (p, h) = operands(rng, pool)
    arrays = p, h, rng.standard_normal(p.shape), rng.standard_normal(h.shape)
    a, b = rng.standard_normal(h.shape), rng.standard_normal(p.shape)
    results = derivatives(pool)[1](*float32(*arrays, a, b))
    for i, value in enumerate(results):
        of_gz = a if i < 4 else 0 * a

        def cost(*arrays):
            gz, gt = reference.prob_max_pool_grad(*arrays, grad.ds, grad.start)
            return (of_gz * gz).sum() + (b * gt).sum()

        directions = [rng.standard_normal(array.shape) * (position == i % 4) for position, array in enumerate(arrays)]
        derivative = difference(cost, arrays, directions)
        np.testing.assert_allclose((value * directions[i % 4]).sum(), derivative, rtol=1e-4, atol=1e-4)  # float32 operands


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


def test_any_strides():
    rng = np.random.RandomState(0)
    pool, grad = two_ops(2)
    z = reals(rng, (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    t = like_pooled(rng, pool, z.shape[::-1]).T
    t = reals(rng, t.shape[::-1]).T
    for value, right in zip(compiled(pool)(z, t), compiled(pool)(z.copy(), t.copy())):
        assert_same_bits(value, right)
    for value, right in zip(compiled(grad)(t, z, t, z), compiled(grad)(t.copy(), z.copy(), t.copy(), z.copy())):
        assert_same_bits(value, right)


def test_perform_is_the_reference():
    rng = np.random.RandomState(0)
    pool, grad = two_ops(3, -1)
    z = reals(rng, (2, 7, 6, 5))
    t = like_pooled(rng, pool, z.shape)
    for op, arrays in ((pool, (z, t)), (grad, (t, z, t, z))):
        cells = [[None], [None]]
        op.perform(op.make_node(*[T.ftensor4() for _ in arrays]), arrays, cells)
        for (value,), right in zip(cells, compiled(op)(*arrays)):
            np.testing.assert_allclose(value, right, atol=1e-5)


def test_infer_shape():
    z, t = T.ftensor4(), T.ftensor4()
    p, h = ProbMaxPool(3)(z, t)
    gradients = T.Lop([p, h], [z, t], [t, z])
    f = theano.function([z, t], [v.shape for v in [p, h] + list(gradients)], mode=LITTLE_C_OPTIMIZED)
    assert not any(isinstance(node.op, (ProbMaxPool, ProbMaxPoolGrad)) for node in f.maker.fgraph.toposort())
    for shape, pooled in [((2, 7, 8, 3), (2, 3, 3, 3)), ((1, 6, 5, 1), (1, 2, 2, 1)), ((2, 9, 9, 0), (2, 3, 3, 0))]:
        assert [tuple(s) for s in f(zeros(*shape), zeros(*pooled))] == [pooled, shape, shape, pooled]
        assert [v.shape for v in compiled(ProbMaxPool(3))(zeros(*shape), zeros(*pooled))] == [pooled, shape]


@pytest.mark.parametrize("wrong", [(3, 3, 3, 2), (2, 4, 3, 2), (2, 3, 2, 2), (2, 3, 3, 1), (0, 0, 0, 0)])
def test_wrong_shapes_are_refused(wrong):
    """The original read past the end of what came from above."""
    pool, grad = two_ops(2)
    images, pooled, bad = zeros(2, 6, 6, 2), zeros(2, 3, 3, 2), zeros(*wrong)
    told = "is (%d, %d, %d, %d), expected (2, 3, 3, 2)" % wrong
    assert "top_down " + told in refused(pool, compiled(pool), images, bad)
    assert "ProbMaxPoolGrad: p " + told in refused(grad, compiled(grad), bad, images, pooled, images)
    assert "gp " + told in refused(grad, compiled(grad), pooled, images, bad, images)
    assert "gh is" in refused(grad, compiled(grad), pooled, images, pooled, bad)
    assert "window 4" in refused(ProbMaxPool(2, outputs=4), compiled(ProbMaxPool(2, outputs=4)), images, pooled)


def test_wrong_types_and_parameters():
    x = T.ftensor4()
    for bad in (T.dtensor4(), T.ftensor3()):
        for op, count in zip(two_ops(2), (2, 4)):
            for position in range(count):
                with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
                    op(*[bad if i == position else x for i in range(count)])
    for arguments, message in (((0,), "ds"), ((2, -2), "first window"), ((2, 0, -1), "outputs")):
        with pytest.raises(ValueError, match=message):
            ProbMaxPool(*arguments)
    with pytest.raises(ValueError, match="side by side, got stride 1"):
        ProbMaxPoolGrad(2, 1)
    assert ProbMaxPoolGrad(2, 2, 1) == ProbMaxPool(2, 1).like(ProbMaxPoolGrad)  # the original's order of arguments


def test_equality_and_broadcast_patterns():
    assert ProbMaxPool(2) == ProbMaxPool((2, 2), 0, 0) and ProbMaxPoolGrad(2) != ProbMaxPool(2)
    assert len({ProbMaxPool(2), ProbMaxPool(3), ProbMaxPool(2, 1), ProbMaxPool(2, outputs=1)}) == 4
    assert pickle.loads(pickle.dumps(ProbMaxPool(3, -1))) == ProbMaxPool(3, -1)
    z, t = T.TensorType("float32", (True, False, True, True))(), T.TensorType("float32", (True, True, True, True))()
    p, h = ProbMaxPool(2)(z, t)
    assert (p.broadcastable, h.broadcastable) == ((True, False, False, True), z.broadcastable)
    assert [g.broadcastable for g in T.grad(h.sum(), [z, t])] == [z.broadcastable, t.broadcastable]
