"""What docs/numbers.md states: error bounds, NaN and infinity as in stock Theano, the same bits in every run."""
import os
import subprocess
import sys

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights

import guarded
from layoutopt.kernels import base
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad, MaxPoolGradGrad
from layoutopt.kernels.reference import avg_pool as avg_reference, conv as reference, pool as pool_reference
from layoutopt.kernels.relayout import to_bc01, to_c01b
from test_winograd import ALWAYS, rounding_bound
from tolerance import SMALLEST, assert_bilinear, gamma, normal, whole_numbers

HERE = os.path.dirname(os.path.abspath(__file__))


def run(op, *values, winograd=0):
    """The outputs of the op's C code; `winograd` as in test_winograd.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.WINOGRAD_TILES, base._settings["winograd"], winograd)
        inputs, results, thunk, _ = guarded.thunk_of(op, *values)
        for storage, value in zip(inputs, values):
            storage[0] = value
        thunk()
    return [storage[0] for storage in results]


# ---------------------------------------------------------------------------------------------------------------------
# Inputs made to hurt. No sum of theirs overflows.

def cancelling(rng, *shape):
    """Large numbers in pairs that almost cancel, in every direction."""
    signs = np.indices(shape).sum(0) % 2 * 2.0 - 1
    return (signs * 1e4 + rng.standard_normal(shape)).astype("float32")


def wide(rng, *shape):
    """Magnitudes from 1e-20 to 1e17."""
    return (rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-20, 17, shape)).astype("float32")


def tiny(rng, *shape):
    """Products of these are subnormal, or nothing; some are subnormal themselves."""
    return (rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-41, -18, shape)).astype("float32")


hard = pytest.mark.parametrize("draw", [cancelling, wide, tiny], ids=lambda draw: draw.__name__)
# (channels, image, batch, filters, groups): images in the lanes, filters in the lanes, nothing packed.
NESTS = [(24, (7, 8), 33, 10, 1), (24, (7, 8), 3, 40, 1), (1, (9, 7), 20, 1, 4)]


def operands(draw, rng, sizes):
    channels, image, batch, filters, groups = sizes
    return (draw(rng, groups * channels, *image, batch), draw(rng, channels, 3, 3, groups * filters),
            draw(rng, groups * filters, *image, batch))


@hard
@pytest.mark.parametrize("sizes", NESTS, ids=str)
def test_convolutions(draw, sizes, rng):
    """gamma_n times the sum of absolute products, n of them."""
    images, filters, hid = operands(draw, rng, sizes)
    groups, grid = sizes[-1], sizes[1]
    args = (1, 1), (1, 1), False, groups
    assert_bilinear(run(FilterActs(1, groups=groups), images, filters)[0],
                    lambda x, w: reference.filter_acts(x, w, grid, *args), images, filters)
    assert_bilinear(run(ImageActs(1, groups=groups), hid, filters)[0],
                    lambda h, w: reference.image_acts(h, w, grid, *args), hid, filters)
    assert_bilinear(run(WeightActs(1, groups=groups), images, hid, np.array([3, 3]))[0],
                    lambda x, h: reference.weight_acts(x, h, (3, 3), *args), images, hid)


@hard
@pytest.mark.parametrize("tile", sorted(set(ALWAYS.values())))
def test_winograd(draw, tile, rng):
    """The bound of test_winograd.py, and what underflows: at most the smallest number for each of some hundred operations."""
    images, filters, hid = operands(draw, rng, (24, (7, 8), 33, 10, 1))
    flipped = filters[:, ::-1, ::-1].transpose(3, 1, 2, 0)  # see test_winograd.py
    for op, first, weights in ((FilterActs(1), images, filters), (ImageActs(1), hid, flipped)):
        out, = run(op, first, filters, winograd=tile)
        exact = reference.filter_acts(*(x.astype("float64") for x in (first, weights)), (7, 8), (1, 1), (1, 1), False)
        bound = rounding_bound((-tile, 3), first, weights, 1) + 1000 * len(first) * SMALLEST
        assert (abs(out - exact) <= bound).all()


@pytest.mark.parametrize("draw", [normal, cancelling, wide], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("batch, filters", [(100, 1), (100, 16), (3, 5)])
def test_long_sums_are_made_of_short_ones(draw, batch, filters, rng):
    """A weight gradient of n products: gamma_m with m = 784 + n / 768 + 1 a slice, where a plain loop has gamma_n."""
    images, hid = draw(rng, 2, 41, 50, batch), draw(rng, filters, 40, 49, batch)
    args = (2, 2), (0, 0), (1, 1), False
    out, = run(WeightActs(), images, hid, np.array([2, 2]))
    exact, magnitude = (reference.weight_acts(f(images.astype("float64")), f(hid.astype("float64")), *args) for f in
                        (np.positive, abs))
    products, slices = 40 * 49 * batch, 4 * os.cpu_count()
    terms = min(products, 784 + products // 768 + 2 * slices)
    assert (abs(out - exact) <= (gamma(terms) + gamma(products, 2.0 ** -53)) * magnitude + products * SMALLEST).all()


@hard
def test_poolings(draw, rng):
    """Maxima are exact. Sums of n are off by at most gamma_(n-1), averages by gamma_n, of the sum of absolute terms."""
    x = draw(rng, 3, 8, 9, 19)
    for geometry in ((2, 2), (3, 2), (3, 1, -1)):
        pool = MaxPool(*geometry)
        grid, sizes = pool.checked_grid((8, 9)), (pool.ds, pool.stride, pool.start)
        z, = run(pool, x)
        np.testing.assert_array_equal(z, pool_reference.max_pool(x, grid, *sizes))
        gz = draw(rng, *z.shape)
        wide_gz, wide_x, most = gz.astype("float64"), x.astype("float64"), 9
        cases = [(run(pool.like(MaxPoolGrad), x, z, gz)[0], most - 1,
                  lambda f: pool_reference.max_pool_grad(wide_x, z.astype("float64"), f(wide_gz), *sizes)),
                 (run(pool.like(MaxPoolGradGrad), x, z, x)[0], most - 1,
                  lambda f: pool_reference.max_pool_grad_grad(wide_x, z.astype("float64"), f(wide_x), *sizes))]
        for mode in avg_reference.MODES:
            average, roundings = AvgPool(*geometry, mode=mode), most - (mode == "sum")
            cases += [(run(average, x)[0], roundings,
                       lambda f, mode=mode: avg_reference.avg_pool(f(wide_x), grid, *sizes, mode)),
                      (run(average.like(AvgPoolGrad), gz, np.array([8, 9]))[0], roundings,
                       lambda f, mode=mode: avg_reference.avg_pool_grad(f(wide_gz), (8, 9), *sizes, mode))]
        for result, roundings, definition in cases:
            bound = (gamma(roundings) + gamma(most, 2.0 ** -53)) * definition(abs) + most * SMALLEST
            assert (abs(result - definition(np.positive)) <= bound).all()


@pytest.mark.parametrize("op", [to_c01b, to_bc01], ids=str)
def test_conversions_keep_every_bit(op, rng):
    """Of NaN, too, whatever is in it, and of what is no number to a processor."""
    bits = rng.randint(0, 2 ** 32, (5, 3, 7, 17), dtype="uint32")
    bits.flat[:4] = 0x7F800001, 0xFFC12345, 0x7F800000, 0x00000001
    out, = run(op, bits.view("float32"))
    moved = np.moveaxis(bits, 0, -1) if op is to_c01b else np.moveaxis(bits, -1, 0)
    np.testing.assert_array_equal(out.view("uint32"), moved)


# ---------------------------------------------------------------------------------------------------------------------
# NaN and infinity beside stock Theano. Whole numbers: what is finite is equal.

def spoiled(values, rng):
    values = values.copy()
    for special in (np.nan, np.inf, -np.inf):
        values.flat[rng.choice(values.size, 2, replace=False)] = special
    return values


@pytest.fixture(scope="module")
def stock():
    """Stock Theano's convolution and its two gradients, as in test_conv_ops.py, so that nothing is compiled anew."""
    images, filters, hid = T.ftensor4s(3)
    parameters = dict(border_mode=1, subsample=(1, 2), filter_flip=True)
    return theano.function([images, filters, hid],
                           [AbstractConv2d(**parameters)(images, filters),
                            AbstractConv2d_gradInputs(**parameters)(filters, hid, images.shape[2:]),
                            AbstractConv2d_gradWeights(**parameters)(images, hid, filters.shape[2:])],
                           mode=theano.Mode(linker="cvm", optimizer="fast_compile"), on_unused_input="ignore")


