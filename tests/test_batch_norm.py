"""Batch normalisation of training by our ops: the definition by finite differences, kernels within derived bounds and beside stock
Theano's ops, derivatives, and where the ops are put in.
"""
import functools
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet import conv2d, relu
from theano.tensor.nnet.bn import AbstractBatchNormTrain, AbstractBatchNormTrainGrad, batch_normalization_train

import layoutopt
from layoutopt.kernels import BatchNormTrain, BatchNormTrainGrad, base
from layoutopt.kernels.channel_sum import ChannelSum
from layoutopt.kernels.reference import batch_norm as reference

import cheap_mode
import guarded
from cheap_mode import few_compilations  # noqa: F401  (a fixture)
from pooling import LITTLE_C, assert_same_bits, reals, refused, zeros
from tolerance import SMALLEST, UNIT_ROUNDOFF as U, gamma

EPSILON = np.float32(1e-4)


def each(shape):
    return (shape[0],) + (1,) * (len(shape) - 1)


def others(x):
    return tuple(range(1, x.ndim))


def averaged(x):
    return x.mean(others(x), keepdims=True)


def summed(x):
    return x.sum(others(x), keepdims=True)


def run(op, *values):
    """The results of the op's C code."""
    values = [np.asarray(value) for value in values]
    inputs, outputs, thunk, _ = guarded.thunk_of(op, *values)
    for storage, value in zip(inputs, values):
        storage[0] = value
    thunk()
    return [storage[0] for storage in outputs]


@functools.lru_cache(maxsize=None)
def in_stock(gradient, ndim):
    """Theano's lowering of its own op, for float32 (channels, ...), as a function."""
    large, small = (T.TensorType("float32", (False,) + (few,) * (ndim - 1)) for few in (False, True))
    axes = tuple(range(1, ndim))
    if gradient:
        inputs = [large(), large(), small(), small(), small()]
        outputs = AbstractBatchNormTrainGrad(axes)(*inputs, EPSILON)
    else:
        inputs = [large(), small(), small()]
        outputs = AbstractBatchNormTrain(axes)(*inputs, EPSILON)
    return theano.function(inputs, outputs, mode=cheap_mode.mode(False))


# ---------------------------------------------------------------------------------------------------------------------
# Bounds. u is the rounding of one operation, and what is added up in float64 has that of `count` terms at most.


def in_double(count):
    return gamma(count + 8, 2.0 ** -53)


def exactly(x, scale, bias):
    """y, mean and variance in float64."""
    x = x.astype("float64")
    mean = averaged(x)
    variance = averaged((x - mean) ** 2)
    return (x - mean) * (scale / np.sqrt(variance + EPSILON)) + bias, mean, variance


def mean_error(x, mean):
    return gamma(1) * abs(mean) + in_double(x[0].size) * 3 * abs(x).max(others(x), keepdims=True)


def variance_error(x, variance):
    """A rounding, a part in 10^9 of each block, and what the blocks' means are off by."""
    off = 3 * in_double(0) * abs(x).astype("float64").max(others(x), keepdims=True)
    return (gamma(1) + 1e-9) * variance + 2 * np.sqrt(variance) * off + off ** 2


def y_error(x, scale, bias, mean_off, variance_off):
    """What y may be off by if its mean and variance are off by so much, and the rest is rounded as Theano's ops do."""
    y, mean, variance = exactly(x, scale, bias)
    d, factor = abs(x - mean), abs(scale) / np.sqrt(variance + EPSILON)
    relative = (variance_off + U * (variance + EPSILON)) / (variance + EPSILON)  # of what the root is taken of
    assert (relative < 0.5).all()  # so |(1 - e) ** -0.5 - 1| <= e
    factor_off = factor * ((1 + relative) * (1 + gamma(3)) - 1)
    d_off = mean_off + U * (d + mean_off)
    product_off = (factor + factor_off) * (d + d_off) * (1 + U) - factor * d
    return product_off + U * (abs(y) + product_off) + SMALLEST


def stock_errors(x, mean, variance):
    """Stock's mean is a rounded sum divided by one size after the other; its variance is that about this mean, of squares of
    differences, each rounded."""
    mean_off = gamma(1 + x.ndim) * abs(mean) + mean_error(x, 0 * mean)
    return mean_off, gamma(5 + x.ndim) * (variance + mean_off ** 2) + mean_off ** 2 + in_double(x[0].size) * variance


