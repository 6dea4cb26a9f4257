"""Every op on guarded memory, at sizes around those of vectors, tiles and blocks; a program: ``guard_cases.py [simd ...]``.

It prints each case's name before it runs it, so that the last line names the one that ended the process.
"""
import faulthandler
import sys

import numpy as np

import guarded
from layoutopt.kernels import base
from layoutopt.kernels.activation import Sigmoid, Tanh, sigmoid, tanh
from layoutopt.kernels.avg_pool import AvgPool, AvgPoolGrad
from layoutopt.kernels.batch_norm import BatchNormTrain, BatchNormTrainGrad
from layoutopt.kernels.channel_sum import ChannelSum
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum
from layoutopt.kernels.epilogue import FilterActsBias, MaxPoolBias
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad, MaxPoolGradGrad
from layoutopt.kernels.prob_pool import ProbMaxPool, ProbMaxPoolGrad
from layoutopt.kernels.reference.epilogue import ACTIVATIONS
from layoutopt.kernels.relayout import to_bc01, to_c01b
from layoutopt.kernels.stochastic_pool import StochasticMaxPool
from layoutopt.kernels.take import take_to_c01b
from layoutopt.kernels.weighted_pool import WeightedMaxPool, WeightedMaxPoolGrad
from tolerance import whole_numbers

# Ops that round where their definition may round otherwise, with whole numbers, too.
ROUNDING = (Tanh, Sigmoid, WeightedMaxPool, WeightedMaxPoolGrad, ProbMaxPool, ProbMaxPoolGrad, CrossMapNorm, CrossMapNormUndo,
            CrossMapSum, BatchNormTrain, BatchNormTrainGrad)

AROUND_VECTORS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 130)

# What FilterActs and its adjoints are run with: parameters of the ops, then sizes; channels and filters are a group's.
NAMED = [
    (dict(pad=1), dict(channels=70, filters=19, image=(6, 5), filter_shape=(3, 3), batch=33)),
    (dict(pad=2, stride=4), dict(channels=3, filters=24, image=(35, 33), filter_shape=(11, 11), batch=17)),
    (dict(pad=1, groups=37), dict(channels=1, filters=1, image=(6, 7), filter_shape=(3, 3), batch=5)),
    (dict(pad=1, groups=20, stride=2), dict(channels=1, filters=3, image=(6, 7), filter_shape=(5, 3), batch=1)),
    (dict(groups=2), dict(channels=48, filters=40, image=(4, 4), filter_shape=(3, 3), batch=65)),
    (dict(pad="full", stride=(2, 3)), dict(channels=2, filters=7, image=(3, 4), filter_shape=(4, 5), batch=31)),
    (dict(pad=((5, 4), (6, 7)), stride=2), dict(channels=3, filters=4, image=(3, 4), filter_shape=(2, 3), batch=9)),
    (dict(stride=(4, 3)), dict(channels=3, filters=4, image=(11, 13), filter_shape=(2, 1), batch=15)),
    (dict(pad=3), dict(channels=2, filters=7, image=(6, 9), filter_shape=(7, 7), batch=20)),
    (dict(), dict(channels=1, filters=1, image=(1, 1), filter_shape=(1, 1), batch=1)),
]


def random_convolution(random):
    """Parameters and sizes of one convolution, as those of NAMED."""
    def pick(*values):
        return values[random.randint(len(values))]

    filter_shape = pick((3, 3), (5, 5)) if pick(0, 1) else (pick(1, 2, 3, 5), pick(1, 2, 4))
    pad = random.randint(0, 4, (2, 2))
    image = tuple(int(max(1, size - sum(both)) + pick(0, 1, 2, 5)) for size, both in zip(filter_shape, pad))
    parameters = dict(pad=tuple(map(tuple, pad.tolist())), stride=pick(1, 1, 1, 2, (1, 3)), flip=pick(False, True),
                      groups=pick(1, 1, 1, 2, 3))
    return parameters, dict(channels=pick(1, 2, 3, 5, 17), filters=pick(1, 2, 3, 6, 7, 16, 20, 50), image=image,
                            filter_shape=filter_shape, batch=pick(*AROUND_VECTORS))


def convolutions(random, count=20):
    """FilterActs, ImageActs and WeightActs, each of NAMED and `count` others by all algorithms."""
    for parameters, sizes in NAMED + [random_convolution(random) for _ in range(count)]:
        groups, image, filter_shape, batch = parameters.get("groups", 1), sizes["image"], sizes["filter_shape"], sizes["batch"]
        channels, filters = groups * sizes["channels"], groups * sizes["filters"]
        grid = FilterActs(**parameters).output_grid(image, filter_shape)
        x = whole_numbers(random, (channels, *image, batch))
        w = whole_numbers(random, (sizes["channels"], *filter_shape, filters))
        h = whole_numbers(random, (filters, *grid, batch))
        small_enough = 3 * 3 * max(sizes["channels"], sizes["filters"]) < 600  # F(4x4) is off by less than a half
        for tile in (0, -2, -4) if filter_shape in ((3, 3), (5, 5), (7, 7)) and small_enough else (0,):
            base.WINOGRAD_TILES["f2"] = tile
            name = "%s %s, tiles of %d" % (parameters, sizes, -tile)
            yield name, FilterActs(**parameters), (x, w)
            yield name, ImageActs(**parameters), (h, w, np.array(image))
            yield name, WeightActs(**parameters), (x, h, np.array(filter_shape))


