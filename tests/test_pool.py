"""Max-pooling in c01b order: against the numpy reference, against Theano's own ops bit by bit, and its contract."""
import functools
import glob
import itertools
import os
import pickle

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given, settings, strategies as st
from theano.tensor.signal import pool as stock

from layoutopt.kernels.geometry import pool_outputs
from layoutopt.kernels.pool import MaxPool, MaxPoolGrad, MaxPoolGradGrad, max_pool_c01b
from layoutopt.kernels.reference import pool as reference

from pooling import FAST, bc01, c01b, with_sizes_given

@functools.lru_cache(maxsize=None)
def compiled(op):
    inputs = [T.ftensor4() for _ in range(1 if isinstance(op, MaxPool) else 3)]
    return theano.function(inputs, op(*inputs), mode=FAST)


@functools.lru_cache(maxsize=None)
def compiled_in_place(op):
    x, maxout, gz = (T.ftensor4() for _ in range(3))
    return theano.function([theano.In(x, mutable=True), maxout, gz], theano.Out(op.in_place()(x, maxout, gz), borrow=True),
                           mode=FAST, accept_inplace=True)


def three_ops(*parameters, **named):
    op = MaxPool(*parameters, **named)
    return op, op.like(MaxPoolGrad), op.like(MaxPoolGradGrad)


def geometry(op):
    return op.ds, op.stride, op.start


def bits(array):
    """For comparisons in which -0 is not 0 and NaN is NaN."""
    return np.ascontiguousarray(array).view("uint32")


def assert_same_bits(result, expected):
    assert result.shape == expected.shape
    np.testing.assert_array_equal(bits(result), bits(expected))


# What pooling can stumble over: ties (small integers), no ties, and values that compare in strange ways.
def integers(rng, shape):
    return rng.randint(-2, 3, size=shape).astype("float32")


def reals(rng, shape):
    return rng.standard_normal(shape).astype("float32")


def strange(rng, shape):
    return rng.choice(np.float32([np.nan, -np.inf, np.inf, -3e38, -0.0, 0.0, 1]), size=shape)


KINDS = [integers, reals, strange]

batches = st.sampled_from([0, 1, 2, 15, 16, 17, 33, 127])
shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), batches)
pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


# ---- the reference -------------------------------------------------------------------------------------------------

@settings(max_examples=100)
@given(shape=shapes, ds=pairs, stride=pairs, start=st.tuples(st.integers(-4, 2), st.integers(-4, 2)),
       ceil_mode=st.booleans(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_matches_reference(shape, ds, stride, start, ceil_mode, kind, seed):
    start = tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))
    pool, grad, grad_grad = three_ops(ds, stride, start, ceil_mode=ceil_mode)
    rng = np.random.RandomState(seed)
    x = kind(rng, shape)
    z = compiled(pool)(x)
    assert_same_bits(z, reference.max_pool(x, pool.output_grid(shape[1:3]), *geometry(pool)))
    gz, ggx = reals(rng, z.shape), reals(rng, shape)
    gx = reference.max_pool_grad(x, z, gz, *geometry(pool))
    assert_same_bits(compiled(grad)(x, z, gz), gx)
    assert_same_bits(compiled_in_place(grad)(x.copy(), z, gz), gx)
    assert_same_bits(compiled(grad_grad)(x, z, ggx), reference.max_pool_grad_grad(x, z, ggx, *geometry(pool)))


# Beyond the size from which threads are used and the caches avoided, with a batch of whole pieces, and not.
@pytest.mark.parametrize("batch", [100, 128, 127])
@pytest.mark.parametrize("ds, stride", [(2, 2), (3, 2)])
def test_large(batch, ds, stride):
    pool, grad, grad_grad = three_ops(ds, stride)
    rng = np.random.RandomState(0)
    x = integers(rng, (30, 41, 40, batch))
    z = compiled(pool)(x)
    assert_same_bits(z, reference.max_pool(x, pool.output_grid(x.shape[1:3]), *geometry(pool)))
    gz = reals(rng, z.shape)
    gx = reference.max_pool_grad(x, z, gz, *geometry(pool))
    assert_same_bits(compiled(grad)(x, z, gz), gx)
    assert_same_bits(compiled_in_place(grad)(x.copy(), z, gz), gx)
    assert_same_bits(compiled(grad_grad)(x, z, x), reference.max_pool_grad_grad(x, z, x, *geometry(pool)))


