"""Winograd's algorithm in FilterActs and ImageActs: exact on whole numbers, within a derived bound, NaN as in a direct kernel.

Kernels choose by price; most tests here ask for tiles of 2 x 2 or 4 x 4 whatever they cost.
"""
import collections
import os
import re

import numpy as np
import pytest
import theano
import theano.tensor as tt
from hypothesis import given, settings
from hypothesis import strategies as st

import layoutopt
from layoutopt.kernels import base
from layoutopt.kernels.conv import FilterActs, ImageActs
from layoutopt.kernels.reference import conv as reference
from layoutopt.rewrites.cost import WINOGRAD_PRICES
from layoutopt.runtime import prepare
from tolerance import gamma, normal, whole_numbers

PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)
# Tiles of one size wherever the algorithm applies: see ConvShape in kernels/cpu/conv_shape.h.
ALWAYS = {"f2": -2, "f4": -4}

# ---------------------------------------------------------------------------------------------------------------------
# One convolution and its data gradient, by the kernels.

_Case = collections.namedtuple("Case", "channels image batch filters pad flip groups")


def case(channels=3, image=(7, 9), batch=17, filters=8, pad=1, flip=False, groups=1):
    """Channels and filters are those of a group."""
    return _Case(channels, image, batch, filters, pad, flip, groups)


def forward(c):
    return FilterActs(c.pad, flip=c.flip, groups=c.groups)


def gradient(c):
    return ImageActs(c.pad, flip=c.flip, groups=c.groups)


def operands(c, draw):
    """Images, filters and output gradients, by `draw(*shape)`."""
    rows, columns = forward(c).output_grid(c.image, (3, 3))
    return (draw(c.groups * c.channels, *c.image, c.batch), draw(c.channels, 3, 3, c.groups * c.filters),
            draw(c.groups * c.filters, rows, columns, c.batch))


def run(op, winograd, *values):
    """The op alone; `winograd`: a value of the flag, or one of ALWAYS."""
    inputs = [tt.ftensor4(), tt.ftensor4()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.WINOGRAD_TILES, "asked for", winograd)
        patch.setitem(base._settings, "winograd", "asked for")
        return theano.function(inputs, op(*inputs), mode=PLAIN)(*values)


def both(c, winograd, images, filters, hid):
    return [run(forward(c), winograd, images, filters), run(gradient(c), winograd, hid, filters)]


def definitions(c, images, filters, hid):
    (top, _), (left, _) = forward(c).pads((3, 3))
    args = (top, left), (1, 1), c.flip, c.groups
    return [reference.filter_acts(images, filters, hid.shape[1:3], *args), reference.image_acts(hid, filters, c.image, *args)]


# ---------------------------------------------------------------------------------------------------------------------
# Whole numbers: F(2x2) computes with halves and quarters of them, which is exact.

SHAPES = {
    "one tile": case(image=(4, 4), pad=0),
    "odd sizes": case(image=(5, 8)),
    "no pad": case(image=(9, 6), pad=0),
    "full": case(image=(4, 5), pad="full"),
    "uneven pad": case(image=(6, 7), pad=((0, 2), (3, 1))),
    "pad over the edge": case(image=(2, 3), pad=((5, 4), (4, 6))),
    "one pixel": case(image=(1, 1)),
    "one row": case(image=(1, 40), batch=1),
    "flip": case(flip=True),
    "batch 1": case(batch=1, image=(40, 37)),
    "batch 3, wide": case(batch=3, image=(5, 60)),
    "batch 127": case(batch=127),
    "full vectors": case(batch=64, image=(8, 8)),
    "one channel": case(channels=1, filters=1),
    "many channels": case(channels=70, filters=19),
    "groups": case(channels=3, filters=7, groups=3, image=(6, 5)),
}


@pytest.mark.parametrize("c", [pytest.param(c, id=name) for name, c in SHAPES.items()])
def test_small_tiles_are_exact_on_whole_numbers(c, rng):
    values = operands(c, lambda *shape: whole_numbers(rng, shape))
    for result, right in zip(both(c, ALWAYS["f2"], *values), definitions(c, *values)):
        np.testing.assert_array_equal(result, right)


@st.composite
def cases(draw):
    pads = st.tuples(st.integers(0, 5), st.integers(0, 5))
    pad = draw(st.tuples(pads, pads))
    image = tuple(max(1, 3 - sum(p)) + draw(st.integers(0, 12)) for p in pad)
    return case(draw(st.integers(1, 40)), image, draw(st.sampled_from((1, 2, 7, 15, 16, 17, 33, 127))),
                draw(st.integers(1, 20)), pad, draw(st.booleans()), draw(st.sampled_from((1, 1, 2))))