def partial_sums(random):
    """Weight gradients in parts."""
    for batch in AROUND_VECTORS:
        groups, channels, filters = ((1, 5, 20), (1, 9, 2), (7, 1, 1))[batch % 3]
        x, h = whole_numbers(random, (groups * channels, 7, 6, batch)), whole_numbers(random, (groups * filters, 5, 4, batch))
        op = WeightActs(partial_sum=(4, 1, 10)[batch % 3], groups=groups)
        yield "%s and %s" % (x.shape, h.shape), op, (x, h, np.array([3, 3]))


def poolings(random):
    """The maxima and sums of windows, small ones and any, with and without a pad, and their derivatives."""
    geometries = [(2, 2), (3, 2), (3, 2, -1), ((1, 2), (2, 1), (0, 1)), (5, 3, -2), ((2, 3), 4), (1, 1), (4, 1, -3)]
    for batch in AROUND_VECTORS:
        geometry = geometries[batch % len(geometries)]
        x = whole_numbers(random, (random.randint(1, 4), random.randint(6, 9), random.randint(6, 9), batch))
        op = MaxPool(*geometry)
        name, z = "%s of %s" % (geometry, x.shape), op.checked_grid(x.shape[1:3])
        maxima, gz = x[:, :z[0], :z[1]].copy(), whole_numbers(random, x.shape[:1] + z + x.shape[3:])
        yield name, op, (x,)
        yield name, op.like(MaxPoolGrad), (x, maxima, gz)
        yield name, op.like(MaxPoolGradGrad), (x, maxima, x)
        for mode in ("sum", "average_exc_pad", "average_inc_pad"):
            op = AvgPool(*geometry, mode=mode)
            yield name, op, (x,)
            yield name, op.like(AvgPoolGrad), (gz, np.array(x.shape[1:3]))
    x = whole_numbers(random, (8, 64, 65, 128))  # results that are written around the caches
    gz = whole_numbers(random, (8, 64, 65, 128))
    yield "large", MaxPool(1), (x,)
    yield "large", MaxPool(1).like(MaxPoolGrad), (x, x, gz)
    yield "large", AvgPool(1).like(AvgPoolGrad), (gz, np.array(x.shape[1:3]))


def epilogues(random):
    """Bias and activation behind convolutions, by each loop nest, and poolings; sums of channels."""
    for batch in AROUND_VECTORS:
        activation = list(ACTIVATIONS)[batch % 4]  # those that are exact
        groups, channels, filters = ((1, 5, 20), (1, 9, 2), (7, 1, 1))[batch % 3]
        x = whole_numbers(random, (groups * channels, 5, 6, batch))
        w = whole_numbers(random, (channels, 3, 3, groups * filters))
        bias = whole_numbers(random, (groups * filters,))
        for tile in (0, -2):
            base.WINOGRAD_TILES["f2"] = tile
            yield "%s of %s, tiles of %d" % (activation, x.shape, -tile), FilterActsBias(
                FilterActs(1, stride=1 + batch % 2, groups=groups), activation, True), (x, w, bias)
        op = MaxPoolBias(MaxPool(3, 2), activation, True)
        yield "%s of %s" % (activation, x.shape), op, (x, whole_numbers(random, x.shape[:1]))
        yield "%s" % (x.shape,), ChannelSum(), (x,)


# Parts of an array that a conversion reads where they are.
VIEWS = [lambda x: x[:, 1:], lambda x: x[:, :-1], lambda x: x[-1:, 3:], lambda x: x[::2]]


def conversions(random):
    """Both ways, elements of all sizes, gaps between rows; some beyond the size from which caches are avoided."""
    for dtype, more_axes in (("float32", (2, 3)), ("float64", (3,)), ("int8", ())):
        for rows in (1, 2, 3, 15, 16, 17, 33, 64, 127, 128):
            x = random.randint(0, 100, (rows, random.randint(4, 60)) + more_axes).astype(dtype)
            name = "%s %s" % (dtype, x.shape)
            yield name, to_c01b, (x,)
            yield name, to_bc01, (x,)
            yield "a view of " + name, to_c01b, (guarded.View(x, VIEWS[rows % len(VIEWS)]),)
            if dtype == "float32":
                yield name, take_to_c01b, (x, random.randint(-rows, rows, random.randint(1, 40)))
    for shape in ((128, 7, 24, 31), (1030, 1, 1, 521), (4999, 2, 2, 32)):
        x = random.randint(0, 100, shape).astype("float32")
        yield "%s" % (shape,), to_c01b, (x,)
        yield "%s" % (shape,), take_to_c01b, (x, random.randint(0, shape[0], 1030))


