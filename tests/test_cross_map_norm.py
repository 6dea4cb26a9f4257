"""Normalisation across channels: the definition by finite differences, the kernels within derived bounds, derivatives, plans."""
import ast
import functools
import glob
import os
import pickle
import re
import subprocess

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st
from numpy.polynomial import Chebyshev, Polynomial
from theano.tensor.nnet import conv2d, relu

import layoutopt
from layoutopt.kernels import CrossMapNorm, CrossMapNormUndo, CrossMapSum, ToBC01, ToC01B, base
from layoutopt.kernels.reference import cross_map_norm as reference

import cheap_mode
from cheap_mode import few_compilations  # noqa: F401
from pooling import FAST, reals, refused, zeros
from tolerance import SMALLEST, gamma, whole_numbers


@functools.lru_cache(maxsize=None)
def compiled(op):
    inputs = [T.ftensor4() for _ in range(1 + isinstance(op, CrossMapNormUndo))]
    return theano.function(inputs, op.make_node(*inputs).outputs[0], mode=FAST)


def windows_of(op):
    return dict(size=op.size, blocked=op.blocked, axis=op.axis)


def denominators(op, x):
    return reference.denominators(x, add_scale=op.add_scale, min_div=op.min_div, **windows_of(op))


def parameters(op):
    return dict(windows_of(op), add_scale=op.add_scale, min_div=op.min_div, pow_scale=op.pow_scale)


def expected(op, x, *gy):
    """The definition, in the dtype of its operands."""
    with np.errstate(all="ignore"):
        if gy:
            return reference.cross_map_norm_undo(x, *gy, **parameters(op))
        return reference.cross_map_norm(x, **parameters(op))


# ---------------------------------------------------------------------------------------------------------------------
# The definition.


def along_channels(values, *arguments, **named):
    return reference.window_sum(np.array(values, "float64").reshape(-1, 1, 1, 1), *arguments, axis=0, **named).ravel().tolist()


def test_windows():
    ones = 10.0 ** np.arange(6)
    assert along_channels(ones, 3, False) == [11, 111, 1110, 11100, 111000, 110000]
    assert along_channels(ones, 4, False) == [11, 111, 1111, 11110, 111100, 111000]  # from i - 2 to i + 1
    assert along_channels(ones, 4, False, transposed=True) == [111, 1111, 11110, 111100, 111000, 110000]
    assert along_channels(ones, 4, True) == [1111] * 4 + [110000] * 2
    assert along_channels(ones, 100, False) == along_channels(ones, 100, True) == [111111] * 6


def test_by_hand():
    x = np.array([1.0, 2, 0, 3]).reshape(1, 4, 1, 1)
    y = reference.cross_map_norm(x, 3, 0.5, 0.5, False, 2.0, axis=1)
    np.testing.assert_allclose(y.ravel(), [1 / 4.5 ** 0.5, 2 / 4.5 ** 0.5, 0, 3 / 6.5 ** 0.5])


def differences(f, x, step=1e-5):
    """The gradient of a scalar function by central differences, in float64."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * step
            values.append(f(moved))
        gradient[place] = (values[0] - values[1]) / (2 * step)
    return gradient


OPS = [CrossMapNorm(3, 0.3, 0.75), CrossMapNorm(4, 0.2, 0.5, axis=1), CrossMapNorm(2, 0.5, 1.3, True, 2.0, axis=1),
       CrossMapNorm(9, 0.1, 1, min_div=0.5, axis=3)]


@pytest.mark.parametrize("op", OPS, ids=str)
def test_the_gradient_is_that_of_the_definition(op):
    rng = np.random.RandomState(0)
    x, gy = rng.standard_normal((2, 3, 5, 3, 2))[0], rng.standard_normal((3, 5, 3, 2))
    np.testing.assert_allclose(expected(op, x, gy), differences(lambda x: (gy * expected(op, x)).sum(), x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size, blocked", [(3, False), (4, False), (2, True), (50, False)])
def test_the_transposed_sum_is_the_adjoint(size, blocked):
    rng = np.random.RandomState(0)
    x, z = rng.standard_normal((2, 3, 5, 2, 2))
    forward, back = (reference.window_sum(a, size, blocked, 1, transposed) for a, transposed in ((x, False), (z, True)))
    np.testing.assert_allclose((forward * z).sum(), (back * x).sum())


# ---------------------------------------------------------------------------------------------------------------------
# The kernels. All terms of a denominator are positive, so that its relative error is that of one term.


def units_of_power(op):
    """Roundings to which d ** -power amounts, d's own included: kernels/cpu/power.h, in units in the last place of 2 roundings."""
    of_d = op.size + 4  # square, sum, scale (rounded to float32), multiplication, min_div (rounded), addition
    return int(np.ceil(2 * max(3.5, 2 + 2 * op.pow_scale) + op.pow_scale * of_d))