@settings(max_examples=40)
@given(cases(), st.integers(0, 2 ** 31 - 1))
def test_any_shape_exactly(c, seed):
    random = np.random.RandomState(seed)
    values = operands(c, lambda *shape: whole_numbers(random, shape))
    for result, right in zip(both(c, ALWAYS["f2"], *values), definitions(c, *values)):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("simd", ["plain", "avx2"])
def test_other_vectors_exactly(simd, rng, monkeypatch):
    monkeypatch.setitem(base._settings, "simd", simd)
    for c in SHAPES.values():
        values = operands(c, lambda *shape: whole_numbers(rng, shape))
        for result, right in zip(both(c, ALWAYS["f2"], *values), definitions(c, *values)):
            np.testing.assert_array_equal(result, right)


# ---------------------------------------------------------------------------------------------------------------------
# Rounding. The algorithm is y = A^T [sum over channels of (G g G^T) * (B^T d B)] A. A sum of k products, in any order, is off
# by at most gamma_k times the sum of their absolute values (Higham, section 3.1), and such bounds multiply: gamma_j and gamma_k
# make gamma_{j+k} (lemma 3.3). So y is off by at most gamma_n times the same expression of absolute values,
#
#     |A^T| [sum over channels of (|G| |g| |G^T|) * (|B^T| |d| |B|)] |A|,    n = 2 (k_B + k_G + 1 + k_A) + channels,
#
# where k is the most coefficients other than 0 in a row, and the 1 is for those of G that are no float32 numbers. That is a
# bound for a tile: a small result beside large pixels may lose digits that a direct kernel keeps.

