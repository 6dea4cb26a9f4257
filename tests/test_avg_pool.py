"""Sum- and average-pooling in c01b order: against numpy, against Theano's own ops bit by bit, and its contract."""
import functools
import glob
import os
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st
from theano.tensor.signal import pool as stock

import layoutopt
from layoutopt.kernels import AvgPool, AvgPoolGrad, ToBC01, ToC01B
from layoutopt.kernels.reference import avg_pool as reference
from layoutopt.kernels.reference.avg_pool import MODES

from pooling import FAST, bc01, c01b, with_sizes_given

@functools.lru_cache(maxsize=None)
def compiled(op):
    inputs = [T.ftensor4()] + [T.lvector()] * isinstance(op, AvgPoolGrad)
    return theano.function(inputs, op(*inputs), mode=FAST)


def two_ops(*parameters, **named):
    op = AvgPool(*parameters, **named)
    return op, op.like(AvgPoolGrad)


def geometry(op):
    return op.ds, op.stride, op.start, op.mode


def expected_pool(op, x):
    return reference.avg_pool(x, op.output_grid(x.shape[1:3]), *geometry(op))


def assert_same_bits(result, expected):
    """-0 is not 0, but one NaN is as good as another: the processor takes an operand's or its own."""
    assert result.shape == expected.shape and result.dtype == expected.dtype == "float32"
    same = np.ascontiguousarray(result).view("uint32") == np.ascontiguousarray(expected).view("uint32")
    different = ~(same | np.isnan(result) & np.isnan(expected))
    assert not different.any(), (result[different][:5], expected[different][:5])


def integers(rng, shape):
    return rng.randint(-9, 10, size=shape).astype("float32")


def reals(rng, shape):
    return rng.standard_normal(shape).astype("float32")


def strange(rng, shape):
    return rng.choice(np.float32([np.nan, -np.inf, np.inf, -3e38, -0.0, -0.0, 0.0, 1, 1e-45]), size=shape)


KINDS = [integers, reals, strange]

batches = st.sampled_from([0, 1, 2, 15, 16, 17, 33, 127])
shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), batches)
pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
modes = st.sampled_from(MODES)

# ---------------------------------------------------------------------------------------------------------------------
# The reference.


@settings(max_examples=100)
@given(shape=shapes, ds=pairs, stride=pairs, start=st.tuples(st.integers(-4, 2), st.integers(-4, 2)),
       ceil_mode=st.booleans(), mode=modes, kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_matches_reference(shape, ds, stride, start, ceil_mode, mode, kind, seed):
    start = tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))
    pool, grad = two_ops(ds, stride, start, ceil_mode=ceil_mode, mode=mode)
    rng = np.random.RandomState(seed)
    x = kind(rng, shape)
    with np.errstate(all="ignore"):
        z = compiled(pool)(x)
        assert_same_bits(z, expected_pool(pool, x))
        gz = kind(rng, z.shape)
        assert_same_bits(compiled(grad)(gz, shape[1:3]), reference.avg_pool_grad(gz, shape[1:3], *geometry(pool)))


# Beyond the size from which threads are used and the caches avoided, with a batch of whole pieces, and not.
@pytest.mark.parametrize("batch", [128, 127])
@pytest.mark.parametrize("parameters", [(2, 2), (3, 2), (3, 2, -1), (1, 1)])
def test_large(parameters, batch):
    pool, grad = two_ops(*parameters)
    rng = np.random.RandomState(0)
    x = reals(rng, (26, 41, 40, batch))
    z = compiled(pool)(x)
    assert_same_bits(z, expected_pool(pool, x))
    assert_same_bits(compiled(grad)(z, (41, 40)), reference.avg_pool_grad(z, (41, 40), *geometry(pool)))


def test_what_is_divided_by():
    """Windows at a pad of 1, one hanging over the border, and one over both sides."""
    # windows, pixels, ds, stride, start along the rows; one window on one pixel along the columns
    for mode, padded, hanging, both in (("sum", [1, 1], [1, 1], [1]), ("average_exc_pad", [2, 3], [3, 1], [2]),
                                        ("average_inc_pad", [3, 3], [3, 1], [4])):
        def along_rows(windows, pixels, ds, stride, start):
            sizes = (windows, 1), (pixels, 1), (ds, 1), (stride, 1), (start, 0)
            return reference.divisors(*sizes, mode).ravel().tolist()

        assert along_rows(2, 4, 3, 2, -1) == padded
        assert along_rows(2, 4, 3, 3, 0) == hanging
        assert along_rows(1, 2, 9, 1, -1) == both