def assert_within(actual, exact, bound):
    assert actual.shape == exact.shape and actual.dtype == "float32"
    excess = abs(actual - exact) - bound
    assert not (excess > 0).any() and not np.isnan(excess).any(), (excess.max(), bound.flat[np.argmax(excess)])


def check_norm(op, x):
    exact = expected(op, x.astype("float64"))
    assert_within(compiled(op)(x), exact, gamma(units_of_power(op) + 1) * abs(exact) + 4 * SMALLEST)


def check_undo(op, x, gy):
    """Each term t has the error of the power, of 1 / d (7 and d's) and of 4 operations; a sum of them that of additions."""
    undo, (x64, gy64) = op.like(CrossMapNormUndo), (a.astype("float64") for a in (x, gy))
    d = denominators(op, x64)
    scaled = abs(gy64) * d ** -op.pow_scale
    terms = 2 * op.add_scale * op.pow_scale * scaled * abs(x64) / d
    sums = abs(x64) * reference.window_sum(terms, transposed=True, **windows_of(op))
    units = units_of_power(op)
    bound = gamma(units + 2) * scaled + gamma(units + 2 * op.size + 17) * sums + 8 * SMALLEST
    assert_within(compiled(undo)(x, gy), expected(undo, x64, gy64), bound)


batches = st.sampled_from([0, 1, 2, 15, 16, 17, 33, 63, 64, 127])
shapes = st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 5), batches).flatmap(st.permutations).map(tuple)
sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 17, 100])
powers = st.sampled_from([0.25, 0.5, 0.75, 1, 0.3, 2, 5.5])
scales = st.sampled_from([0.0, 1e-7, 1e-4 / 9, 0.3, 40.0])


@settings(max_examples=150)
@given(shape=shapes, size=sizes, blocked=st.booleans(), axis=st.integers(0, 3), power=powers, scale=scales,
       min_div=st.sampled_from([1.0, 2.0, 1e-3, 1e-37]), seed=st.integers(0, 99))
def test_matches_reference(shape, size, blocked, axis, power, scale, min_div, seed):
    if min_div < 1e-3 and power > 1:
        min_div = 1e-3  # the power of less would overflow
    op, rng = CrossMapNorm(size, scale, power, blocked, min_div, axis), np.random.RandomState(seed)
    x, gy = reals(rng, shape), reals(rng, shape)
    check_norm(op, x)
    check_undo(op, x, gy)


@settings(max_examples=50)
@given(shape=shapes, size=sizes, blocked=st.booleans(), axis=st.integers(0, 3), transposed=st.booleans(), seed=st.integers(0, 99))
def test_sums_are_exact(shape, size, blocked, axis, transposed, seed):
    x = whole_numbers(np.random.RandomState(seed), shape)
    result = compiled(CrossMapSum(size, blocked, transposed, axis))(x)
    np.testing.assert_array_equal(result, reference.window_sum(x, size, blocked, axis, transposed))


