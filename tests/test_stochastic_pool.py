"""Stochastic pooling in c01b order: its generator, distribution and streams, the numpy reference bit by bit, its contract."""
import ctypes
import functools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2, ncx2

from layoutopt.kernels import MaxPoolGrad, StochasticMaxPool
from layoutopt.kernels.base import configured
from layoutopt.kernels.reference import pool as max_reference, stochastic_pool as reference

from pooling import FAST, LITTLE_C, LITTLE_C_OPTIMIZED, assert_same_bits, refused, reals, zeros


@functools.lru_cache(maxsize=None)
def compiled(op):
    """As a function of images, seed and draw."""
    inputs = [T.ftensor4(), T.lscalar(), T.lscalar()]
    return theano.function(inputs, op(*inputs), mode=FAST)


def geometry(op):
    return op.ds, op.stride, op.start


def expected_draw(op, x, seed, draw):
    with np.errstate(invalid="ignore", over="ignore"):
        return reference.stochastic_max_pool(x, op.output_grid(x.shape[1:3]), *geometry(op), seed, draw)


def weights(rng, shape):
    """Not negative, half of them 0, as behind rectified linear units."""
    return np.maximum(reals(rng, shape), 0)


def integers(rng, shape):
    return rng.randint(0, 3, shape).astype("float32")


def strange(rng, shape):
    """Sums of 0, that are not finite, subnormal or negative."""
    return rng.choice(np.float32([np.nan, np.inf, -np.inf, 3e38, 1e-45, -1, 0, 0, 0, 1, 1, 2]), size=shape)


KINDS = [weights, integers, strange]
shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2, 15, 16, 17, 33, 127]))
pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
words = st.integers(-2 ** 63, 2 ** 63 - 1)


# ---------------------------------------------------------------------------------------------------------------------
# The generator.

# Known answers that its authors publish with Random123 (kat_vectors, philox4x32 with 10 rounds): counter, key, result.
KNOWN = [((0, 0, 0, 0), (0, 0), (0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)),
         ((2 ** 32 - 1,) * 4, (2 ** 32 - 1,) * 2, (0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd)),
         ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0),
          (0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1))]


@pytest.mark.parametrize("counter, key, result", KNOWN)
def test_generator_gives_the_known_answers(counter, key, result):
    def arrays(words):
        return [np.array([word], "uint64") for word in words]

    assert tuple(int(word[0]) for word in reference.philox(arrays(counter), arrays(key))) == result