def test_outputs_larger_than_every_cache_share():
    """Forward and second derivative, too, around the caches."""
    pool, _, grad_grad = three_ops(1, 1)
    x = integers(np.random.RandomState(0), (33, 33, 32, 128))
    assert_same_bits(compiled(pool)(x), x)
    assert_same_bits(compiled(grad_grad)(x, x, x), x + np.float32(0))


# ---- in place ------------------------------------------------------------------------------------------------------

def test_the_gradient_takes_the_place_of_images():
    grad = MaxPoolGrad(2)
    x = integers(np.random.RandomState(0), (3, 6, 5, 20))
    z = compiled(MaxPool(2))(x)
    expected = compiled(grad)(x, z, z)
    gapped = np.zeros((3, 6, 5, 40), "float32")[..., ::2]
    gapped[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for value, overwritten in ((x.copy(), True), (gapped, False), (read_only, False)):
        before = value.copy()
        result = compiled_in_place(grad)(value, z, z)
        assert np.shares_memory(result, value) == overwritten
        assert_same_bits(result, expected)
        assert_same_bits(value, expected if overwritten else before)


def test_in_place_where_nobody_else_reads():
    """Images that the function computes and reads nowhere else; not its own input, nor what it returns."""
    x = T.ftensor4()
    images, pool = 2 * x, MaxPool(3, 2)
    gradient = T.grad((pool(images) ** 2).sum(), images)
    of_input = T.grad((pool(x) ** 2).sum(), x)
    f = theano.function([x], [gradient, of_input, images], mode="FAST_RUN")
    g = theano.function([x], gradient, mode="FAST_RUN")
    kinds = [[node.op.inplace for node in h.maker.fgraph.toposort() if isinstance(node.op, MaxPoolGrad)] for h in (f, g)]
    assert kinds == [[False, False], [True]]
    value = integers(np.random.RandomState(0), (2, 7, 6, 5))
    kept = value.copy()
    z = compiled(pool)(value)
    expected = compiled(pool.like(MaxPoolGrad))(value, z, 2 * z)
    for _ in range(2):
        for result, right in zip(f(value), (2 * expected, expected, 2 * value)):
            assert_same_bits(result, right)
        assert_same_bits(g(value), 2 * expected)
        assert_same_bits(value, kept)


# ---- stock Theano --------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=None)
def theanos(ignore_border):
    """Theano's three ops in bc01."""
    return with_sizes_given((stock.Pool(ignore_border, "max"), 1), (stock.MaxPoolGrad(ignore_border), 3),
                            (stock.DownsampleFactorMaxGradGrad(ignore_border), 3))


@settings(max_examples=100)
@given(shape=shapes, ds=pairs, stride=pairs, pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
       ignore_border=st.booleans(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_matches_theano(shape, ds, stride, pad, ignore_border, kind, seed):
    pad = tuple(min(p, d - 1) for p, d in zip(pad, ds)) if ignore_border else (0, 0)
    pool, grad, grad_grad = three_ops(ds, stride, tuple(-p for p in pad), ceil_mode=not ignore_border)
    rng = np.random.RandomState(seed)
    x = kind(rng, shape)
    their_pool, their_grad, their_grad_grad = theanos(ignore_border)
    z = compiled(pool)(x)
    assert_same_bits(z, c01b(their_pool(bc01(x), ds, stride, pad)))
    gz, ggx = reals(rng, z.shape), reals(rng, shape)
    assert_same_bits(compiled(grad)(x, z, gz), c01b(their_grad(bc01(x), bc01(z), bc01(gz), ds, stride, pad)))
    if z.size:  # Theano's divides by zero
        expected = c01b(their_grad_grad(bc01(x), bc01(z), bc01(ggx), ds, stride, pad))
        assert_same_bits(compiled(grad_grad)(x, z, ggx), expected)


def test_derivatives_are_wired_as_theanos():
    """First and second derivative and the R operator of the whole graph, with overlapping windows and ties."""
    x, v, w = T.ftensor4(), T.ftensor4(), T.ftensor4()
    rng = np.random.RandomState(0)
    at, direction = integers(rng, (2, 7, 6, 5)), reals(rng, (2, 7, 6, 5))

    def derivatives(pool, to, back):
        gradient = T.grad((pool(x) ** 3).sum(), x)
        second = T.grad((gradient * v).sum(), x)
        third = T.grad((second * w).sum(), x)
        f = theano.function([x, v, w], [gradient, second, third, T.Rop(pool(x), x, v)], on_unused_input="ignore")
        return [back(result) for result in f(to(at), to(direction), to(direction))]

    ours = derivatives(MaxPool(3, 2), np.asarray, np.asarray)
    theirs = derivatives(lambda x: stock.pool_2d(x, (3, 3), False, (2, 2)), bc01, c01b)
    for our, their in zip(ours, theirs):
        np.testing.assert_allclose(our, their, rtol=1e-6, atol=1e-5)


# ---- finite differences, in float64, on the reference --------------------------------------------------------------

@pytest.mark.parametrize("parameters", [((2, 2),), ((3, 2), (2, 1)), ((3, 3), (2, 2), (-1, -1)), ((2, 2), (3, 3))])
def test_gradients_are_derivatives(parameters):
    pool, grad, grad_grad = three_ops(*parameters)
    rng = np.random.RandomState(0)
    x = rng.permutation(2 * 7 * 6 * 5).reshape(2, 7, 6, 5) / 8.0  # no ties: differentiable, and exact in float32
    grid = pool.output_grid(x.shape[1:3])
    step = 1e-3 * rng.standard_normal(x.shape)  # too small for another pixel to become the maximum
    z = reference.max_pool(x, grid, *geometry(pool))
    change = reference.max_pool(x + step, grid, *geometry(pool)) - z
    gz = rng.standard_normal(z.shape)

    np.testing.assert_allclose(reference.max_pool_grad_grad(x, z, step, *geometry(pool)), change, atol=1e-9)
    gx = reference.max_pool_grad(x, z, gz, *geometry(pool))
    np.testing.assert_allclose((gx * step).sum(), (gz * change).sum(), rtol=1e-9)

    # The kernels follow, up to as many roundings of float32 as a pixel has windows, or a window pixels.
    terms = np.prod(pool.ds)
    x32, z32 = x.astype("float32"), z.astype("float32")
    np.testing.assert_allclose(compiled(grad)(x32, z32, gz.astype("float32")), gx, rtol=0,
                               atol=2 * terms * np.finfo("float32").eps * abs(gz).max())
    np.testing.assert_allclose(compiled(grad_grad)(x32, z32, step.astype("float32")), change, rtol=0,
                               atol=2 * terms * np.finfo("float32").eps * abs(step).max())


def test_grad_grad_is_the_adjoint_of_grad():
    pool, grad, grad_grad = three_ops(3, 2)
    rng = np.random.RandomState(0)
    x = integers(rng, (2, 9, 8, 17))
    z = compiled(pool)(x)
    gz, ggx = integers(rng, z.shape), integers(rng, x.shape)  # sums of small integers are exact
    assert (compiled(grad)(x, z, gz) * ggx).sum() == (compiled(grad_grad)(x, z, ggx) * gz).sum()


# ---- geometry ------------------------------------------------------------------------------------------------------

def windows_by_counting(image, window, stride, start, ceil_mode):
    """The definition of `pool_outputs`, window by window."""
    if image < 1:
        return 0
    count = 0
    while True:
        first = start + count * stride
        if ceil_mode:
            # A window is added while the ones before leave the last pixel uncovered, if it begins inside.
            covered = count > 0 and first - stride + window >= image
            fits = first < image and not covered
        else:
            fits = first + window <= image + max(0, -start)
        if not fits:
            return count
        count += 1


def test_count_of_windows():
    image = T.lscalar()
    for window, stride, start, ceil_mode in itertools.product(range(1, 5), range(1, 6), range(-3, 6), (False, True)):
        for pixels in range(9 if start > -window else 0):
            sizes = pixels, window, stride, start, ceil_mode
            assert pool_outputs(*sizes) == windows_by_counting(*sizes), sizes
    for ceil_mode in (False, True):
        symbolic = theano.function([image], pool_outputs(image, 3, 2, -1, ceil_mode), mode=FAST)
        assert [symbolic(n) for n in range(9)] == [pool_outputs(n, 3, 2, -1, ceil_mode) for n in range(9)]


@pytest.mark.parametrize("op", [MaxPool(3, 2), MaxPool((3, 2), (2, 3), (-1, 0), ceil_mode=False),
                                MaxPool(3, 2, 0, (0, 2))], ids=["ceiling", "floor", "given"])
def test_infer_shape(op):
    x = T.ftensor4()
    z = op(x)
    gradient = T.Lop(z, x, T.ones_like(z))
    second = op.like(MaxPoolGradGrad)(x, z, x)
    f = theano.function([x], [z.shape, gradient.shape, second.shape])
    assert not any(isinstance(node.op, (MaxPool, MaxPoolGrad, MaxPoolGradGrad)) for node in f.maker.fgraph.toposort())
    for shape in [(2, 7, 8, 3), (1, 6, 5, 1), (2, 9, 9, 0), (0, 4, 4, 2)]:
        value = np.zeros(shape, "float32")
        expected = compiled(op)(value).shape
        assert [tuple(s) for s in f(value)] == [expected, shape, expected]


def test_outputs_override_the_count():
    """Theano's pad of 2, with one window more than the ceiling rule would give."""
    x = reals(np.random.RandomState(0), (2, 8, 8, 4))
    assert MaxPool(4, 2, -2).output_grid((8, 8)) == (4, 4)
    result = compiled(MaxPool(4, 2, -2, 5))(x)
    assert_same_bits(result, c01b(theanos(True)[0](bc01(x), (4, 4), (2, 2), (2, 2))))
    assert_same_bits(compiled(MaxPool(4, 2, -2, (3, 0)))(x), result[:, :3, :4])


def test_helper_has_the_original_arguments():
    x = T.ftensor4()
    value = reals(np.random.RandomState(0), (2, 7, 7, 3))
    node = max_pool_c01b(x, 3, 2, (7, 7), start=1).owner
    assert node.op == MaxPool(3, 2, 1)
    np.testing.assert_array_equal(compiled(node.op)(value), reference.max_pool(value, (3, 3), (3, 3), (2, 2), (1, 1)))
    assert max_pool_c01b(x, (3, 2), (2, 1)).owner.op == MaxPool((3, 2), (2, 1))


# ---- contract ------------------------------------------------------------------------------------------------------

def test_any_strides():
    rng = np.random.RandomState(0)
    pool, grad, grad_grad = three_ops(2)
    x = integers(rng, (6, 9, 8, 34))[::2, 1:, ::-1, ::2]
    z = compiled(pool)(x)
    assert_same_bits(z, compiled(pool)(x.copy()))
    gz = reals(rng, z.shape[::-1]).T
    assert_same_bits(compiled(grad)(x, z, gz), compiled(grad)(x.copy(), z, gz.copy()))
    assert_same_bits(compiled(grad_grad)(x, z, x), compiled(grad_grad)(x.copy(), z, x.copy()))


@pytest.mark.parametrize("arguments, error, message", [
    ((0,), ValueError, "ds"), ((2, 0), ValueError, "stride"), ((2, 2, -2), ValueError, "first window"),
    (((3, 2), 1, (-1, -2)), ValueError, "first window"), ((2, 2, 0, -1), ValueError, "outputs"),
    ((2.0,), TypeError, "ds"), (((1, 2, 3),), TypeError, "ds"), ((2 ** 40,), ValueError, "ds"),
    ((2, None, 2 ** 40), ValueError, "start")])
def test_bad_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        MaxPool(*arguments)


def test_wrong_types():
    x, wrong = T.ftensor4(), [T.dtensor4(), T.ftensor3(), T.itensor4()]
    pool, grad, grad_grad = three_ops(2)
    for bad in wrong:
        with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
            pool(bad)
        for op in (grad, grad_grad):
            for position in range(3):
                arguments = [x, x, x]
                arguments[position] = bad
                with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
                    op(*arguments)


def run_both_ways(op, *arrays):
    """The C code's error, after checking that the numpy fallback raises the same type."""
    node = op.make_node(*[T.ftensor4() for _ in arrays])
    with pytest.raises(ValueError):
        op.perform(node, arrays, [[None]])
    with pytest.raises(ValueError) as error:
        compiled(op)(*arrays)
    return str(error.value)


def zeros(*shape):
    return np.zeros(shape, "float32")


def test_empty_windows_are_refused():
    message = run_both_ways(MaxPool(2, 2, 0, 4), zeros(1, 6, 8, 2))
    assert all(number in message for number in ("images of 6 rows", "window 4", "stride 2"))
    assert "columns" in run_both_ways(MaxPool(2, 2, 0, (0, 4)), zeros(1, 6, 6, 2))
    assert "start 5" in run_both_ways(MaxPool(2, 2, 5), zeros(1, 5, 6, 2))
    assert "images of 0" in run_both_ways(MaxPool(2, 2, 0, 1), zeros(1, 0, 6, 2))


def test_images_smaller_than_a_window():
    assert compiled(MaxPool(3, 2, ceil_mode=False))(zeros(2, 2, 5, 3)).shape == (2, 0, 2, 3)
    assert compiled(MaxPool(3, 2))(zeros(2, 2, 5, 3)).shape == (2, 1, 2, 3)
    grad = MaxPoolGrad(3, 2, ceil_mode=False)
    x, none = zeros(2, 2, 5, 3), zeros(2, 0, 2, 3)
    np.testing.assert_array_equal(compiled(grad)(x, none, none), x)


@pytest.mark.parametrize("shape", [(3, 3, 3, 2), (2, 4, 3, 2), (2, 3, 2, 2), (2, 3, 3, 1), (0, 0, 0, 0)])
def test_wrong_shapes_are_refused(shape):
    x, z, wrong = zeros(2, 6, 6, 2), zeros(2, 3, 3, 2), zeros(*shape)
    for op in (MaxPoolGrad(2), MaxPoolGradGrad(2)):
        message = run_both_ways(op, x, wrong, z if isinstance(op, MaxPoolGrad) else x)
        assert "maxout is (%d, %d, %d, %d), expected (2, 3, 3, 2)" % shape in message
    assert "gz is (%d, %d, %d, %d)" % shape in run_both_ways(MaxPoolGrad(2), x, z, wrong)
    assert "ggx is (%d, %d, %d, %d), expected (2, 6, 6, 2)" % shape in run_both_ways(MaxPoolGradGrad(2), x, z, wrong)


def test_perform_is_the_reference():
    rng = np.random.RandomState(0)
    pool, grad, grad_grad = three_ops(3, 2)
    x = integers(rng, (2, 7, 6, 5))
    z = compiled(pool)(x)
    for op, arrays in ((pool, [x]), (grad, [x, z, z]), (grad_grad, [x, z, x])):
        cell = [None]
        op.perform(op.make_node(*[T.ftensor4() for _ in arrays]), arrays, [cell])
        assert_same_bits(cell[0], compiled(op)(*arrays))


def test_equality_and_pickling():
    assert MaxPool(2) == MaxPool((2, 2), 2, 0, 0) and hash(MaxPool(2)) == hash(MaxPool((2, 2)))
    assert len({MaxPool(2), MaxPool(2, 1), MaxPool(2, 2, 1), MaxPool(2, 2, 0, 1), MaxPool(2, ceil_mode=False)}) == 5
    assert MaxPoolGrad(2) != MaxPool(2) and MaxPoolGrad(2) != MaxPoolGrad(2).in_place()
    assert pickle.loads(pickle.dumps(MaxPool(3, 2, -1))) == MaxPool(3, 2, -1)


def test_broadcast_patterns():
    x = T.TensorType("float32", (True, False, True, True))()
    assert MaxPool(2)(x).broadcastable == (True, False, False, True)
    assert T.Lop(MaxPool(2)(x), x, MaxPool(2)(x)).broadcastable == x.broadcastable


def compiled_modules():
    """The compiled C modules of MaxPool."""
    sources = glob.glob(os.path.join(theano.config.compiledir, "*", "mod.cpp"))
    return {source for source in sources if "c01b::max_pool_op" in open(source).read()}


def test_one_module_for_all_parameters():
    x = T.ftensor4()
    theano.function([x], MaxPool(2)(x), mode=FAST)
    before = compiled_modules()
    row = T.TensorType("float32", (True, False, False, True))()
    for op in (MaxPool(2, 1), MaxPool((5, 3), (4, 7), (-1, 2), (1, 0)), MaxPool(2, ceil_mode=False)):
        theano.function([x], op(x), mode=FAST)
        theano.function([row], op(row), mode=FAST)
    assert before and compiled_modules() == before