def gradient_terms(x, dy, mean, invstd):
    """d, <dy d> invstd^3, and the same of absolute values, in float64."""
    x, dy, mean, invstd = (value.astype("float64") for value in (x, dy, mean, invstd))
    d = x - mean
    return d, averaged(dy * d) * invstd ** 3, averaged(abs(dy * d)) * invstd ** 3


def gradient_exactly(x, dy, scale, mean, invstd):
    d, k, _ = gradient_terms(x, dy, mean, invstd)
    c = dy * invstd.astype("float64") - d * k
    return scale * (c - averaged(c)), summed(dy * invstd.astype("float64") * d), summed(dy.astype("float64"))


def gradient_errors(x, dy, scale, mean, invstd):
    """At most 6 roundings on the way of each term, and those of the sums."""
    d, k, k_size = gradient_terms(x, dy, mean, invstd)
    invstd, dy, count = invstd.astype("float64"), dy.astype("float64"), x[0].size
    offset = invstd * abs(averaged(dy)) + abs(k * averaged(d))
    off = gamma(7) * (abs(invstd * dy) + abs(k * d) + offset)
    sums = in_double(count) * (invstd * averaged(abs(dy)) + k_size * (abs(d) + 2 * averaged(abs(d))))
    return (abs(scale) * (off + sums) + SMALLEST, gamma(1) * abs(summed(dy * invstd * d)) +
            2 * in_double(count) * summed(abs(dy * d)) * invstd, gamma(1) * abs(summed(dy)) + in_double(count) * summed(abs(dy)))


def stock_gradient_errors(x, dy, scale, mean, invstd):
    """<dy d> has up to 3 + ndim roundings, its product with the cube 8, c then 3 more; its average and the rest ndim + 4."""
    d, _, k_size = gradient_terms(x, dy, mean, invstd)
    size = abs(dy * invstd.astype("float64")) + abs(d) * k_size
    off = gamma(18 + 2 * x.ndim) * abs(scale) * (size + averaged(size))
    return (off + SMALLEST, gamma(5) * summed(abs(dy * d)) * invstd,
            (gamma(1) + in_double(x[0].size)) * summed(abs(dy).astype("float64")))


def assert_within(results, expected, errors):
    for got, exact, error in zip(results, expected, errors):
        assert got.dtype == "float32" and got.shape == exact.shape and got.flags.c_contiguous
        excess = abs(got - exact) - error
        assert (excess <= 0).all(), "off by %s more than %s" % (excess.max(), np.broadcast_to(error, got.shape).flat[excess.argmax()])


def operands(rng, shape, offset=0.5, spread=2.0):
    """x, dy, scale, bias."""
    x = (offset + spread * rng.standard_normal(shape)).astype("float32")
    return x, reals(rng, shape), reals(rng, each(shape)), reals(rng, each(shape))


def statistics_of(x):
    """mean and invstd, in float32."""
    _, mean, variance = exactly(x, 1, 0)
    return mean.astype("float32"), (1 / np.sqrt(variance + EPSILON)).astype("float32")


def check_forward(x, scale, bias, op=BatchNormTrain()):
    results = run(op, x, scale, bias, EPSILON)
    y, mean, variance = exactly(x, scale, bias)
    offs = mean_error(x, mean), variance_error(x, variance)
    assert_within(results, (y, mean, variance), (y_error(x, scale, bias, *offs), *offs))
    return results


def check_gradient(x, dy, scale, mean, invstd, op=BatchNormTrainGrad()):
    results = run(op, x, dy, scale, mean, invstd)
    assert_within(results, gradient_exactly(x, dy, scale, mean, invstd), gradient_errors(x, dy, scale, mean, invstd))
    return results


# ---------------------------------------------------------------------------------------------------------------------
# The definition.


def test_by_hand():
    x = np.array([[1.0, 3], [5, 5]])
    y, mean, variance = reference.batch_norm_train(x, np.array([[2.0], [1]]), np.array([[10.0], [7]]), 3.0)
    np.testing.assert_array_equal(mean, [[2], [5]])
    np.testing.assert_array_equal(variance, [[1], [0]])
    np.testing.assert_allclose(y, [[9, 11], [7, 7]])