MATRICES = {  # B^T, G, A^T, as in Lavin and Gray, arXiv:1509.09308
    "f2": ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
           [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
           [[1, 1, 1, 0], [0, 1, -1, -1]]),
    "f4": ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1]],
           [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
           [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
}


def winograd(matrices, images, filters, pad):
    """The algorithm as the formula has it: images (c, 0, 1, b), filters (c, 3, 3, f), one pad, no flip."""
    image, taps, output = matrices
    m, n = output.shape
    rows, columns = (size + 2 * pad - 2 for size in images.shape[1:3])
    tiles = -(-rows // m), -(-columns // m)
    wide = np.zeros((images.shape[0], tiles[0] * m + 2, tiles[1] * m + 2, images.shape[3]))
    wide[:, pad:pad + images.shape[1], pad:pad + images.shape[2]] = images
    y = np.empty((filters.shape[3], tiles[0] * m, tiles[1] * m, images.shape[3]))
    u = np.einsum("iu,cuvf,jv->cijf", taps, filters, taps)
    for i, j in np.ndindex(*tiles):
        d = np.einsum("iu,cuvb,jv->cijb", image, wide[:, i * m:i * m + n, j * m:j * m + n], image)
        y[:, i * m:i * m + m, j * m:j * m + m] = np.einsum("pi,fijb,qj->fpqb", output, np.einsum("cijf,cijb->fijb", u, d),
                                                           output)
    return y[:, :rows, :columns]


def matrices_of(name):
    return [np.array(matrix, "float64") for matrix in MATRICES[name]]


def rounding_bound(name, images, filters, pad):
    absolute = [abs(matrix) for matrix in matrices_of(name)]
    terms = sum(np.count_nonzero(matrix, axis=1).max() for matrix in absolute) + 1
    bound = winograd(absolute, abs(images.astype("float64")), abs(filters.astype("float64")), pad)
    return gamma(2 * terms + images.shape[0]) * bound


@pytest.mark.parametrize("name", MATRICES)
def test_the_formula_is_the_convolution(name, rng):
    images, filters = rng.standard_normal((3, 9, 6, 4)), rng.standard_normal((3, 3, 3, 5))
    right = reference.filter_acts(images, filters, (9, 6), (1, 1), (1, 1), False)
    np.testing.assert_allclose(winograd(matrices_of(name), images, filters, 1), right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("c", [case(64, (13, 13), 20, 32), case(5, (6, 9), 130, 12), case(33, (11, 20), 1, 18),
                               case(200, (4, 5), 16, 10)])
@pytest.mark.parametrize("name", MATRICES)
def test_rounding_within_its_bound(name, c, rng):
    images, filters, hid = values = operands(c, lambda *shape: normal(rng, *shape))
    exact = definitions(c, *(value.astype("float64") for value in values))
    # With a pad of 1 the data gradient is the convolution with flipped filters, channels and filters exchanged.
    bounds = [rounding_bound(name, images, filters, 1),
              rounding_bound(name, hid, filters[:, ::-1, ::-1].transpose(3, 1, 2, 0), 1)]
    for result, direct, right, bound in zip(both(c, ALWAYS[name], *values), both(c, 0, *values), exact, bounds):
        assert (abs(result - right) <= bound).all()
        assert not np.array_equal(result, direct)  # this was Winograd's algorithm


def test_equal_pixels_stay_equal(rng):
    """Where an image is constant, all results are: no tie of a max-pooling behind it is broken by rounding."""
    images = np.broadcast_to(normal(rng, 24, 1, 1, 33), (24, 10, 11, 33)).copy()
    results = run(FilterActs(0), ALWAYS["f2"], images, normal(rng, 24, 3, 3, 18))
    np.testing.assert_array_equal(results, np.broadcast_to(results[:, :1, :1], results.shape))


# ---------------------------------------------------------------------------------------------------------------------
# What is not finite.

@pytest.mark.parametrize("batch", [1, 19, 64])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_not_finite_goes_where_a_direct_kernel_sends_it(name, special, batch, rng):
    """3e38 is finite, but not what the transforms make of two of them."""
    c = case(4, (9, 8), batch, 7)
    for position, ops in ((0, (forward,)), (1, (forward, gradient)), (2, (gradient,))):
        values = list(operands(c, lambda *shape: normal(rng, *shape)))
        values[position].flat[rng.choice(values[position].size, 2, replace=False)] = special
        values[position][0, 1:3, 1:3] = special  # neighbours in one tile
        for op in ops:
            first = values[0] if op is forward else values[2]
            direct = run(op(c), 0, first, values[1])
            np.testing.assert_array_equal(run(op(c), ALWAYS[name], first, values[1]), direct)
            assert not np.isfinite(direct).all() or special == 3e38


# ---------------------------------------------------------------------------------------------------------------------
# The choice.

def test_the_flag_and_the_price_choose(rng):
    c = case(64, (14, 14), 32, 64)
    values = operands(c, lambda *shape: normal(rng, *shape))
    off, f2, f4, always_f2, always_f4 = (both(c, tile, *values) for tile in (0, 2, 4, ALWAYS["f2"], ALWAYS["f4"]))
    for which in (0, 1):
        np.testing.assert_array_equal(f2[which], always_f2[which])
        np.testing.assert_array_equal(f4[which], always_f4[which])
        assert not np.array_equal(off[which], f2[which]) and not np.array_equal(f2[which], f4[which])


@pytest.mark.parametrize("op, filter_shape", [(FilterActs(1, stride=2), (3, 3)), (FilterActs(2), (5, 5)),
                                              (FilterActs(1), (3, 4)), (FilterActs(1, groups=32), (3, 3))])
def test_other_convolutions_stay_direct(op, filter_shape, rng):
    images = normal(rng, 32, 12, 12, 32)
    filters = normal(rng, 32 // op.groups, *filter_shape, 64)
    np.testing.assert_array_equal(run(op, 4, images, filters), run(op, 0, images, filters))


def test_runs_repeat(rng):
    c = case(48, (12, 10), 20, 50)
    values = operands(c, lambda *shape: normal(rng, *shape))
    for name in ALWAYS:
        first, second = both(c, ALWAYS[name], *values), both(c, ALWAYS[name], *values)
        for a, b in zip(first, second):
            np.testing.assert_array_equal(a, b)


def test_the_flag_reaches_the_kernels():
    settings_of = collections.namedtuple("Settings", "simd winograd memory")
    with base.configured():
        for name, tile in (("off", 0), ("f4", 4), ("f2", 2)):
            prepare(settings_of("auto", name, "system"))
            assert base.winograd_tile() == tile
            op = FilterActs()
            assert op.get_params(op.make_node(tt.ftensor4(), tt.ftensor4())).winograd == tile
    assert theano.config.layoutopt.winograd == "f2" and base.winograd_tile() == 2
    with pytest.raises(ValueError, match="layoutopt.winograd is 'f3'; it can be f2, f4, off"):
        base.configure(winograd="f3")


def test_plans_know_the_flag():
    with theano.change_flags(**{"layoutopt.winograd": "off"}):
        assert layoutopt.calibrate.find_machine(theano.config.layoutopt).winograd == 0
    assert layoutopt.calibrate.find_machine(theano.config.layoutopt).winograd == 2


def test_plans_and_kernels_have_the_same_prices():
    with open(os.path.join(base.CPU_HEADERS, "conv_winograd.h")) as header:
        found = re.findall(r"WinogradPrices<(\d)> {\s*static constexpr double images = (\d+), outputs = (\d+), taps = (\d+);",
                           header.read())
    assert {int(size): tuple(map(float, prices)) for size, *prices in found} == WINOGRAD_PRICES