@pytest.mark.parametrize("which", ["images", "filters", "hid"])
def test_not_finite_as_in_stock_theano(which, stock, rng):
    """Everywhere, but where stock Theano multiplies the zeros of its pad with what is not finite: there it has NaN of its own."""
    arrays = dict(images=whole_numbers(rng, (6, 3, 8, 9)), filters=whole_numbers(rng, (5, 3, 3, 3)),
                  hid=whole_numbers(rng, (6, 5, 8, 5)))
    arrays[which] = spoiled(arrays[which], rng)
    theirs = [np.moveaxis(value, 0, -1) for value in stock(*arrays.values())]
    x, w, h = (np.ascontiguousarray(np.moveaxis(value, 0, -1)) for value in arrays.values())
    parameters = dict(pad=1, stride=(1, 2), flip=True, ceil_mode=False)
    ours = [run(FilterActs(**parameters), x, w)[0], run(ImageActs(**parameters), h, w, np.array([8, 9]))[0],
            run(WeightActs(**parameters), x, h, np.array([3, 3]))[0]]
    inside = [np.s_[:, 1:-1, 1:-1], np.s_[:], np.s_[:, 1:-1, 1:-1]]  # no window over the pad; no pixel of it; no tap over it
    # What is multiplied with the pad: filters in the convolution, output gradients in the weights' gradient.
    padded = [which == "filters", False, which == "hid"]
    for mine, stocks, no_pad, differs in zip(ours, theirs, inside, padded):
        if not differs:
            np.testing.assert_array_equal(mine, stocks)
            continue
        np.testing.assert_array_equal(mine[no_pad], stocks[no_pad])
        np.testing.assert_array_equal(mine[~np.isnan(stocks)], stocks[~np.isnan(stocks)])
        assert np.isnan(stocks).sum() > np.isnan(mine).sum()