# Beyond the size from which threads are used and the caches avoided; tiles that are full, and not, at any address.
@pytest.mark.parametrize("shape, axis", [((11, 75, 40, 128), 0), ((8, 20, 33, 127), 0), ((13, 12, 80, 68), 1)])
def test_large(shape, axis):
    rng = np.random.RandomState(0)
    op = CrossMapNorm(5, 1e-2, 0.75, axis=axis)
    x, gy = reals(rng, shape), reals(rng, shape)
    check_norm(op, x)
    check_undo(op, x, gy)


def test_what_is_not_finite_stays_where_it_is():
    """NaN and infinities reach the windows that they are in, and no others; squares that overflow give 0."""
    rng = np.random.RandomState(0)
    values = np.float32([np.nan, np.inf, -np.inf, 3e38, -1e25, 1e-45, -0.0, 0, 1, -2])
    probabilities = [0.03, 0.03, 0.03, 0.03, 0.03, 0.05, 0.1, 0.1, 0.3, 0.3]
    x, gy = (rng.choice(values, (19, 3, 4, 33), p=probabilities) for _ in range(2))
    for op in (CrossMapNorm(3, 0.3, 0.75), CrossMapNorm(4, 1e-4, 0.6), CrossMapNorm(5, 0.3, 1, True), CrossMapNorm(2, 0.1, 0.25)):
        for kind, arrays in ((op, (x,)), (op.like(CrossMapNormUndo), (x, gy))):
            right, result = expected(kind, *arrays), compiled(kind)(*arrays)
            assert np.isnan(right).any() and np.isfinite(right).any()
            np.testing.assert_allclose(result, right, rtol=1e-3, atol=1e-44)  # sums of either sign
    assert compiled(CrossMapNorm(1, 1, 0.5))(np.full((1, 1, 1, 1), -3e38, "float32"))[0, 0, 0, 0] == 0


def test_where_nothing_is_to_be_divided_by_values_stay_as_they_are():
    x = reals(np.random.RandomState(0), (5, 2, 3, 17))
    for power in (0.25, 0.5, 0.75, 1, 0.3, 2):
        np.testing.assert_array_equal(compiled(CrossMapNorm(3, 0, power))(x), x)
        np.testing.assert_array_equal(compiled(CrossMapNormUndo(3, 0, power))(x, x), x)