def test_the_gradient_is_that_of_the_definition(rng):
    x, dy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 4, 5))[None] + np.zeros((2, 1, 1, 1))
    scale, bias = rng.standard_normal(each(x.shape)), rng.standard_normal(each(x.shape))
    _, mean, variance = reference.batch_norm_train(x, scale, bias, 0.1)
    gradients = reference.batch_norm_train_grad(x, dy, scale, mean, 1 / np.sqrt(variance + 0.1))

    def loss(*values):
        return (dy * reference.batch_norm_train(*values, 0.1)[0]).sum()

    for place, gradient in enumerate(gradients):
        values = [x, scale, bias]
        direction = rng.standard_normal(gradient.shape)
        step = [value + 1e-5 * direction * (i == place) for i, value in enumerate(values)]
        back = [value - 1e-5 * direction * (i == place) for i, value in enumerate(values)]
        np.testing.assert_allclose((loss(*step) - loss(*back)) / 2e-5, (gradient * direction).sum(), rtol=1e-7)


# ---------------------------------------------------------------------------------------------------------------------
# The kernels.

SHAPES = [(3, 5, 6, 1), (4, 7, 7, 33), (1, 9, 11, 8), (5, 1, 1, 1), (2, 3, 5, 4096), (17, 1, 3, 31), (6, 13, 11, 127),
          (3, 65, 63, 2), (1, 64, 16, 64)]


@pytest.mark.parametrize("simd", sorted(base.SIMD_LANES))
def test_kernels(simd, rng):
    with base.configured(simd=simd):
        for shape in SHAPES:
            x, dy, scale, bias = operands(rng, shape)
            check_forward(x, scale, bias)
            mean, invstd = statistics_of(x)
            check_gradient(x, dy, scale, mean, invstd)
            check_gradient(x, dy, scale, mean + np.float32(0.25), invstd)  # of a mean that is not that of x
            for op, values in ((BatchNormTrain(), (x, scale, bias, EPSILON)), (BatchNormTrainGrad(), (x, dy, scale, mean, invstd))):
                gaps = [np.repeat(value, 2, -1)[..., ::2] if np.ndim(value) else value for value in values]
                turned = [np.asfortranarray(value) if np.ndim(value) else value for value in values]
                for result, gap, turn in zip(run(op, *values), run(op, *gaps), run(op, *turned)):
                    assert_same_bits(gap, result)
                    assert_same_bits(turn, result)


@pytest.mark.parametrize("shape", [(3, 1), (2, 70), (4, 5, 6), (2, 3, 4, 5, 6)], ids=str)
def test_other_ranks(shape, rng):
    x, dy, scale, bias = operands(rng, shape)
    check_forward(x, scale, bias)
    check_gradient(x, dy, scale, *statistics_of(x))


# Beyond the sizes from which threads are used and the caches avoided; whole channels, and parts of few.
@pytest.mark.parametrize("shape", [(1, 40, 40, 80), (3, 50, 50, 40), (8, 130, 128, 40), (2, 201, 199, 67)], ids=str)
def test_results_do_not_depend_on_threads(shape, rng):
    x, dy, scale, bias = operands(rng, shape)
    mean, invstd = statistics_of(x)
    for result, alone in zip(check_forward(x, scale, bias), run(BatchNormTrain(openmp=False), x, scale, bias, EPSILON)):
        assert_same_bits(result, alone)
    values = x, dy, scale, mean, invstd
    for result, alone in zip(check_gradient(*values), run(BatchNormTrainGrad(openmp=False), *values)):
        assert_same_bits(result, alone)


@pytest.mark.parametrize("shape", [(3, 5, 7, 33), (64, 50, 50, 8), (1, 64, 16, 64)], ids=str)
def test_in_place(shape, rng):
    x, dy, scale, _ = operands(rng, shape)
    mean, invstd = statistics_of(x)
    expected = run(BatchNormTrainGrad(), x, dy, scale, mean, invstd)
    overwritten, turned = dy.copy(), np.asfortranarray(dy)
    results = run(BatchNormTrainGrad().in_place(), x, overwritten, scale, mean, invstd)
    assert results[0] is overwritten
    for result, right in zip(results, expected):
        assert_same_bits(result, right)
    assert_same_bits(run(BatchNormTrainGrad(inplace=True), x, turned, scale, mean, invstd)[0], expected[0])  # copied, then