def test_where_a_number_stands():
    """By the definition in the docstring of `uniform`, from the generator's words one at a time."""
    rows, count, seed, draw = 3, 150, -5, 2 ** 33 + 7
    values = reference.uniform(rows, count, seed, draw)
    for r, e in [(0, 0), (0, 17), (1, 63), (1, 64), (2, 149)]:
        n = (r * 3 + e // 64) * 16 + e % 16
        word = reference.philox([np.uint64(w) for w in (n, 0, 7, 2)], [np.uint64(w) for w in (2 ** 32 - 5, 2 ** 32 - 1)])
        assert values[r, e] == np.float32(int(word[e % 64 // 16]) >> 8) / 2 ** 24
    assert values.dtype == "float32" and 0 <= values.min() and values.max() < 1


# ---------------------------------------------------------------------------------------------------------------------
# The reference.


@settings(max_examples=100)
@given(shape=shapes, ds=pairs, stride=pairs, start=st.tuples(st.integers(-4, 2), st.integers(-4, 2)),
       ceil_mode=st.booleans(), kind=st.sampled_from(KINDS), seed=words, draw=words)
def test_draws_are_those_of_the_reference(shape, ds, stride, start, ceil_mode, kind, seed, draw):
    start = tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))
    op = StochasticMaxPool(ds, stride, start, ceil_mode=ceil_mode)
    x = kind(np.random.RandomState(draw % 100), shape)
    assert_same_bits(compiled(op)(x, seed, draw), expected_draw(op, x, seed, draw))


@pytest.mark.parametrize("batch", [128, 127])
def test_large(batch):
    """From the size on from which threads are used and the caches avoided, on any number of threads."""
    op = StochasticMaxPool(2, 1)
    x = weights(np.random.RandomState(0), (26, 41, 40, batch))
    expected = expected_draw(op, x, 3, 4)
    gomp = ctypes.CDLL("libgomp.so.1")
    before = gomp.omp_get_max_threads()
    try:
        for threads in (before, 1, 2, 5):
            gomp.omp_set_num_threads(threads)
            assert_same_bits(compiled(op)(x, 3, 4), expected)
    finally:
        gomp.omp_set_num_threads(before)


def test_vectors_of_another_width_draw_the_same():
    inputs = [T.ftensor4(), T.lscalar(), T.lscalar()]
    op = StochasticMaxPool(2)
    value = weights(np.random.RandomState(0), (3, 9, 8, 37))
    with configured(simd="plain"):
        narrow = theano.function(inputs, op(*inputs), mode=FAST)
    assert_same_bits(narrow(value, 8, 9), compiled(op)(value, 8, 9))


def test_what_is_drawn():
    """One pixel that is not 0 is drawn always, none in a window of zeros, and of an infinite sum, or NaN, nothing is."""
    one = zeros(1, 4, 4, 64)
    one[0, 1, 1] = 3
    np.testing.assert_array_equal(compiled(StochasticMaxPool(2))(one, 1, 1)[0, :, :, 7], [[3, 0], [0, 0]])
    for bad in (np.nan, np.inf):
        one[0, 2, 3] = bad
        np.testing.assert_array_equal(compiled(StochasticMaxPool(2))(one, 1, 1)[0, :, :, 7], [[3, 0], [0, 0]])


# ---------------------------------------------------------------------------------------------------------------------
# The distribution.

SIGNIFICANCE = 1e-6  # a test that is right fails so often, over all seeds; the one that is tested does not
VALUES = np.float32([3, 0, 1, 5, 2, 4, 0.5, 0.25, 0.25])  # of a window of 3 x 3, in raster order; the last two are alike
SHARES = np.array([3, 1, 5, 2, 4, 0.5, 0.5]) / 16
KEPT = np.float32([3, 1, 5, 2, 4, 0.5, 0.25])


def drawn(seed, draw, shape=(20, 16, 20, 100)):
    """Which of `KEPT` was drawn, an array of integers of that shape, from windows that hold `VALUES` side by side."""
    channels, rows, columns, batch = shape
    x = np.empty((channels, 3 * rows, 3 * columns, batch), "float32")
    for place, value in zip(np.ndindex(3, 3), VALUES):
        x[:, place[0]::3, place[1]::3] = value
    z = compiled(StochasticMaxPool(3))(x, seed, draw)
    assert np.isin(z, KEPT).all()
    order = np.argsort(KEPT)
    return order[np.searchsorted(KEPT[order], z)]


def chi_square(counts, shares):
    """The statistic, and what it may reach at `SIGNIFICANCE`."""
    expected = shares * counts.sum()
    return ((counts - expected) ** 2 / expected).sum(), chi2.isf(SIGNIFICANCE, counts.size - 1)


def power(shares, other, draws):
    """How surely the test rejects `other`: the statistic is then a noncentral chi-square (Cohen, Statistical power analysis)."""
    degrees = shares.size - 1
    return ncx2.sf(chi2.isf(SIGNIFICANCE, degrees), degrees, draws * ((other - shares) ** 2 / shares).sum())


def test_shares():
    """640,000 draws. A half percent of all draws that moves from one value to another is found with a power above 0.999."""
    counts = np.bincount(drawn(11, 0).ravel(), minlength=SHARES.size)
    statistic, most = chi_square(counts, SHARES)
    assert statistic < most, (statistic, most)
    for i, j in np.argwhere(~np.eye(SHARES.size, dtype=bool)):
        moved = SHARES.copy()
        moved[i] += 0.005
        moved[j] -= 0.005
        assert power(SHARES, moved, counts.sum()) > 0.999
        wrong, most = chi_square(counts, moved)
        assert wrong > most  # as a sampler of these draws would, were those the shares


@pytest.mark.parametrize("what", ["image", "row", "column", "channel", "draw", "seed"])
def test_neighbours_are_independent(what):
    """Pairs of neighbouring draws: 49 cells. If one draw in 50 repeated its neighbour's, power would be above 0.999."""
    first = drawn(11, 0)
    pairs = {"image": lambda: (first[..., 1:], first[..., :-1]), "channel": lambda: (first[1:], first[:-1]),
             "row": lambda: (first[:, 1:], first[:, :-1]), "column": lambda: (first[:, :, 1:], first[:, :, :-1]),
             "draw": lambda: (first, drawn(11, 1)), "seed": lambda: (first, drawn(12, 0))}
    a, b = (side.ravel() for side in pairs[what]())
    counts = np.bincount(7 * a + b, minlength=49)
    independent = np.outer(SHARES, SHARES).ravel()
    statistic, most = chi_square(counts, independent)
    assert statistic < most, (statistic, most)
    repeating = 0.98 * independent + 0.02 * np.diag(SHARES).ravel()
    assert power(independent, repeating, counts.sum()) > 0.999


# ---------------------------------------------------------------------------------------------------------------------
# Streams.


def streamed(op, x):
    """A function that draws afresh in each call."""
    images = T.ftensor4()
    f = theano.function([images], op(images), mode=FAST)
    return [f(x) for _ in range(3)]


def test_equal_seeds_give_equal_streams_and_others_others():
    x = weights(np.random.RandomState(0), (2, 8, 8, 40))
    first, again, other = (streamed(StochasticMaxPool(2, seed=seed), x) for seed in (5, 5, 6))
    for call in range(3):
        np.testing.assert_array_equal(first[call], again[call])
        np.testing.assert_array_equal(first[call], compiled(StochasticMaxPool(2))(x, 5, call))
    draws = first + other
    assert not any(np.array_equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_one_draw_a_call_for_values_and_gradients():
    """The gradient goes to what was drawn in the same call, also where only the gradient is asked for."""
    x, v = T.ftensor4(), T.ftensor4()
    op = StochasticMaxPool(2, seed=3)
    z = op(x)
    cost = (z * v).sum()
    f = theano.function([x, v], [z, T.grad(cost, x), T.Rop(z, x, x)], mode=LITTLE_C)
    rng = np.random.RandomState(0)
    value, direction = weights(rng, (2, 6, 6, 20)), reals(rng, (2, 3, 3, 20))
    for call in range(2):
        out, gradient, along = f(value, direction)
        np.testing.assert_array_equal(out, expected_draw(op, value, 3, call))
        np.testing.assert_array_equal(gradient, max_reference.max_pool_grad(value, out, direction, (2, 2), (2, 2), (0, 0)))
        reached = (gradient != 0).reshape(2, 3, 2, 3, 2, 20).sum(axis=(2, 4))
        np.testing.assert_array_equal(reached, np.where(out > 0, 1, 4))  # of a window of zeros every pixel is equal to its 0
        np.testing.assert_array_equal(along, out)
    cost = (StochasticMaxPool(2, seed=3)(x) * v).sum()
    only = theano.function([x, v], T.grad(cost, x), mode=LITTLE_C_OPTIMIZED)
    for call in range(2):
        out = expected_draw(op, value, 3, call)
        np.testing.assert_array_equal(only(value, direction),
                                      max_reference.max_pool_grad(value, out, direction, (2, 2), (2, 2), (0, 0)))


def test_graphs_are_rebuilt_with_their_seeds():
    """Cloned, given another input, copied and pickled, a graph keeps its stream."""
    x = T.ftensor4()
    z = StochasticMaxPool(2, seed=9)(x)
    value = weights(np.random.RandomState(0), (2, 4, 4, 20))
    expected = compiled(StochasticMaxPool(2))(value, 9, 0)
    doubled = theano.clone(z, {x: 2 * x})
    np.testing.assert_array_equal(theano.function([x], doubled, mode=LITTLE_C)(value), 2 * expected)
    other = T.ftensor4()
    givens = theano.function([other], StochasticMaxPool(2, seed=9)(x), givens={x: other}, mode=FAST)
    np.testing.assert_array_equal(givens(value), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(givens))(value), givens(value))


def test_the_number_of_the_call_is_the_programs_to_set():
    x = T.ftensor4()
    z = StochasticMaxPool(2, seed=9)(x)
    draw = z.owner.inputs[2]
    f = theano.function([x], z, mode=FAST)
    value = weights(np.random.RandomState(0), (2, 4, 4, 20))
    first, second = f(value), f(value)
    draw.set_value(0)
    np.testing.assert_array_equal(f(value), first)
    np.testing.assert_array_equal(f(value), second)
    fixed = theano.function([x], z, mode=FAST, no_default_updates=True)
    draw.set_value(0)
    np.testing.assert_array_equal(fixed(value), first)
    np.testing.assert_array_equal(fixed(value), first)


def test_each_step_of_a_scan_draws_afresh():
    x = T.ftensor4()
    op = StochasticMaxPool(2, seed=6)
    results, updates = theano.scan(lambda: op(x), n_steps=3)
    f = theano.function([x], results, updates=updates, mode=LITTLE_C)
    value = weights(np.random.RandomState(0), (2, 4, 4, 20))
    for first in (0, 3):
        for step, result in enumerate(f(value)):
            np.testing.assert_array_equal(result, compiled(op)(value, 6, first + step))


def test_with_the_optimizer():
    """In a program written in c01b the flag changes nothing, neither draws nor the number of conversions: none."""
    x, v = T.ftensor4(), T.ftensor4()
    value = weights(np.random.RandomState(0), (2, 6, 6, 20))
    mode = LITTLE_C_OPTIMIZED.including("layoutopt")
    z = StochasticMaxPool(2, seed=4)(x)
    f = theano.function([x, v], [z, T.grad((z * v).sum(), x)], mode=mode)
    ops = [type(node.op) for node in f.maker.fgraph.toposort()]
    assert (ops.count(StochasticMaxPool), ops.count(MaxPoolGrad)) == (1, 1)
    assert not any("C01B" in op.__name__ or "BC01" in op.__name__ for op in ops)
    np.testing.assert_array_equal(f(value, value[:, ::2, ::2])[0], compiled(StochasticMaxPool(2))(value, 4, 0))


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


def test_any_strides():
    op = StochasticMaxPool(2)
    x = weights(np.random.RandomState(0), (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    assert_same_bits(compiled(op)(x, 4, 2), compiled(op)(x.copy(), 4, 2))


def test_perform_is_the_reference():
    op = StochasticMaxPool(3, 2, -1)
    x, cell = weights(np.random.RandomState(0), (2, 7, 6, 5)), [None]
    op.perform(op.make_node(T.ftensor4()), [x, 2 ** 40, 3], [cell])
    assert_same_bits(cell[0], compiled(op)(x, 2 ** 40, 3))


def test_infer_shape():
    x = T.ftensor4()
    f = theano.function([x], StochasticMaxPool(3, 2)(x).shape, mode=LITTLE_C_OPTIMIZED)
    assert not any(isinstance(node.op, StochasticMaxPool) for node in f.maker.fgraph.toposort())
    for shape in [(2, 7, 8, 3), (1, 6, 5, 1), (2, 9, 9, 0)]:
        assert tuple(f(zeros(*shape))) == compiled(StochasticMaxPool(3, 2))(zeros(*shape), 0, 0).shape


@pytest.mark.parametrize("arguments, error, message", [
    (dict(ds=0), ValueError, "ds"), (dict(ds=2, start=-2), ValueError, "first window"), (dict(ds=2, seed=0.5), TypeError, "seed"),
    (dict(ds=2, seed=True), TypeError, "seed"),
    (dict(ds=2, seed=2 ** 63), ValueError, "seed must have 64 bits, got 9223372036854775808")])
def test_bad_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        StochasticMaxPool(**arguments)


def test_wrong_types():
    with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
        StochasticMaxPool(2)(T.dtensor4())
    for bad in (T.fscalar(), T.lvector(), 0.5):
        for position, name in enumerate(["seed", "draw"]):
            with pytest.raises(TypeError, match="%s must be an integer" % name):
                StochasticMaxPool(2)(T.ftensor4(), *[bad if i == position else 0 for i in range(2)])


def test_errors_have_the_numbers():
    op, x = StochasticMaxPool(2, 2, 0, 4), zeros(1, 6, 8, 2)
    message = refused(op, compiled(op), x, np.array(0), np.array(0))
    assert all(number in message for number in ("StochasticMaxPool", "images of 6 rows", "window 4", "stride 2"))


def test_equality_and_pickling():
    assert StochasticMaxPool(2) == StochasticMaxPool((2, 2), 2, 0, 0, seed=5)  # the seed is the value of an input
    assert len({StochasticMaxPool(2), StochasticMaxPool(2, 1), StochasticMaxPool(2, ceil_mode=False)}) == 3
    op = pickle.loads(pickle.dumps(StochasticMaxPool(3, 2, -1, seed=7)))
    assert op == StochasticMaxPool(3, 2, -1) and op.seed == 7