def test_any_strides():
    rng = np.random.RandomState(0)
    op = CrossMapNorm(3, 0.1, 0.75, axis=1)
    x = reals(rng, (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    gy = reals(rng, x.shape[::-1]).T
    np.testing.assert_array_equal(compiled(op)(x), compiled(op)(x.copy()))
    undo = op.like(CrossMapNormUndo)
    np.testing.assert_array_equal(compiled(undo)(x, gy), compiled(undo)(x.copy(), gy.copy()))


def test_the_result_hardly_depends_on_the_layout():
    """A last vector with fewer lanes may round as another instruction does."""
    x = reals(np.random.RandomState(0), (17, 12, 5, 6))
    y = compiled(CrossMapNorm(5, 0.3, 0.75, axis=1))(x)
    other = compiled(CrossMapNorm(5, 0.3, 0.75, axis=0))(np.moveaxis(x, 0, -1))
    np.testing.assert_array_max_ulp(np.moveaxis(y, 0, -1), other, maxulp=4)


# ---------------------------------------------------------------------------------------------------------------------
# Powers, over all float32 numbers.


def power_header():
    with open(os.path.join(base.CPU_HEADERS, "power.h")) as header:
        return header.read()


def log2_tail(z):
    z = np.where(abs(z) < 1e-9, 1e-9, z).astype("longdouble")
    return (np.log1p(z) / z / np.log(np.longdouble(2))).astype("float64")


def test_coefficients_of_the_logarithm():
    text = re.search(r"log2_tail\[\] = \{(.*?)\}", power_header(), re.S).group(1)
    found, interval = np.array(ast.literal_eval("[%s]" % text.replace("f", ""))), [0.5 ** 0.5 - 1, 2 ** 0.5 - 1]
    derived = Chebyshev.interpolate(log2_tail, 8, interval).convert(kind=Polynomial).coef
    np.testing.assert_allclose(found, derived, rtol=2.0 ** -24)
    z = np.linspace(*interval, 10001)
    assert abs(z * (Polynomial(found)(z) - log2_tail(z))).max() < 2.0 ** -25.5


HARNESS = r"""
#include "cross_map_norm.h"
#include <cstdio>
#include <vector>
using namespace c01b;

std::vector<float> x(COUNT), y(COUNT), inverse(COUNT);

template <class Power>
void evaluate(const Power& power, FILE* out) {
    for (size_t i = 0; i < x.size(); i += lanes) {
        const Quotients q = power.quotients(load(&x[i]));
        store(&y[i], q.power);
        store(&inverse[i], q.inverse);
    }
    std::fwrite(y.data(), 4, y.size(), out);
    std::fwrite(inverse.data(), 4, y.size(), out);
}

int main(int, char** names) {
    FILE* in = std::fopen(names[1], "rb");
    if (!in || std::fread(x.data(), 4, x.size(), in) != x.size()) return 1;
    FILE* out = std::fopen(names[2], "wb");
    for (double power : {POWERS}) with_power(power, [&](const auto& p) { evaluate(p, out); });
    TILES
    std::fclose(in);
    return std::fclose(out);
}
"""

# Every edge of a tile, in arrays that end where they end.
TILES = r"""
    const NormScales scales{1, 0.75, 1};
    const NegativePower<Exponent::three_quarters> power(0.75);
    for (int64_t inner : {1, 15, 16, 17, 100, 1000, 1024})
        for (int64_t size : {1, 4, 5, 30}) {
            const ChannelWindows windows{7, size, size == 4};
            const std::vector<float> images(7 * inner, 1.0f);
            std::vector<float> result(7 * inner);
            const Tile<const float> tile{images.data(), inner};
            const Tile<float> out_tile{result.data(), inner};
            sum_tile<false>(windows, true, tile, out_tile, inner);
            norm_tile<false>(windows, scales, power, tile, out_tile, inner);
            undo_tile<false>(windows, UndoTerms<decltype(power)>(windows, scales, power, tile, tile, inner), out_tile, inner);
        }
"""
POWERS = (0.25, 0.5, 0.75, 1, 1e-6, 0.1, 0.6, 1.5, 2, 3, 20)


# The first and last of either sign, and those that processors make.
NANS = np.array([0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffc00000, 0xffffffff], "uint32")


def test_whole_parts_of_logarithms_fit_integers_for_any_bits():
    """power.h turns the whole part of a logarithm into an integer, which of NaN would be undefined: no bits lead to one."""
    bits = np.r_[np.arange(0, 2 ** 32, 9973, dtype="uint64").astype("uint32"), NANS]
    e = (bits - np.uint32(0x3f3504f3)).view("int32") >> 23
    m = (bits - (e.view("uint32") << np.uint32(23))).view("float32")
    assert (abs(e) <= 256).all() and (m >= np.float32(0.5) ** 0.5 - 1e-7).all() and (m <= np.float32(2) ** 0.5).all()


def sample_of_floats(step):
    """Numbers from the least normal one up, `step` apart in their order, infinity and NaNs of either sign; whole vectors."""
    bits = np.arange(0x00800000, 0x7f800000, step, dtype="uint32")
    x = np.r_[bits.view("float32"), np.float32([1, np.inf]), NANS.view("float32")]
    return np.r_[x, np.ones(-len(x) % 16, "float32")]


@pytest.mark.parametrize("flags", [["-march=native"], ["-DLAYOUTOPT_LANES=8"], ["-fsanitize=undefined,address",
                                                                              "-fno-sanitize-recover=all"]], ids=" ".join)
def test_powers_are_within_the_error_stated(flags, tmp_path):
    sanitized = len(flags) > 1
    x = sample_of_floats(100003 if sanitized else 9973)
    words = dict(COUNT=len(x), POWERS=", ".join(repr(float(power)) for power in POWERS), TILES=TILES if sanitized else "")
    (tmp_path / "harness.cpp").write_text(re.sub("COUNT|POWERS|TILES", lambda match: str(words[match.group()]), HARNESS))
    x.tofile(str(tmp_path / "x"))
    run = functools.partial(subprocess.run, check=True, cwd=str(tmp_path))
    run([theano.config.cxx, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-I", base.CPU_HEADERS, *flags,
         "harness.cpp", "-o", "harness"])
    run([str(tmp_path / "harness"), "x", "y"])
    results = np.fromfile(str(tmp_path / "y"), "float32").reshape(len(POWERS), 2, -1)
    for power, (y, inverse) in zip(POWERS, results):
        assert_units(y, x, -power, 3 if power in (0.25, 0.5, 0.75, 1) else 2 + 2 * power)
        assert_units(inverse, x, -1, 3.5)
        assert (y[x == 1] == 1).all()


def assert_units(result, d, power, units):
    """Within so many units in the last place of d ** power, where that is normal; 0 for infinity and NaN for NaN."""
    with np.errstate(over="ignore"):
        exact = d.astype("float64") ** power
    normal = (exact >= np.finfo("float32").tiny) & (exact <= np.finfo("float32").max)
    unit = np.spacing(exact[normal].astype("float32")).astype("float64")
    assert (abs(result[normal] - exact[normal]) < units * unit).all()
    assert np.isnan(result[np.isnan(d)]).all() and (result[np.isinf(d)] == 0).all() and normal.sum() > len(d) / 50


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives of graphs.

SLOW = theano.Mode(linker="py", optimizer=None)


@pytest.mark.parametrize("op", OPS, ids=str)
def test_derivatives(op):
    """Of acts and denoms, the second one, and the R operator, against differences of the definition in float64."""
    x, gy, direction = T.ftensor4s(3)
    acts, denoms = op(x)
    gradient = T.Lop(acts, x, gy)
    second = T.grad((gradient * direction).sum(), [x, gy])
    results = [gradient, T.Lop(denoms, x, gy), *second, T.Rop(acts, x, direction), T.Rop(gradient, x, direction), denoms]
    rng = np.random.RandomState(0)
    at, g, v = (reals(rng, (3, 5, 3, 2)).astype("float64") for _ in range(3))
    undo = op.like(CrossMapNormUndo)
    right = [expected(undo, at, g), differences(lambda x: (g * denominators(op, x)).sum(), at),
             differences(lambda x: (v * expected(undo, x, g)).sum(), at),
             differences(lambda g: (v * expected(undo, at, g)).sum(), g),
             along(lambda x: expected(op, x), at, v), along(lambda x: expected(undo, x, g), at, v), denominators(op, at)]
    values = theano.function([x, gy, direction], results, mode=SLOW)(*(a.astype("float32") for a in (at, g, v)))
    for value, exact in zip(values, right):
        np.testing.assert_allclose(value, exact, rtol=1e-4, atol=2e-6 * abs(exact).max())


def along(f, x, direction, step=1e-5):
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def test_denoms_cost_nothing_unless_they_are_read():
    x = T.ftensor4()
    acts, denoms = CrossMapNorm(5, 1e-4, 0.75)(x)
    for outputs, ops in (([acts], {CrossMapNorm}), ([acts, T.grad(acts.sum(), x)], {CrossMapNorm, CrossMapNormUndo}),
                         ([T.grad(acts.sum(), x)], {CrossMapNormUndo})):
        nodes = theano.function([x], outputs, mode=cheap_mode.mode(False)).maker.fgraph.apply_nodes
        assert {type(node.op) for node in nodes} & {CrossMapNorm, CrossMapNormUndo, CrossMapSum} == ops
    value = reals(np.random.RandomState(0), (7, 2, 3, 5))
    d = theano.function([x], denoms, mode=SLOW)(value)
    np.testing.assert_allclose(d, reference.denominators(value, 5, 1e-4, False, 1.0, 0), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Whole networks, with the flag.

BATCH = 32


def trained(flagged):
    """(losses, train step) of a network in bc01 with two normalisations between convolutions."""
    rng, images, target = np.random.RandomState(0), T.ftensor4(), T.ftensor4()
    weights = [theano.shared((0.2 * rng.standard_normal(shape)).astype("float32"))
               for shape in ((16, 3, 5, 5), (24, 16, 3, 3), (8, 24, 3, 3))]
    h = images
    for w, size in zip(weights, (5, 4, None)):
        h = relu(conv2d(h, w, (BATCH, 3, 14, 14) if h is images else None))
        if size:
            h = CrossMapNorm(size, 0.05, 0.75, axis=1)(h)[0]
    loss = ((h - target) ** 2).mean()
    updates = [(w, w - np.float32(0.02) * g) for w, g in zip(weights, T.grad(loss, weights))]
    step = theano.function([images, target], loss, updates=updates, mode=cheap_mode.mode(flagged))
    x, y = reals(rng, (BATCH, 3, 14, 14)), abs(reals(rng, (BATCH, 8, 6, 6)))
    return [float(step(x, y)) for _ in range(4)], step


def test_a_network_trains_without_conversions_of_activations():
    (stock_losses, stock), (losses, step) = (trained(flagged) for flagged in (False, True))
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-5)
    for f, axis in ((stock, 1), (step, 0)):
        found = [(type(node.op), node.op.axis) for node in f.maker.fgraph.toposort()
                 if isinstance(node.op, (CrossMapNorm, CrossMapNormUndo))]
        assert sorted(found, key=str) == [(CrossMapNorm, axis)] * 2 + [(CrossMapNormUndo, axis)] * 2
    # The input, and perhaps the target; filters and their gradients are weights, not activations.
    moved = [conversion.bytes for conversion in layoutopt.explain(step).record.conversions]
    given, weights = [4 * BATCH * 3 * 14 ** 2, 4 * BATCH * 8 * 6 ** 2], [4 * 16 * 75, 4 * 24 * 144, 4 * 8 * 216]
    assert given[0] in moved and set(moved) <= set(given + weights), moved
    assert sum(isinstance(node.op, (ToC01B, ToBC01)) for node in step.maker.fgraph.toposort()) <= len(moved)


def test_alone_it_stays_in_bc01():
    x = T.ftensor4()
    y = CrossMapNorm(5, 1e-4, 0.75, axis=1)(x)[0]
    f = theano.function([x], [y, T.grad(y.sum(), x)], mode=cheap_mode.mode(True))
    assert {getattr(node.op, "axis", 1) for node in f.maker.fgraph.toposort()} == {1}


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


def test_infer_shape():
    x = T.ftensor4()
    acts, denoms = CrossMapNorm(5, 1e-4, 0.75)(x)
    f = theano.function([x], [acts.shape, denoms.shape, T.grad(acts.sum(), x).shape], mode=cheap_mode.mode(False))
    assert not any(isinstance(node.op, base.C01bOp) for node in f.maker.fgraph.toposort())
    assert [tuple(shape) for shape in f(zeros(3, 4, 0, 2))] == [(3, 4, 0, 2)] * 3


@pytest.mark.parametrize("arguments, error, message", [
    ((0, 1, 1), ValueError, "size must be at least 1 and at most 2147483647, got 0"), ((2 ** 31, 1, 1), ValueError, "size"),
    ((2.0, 1, 1), TypeError, "size must be an integer, got 2.0"), ((True, 1, 1), TypeError, "size"),
    ((5, -1e-4, 1), ValueError, "add_scale must be at least 0 and finite in float32, got -0.0001"),
    ((5, np.nan, 1), ValueError, "add_scale"), ((5, 1e39, 1), ValueError, "add_scale"), ((5, 1, 0), ValueError, "pow_scale"),
    ((5, 1, np.inf), ValueError, "pow_scale"), ((5, 1, 1, False, 0), ValueError, "min_div"),
    ((5, 1, 1, False, 1e-40), ValueError, "min_div"), ((5, 1, 1, False, 1, 4), ValueError, "axis must be at least 0 and at most 3"),
    ((5, 1, 1, False, 1, -1), ValueError, "axis")])
def test_bad_parameters(arguments, error, message):
    for op in (CrossMapNorm, CrossMapNormUndo):
        with pytest.raises(error, match=message):
            op(*arguments)


def test_wrong_types():
    op = CrossMapNorm(5, 1e-4, 0.75)
    for bad in [T.dtensor4(), T.ftensor3(), T.itensor4()]:
        for call in (op, CrossMapSum(5), lambda x: op.like(CrossMapNormUndo)(T.ftensor4(), x)):
            with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
                call(bad)


def test_wrong_shapes_are_refused():
    undo = CrossMapNormUndo(5, 1e-4, 0.75)
    for shape in ((2, 3, 4, 6), (1, 3, 4, 5), (0, 0, 0, 0)):
        message = refused(undo, compiled(undo), zeros(2, 3, 4, 5), zeros(*shape))
        assert "CrossMapNormUndo: gy is (%d, %d, %d, %d), expected (2, 3, 4, 5)" % shape in message


def test_perform_is_the_reference():
    rng, op = np.random.RandomState(0), CrossMapNorm(4, 0.3, 0.7, False, 1.5, 1)
    x, gy = reals(rng, (3, 7, 5, 2)), reals(rng, (3, 7, 5, 2))
    for kind, arrays in ((op, [x]), (op.like(CrossMapNormUndo), [x, gy]), (CrossMapSum(4, axis=1), [x])):
        cell = [None]
        kind.perform(kind.make_node(*[T.ftensor4() for _ in arrays]), arrays, [cell])
        assert cell[0].dtype == "float32"
        np.testing.assert_allclose(compiled(kind)(*arrays), cell[0], rtol=1e-5, atol=1e-6)


def test_equality_and_pickling():
    assert CrossMapNorm(5, 1e-4, 0.75) == CrossMapNorm(5, 1e-4, 0.75, False, 1.0, 0)
    others = [CrossMapNorm(5, 1e-4, 0.75), CrossMapNorm(4, 1e-4, 0.75), CrossMapNorm(5, 1e-4 / 5, 0.75), CrossMapNorm(5, 1e-4, 0.5),
              CrossMapNorm(5, 1e-4, 0.75, True), CrossMapNorm(5, 1e-4, 0.75, min_div=2), CrossMapNorm(5, 1e-4, 0.75, axis=1),
              CrossMapNormUndo(5, 1e-4, 0.75), CrossMapSum(5)]
    assert len(set(others)) == len(others) and len({hash(op) for op in others}) == len(others)
    for op in others:
        assert pickle.loads(pickle.dumps(op)) == op
        assert op.along(3).axis == 3 and op.along(3) != op and op.along(3).along(op.axis) == op


def test_broadcast_patterns():
    x = T.TensorType("float32", (True, False, False, True))()
    acts, denoms = CrossMapNorm(5, 1e-4, 0.75)(x)
    assert acts.broadcastable == denoms.broadcastable == T.grad(acts.sum() + denoms.sum(), x).broadcastable == x.broadcastable


def test_one_module_for_all_parameters():
    def modules():
        sources = glob.glob(os.path.join(theano.config.compiledir, "*", "mod.cpp"))
        return {source for source in sources if "c01b::cross_map_norm_op" in open(source).read()}

    x, row = T.ftensor4(), T.TensorType("float32", (True, False, False, True))()
    theano.function([x], CrossMapNorm(5, 1e-4, 0.75)(x)[0], mode=FAST)
    before = modules()
    for op in (CrossMapNorm(4, 1e-4 / 9, 0.75, axis=1), CrossMapNorm(5, 0.3, 0.5, True), CrossMapNorm(9, 1, 1.7, min_div=2)):
        theano.function([x], op(x)[0], mode=FAST)
        theano.function([row], op(row)[0], mode=FAST)
    assert before and modules() == before