def activations(random):
    for count in AROUND_VECTORS + (4095, 4097, 20001):
        x = random.standard_normal(count).astype("float32")
        yield "%d" % count, tanh, (x,)
        yield "%d" % count, sigmoid, (x,)


def drawn_and_weighted(random):
    """Poolings by chance and by weight, and their derivatives."""
    for batch in AROUND_VECTORS:
        x = abs(whole_numbers(random, (random.randint(1, 4), random.randint(6, 9), random.randint(6, 9), batch)))
        geometry = (2, 2) if batch % 2 else ((3, 2), (2, 3), (-1, 0))
        name = "%s of %s" % (geometry, x.shape)
        op, weighted = StochasticMaxPool(*geometry), WeightedMaxPool(*geometry)
        y = abs(whole_numbers(random, x.shape[:1] + op.checked_grid(x.shape[1:3]) + x.shape[3:]))
        yield name, op, (x, np.array(batch), np.array(5))
        yield name, weighted, (x,)
        yield name, weighted.like(WeightedMaxPoolGrad), (x, y, y)
        op = ProbMaxPool(geometry[0])
        t = whole_numbers(random, x.shape[:1] + op.checked_grid(x.shape[1:3]) + x.shape[3:])
        yield name, op, (x, t)
        yield name, op.like(ProbMaxPoolGrad), (t / 4, x / 4, t, x)


def normalisations(random):
    """Across channels: windows of any size, in either layout; roots and other powers."""
    for batch in AROUND_VECTORS:
        channels, axis = random.randint(1, 12), batch % 2
        shape = [random.randint(1, 5), random.randint(1, 5), batch]
        shape.insert(axis, channels)
        x, gy = (random.standard_normal(shape).astype("float32") for _ in range(2))
        windows, scales = dict(size=random.randint(1, 7), blocked=batch % 3 == 0, axis=axis), (0.1, (0.75, 0.5, 0.6)[batch % 3])
        yield "%s" % shape, CrossMapNorm(windows.pop("size"), *scales, **windows), (x,)
        yield "%s" % shape, CrossMapNormUndo(5, *scales, **windows), (x, gy)
        yield "%s" % shape, CrossMapSum(3, transposed=batch % 5 == 0, **windows), (x,)


def channel_normalisations(random):
    """Of each channel over all its pixels and images: whole channels, parts of one, results that are written around the caches."""
    shapes = [(random.randint(1, 5), random.randint(1, 5), random.randint(1, 5), batch) for batch in AROUND_VECTORS]
    shapes += [(1, 41, 40, batch) for batch in AROUND_VECTORS[-5:]] + [(3, 5), (2, 4097), (8, 64, 65, 128)]
    for shape in shapes:
        x, dy = (random.standard_normal(shape).astype("float32") for _ in range(2))
        scale, bias, mean, invstd = (random.standard_normal(shape[:1] + (1,) * (len(shape) - 1)).astype("float32")
                                     for _ in range(4))
        yield "%s" % (shape,), BatchNormTrain(), (x, scale, bias, np.array(1e-2, "float32"))
        yield "%s" % (shape,), BatchNormTrainGrad(), (x, dy, scale, mean, abs(invstd))


def check(op, operands):
    expected, *results = guarded.run(op, *operands)
    exact = not isinstance(op, ROUNDING) and base.WINOGRAD_TILES["f2"] != -4
    for values in results:
        for value, right in zip(values, expected):
            if exact:
                np.testing.assert_array_equal(value, right)
            else:
                convolved = isinstance(op, (FilterActs, ImageActs, WeightActs))
                np.testing.assert_allclose(value, right, rtol=1e-4, atol=0.5 if convolved else 1e-4)
    for at_end, at_begin in zip(*results):
        np.testing.assert_array_equal(at_end, at_begin)  # where operands lie makes no difference


def run(kind):
    """All cases of one of KINDS."""
    random = np.random.RandomState(20121203)
    try:
        for name, op, operands in kind(random):
            print("%s: %s, %s" % (base._settings["simd"], op, name), flush=True)
            check(op, operands)
    finally:
        base.WINOGRAD_TILES["f2"] = 2


KINDS = (convolutions, partial_sums, epilogues, poolings, drawn_and_weighted, normalisations, channel_normalisations, conversions,
         activations)


def main(builds):
    faulthandler.enable()
    for simd in builds:
        base.configure(simd=simd)
        # Of the other builds only what their own tests have compiled already.
        for kind in KINDS if simd == "auto" else KINDS[:1]:
            run(kind)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1:])