@pytest.mark.parametrize("offset, spread", [(1e3, 1e-2), (-1e6, 1.0), (1e-3, 1e-7), (1e4, 1e-1), (0.0, 1e6)])
def test_large_means_of_small_variances(offset, spread, rng):
    """Where a difference of sums of squares would leave nothing."""
    x, dy, scale, bias = operands(rng, (4, 30, 31, 20), offset, spread)
    x[1, 0, 0, 0] = offset + 1e4 * spread  # what a block is shifted by, far off
    check_forward(x, scale, bias)
    check_gradient(x, dy, scale, *statistics_of(x))


def test_equal_values_have_no_variance(rng):
    x = np.broadcast_to(np.float32([0.1, -3e7, 0, 1e-40])[:, None, None, None], (4, 50, 40, 5)).copy()
    y, mean, variance = run(BatchNormTrain(), x, np.ones(each(x.shape), "float32"), np.float32([1, 2, 3, 4]).reshape(4, 1, 1, 1),
                            EPSILON)
    np.testing.assert_array_equal(mean.ravel(), x[:, 0, 0, 0])
    np.testing.assert_array_equal(variance.ravel(), 0)
    np.testing.assert_array_equal(y, np.broadcast_to(np.float32([1, 2, 3, 4]).reshape(4, 1, 1, 1), x.shape))


@pytest.mark.parametrize("shape", [(4, 6, 7, 33), (3, 20, 20, 30), (2, 70)], ids=str)
def test_as_stock_theano(shape, rng):
    x, dy, scale, bias = operands(rng, shape, 3.0)
    y, mean, variance = exactly(x, scale, bias)
    offs, ours = stock_errors(x, mean, variance), (mean_error(x, mean), variance_error(x, variance))
    stock_y, stock_mean, _ = in_stock(False, x.ndim)(x, scale, bias)
    got_y, got_mean, _ = run(BatchNormTrain(), x, scale, bias, EPSILON)
    assert_within([got_y, got_mean], [stock_y, stock_mean],
                  [y_error(x, scale, bias, *offs) + y_error(x, scale, bias, *ours), offs[0] + ours[0]])
    values = (x, dy, scale, *statistics_of(x))
    assert_within(run(BatchNormTrainGrad(), *values), in_stock(True, x.ndim)(*values),
                  [a + b for a, b in zip(gradient_errors(*values), stock_gradient_errors(*values))])


def kinds_of(x):
    """0 for finite numbers, else NaN and infinities themselves, as bits that compare."""
    return np.where(np.isfinite(x), 0, np.where(np.isnan(x), 1, np.where(x > 0, 2, 3)))


@pytest.mark.parametrize("shape", [(6, 5, 6, 7), (6, 20, 21, 30)], ids=str)
def test_what_is_not_finite_stays_in_its_channel_as_in_stock_theano(shape, rng):
    x, dy, scale, bias = operands(rng, shape)
    x[0, 2, 3, 4], x[1, 0, 0, 0], x[2, -1, -1, -1], x[3, 0, 0, :2] = np.nan, np.inf, -np.inf, [np.inf, -np.inf]
    for result, stock in zip(run(BatchNormTrain(), x, scale, bias, EPSILON)[:2], in_stock(False, 4)(x, scale, bias)):
        np.testing.assert_array_equal(kinds_of(result), kinds_of(stock))
    assert np.isnan(run(BatchNormTrain(), x, scale, bias, EPSILON)[0][:4]).all()
    x, dy, scale, bias = operands(rng, shape)
    mean, invstd = statistics_of(x)
    dy[0, 2, 3, 4], dy[1, 0, 0, 0], dy[2, 1, 1, :2], x[3, 0, 1, 2], scale[4], scale[5] = (
        np.nan, np.inf, [np.inf, -np.inf], np.nan, np.inf, np.nan)
    results, stock = run(BatchNormTrainGrad(), x, dy, scale, mean, invstd), in_stock(True, 4)(x, dy, scale, mean, invstd)
    for result, right in zip(results, stock):
        np.testing.assert_array_equal(kinds_of(result), kinds_of(right))
    assert np.isnan(results[0][:4]).all()


