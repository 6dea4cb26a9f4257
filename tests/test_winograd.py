"""Winograd's algorithm in FilterActs, ImageActs and WeightActs: exact on whole numbers, within a derived bound, NaN as in a direct kernel.

Kernels choose by price; most tests here ask for tiles of 2 x 2 or 4 x 4 whatever they cost. All but F(4x4, 3x3) compute with
halves and quarters of whole numbers, which is exact.
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
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.reference import conv as reference
from layoutopt.rewrites.cost import WINOGRAD_PRICES, WINOGRAD_PRODUCTS, WINOGRAD_SCATTERED
from layoutopt.runtime import prepare
from tolerance import gamma, normal, whole_numbers

PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)
# Tiles of one size wherever the algorithm applies: see ConvShape in kernels/cpu/conv_shape.h.
ALWAYS = {2: -2, 4: -4}
SCATTERED = {2: -12, 4: -14}  # image gradients by the transpose

# ---------------------------------------------------------------------------------------------------------------------
# One convolution and its data gradient, by the kernels.

_Case = collections.namedtuple("Case", "channels image batch filters pad flip groups size tile stride")


def case(channels=3, image=(7, 9), batch=17, filters=8, pad=1, flip=False, groups=1, size=3, tile=2, stride=(1, 1)):
    """Channels and filters are those of a group; size x size taps and tiles of tile x tile results."""
    return _Case(channels, image, batch, filters, pad, flip, groups, size, tile, stride)


def forward(c):
    return FilterActs(c.pad, stride=c.stride, flip=c.flip, groups=c.groups)


def gradient(c):
    return ImageActs(c.pad, flip=c.flip, groups=c.groups)


def operands(c, draw):
    """Images, filters and output gradients, by `draw(*shape)`."""
    rows, columns = forward(c).output_grid(c.image, (c.size, c.size))
    return (draw(c.groups * c.channels, *c.image, c.batch), draw(c.channels, c.size, c.size, c.groups * c.filters),
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


def weights(c, winograd, images, hid):
    """The weight gradient by the kernel."""
    op = WeightActs(c.pad, stride=c.stride, flip=c.flip, groups=c.groups)
    return run(lambda x, y: op(x, y, (c.size, c.size))[0], winograd, images, hid)


def weights_definition(c, images, hid):
    (top, _), (left, _) = forward(c).pads((c.size, c.size))
    return reference.weight_acts(images, hid, (c.size, c.size), (top, left), c.stride, c.flip, c.groups)


def definitions(c, images, filters, hid):
    (top, _), (left, _) = forward(c).pads((c.size, c.size))
    args = (top, left), c.stride, c.flip, c.groups
    return [reference.filter_acts(images, filters, hid.shape[1:3], *args), reference.image_acts(hid, filters, c.image, *args)]


# ---------------------------------------------------------------------------------------------------------------------
# Whole numbers.

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
    "5 x 5": case(size=5, image=(11, 9), pad=2),
    "5 x 5, one tile": case(size=5, image=(6, 6), pad=0, batch=16),
    "5 x 5, wide, batch 1": case(size=5, image=(9, 61), pad=((2, 1), (0, 4)), batch=1, flip=True),
    "5 x 5, large tiles": case(size=5, tile=4, image=(13, 10), pad=2, groups=2),
    "5 x 5, large tiles, full vectors": case(size=5, tile=4, image=(12, 12), pad=0, batch=64, channels=20),
    "5 x 5, large tiles, batch 3": case(size=5, tile=4, image=(8, 70), pad="full", batch=3, flip=True),
    "5 x 5, large tiles, batch 1": case(size=5, tile=4, image=(21, 40), batch=1),
    "7 x 7": case(size=7, image=(10, 13), pad=3, batch=33),
    "7 x 7, full vectors": case(size=7, image=(16, 16), pad=0, batch=32),
    "7 x 7, more sums than wait in L2": case(size=7, image=(8, 8), pad=3, batch=64, channels=2, filters=45),
    "blocks that two threads share": case(image=(10, 10), batch=16, channels=20, filters=24),
    "7 x 7, batch 1": case(size=7, image=(15, 50), pad="full", batch=1, groups=2),
    "7 x 7, batch 5": case(size=7, image=(8, 25), pad=((0, 6), (5, 1)), batch=5, flip=True),
}


@pytest.mark.parametrize("c", [pytest.param(c, id=name) for name, c in SHAPES.items()])
def test_exact_on_whole_numbers(c, rng):
    values = operands(c, lambda *shape: whole_numbers(rng, shape))
    for result, right in zip(both(c, ALWAYS[c.tile], *values), definitions(c, *values)):
        np.testing.assert_array_equal(result, right)


SCATTERED_SHAPES = {
    **{name: c for name, c in SHAPES.items() if c.size > 3},
    "full vectors": case(size=5, image=(12, 12), pad=0, batch=128),
    "full vectors, large tiles": case(size=5, tile=4, image=(12, 12), pad=0, batch=128, channels=40, filters=50),
    "equal parts": case(size=5, tile=4, image=(12, 13), pad=0, batch=100),
    "batch 20": case(size=5, tile=4, image=(12, 11), pad=0, batch=20, channels=7),
    "batch 1, large tiles": case(size=5, tile=4, image=(9, 14), pad=0, batch=1),
    "more pad than taps": case(size=5, image=(3, 4), pad=((6, 5), (4, 7))),
    "one output": case(size=5, tile=4, image=(5, 5), pad=0, batch=40),
    "7 x 7, groups": case(size=7, image=(9, 12), pad=((1, 3), (0, 2)), batch=48, groups=3, flip=True),
}


@pytest.mark.parametrize("c", [pytest.param(c, id=name) for name, c in SCATTERED_SHAPES.items()])
def test_scattered_gradients_are_exact_on_whole_numbers(c, rng):
    _, filters, hid = values = operands(c, lambda *shape: whole_numbers(rng, shape))
    np.testing.assert_array_equal(run(gradient(c), SCATTERED[c.tile], hid, filters), definitions(c, *values)[1])


WEIGHT_SHAPES = {
    **{name: c for name, c in SHAPES.items() if c.size == 3},
    "5 x 5": case(size=5, tile=4, image=(11, 13), pad=2),
    "5 x 5, full vectors": case(size=5, tile=4, image=(12, 12), pad=0, batch=64, channels=7, filters=70),
    "5 x 5, batch 1": case(size=5, tile=4, image=(9, 30), pad="full", batch=1, flip=True),
    "5 x 5, batch 3, groups": case(size=5, tile=4, image=(8, 21), pad=((0, 3), (4, 1)), batch=3, groups=2),
    "filters in blocks": case(channels=20, filters=150, batch=20, image=(6, 6)),
}


@pytest.mark.parametrize("c", [pytest.param(c, id=name) for name, c in WEIGHT_SHAPES.items()])
def test_weight_gradients_are_exact_on_whole_numbers(c, rng):
    images, _, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    np.testing.assert_array_equal(weights(c, ALWAYS[c.tile], images, hid), weights_definition(c, images, hid))


# Filters that a stride cuts to 3 x 3, 5 x 5 or 7 x 7 taps; of data gradients Winograd's algorithm computes none with a stride.
STRIDED = {
    "11 x 11, stride 4": case(size=11, stride=(4, 4), image=(31, 27), pad=2),
    "11 x 11, stride 4, full vectors": case(size=11, stride=(4, 4), image=(35, 39), pad=2, batch=64, filters=64),
    "11 x 11, stride 4, batch 1": case(size=11, stride=(4, 4), image=(30, 151), pad=0, batch=1, filters=20),
    "11 x 11, stride 4, batch 5": case(size=11, stride=(4, 4), image=(29, 90), pad=((0, 5), (3, 1)), batch=5, flip=True),
    "9 x 9, strides 3 and 4": case(size=9, stride=(3, 4), image=(20, 33), pad=4, batch=20, channels=2),
    "5 x 5, stride 2": case(size=5, stride=(2, 2), image=(14, 19), pad=2, batch=33, flip=True),
    "6 x 6, stride 2, groups": case(size=6, stride=(2, 2), image=(11, 12), pad=((1, 3), (0, 2)), groups=3),
    "5 x 5, stride 2, large tiles": case(size=5, stride=(2, 2), image=(20, 19), pad=2, batch=16),
    "5 x 5, stride 2, many channels": case(size=5, stride=(2, 2), image=(9, 9), channels=70, filters=19),
    "9 x 9, stride 2, large tiles": case(size=9, stride=(2, 2), tile=4, image=(21, 24), pad=4, batch=18),
    "10 x 10, stride 2": case(size=10, stride=(2, 2), image=(17, 23), pad=3, batch=1),
    "13 x 13, stride 2": case(size=13, stride=(2, 2), image=(22, 19), pad=6, batch=16, filters=3),
    "pad over the edge": case(size=5, stride=(2, 2), image=(2, 3), pad=((5, 4), (4, 6))),
}


@pytest.mark.parametrize("c", [pytest.param(c, id=name) for name, c in STRIDED.items()])
def test_strides_are_exact_on_whole_numbers(c, rng):
    images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
    np.testing.assert_array_equal(run(forward(c), ALWAYS[c.tile], images, filters), definitions(c, images, filters, hid)[0])
    np.testing.assert_array_equal(weights(c, ALWAYS[c.tile], images, hid), weights_definition(c, images, hid))


@st.composite
def cases(draw):
    pads = st.tuples(st.integers(0, 5), st.integers(0, 5))
    pad = draw(st.tuples(pads, pads))
    longest, tile = draw(st.sampled_from(((3, 2), (5, 2), (5, 4), (7, 2))))
    stride = draw(st.sampled_from((1, 1, 2, 3)))
    size = longest * stride - draw(st.integers(0, stride - 1))
    image = tuple(max(1, size - sum(p)) + draw(st.integers(0, 12)) for p in pad)
    return case(draw(st.integers(1, 40)), image, draw(st.sampled_from((1, 2, 7, 15, 16, 17, 33, 127))),
                draw(st.integers(1, 20)), pad, draw(st.booleans()), draw(st.sampled_from((1, 1, 2))), size, tile, (stride, stride))


@settings(max_examples=40)
@given(cases(), st.integers(0, 2 ** 31 - 1))
def test_any_shape_exactly(c, seed):
    random = np.random.RandomState(seed)
    images, _, hid = values = operands(c, lambda *shape: whole_numbers(random, shape))
    results = both(c, ALWAYS[c.tile], *values) if c.stride == (1, 1) else [run(forward(c), ALWAYS[c.tile], *values[:2])]
    for result, right in zip(results, definitions(c, *values)):
        np.testing.assert_array_equal(result, right)
    np.testing.assert_array_equal(weights(c, ALWAYS[c.tile], images, hid), weights_definition(c, images, hid))
    if c.stride == (1, 1) and c.size > 3:
        np.testing.assert_array_equal(run(gradient(c), SCATTERED[c.tile], hid, values[1]), right)


@pytest.mark.parametrize("simd", ["plain", "avx2"])
def test_other_vectors_exactly(simd, rng, monkeypatch):
    monkeypatch.setitem(base._settings, "simd", simd)
    for c in SHAPES.values():
        values = operands(c, lambda *shape: whole_numbers(rng, shape))
        for result, right in zip(both(c, ALWAYS[c.tile], *values), definitions(c, *values)):
            np.testing.assert_array_equal(result, right)
    for c in STRIDED.values():
        images, filters, hid = operands(c, lambda *shape: whole_numbers(rng, shape))
        np.testing.assert_array_equal(run(forward(c), ALWAYS[c.tile], images, filters), definitions(c, images, filters, hid)[0])
    for c in SCATTERED_SHAPES.values():
        _, filters, hid = values = operands(c, lambda *shape: whole_numbers(rng, shape))
        np.testing.assert_array_equal(run(gradient(c), SCATTERED[c.tile], hid, filters), definitions(c, *values)[1])


# ---------------------------------------------------------------------------------------------------------------------
# Rounding. The algorithm is y = A^T [sum over channels of (G g G^T) * (B^T d B)] A. A sum of k products, in any order, is off
# by at most gamma_k times the sum of their absolute values (Higham, section 3.1), and such bounds multiply: gamma_j and gamma_k
# make gamma_{j+k} (lemma 3.3). So y is off by at most gamma_n times the same expression of absolute values,
#
#     |A^T| [sum over channels of (|G| |g| |G^T|) * (|B^T| |d| |B|)] |A|,    n = 2 (k_B + k_G + 1 + k_A) + channels,
#
# where k is the most coefficients other than 0 in a row, and the 1 is for those of G that are no float32 numbers. That is a
# bound for a tile: a small result beside large pixels may lose digits that a direct kernel keeps.

F22 = [np.array(matrix, "float64") for matrix in ([[1, -1, 0], [0, 1, 0], [0, -1, 1]], [[1, 0], [1, 1], [0, 1]],
                                                  [[1, 1, 0], [0, 1, 1]])]
F23 = [np.array(matrix, "float64") for matrix in ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
                                                  [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
                                                  [[1, 1, 1, 0], [0, 1, -1, -1]])]
F43 = [np.array(matrix, "float64") for matrix in (
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]],
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6],
     [0, 0, 1]],
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])]


def tap_after_tap(first, second):
    """The taps of the first, and after them those of the second."""
    (image, taps, output), (later, more_taps, more_output) = first, second
    pixels, shift = image.shape[1] + more_taps.shape[1], taps.shape[1]
    return [np.vstack([np.pad(image, ((0, 0), (0, pixels - image.shape[1]))),
                       np.pad(later, ((0, 0), (shift, pixels - shift - later.shape[1])))]),
            np.vstack([np.pad(taps, ((0, 0), (0, more_taps.shape[1]))), np.pad(more_taps, ((0, 0), (shift, 0)))]),
            np.hstack([output, more_output])]


def in_pairs(outer):
    """F(2,2) in each product of an algorithm on pairs."""
    image = np.zeros((3 * len(outer[0]), 2 * outer[0].shape[1] + 1))
    for p, q, j, i in np.ndindex(len(outer[0]), 3, outer[0].shape[1], 3):
        image[3 * p + q, 2 * j + i] += outer[0][p, j] * F22[0][q, i]
    return [image, np.kron(outer[1], F22[1]), np.kron(outer[2], F22[2])]


def without_last_tap(algorithm):
    """Without the product of the last tap alone."""
    image, taps, output = algorithm
    return [image[:-1, :-1], taps[:-1, :-1], output[:, :-1]]


# B^T, G, A^T by the sizes of tile and filter, F(2, 3) and F(4, 3) as in Lavin and Gray, arXiv:1509.09308.
MATRICES = {(2, 3): F23, (4, 3): F43, (2, 5): tap_after_tap(F23, F22), (4, 5): without_last_tap(in_pairs(F23)),
            (2, 7): tap_after_tap(tap_after_tap(F23, F22), F22)}


def winograd(matrices, images, filters, pad):
    """The algorithm as the formula has it: images (c, 0, 1, b), filters (c, 0, 1, f), one pad, no flip."""
    image, taps, output = matrices
    m, n, size = len(output), image.shape[1], taps.shape[1]
    rows, columns = (side + 2 * pad - size + 1 for side in images.shape[1:3])
    tiles = -(-rows // m), -(-columns // m)
    wide = np.zeros((images.shape[0], tiles[0] * m + size - 1, tiles[1] * m + size - 1, images.shape[3]))
    wide[:, pad:pad + images.shape[1], pad:pad + images.shape[2]] = images
    y = np.empty((filters.shape[3], tiles[0] * m, tiles[1] * m, images.shape[3]))
    u = np.einsum("iu,cuvf,jv->cijf", taps, filters, taps)
    for i, j in np.ndindex(*tiles):
        d = np.einsum("iu,cuvb,jv->cijb", image, wide[:, i * m:i * m + n, j * m:j * m + n], image)
        y[:, i * m:i * m + m, j * m:j * m + m] = np.einsum("pi,fijb,qj->fpqb", output, np.einsum("cijf,cijb->fijb", u, d),
                                                           output)
    return y[:, :rows, :columns]


def rounding_bound(name, images, filters, pad):
    absolute = [abs(matrix) for matrix in MATRICES[name]]
    terms = sum(np.count_nonzero(matrix, axis=1).max() for matrix in absolute) + 1
    bound = winograd(absolute, abs(images.astype("float64")), abs(filters.astype("float64")), pad)
    return gamma(2 * terms + images.shape[0]) * bound


@pytest.mark.parametrize("name", MATRICES)
def test_the_formula_is_the_convolution(name, rng):
    size, pad = name[1], name[1] // 2
    images, filters = rng.standard_normal((3, 9, 6, 4)), rng.standard_normal((3, size, size, 5))
    right = reference.filter_acts(images, filters, (9, 6), (pad, pad), (1, 1), False)
    np.testing.assert_allclose(winograd(MATRICES[name], images, filters, pad), right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("c", [case(64, (13, 13), 20, 32), case(5, (6, 9), 130, 12), case(33, (11, 20), 1, 18),
                               case(200, (4, 5), 16, 10)])
@pytest.mark.parametrize("name", MATRICES)
def test_rounding_within_its_bound(name, c, rng):
    tile, size = name
    pad = size // 2
    c = c._replace(size=size, pad=pad, tile=tile)
    images, filters, hid = values = operands(c, lambda *shape: normal(rng, *shape))
    exact = definitions(c, *(value.astype("float64") for value in values))
    # With a pad of half its size the data gradient is the convolution with flipped filters, channels and filters exchanged.
    bounds = [rounding_bound(name, images, filters, pad),
              rounding_bound(name, hid, filters[:, ::-1, ::-1].transpose(3, 1, 2, 0), pad)]
    for result, direct, right, bound in zip(both(c, ALWAYS[tile], *values), both(c, 0, *values), exact, bounds):
        assert (abs(result - right) <= bound).all()
        assert not np.array_equal(result, direct)  # this was Winograd's algorithm


def phases(values, stride, rows, columns):
    """Every stride-th row and column of (c, 0, 1, b) from each of the first ones on, as channels, rows x columns of each; 0 beyond."""
    wide = np.zeros((values.shape[0], rows * stride, columns * stride, values.shape[3]), values.dtype)
    wide[:, :values.shape[1], :values.shape[2]] = values[:, :rows * stride, :columns * stride]
    return np.concatenate([wide[:, i::stride, j::stride] for i in range(stride) for j in range(stride)])


@pytest.mark.parametrize("size, stride, tile", [(11, 4, 2), (11, 4, 4), (5, 2, 2), (5, 2, 4), (10, 2, 4)])
@pytest.mark.parametrize("batch", [1, 24])
def test_strides_round_within_the_bound_of_their_phases(size, stride, tile, batch, rng):
    c = case(7, (33, 30), batch, 12, pad=0, size=size, tile=tile, stride=(stride, stride))
    images, filters, hid = operands(c, lambda *shape: normal(rng, *shape))
    taps, (rows, columns) = -(-size // stride), hid.shape[1:3]
    cut = phases(images, stride, rows + taps - 1, columns + taps - 1), phases(filters, stride, taps, taps)
    exact = definitions(c, *(value.astype("float64") for value in (images, filters, hid)))[0]
    in_phases = reference.filter_acts(*(value.astype("float64") for value in cut), (rows, columns), (0, 0), (1, 1), False)
    np.testing.assert_allclose(in_phases, exact, rtol=1e-11, atol=1e-11)
    result = run(forward(c), ALWAYS[tile], images, filters)
    assert (abs(result - exact) <= rounding_bound((tile, taps), *cut, 0)).all()
    assert not np.array_equal(result, run(forward(c), 0, images, filters))  # this was Winograd's algorithm


def scattered_bound(name, filters, hid, pad, image_shape):
    """The same for d' = B [sum over filters of (G g G^T) * (A y' A^T)] B^T, of which each pixel adds up those of several tiles."""
    image, taps, output = (abs(matrix) for matrix in MATRICES[name])
    (m, _), n = output.shape, image.shape[1]
    tiles = [-(-side // m) for side in hid.shape[1:3]]
    deep = np.zeros((hid.shape[0], tiles[0] * m, tiles[1] * m, hid.shape[3]))
    deep[:, :hid.shape[1], :hid.shape[2]] = abs(hid)
    u = np.einsum("iu,cuvf,jv->cijf", taps, abs(filters.astype("float64")), taps)
    wide = np.zeros((filters.shape[0], tiles[0] * m + n - m, tiles[1] * m + n - m, hid.shape[3]))
    for i, j in np.ndindex(*tiles):
        y = np.einsum("pi,fpqb,qj->fijb", output, deep[:, i * m:i * m + m, j * m:j * m + m], output)
        wide[:, i * m:i * m + n, j * m:j * m + n] += np.einsum("iu,cijb,jv->cuvb", image, np.einsum("cijf,fijb->cijb", u, y), image)
    terms = sum(max(np.count_nonzero(matrix, axis=axis).max() for axis in (0, 1)) for matrix in (image, taps, output)) + 1
    wide *= gamma(2 * terms + hid.shape[0] + (-(-n // m)) ** 2)
    return wide[:, pad:pad + image_shape[0], pad:pad + image_shape[1]]


@pytest.mark.parametrize("c", [case(24, (13, 13), 64, 32), case(5, (9, 12), 130, 12), case(33, (11, 20), 1, 18),
                               case(7, (10, 11), 20, 200)])
@pytest.mark.parametrize("name", [(2, 5), (4, 5), (2, 7)])
@pytest.mark.parametrize("pad", [0, 2])
def test_scattered_gradients_round_within_their_bound(name, c, pad, rng):
    tile, size = name
    c = c._replace(size=size, pad=pad, flip=False)
    _, filters, hid = values = operands(c, lambda *shape: normal(rng, *shape))
    exact = definitions(c, *(value.astype("float64") for value in values))[1]
    result = run(gradient(c), SCATTERED[tile], hid, filters)
    assert (abs(result - exact) <= scattered_bound(name, filters, hid, pad, c.image)).all()
    assert not np.array_equal(result, run(gradient(c), 0, hid, filters))  # this was Winograd's algorithm


def weights_bound(name, images, hid, pad):
    """The same for dg = G^T [sum over tiles and images of (A dy A^T) * (B^T d B)] G."""
    image, taps, output = (abs(matrix) for matrix in MATRICES[name])
    (m, _), n = output.shape, image.shape[1]
    rows, columns = hid.shape[1:3]
    tiles = -(-rows // m), -(-columns // m)
    wide = np.zeros((images.shape[0], tiles[0] * m + n - m, tiles[1] * m + n - m, images.shape[3]))
    wide[:, pad:pad + images.shape[1], pad:pad + images.shape[2]] = abs(images)
    deep = np.zeros((hid.shape[0], tiles[0] * m, tiles[1] * m, hid.shape[3]))
    deep[:, :rows, :columns] = abs(hid)
    sums = 0
    for i, j in np.ndindex(*tiles):
        d = np.einsum("iu,cuvb,jv->cijb", image, wide[:, i * m:i * m + n, j * m:j * m + n], image)
        y = np.einsum("pi,fpqb,qj->fijb", output, deep[:, i * m:i * m + m, j * m:j * m + m], output)
        sums = sums + np.einsum("cijb,fijb->cijf", d, y)
    terms = sum(max(np.count_nonzero(matrix, axis=axis).max() for axis in (0, 1)) for matrix in (image, taps, output)) + 1
    return gamma(2 * terms + images.shape[3] * tiles[0] * tiles[1]) * np.einsum("iu,cijf,jv->cuvf", taps, sums, taps)


@pytest.mark.parametrize("c", [case(64, (13, 13), 20, 32), case(5, (6, 9), 130, 12), case(33, (11, 20), 1, 18)])
@pytest.mark.parametrize("name", [(2, 3), (4, 3), (4, 5)])
def test_weight_gradients_round_within_their_bound(name, c, rng):
    tile, size = name
    c = c._replace(size=size, pad=size // 2)
    images, _, hid = operands(c, lambda *shape: normal(rng, *shape))
    exact = weights_definition(c, images.astype("float64"), hid.astype("float64"))
    result = weights(c, ALWAYS[tile], images, hid)
    assert (abs(result - exact) <= weights_bound(name, images, hid, size // 2)).all()
    assert not np.array_equal(result, weights(c, 0, images, hid))  # this was Winograd's algorithm


@pytest.mark.parametrize("special", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("tile, size", [(2, 3), (4, 3), (4, 5)])
def test_weight_gradients_that_are_not_finite_are_those_of_a_direct_kernel(tile, size, special, rng):
    c = case(4, (9, 8), 19, 7, size=size, pad=size // 2)
    for position in (0, 2):
        values = list(operands(c, lambda *shape: normal(rng, *shape)))
        values[position][1, 1:3, 1:3] = special
        direct = weights(c, 0, values[0], values[2])
        np.testing.assert_array_equal(weights(c, ALWAYS[tile], values[0], values[2]), direct)
        assert not np.isfinite(direct).all()


@pytest.mark.parametrize("size, tile", [(3, 2), (5, 2), (7, 2)])
def test_equal_pixels_stay_equal(size, tile, rng):
    """Where an image is constant, all results are: no tie of a max-pooling behind it is broken by rounding."""
    images = np.broadcast_to(normal(rng, 24, 1, 1, 33), (24, 14, 15, 33)).copy()
    results = run(FilterActs(0), ALWAYS[tile], images, normal(rng, 24, size, size, 18))
    np.testing.assert_array_equal(results, np.broadcast_to(results[:, :1, :1], results.shape))


# ---------------------------------------------------------------------------------------------------------------------
# What is not finite.

@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize("batch", [1, 19])
def test_what_is_not_finite_with_a_stride(special, batch, rng):
    """A tap that a phase lacks counts as 0, which times an infinity is none."""
    c = case(4, (21, 18), batch, 7, size=11, pad=2, stride=(4, 4))
    for position in (0, 1):
        values = list(operands(c, lambda *shape: normal(rng, *shape)))[:2]
        values[position][1, -1, -1] = special
        direct = run(forward(c), 0, *values)
        np.testing.assert_array_equal(run(forward(c), ALWAYS[2], *values), direct)
        assert not np.isfinite(direct).all() and np.isfinite(direct).any()


@pytest.mark.parametrize("batch", [1, 19, 64])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("tile, size", MATRICES)
def test_what_is_not_finite_goes_where_a_direct_kernel_sends_it(tile, size, special, batch, rng):
    """3e38 is finite, but not what the transforms make of two of them."""
    c = case(4, (9, 8), batch, 7, size=size, pad=size // 2)
    for position, ops in ((0, (forward,)), (1, (forward, gradient)), (2, (gradient,))):
        values = list(operands(c, lambda *shape: normal(rng, *shape)))
        values[position].flat[rng.choice(values[position].size, 2, replace=False)] = special
        values[position][0, 1:3, 1:3] = special  # neighbours in one tile
        for op in ops:
            first = values[0] if op is forward else values[2]
            direct = run(op(c), 0, first, values[1])
            np.testing.assert_array_equal(run(op(c), ALWAYS[tile], first, values[1]), direct)
            assert not np.isfinite(direct).all() or special == 3e38


@pytest.mark.parametrize("batch", [1, 19, 64])
@pytest.mark.parametrize("special", [np.nan, -np.inf, 3e38])
@pytest.mark.parametrize("tile, size", [(2, 5), (4, 5), (2, 7)])
def test_what_is_not_finite_is_not_scattered(tile, size, special, batch, rng):
    c = case(4, (12, 11), batch, 7, size=size, pad=0)
    for position in (1, 2):
        values = list(operands(c, lambda *shape: normal(rng, *shape)))
        values[position][0, 1:3, 1:3] = special
        direct = run(gradient(c), 0, values[2], values[1])
        np.testing.assert_array_equal(run(gradient(c), SCATTERED[tile], values[2], values[1]), direct)
        assert not np.isfinite(direct).all() or special == 3e38


# ---------------------------------------------------------------------------------------------------------------------
# The choice.

def test_the_flag_and_the_price_choose(rng):
    c = case(64, (14, 14), 32, 64)
    values = operands(c, lambda *shape: normal(rng, *shape))
    off, f2, f4, always_f2, always_f4 = (both(c, tile, *values) for tile in (0, 2, 4, ALWAYS[2], ALWAYS[4]))
    for which in (0, 1):
        np.testing.assert_array_equal(f2[which], always_f2[which])
        np.testing.assert_array_equal(f4[which], always_f4[which])
        assert not np.array_equal(off[which], f2[which]) and not np.array_equal(f2[which], f4[which])


@pytest.mark.parametrize("image, pad, tiles", [(12, 0, SCATTERED), (27, 2, ALWAYS)])
def test_gradients_have_no_ties_that_large_tiles_may_break(image, pad, tiles, rng):
    """With 5 x 5 filters; of an unpadded convolution they are scattered."""
    c = case(64, (image, image), 64, 64, size=5, pad=pad)
    _, filters, hid = operands(c, lambda *shape: normal(rng, *shape))
    np.testing.assert_array_equal(run(gradient(c), 2, hid, filters), run(gradient(c), tiles[4], hid, filters))


@pytest.mark.parametrize("op, filter_shape", [(FilterActs(1, stride=2), (3, 3)), (FilterActs(2), (4, 4)),
                                              (FilterActs(1), (3, 4)), (FilterActs(3, stride=2), (7, 7)), (FilterActs(1, groups=32), (3, 3))])
def test_other_convolutions_stay_direct(op, filter_shape, rng):
    images = normal(rng, 32, 12, 12, 32)
    filters = normal(rng, 32 // op.groups, *filter_shape, 64)
    np.testing.assert_array_equal(run(op, 4, images, filters), run(op, 0, images, filters))


def test_runs_repeat(rng):
    c = case(48, (12, 10), 20, 50)
    values = operands(c, lambda *shape: normal(rng, *shape))
    for tile in ALWAYS.values():
        first, second = both(c, tile, *values), both(c, tile, *values)
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
    prices = r"<(\d), (\d)> {\s*static constexpr double images = (\d+), outputs = (\d+), taps = (\d+);"
    for header, pattern, known in (
            ("conv_winograd.h", "WinogradPrices" + prices + r"\s*static constexpr int allowed = (\d);", WINOGRAD_PRICES),
            ("winograd_scatter.h", "ScatteredPrices" + prices, WINOGRAD_SCATTERED)):
        with open(os.path.join(base.CPU_HEADERS, header)) as lines:
            found = re.findall(pattern, lines.read())
        assert {(int(tile), int(size)): tuple(map(float, rest)) for tile, size, *rest in found} == {
            name[:2]: prices for name, prices in known.items()}
    assert WINOGRAD_PRODUCTS == {name: len(image) ** 2 for name, (image, _, _) in MATRICES.items()}