# ---------------------------------------------------------------------------------------------------------------------
# Stock Theano.


@functools.lru_cache(maxsize=None)
def theanos(ignore_border, mode):
    """Theano's two ops in bc01."""
    return with_sizes_given((stock.Pool(ignore_border, mode), 1), (stock.AveragePoolGrad(ignore_border, mode), 2))


@settings(max_examples=200)
@given(shape=shapes, ds=pairs, stride=pairs, pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
       ignore_border=st.booleans(), mode=modes, kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_matches_theano(shape, ds, stride, pad, ignore_border, mode, kind, seed):
    pad = tuple(min(p, d - 1) for p, d in zip(pad, ds)) if ignore_border else (0, 0)
    pool, grad = two_ops(ds, stride, tuple(-p for p in pad), ceil_mode=not ignore_border, mode=mode)
    rng = np.random.RandomState(seed)
    x = kind(rng, shape)
    their_pool, their_grad = theanos(ignore_border, mode)
    z = compiled(pool)(x)
    assert_same_bits(z, c01b(their_pool(bc01(x), ds, stride, pad)))
    gz = kind(rng, z.shape)
    if mode == "average_exc_pad" and pad != (0, 0):
        with pytest.raises(ValueError, match="padding must be zero for average_exc_pad"):
            their_grad(bc01(x), bc01(gz), ds, stride, pad)
    else:
        assert_same_bits(compiled(grad)(gz, shape[1:3]), c01b(their_grad(bc01(x), bc01(gz), ds, stride, pad)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignore_border, pad", [(False, (0, 0)), (True, (0, 0)), (True, (1, 1))])
def test_derivatives_are_wired_as_theanos(mode, ignore_border, pad):
    """First, second and third derivative and the R operator of the whole graph, with overlapping windows."""
    if mode == "average_exc_pad" and pad != (0, 0):
        return  # Theano has no such gradient
    x, v, w = T.ftensor4(), T.ftensor4(), T.ftensor4()
    rng = np.random.RandomState(0)
    at, direction = integers(rng, (2, 7, 6, 5)), reals(rng, (2, 7, 6, 5))

    def derivatives(pool, to, back):
        gradient = T.grad((pool(x) ** 3).sum(), x)
        second = T.grad((gradient * v).sum(), x)
        third = T.grad((second * w).sum(), x)
        results = [gradient, second, third, T.Rop(pool(x), x, v)]
        if isinstance(pool, AvgPool):
            results.append(T.Rop(gradient, x, v))  # Theano's gradient has no R operator
        f = theano.function([x, v, w], results, on_unused_input="ignore")
        return [back(result) for result in f(to(at), to(direction), to(direction))]

    op = AvgPool(3, 2, tuple(-p for p in pad), ceil_mode=not ignore_border, mode=mode)
    ours = derivatives(op, np.asarray, np.asarray)
    theirs = derivatives(lambda x: stock.pool_2d(x, (3, 3), ignore_border, (2, 2), pad, mode), bc01, c01b)
    for our, their in zip(ours, theirs):
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5 * abs(their).max())
    np.testing.assert_allclose(ours[4], ours[1], rtol=1e-5, atol=1e-5 * abs(ours[1]).max())  # the same product


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parameters", [(3, 2), ((3, 2), (2, 1), (-1, 0)), (2, 3), ((9, 4), 1, (-2, -3))])
def test_gradient_is_the_adjoint(parameters, mode):
    """In float64 on the reference, then the kernels on it: pooling is linear, so that this proves the gradient."""
    pool, grad = two_ops(*parameters, mode=mode)
    rng = np.random.RandomState(0)
    x = rng.standard_normal((2, 9, 8, 17))
    z = expected_pool(pool, x)
    gz = rng.standard_normal(z.shape)
    gx = reference.avg_pool_grad(gz, (9, 8), *geometry(pool))
    np.testing.assert_allclose((gx * x).sum(), (gz * z).sum(), rtol=1e-9)

    rounding = 2 * np.prod(pool.ds) * np.finfo("float32").eps
    np.testing.assert_allclose(compiled(pool)(x.astype("float32")), z, rtol=0, atol=rounding * abs(x).max())
    np.testing.assert_allclose(compiled(grad)(gz.astype("float32"), (9, 8)), gx, rtol=0, atol=rounding * abs(gz).max())


# ---------------------------------------------------------------------------------------------------------------------
# Whole networks, with the flag.

BATCH = 32


def trained(mode, sizes, flagged):
    """(losses, train step) of a network in bc01: convolution, pooling, convolution, pooling, softmax."""
    ignore_border, pad = sizes
    rng = np.random.RandomState(0)
    images, labels = T.ftensor4(), T.lvector()
    first, second = (theano.shared((0.2 * rng.standard_normal(shape)).astype("float32"))
                     for shape in ((16, 3, 5, 5), (16, 16, 3, 3)))
    dense = theano.shared(np.zeros((16 * 4, 10), "float32"))

    def scale(ds):
        return np.float32(1 / np.prod(ds) if mode == "sum" else 1)

    def pooled(x, ds, pad):
        return stock.pool_2d(x, ds, ignore_border, (2, 2), pad, mode) * scale(ds)

    h = pooled(T.nnet.relu(T.nnet.conv2d(images, first, (BATCH, 3, 20, 20), (16, 3, 5, 5))), (3, 2), pad)
    h = pooled(T.tanh(T.nnet.conv2d(h, second)), (3, 3), (0, 0))
    scores = T.nnet.softmax(T.dot(h[:, :, :2, :2].flatten(2), dense))
    loss = T.nnet.categorical_crossentropy(scores, labels).mean()
    weights = [first, second, dense]
    updates = [(w, w - np.float32(0.5) * g) for w, g in zip(weights, T.grad(loss, weights))]
    compiling = theano.compile.mode.get_default_mode()
    compiling = compiling.including("layoutopt") if flagged else compiling.excluding("layoutopt")
    step = theano.function([images, labels], loss, updates=updates, mode=compiling)
    x, y = reals(rng, (BATCH, 3, 20, 20)), rng.randint(0, 10, BATCH)
    return [float(step(x, y)) for _ in range(8)], step


@pytest.mark.parametrize("mode, sizes", [("average_exc_pad", (False, (0, 0))), ("average_inc_pad", (True, (1, 1))),
                                         ("sum", (True, (1, 0)))])
def test_networks_train_without_conversions_of_activations(mode, sizes):
    (stock_losses, _), (losses, step) = (trained(mode, sizes, flagged) for flagged in (False, True))
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-4)
    assert losses[-1] < 0.9 * losses[0]
    nodes = step.maker.fgraph.toposort()
    pools = [type(node.op) for node in nodes if isinstance(node.op, (AvgPool, AvgPoolGrad))]
    assert (pools.count(AvgPool), pools.count(AvgPoolGrad)) == (2, 2)
    assert not any(isinstance(node.op, (stock.Pool, stock.AveragePoolGrad)) for node in nodes)
    # The input; filters and their gradients are weights, not activations.
    weights = {4 * 16 * 3 * 25, 4 * 16 * 16 * 9}
    moved = [conversion.bytes for conversion in layoutopt.explain(step).record.conversions]
    assert [size for size in moved if size not in weights] == [4 * BATCH * 3 * 20 * 20]
    assert sum(isinstance(node.op, (ToC01B, ToBC01)) for node in nodes) == len(moved)


def test_a_gradient_that_theano_refuses_stays_in_bc01():
    """Forward in c01b or not: the gradient raises Theano's own error when it is run."""
    x, w = T.ftensor4(), theano.shared(reals(np.random.RandomState(0), (16, 16, 3, 3)))
    pooled = stock.pool_2d(T.nnet.conv2d(x, w), (2, 2), True, None, (1, 1), "average_exc_pad")
    mode = theano.compile.mode.get_default_mode().including("layoutopt")
    f = theano.function([x], T.grad(pooled.sum(), w), mode=mode)
    assert any(isinstance(node.op, stock.AveragePoolGrad) for node in f.maker.fgraph.toposort())
    with pytest.raises(ValueError, match="padding must be zero for average_exc_pad"):
        f(zeros(16, 16, 9, 9))


# ---------------------------------------------------------------------------------------------------------------------
# Contract.


@pytest.mark.parametrize("op", [AvgPool(3, 2), AvgPool((3, 2), (2, 3), (-1, 0), 0, False, "average_inc_pad"),
                                AvgPool(3, 2, 0, (0, 2), mode="sum")], ids=["ceiling", "floor", "given"])
def test_infer_shape(op):
    x = T.ftensor4()
    z = op(x)
    f = theano.function([x], [z.shape, T.Lop(z, x, T.ones_like(z)).shape])
    assert not any(isinstance(node.op, (AvgPool, AvgPoolGrad)) for node in f.maker.fgraph.toposort())
    for shape in [(2, 7, 8, 3), (1, 6, 5, 1), (2, 9, 9, 0), (0, 4, 4, 2)]:
        assert [tuple(s) for s in f(np.zeros(shape, "float32"))] == [compiled(op)(zeros(*shape)).shape, shape]


def test_images_need_not_be_kept_for_the_gradient():
    x = T.ftensor4()
    pool = AvgPool(2)
    f = theano.function([x], T.grad(pool(T.exp(x)).sum(), x))
    grad, = (node for node in f.maker.fgraph.toposort() if isinstance(node.op, AvgPoolGrad))
    assert [v.ndim for v in grad.inputs] == [4, 1]
    assert not any(isinstance(node.op, AvgPool) for node in f.maker.fgraph.toposort())
    assert f(zeros(2, 5, 4, 3)).shape == (2, 5, 4, 3)


def test_outputs_override_the_count():
    x = reals(np.random.RandomState(0), (2, 8, 8, 4))
    result = compiled(AvgPool(4, 2, -2, 5, mode="average_inc_pad"))(x)
    assert_same_bits(result, c01b(theanos(True, "average_inc_pad")[0](bc01(x), (4, 4), (2, 2), (2, 2))))
    assert_same_bits(compiled(AvgPool(4, 2, -2, (3, 0), mode="average_inc_pad"))(x), result[:, :3, :4])


def test_any_strides():
    rng = np.random.RandomState(0)
    pool, grad = two_ops(2)
    x = integers(rng, (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    z = compiled(pool)(x)
    assert_same_bits(z, compiled(pool)(x.copy()))
    gz = reals(rng, z.shape[::-1]).T
    shape = np.array([8, 0, 8])[::2]
    assert_same_bits(compiled(grad)(gz, shape), compiled(grad)(gz.copy(), shape.copy()))


@pytest.mark.parametrize("arguments, error, message", [
    ((0,), ValueError, "ds"), ((2, 0), ValueError, "stride"), ((2, 2, -2), ValueError, "first window"),
    ((2, 2, 0, -1), ValueError, "outputs"), ((2.0,), TypeError, "ds"), ((2 ** 40,), ValueError, "ds"),
    ((2, 2, 0, 0, True, "max"), ValueError, "mode must be one of sum, average_exc_pad, average_inc_pad, got 'max'")])
def test_bad_parameters(arguments, error, message):
    for op in (AvgPool, AvgPoolGrad):
        with pytest.raises(error, match=message):
            op(*arguments)


def test_wrong_types():
    pool, grad = two_ops(2)
    for bad in [T.dtensor4(), T.ftensor3(), T.itensor4()]:
        with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
            pool(bad)
        with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
            grad(bad, (4, 4))
    for bad in [T.fvector(), T.lscalar(), T.lmatrix()]:
        with pytest.raises(TypeError, match="integer vector"):
            grad(T.ftensor4(), bad)


def run_both_ways(op, *arrays):
    """The C code's error, after checking that the numpy fallback raises the same type."""
    node = op.make_node(*[T.ftensor4(), T.lvector()][:len(arrays)])
    with pytest.raises(ValueError):
        op.perform(node, arrays, [[None]])
    with pytest.raises(ValueError) as error:
        compiled(op)(*arrays)
    return str(error.value)


def zeros(*shape):
    return np.zeros(shape, "float32")


def test_empty_windows_are_refused():
    message = run_both_ways(AvgPool(2, 2, 0, 4), zeros(1, 6, 8, 2))
    assert all(number in message for number in ("AvgPool", "images of 6 rows", "window 4", "stride 2"))
    assert "columns" in run_both_ways(AvgPool(2, 2, 0, (0, 4)), zeros(1, 6, 6, 2))
    assert "start 5" in run_both_ways(AvgPool(2, 2, 5), zeros(1, 5, 6, 2))
    assert "images of 4 rows" in run_both_ways(AvgPoolGrad(2, 2, 0, 3), zeros(1, 3, 3, 2), np.array([4, 6]))


def test_images_smaller_than_a_window():
    assert compiled(AvgPool(3, 2, ceil_mode=False))(zeros(2, 2, 5, 3)).shape == (2, 0, 2, 3)
    one = compiled(AvgPool(9, 2, mode="average_inc_pad"))(zeros(2, 2, 5, 3) + 7)
    np.testing.assert_array_equal(one, zeros(2, 1, 1, 3) + 7)
    gx = compiled(AvgPoolGrad(3, 2, ceil_mode=False))(zeros(2, 0, 2, 3), (2, 5))
    np.testing.assert_array_equal(gx, zeros(2, 2, 5, 3))


def test_images_without_pixels():
    assert compiled(AvgPool(2))(zeros(2, 0, 5, 3)).shape == (2, 0, 3, 3)
    assert compiled(AvgPoolGrad(2))(zeros(2, 0, 3, 3), (0, 5)).shape == (2, 0, 5, 3)


@pytest.mark.parametrize("shape", [(2, 4, 3, 2), (2, 3, 2, 2), (0, 0, 0, 0)])
def test_wrong_shapes_are_refused(shape):
    message = run_both_ways(AvgPoolGrad(2), zeros(*shape), np.array([6, 6]))
    assert "gz is (%d, %d, %d, %d), expected (%d, 3, 3, %d)" % (shape + (shape[0], shape[3])) in message


@pytest.mark.parametrize("size, words", [
    ([6], "1 elements"), ([6, 6, 6], "3 elements"), ([6, -1], "6 x -1"), ([2 ** 31, 6], "2147483648 x 6"),
    ([-2 ** 63, 2 ** 63 - 1], "-9223372036854775808 x 9223372036854775807")])
def test_impossible_images_are_refused(size, words):
    assert words in run_both_ways(AvgPoolGrad(2), zeros(2, 3, 3, 2), np.array(size))


def test_perform_is_the_reference():
    x = reals(np.random.RandomState(0), (2, 7, 6, 5))
    for mode in MODES:
        pool, grad = two_ops(3, 2, -1, mode=mode)
        z = compiled(pool)(x)
        for op, arrays, inputs in ((pool, [x], [T.ftensor4()]),
                                   (grad, [z, np.array([7, 6])], [T.ftensor4(), T.lvector()])):
            cell = [None]
            op.perform(op.make_node(*inputs), arrays, [cell])
            assert_same_bits(cell[0], compiled(op)(*arrays))


def test_equality_and_pickling():
    assert AvgPool(2) == AvgPool((2, 2), 2, 0, 0) and hash(AvgPool(2)) == hash(AvgPool((2, 2)))
    assert len({AvgPool(2), AvgPool(2, 1), AvgPool(2, ceil_mode=False), AvgPool(2, mode="sum")}) == 4
    assert AvgPoolGrad(2) != AvgPool(2)
    op = AvgPool(3, 2, -1, mode="average_inc_pad")
    assert pickle.loads(pickle.dumps(op)) == op


def test_broadcast_patterns():
    x = T.TensorType("float32", (True, True, False, True))()
    assert AvgPool(2)(x).broadcastable == (True, False, False, True)
    assert T.Lop(AvgPool(2)(x), x, AvgPool(2)(x)).broadcastable == x.broadcastable


def test_one_module_for_all_parameters():
    def modules():
        sources = glob.glob(os.path.join(theano.config.compiledir, "*", "mod.cpp"))
        return {source for source in sources if "c01b::avg_pool_op" in open(source).read()}

    x, row = T.ftensor4(), T.TensorType("float32", (True, False, False, True))()
    theano.function([x], AvgPool(2)(x), mode=FAST)
    before = modules()
    for op in (AvgPool(2, 1), AvgPool((5, 3), (4, 7), (-1, 2), (1, 0)), AvgPool(2, ceil_mode=False),
               AvgPool(2, mode="sum")):
        theano.function([x], op(x), mode=FAST)
        theano.function([row], op(row), mode=FAST)
    assert before and modules() == before