def test_empty():
    for shape in ((3, 0, 4, 5), (0, 2, 3, 4), (2, 3, 4, 0)):
        x, ones = zeros(*shape), np.ones(each(shape), "float32")
        y, mean, variance = run(BatchNormTrain(), x, ones, ones, EPSILON)
        assert y.shape == shape and mean.shape == variance.shape == each(shape)
        assert np.isnan(mean).all() and np.isnan(variance).all()
        gx, gscale, gbias = run(BatchNormTrainGrad(), x, x, ones, ones, ones)
        assert gx.shape == shape
        np.testing.assert_array_equal(gscale, zeros(*each(shape)))
        np.testing.assert_array_equal(gbias, zeros(*each(shape)))


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


def test_wrong_types():
    x, s, e = T.ftensor4(), T.ftensor4(), T.fscalar()
    for arguments, message in [((T.fvector(), s, s, e), "BatchNormTrain: x must be a float32 tensor of two axes or more"),
                               ((T.dtensor4(), s, s, e), "x must be"), ((x, T.fvector(), s, e), "scale must be .* of 4 axes"),
                               ((x, s, T.dtensor4(), e), "bias must be"), ((x, s, s, T.fvector()), "epsilon must be .* of 0 axes"),
                               ((x, s, s, T.dscalar()), "epsilon must be")]:
        with pytest.raises(TypeError, match=message):
            BatchNormTrain()(*arguments)
    for place, name in enumerate(("x", "dy", "scale", "mean", "invstd")):
        for wrong in (T.dtensor4(), T.fvector()):
            arguments = [x, x, s, s, s]
            arguments[place] = wrong
            with pytest.raises(TypeError, match="BatchNormTrainGrad: %s must be" % name):
                BatchNormTrainGrad()(*arguments)


def test_wrong_sizes_are_refused(rng):
    x, dy, scale, bias = operands(rng, (3, 4, 5, 6))
    for values, message in [((x, scale[:2], bias), "scale is (2, 1, 1, 1), expected (3, 1, 1, 1)"),
                            ((x, scale[:1], bias), "scale is (1, 1, 1, 1), expected (3, 1, 1, 1)"),
                            ((x, scale, x), "bias is (3, 4, 5, 6), expected (3, 1, 1, 1)")]:
        op = BatchNormTrain()
        assert refused(op, functools.partial(run, op), *values, np.asarray(EPSILON)) == "BatchNormTrain: " + message
    for values, message in [((x, dy[..., :5], scale, scale, scale), "dy is (3, 4, 5, 5), expected (3, 4, 5, 6)"),
                            ((x, dy, x, scale, scale), "scale is (3, 4, 5, 6), expected (3, 1, 1, 1)"),
                            ((x, dy, scale, scale[:2], scale), "mean is (2, 1, 1, 1), expected (3, 1, 1, 1)"),
                            ((x, dy, scale, scale, scale[:0]), "invstd is (0, 1, 1, 1), expected (3, 1, 1, 1)")]:
        op = BatchNormTrainGrad()
        assert refused(op, functools.partial(run, op), *values) == "BatchNormTrainGrad: " + message


def test_perform_is_the_reference(rng):
    x, dy, scale, bias = operands(rng, (3, 4, 5, 6))
    for op, values in ((BatchNormTrain(), (x, scale, bias, EPSILON)), (BatchNormTrainGrad(), (x, dy, scale, *statistics_of(x)))):
        node = op.make_node(*[T.as_tensor_variable(value) for value in values])
        expected = (reference.batch_norm_train if len(values) == 4 else reference.batch_norm_train_grad)(*values)
        for result, right in zip(guarded.reference(op, node, values), expected):
            assert result.dtype == "float32"
            np.testing.assert_array_equal(result, right)


def test_equality_pickling_and_patterns():
    assert BatchNormTrain() == pickle.loads(pickle.dumps(BatchNormTrain())) and hash(BatchNormTrain()) == hash(BatchNormTrain())
    assert BatchNormTrainGrad() != BatchNormTrainGrad(inplace=True)
    one = T.TensorType("float32", (True, False, False, False))()
    assert [out.broadcastable for out in BatchNormTrain()(one, T.ftensor4(), T.ftensor4(), T.fscalar())] == [
        (True, False, False, False), (True,) * 4, (True,) * 4]