# ---------------------------------------------------------------------------------------------------------------------
# The same bits in every run, for one number of threads.

DIGEST = """
import hashlib, numpy as np
import guarded
from layoutopt.kernels import base
from layoutopt.kernels.activation import sigmoid, tanh
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad

rng = np.random.RandomState(1)
def normal(*shape):
    return rng.standard_normal(shape).astype("float32")
x, w, h = normal(40, 16, 15, 50), normal(40, 3, 3, 30), normal(30, 16, 15, 50)
x1, w1, h1 = x[..., :5].copy(), normal(1, 5, 5, 40), h[..., :5].copy()
z, shape = x[:, :8, :8].copy(), np.array([16, 15])
calls = [(FilterActs(1), x, w), (ImageActs(1), h, w), (WeightActs(1), x, h, np.array([3, 3])), (FilterActs(1), x1, w),
         (ImageActs(1), h1, w), (WeightActs(1), x1, h1, np.array([3, 3])), (FilterActs(2, stride=2, groups=40), x, w1),
         (MaxPool(2), x), (MaxPool(2).like(MaxPoolGrad), x, z, z), (AvgPool(2), x), (AvgPool(2).like(AvgPoolGrad), z, shape),
         (tanh, x.ravel()), (sigmoid, x.ravel())]
sums = hashlib.sha256()
for op, *values in calls:
    for tile in (0, 2, -4) if isinstance(op, (FilterActs, ImageActs, WeightActs)) else (0,):
        base.WINOGRAD_TILES["f2"] = tile
        inputs, outputs, thunk, _ = guarded.thunk_of(op, *values)
        for storage, value in zip(inputs, values):
            storage[0] = value
        runs = set()
        for _ in range(3):
            thunk()
            runs.add(outputs[0][0].tobytes())
            outputs[0][0] = None  # other memory for the next result
        assert len(runs) == 1, op
        sums.update(runs.pop())
print(sums.hexdigest())
"""


def test_every_process_computes_the_same_bits():
    """Three runs in each of two processes; three threads, which two cores share as they can."""
    environment = dict(os.environ, OMP_NUM_THREADS="3", PYTHONPATH=os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
    digests = [subprocess.run([sys.executable, "-c", DIGEST], env=environment, check=True, stdout=subprocess.PIPE).stdout
               for _ in range(2)]
    assert digests[0] == digests[1]