def test_infer_shape(few_compilations):  # noqa: F811
    x, s = T.ftensor4(), T.ftensor4()
    shapes = [out.shape for out in BatchNormTrain()(x, s, s, EPSILON) + BatchNormTrainGrad()(x, x, s, s, s)]
    f = theano.function([x, s], shapes, mode=cheap_mode.mode(False), on_unused_input="ignore")
    assert not any(isinstance(node.op, base.C01bOp) for node in f.maker.fgraph.toposort())
    assert [tuple(shape) for shape in f(zeros(3, 4, 5, 6), zeros(3, 1, 1, 1))] == [(3, 4, 5, 6), (3, 1, 1, 1), (3, 1, 1, 1)] * 2


def test_derivatives(rng):
    """Of all outputs, once, twice and along a direction: as those of the same in Theano's ops."""
    shape = (3, 4, 5, 6)
    arrays = operands(rng, shape) + tuple(reals(rng, size) for size in (shape, each(shape), each(shape)))
    small = T.TensorType("float32", (False, True, True, True))
    x, direction, scale, bias, wy, wm, wv = T.ftensor4(), T.ftensor4(), small(), small(), T.ftensor4(), small(), small()

    def everything(outputs):
        once = T.grad(sum((w * out).sum() for w, out in zip((wy, wm, wv), outputs)), [x, scale, bias])
        twice = T.grad((once[0] * direction).sum() + (once[1] ** 2).sum(), [x, scale])
        return once + twice + T.Rop(outputs, [x], [direction])

    given = [x, direction, scale, bias, wy, wm, wv]
    ours = everything(BatchNormTrain()(x, scale, bias, EPSILON))
    theirs = everything(BatchNormTrain().in_theano(x, scale, bias, EPSILON))
    results = theano.function(given, ours + theirs, mode=LITTLE_C)(*arrays)
    for result, right in zip(results[:len(ours)], results[len(ours):]):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# The rewrite.


def network(rng, dtype="float32", axes="spatial"):
    """Inputs, outputs, updates and a batch of a training step: convolution, normalisation in a dtype, relu, convolution."""
    def shared(*shape):
        return theano.shared(rng.standard_normal(shape).astype("float32" if len(shape) == 4 else dtype) / 2)

    size = (8, 10, 10) if axes == "per-activation" else (8,)
    w1, w2, scale, bias, mean = shared(8, 3, 3, 3), shared(8, 8, 3, 3), shared(*size), shared(*size), shared(*size)
    variance = theano.shared((1 + rng.random_sample(size)).astype(dtype))
    x = T.ftensor4("x")
    h = T.cast(conv2d(x, w1, (32, 3, 12, 12), (8, 3, 3, 3)), dtype)
    y, _, invstd, new_mean, new_variance = batch_normalization_train(h, scale, bias, axes, running_mean=mean, running_var=variance)
    y.name = "normalised"
    loss = (conv2d(T.cast(relu(y), "float32"), w2) ** 2).mean()
    gradients = T.grad(loss, [w1, w2, scale, bias])
    updates = [(p, T.cast(p - 0.1 * g, dtype)) for p, g in zip([scale, bias], gradients[2:])]
    return [x], [loss, invstd] + gradients[:2], updates + [(mean, new_mean), (variance, new_variance)], reals(rng, (32, 3, 12, 12))


def results_of(seed, flagged, mode=cheap_mode.mode, **options):
    """The function, and what it gives and updates in two steps."""
    inputs, outputs, updates, images = network(np.random.RandomState(seed), **options)
    step = theano.function(inputs, outputs, updates=updates, mode=mode(flagged))
    results = [out for _ in range(2) for out in step(images)]
    return step, results + [p.get_value() for p, _ in updates]


def passes(step):
    """Elementwise ops on whole images."""
    return [node for node in step.maker.fgraph.toposort() if isinstance(node.op, Elemwise) and node.outputs[0].ndim == 4
            and not any(node.outputs[0].broadcastable)]


def count(step, *ops):
    return [sum(type(node.op) is op for node in step.maker.fgraph.toposort()) for op in ops]


OPS = BatchNormTrain, BatchNormTrainGrad, AbstractBatchNormTrain, AbstractBatchNormTrainGrad


def test_a_network(few_compilations):  # noqa: F811
    step, results = results_of(1, True)
    stock, expected = results_of(1, False)
    assert count(step, *OPS) == [1, 1, 0, 0] and count(stock, *OPS) == [0, 0, 0, 0]
    # Those of relu and the loss, with their gradients: none of the normalisation's.
    left = [str(node.op.scalar_op) for node in passes(step)]
    assert "sub" not in left and len(left) < 12 and len(passes(stock)) - len(left) >= 10, left
    assert count(step, ChannelSum) == [0]
    y, = [node.outputs[0] for node in step.maker.fgraph.toposort() if type(node.op) is BatchNormTrain]
    assert y.name == "normalised" and y.tag.trace
    for result, right in zip(results, expected):
        np.testing.assert_allclose(result, right, rtol=2e-5, atol=2e-6)
    assert "c01b" in str(layoutopt.explain(step))
    layoutopt.verify(step, reals(np.random.RandomState(2), (32, 3, 12, 12)))


def test_a_network_as_it_is_compiled():
    """With Theano's fusion, and gx in the place of dy."""
    def whole(flagged):
        chosen = theano.compile.get_mode("FAST_RUN")
        return chosen.including("layoutopt") if flagged else chosen.excluding("layoutopt")

    step, results = results_of(3, True, whole)
    _, expected = results_of(3, False, cheap_mode.mode)
    gradient, = [node.op for node in step.maker.fgraph.toposort() if isinstance(node.op, BatchNormTrainGrad)]
    assert gradient.inplace and len(passes(step)) == 4  # relu, its gradient, the loss's squares and their gradient
    for result, right in zip(results, expected):
        np.testing.assert_allclose(result, right, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("options", [dict(axes="per-activation"), dict(dtype="float64")], ids=str)
def test_where_it_does_not_apply(options, few_compilations):  # noqa: F811
    step, results = results_of(4, True, **options)
    _, expected = results_of(4, False, **options)
    assert count(step, *OPS) == [0, 0, 0, 0]
    for result, right in zip(results, expected):
        np.testing.assert_allclose(result, right, rtol=2e-5, atol=2e-6)


def small_graph(outputs):
    """The function of what `outputs(h, scale)` makes of a convolution's results h, which are in c01b."""
    x, w, scale = T.ftensor4(), T.ftensor4(), T.TensorType("float32", (True, False, True, True))()
    h = conv2d(x, w, (32, 3, 12, 12), (8, 3, 3, 3))
    return theano.function([x, w, scale], outputs(h, scale), mode=cheap_mode.mode(True))


def test_what_nobody_reads_is_not_computed(few_compilations):  # noqa: F811
    spatial, factor = (0, 2, 3), np.float32(0.1)
    only_statistics = small_graph(lambda h, s: AbstractBatchNormTrain(spatial)(h, s, s, EPSILON, factor)[1:3])
    assert count(only_statistics, *OPS) == [0, 0, 0, 0]
    only_parameters = small_graph(lambda h, s: AbstractBatchNormTrainGrad(spatial)(h, h, s, s, s, EPSILON)[1:])
    assert count(only_parameters, *OPS) == [0, 0, 0, 0]


def test_an_image_for_a_bias_is_left_to_theano(few_compilations):  # noqa: F811
    f = small_graph(lambda h, s: relu(AbstractBatchNormTrain((0, 2, 3))(h, s, h, EPSILON, np.float32(0.1))[0]))
    assert count(f, *OPS) == [0, 0, 0, 0]


def test_without_the_flag_nothing_changes(few_compilations):  # noqa: F811
    x, s = T.ftensor4(), T.TensorType("float32", (False, True, True, True))()
    y = AbstractBatchNormTrain((1, 2, 3))(x, s, s, EPSILON, np.float32(0.1))[0]
    for flagged in (False, True):  # nothing of this graph is in c01b
        assert count(theano.function([x, s], y, mode=cheap_mode.mode(flagged)), *OPS) == [0, 0, 0, 0]
