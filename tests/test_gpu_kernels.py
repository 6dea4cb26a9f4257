"""The GPU ops against the numpy reference, on the cases that the host ops are tested with, and their contract.

On OpenCL (PoCL, in CI) these are the portable kernels; on CUDA, those for it.
"""
import gpu_device  # noqa: F401  isort: skip (skips the module where there is no GPU)

import collections
import functools

import numpy as np
import pygpu
import pytest
import theano
import theano.tensor as tt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from theano.gof.vm import VM_Linker
from theano.gpuarray.type import GpuArrayType

import test_avg_pool
import test_conv_ops
import test_cross_map_norm
import test_groups
import test_pool
import test_prob_pool
import test_stochastic_pool
import test_weighted_pool
from layoutopt.kernels import (AvgPool, AvgPoolGrad, CrossMapNorm, CrossMapNormUndo, CrossMapSum, FilterActs, ImageActs, MaxPool,
                               MaxPoolGrad, ProbMaxPool, ProbMaxPoolGrad, StochasticMaxPool, ToBC01, ToC01B, WeightActs, WeightedMaxPoolGrad)
from layoutopt.kernels.gpu.ops import GPU_OPS, GpuConv
from layoutopt.kernels.reference import conv as reference
from layoutopt.kernels.reference import prob_pool as prob_reference
from test_conv_ops import case, cases
from tolerance import assert_bilinear, normal, whole_numbers

PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)


@functools.lru_cache(maxsize=None)
def compiled(op, shaped=None, **parameters):
    """The GPU counterpart of a host op as a function of host arrays: its GPU operands, and an output_shape if it is `shaped`,
    or a seed and the number of a draw."""
    gpu_op = GPU_OPS[type(op)](op, **parameters)
    shaped = isinstance(op, AvgPoolGrad) if shaped is None else shaped
    inputs = [tt.ftensor4() for _ in range(gpu_op.arrays)] + [tt.lvector()] * shaped
    inputs += [tt.lscalar(), tt.lscalar()] * isinstance(op, StochasticMaxPool)
    outputs = gpu_op(*inputs)
    assert all(isinstance(y.type, GpuArrayType) for y in (outputs if isinstance(outputs, list) else [outputs]))
    return theano.function(inputs, [y.transfer("cpu") for y in outputs] if isinstance(outputs, list) else
                           outputs.transfer("cpu"), mode=PLAIN)


def run(op, *values, **parameters):
    return compiled(op, len(values) == 3, **parameters)(*values)


def run_list(op, *values):
    result = run(op, *values)
    return result if isinstance(result, list) else [result]


@pytest.fixture(autouse=True, scope="module")
def on_the_gpu():
    """The host ops' tests run their cases here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_conv_ops, "compiled", compiled)
        patch.setattr(test_groups, "run", run_list)
        patch.setattr(test_pool, "compiled", compiled)
        for module in (test_avg_pool, test_cross_map_norm, test_prob_pool, test_stochastic_pool, test_weighted_pool):
            patch.setattr(module, "compiled", compiled)
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions.


@settings(max_examples=60)
@given(cases(), st.integers(0, 2 ** 16))
def test_convolutions_of_any_geometry(c, seed):
    test_conv_ops.check_exactly(c, lambda *shape: whole_numbers(np.random.RandomState(seed), shape))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 5, (1, 2), (4, 1)])
@pytest.mark.parametrize("pad", [0, 1, 3, "half", "full", ((0, 2), (3, 1))])
def test_every_pad_stride_and_flip(pad, stride, flip, rng):
    """Tiles of 64 with a rest, of filters, channels and images, and tiles of 16."""
    c = case(channels=18, image=(9, 8), batch=70, filters=5, filter_shape=(4, 3), pad=pad, stride=stride, flip=flip)
    test_conv_ops.check_exactly(c, lambda *shape: whole_numbers(rng, shape))


@pytest.mark.parametrize("channels, filters, batch", [(1, 1, 1), (3, 64, 128), (16, 16, 16), (17, 65, 129), (64, 17, 33)])
def test_tiles(channels, filters, batch, rng):
    c = case(channels=channels, filters=filters, batch=batch, image=(5, 4), pad=1)
    test_conv_ops.check_exactly(c, lambda *shape: whole_numbers(rng, shape))


@pytest.mark.parametrize("groups, channels, filters, batch", [(2, 3, 5, 7), (3, 1, 1, 16), (2, 17, 20, 20), (4, 16, 8, 1)])
def test_groups_of_channels(groups, channels, filters, batch, rng):
    test_groups.check_ops(rng, groups, channels, filters, batch, pad=1, stride=(1, 2), flip=True)
    test_groups.check_ops(rng, groups, channels, filters, batch, partial_sum=True)


def test_rounding_is_within_the_bound_of_the_sum(rng):
    c = case(channels=20, image=(9, 9), batch=33, filters=24, filter_shape=(3, 3), pad=1)
    for value, definition, first, second in test_conv_ops.three_values(
            c, *test_conv_ops.operands(c, lambda *shape: normal(rng, *shape))):
        assert_bilinear(value, definition, first, second)


def weight_operands(rng):
    return whole_numbers(rng, (3, 9, 8, 20)), whole_numbers(rng, (5, 7, 6, 20)), (3, 3)


@pytest.mark.parametrize("split, workspace", [(0, 2 ** 28), (-1, 2 ** 28), (1, 2 ** 28), (5, 2 ** 28), (1000, 2 ** 28), (1, 0),
                                              (1, 3000)])
def test_weight_gradient_by_any_number_of_partial_sums(split, workspace, rng):
    images, hid, shape = weight_operands(rng)
    expected = reference.weight_acts(images, hid, shape, (0, 0), (1, 1), False)
    dw, = run(WeightActs(), images, hid, shape, split=split, workspace=workspace)
    np.testing.assert_array_equal(dw, expected)


@pytest.mark.parametrize("partial_sum", [1, 6, 21, 42])
def test_partial_sums_that_the_program_asked_for(partial_sum, rng):
    images, hid, shape = weight_operands(rng)
    expected = reference.weight_acts_partials(images, hid, shape, (0, 0), (1, 1), False, partial_sum)
    dw, partials = run(WeightActs(partial_sum=partial_sum), images, hid, shape)
    np.testing.assert_array_equal(partials, expected)
    np.testing.assert_array_equal(dw, expected.sum(0))


def test_an_infinite_weight_is_invisible_in_the_pad(rng):
    images, filters = whole_numbers(rng, (2, 4, 4, 3)), whole_numbers(rng, (2, 3, 3, 2))
    filters[:, 0, :, :] = np.inf  # this row lies in the pad for the first row of outputs
    out = run(FilterActs(pad=1), images, filters)
    assert np.isfinite(out[:, 0]).all() and not np.isfinite(out[:, 1]).all()


def test_filters_without_rows_give_zeros():
    images, filters = np.ones((3, 5, 5, 2), "f"), np.ones((3, 0, 3, 4), "f")
    out = run(FilterActs(), images, filters)
    assert out.shape == (4, 6, 3, 2) and not out.any()
    gradient = run(ImageActs(), out + 1, filters)
    assert gradient.shape == images.shape and not gradient.any()


@pytest.mark.parametrize("op, shapes, parameters", [
    (FilterActs(), [(3, 5, 5, 2), (2, 3, 3, 4)], ()), (FilterActs(), [(3, 2, 2, 2), (3, 3, 3, 4)], ()),
    (FilterActs(), [(3, 5, 5, 2), (3, 3, 3, 4)], [2, 3]), (WeightActs(), [(3, 5, 5, 2), (4, 6, 6, 2)], [0, 0]),
    (FilterActs(groups=2), [(3, 5, 5, 2), (1, 3, 3, 4)], ()), (FilterActs(ceil_mode=False), [(3, 5, 5, 2), (3, 3, 3, 4)], [4, 4]),
    (ImageActs(), [(4, 5, 5, 2), (2, 3, 3, 3)], ()), (ImageActs(stride=2), [(4, 2, 2, 2), (2, 3, 3, 4)], [9, 5]),
    (ImageActs(), [(4, 5, 5, 2), (2, 3, 3, 4)], [-1, 7]), (ImageActs(), [(4, 5, 5, 2), (2, 3, 3, 4)], [7, 7, 7]),
    (WeightActs(), [(3, 5, 5, 2), (4, 3, 3, 1)], [3, 3]), (WeightActs(ceil_mode=False), [(3, 5, 5, 2), (4, 3, 3, 2)], [5, 5]),
    (WeightActs(partial_sum=2), [(3, 5, 5, 2), (4, 3, 3, 2)], [3, 3]),
    (MaxPool(3, outputs=9), [(3, 6, 6, 2)], ()), (MaxPoolGrad(2), [(2, 6, 6, 2), (2, 2, 3, 2), (2, 3, 3, 2)], ()),
    (MaxPoolGrad(2), [(2, 6, 6, 2), (2, 3, 3, 2), (2, 3, 3, 1)], ()), (AvgPoolGrad(2), [(2, 3, 3, 2)], [7, 6]),
    (AvgPoolGrad(2), [(2, 3, 3, 2)], [6]), (CrossMapNormUndo(5, 1, 1), [(2, 3, 4, 5), (2, 3, 4, 6)], ()),
    (ProbMaxPool(2), [(2, 6, 6, 2), (2, 3, 2, 2)], ()),
    (ProbMaxPoolGrad(2), [(2, 3, 3, 2), (2, 6, 6, 2), (2, 3, 3, 2), (2, 6, 5, 2)], ()),
    (WeightedMaxPoolGrad(2), [(2, 6, 6, 2), (2, 3, 3, 2), (2, 3, 3, 1)], ()),
])
def test_errors_are_those_of_the_host_op(op, shapes, parameters):
    shaped = len(parameters) > 0
    values = [np.zeros(shape, "float32") for shape in shapes] + [np.array(parameters)] * shaped
    messages = []
    for function in (on_host(op, shaped), compiled(op, shaped)):
        with pytest.raises(ValueError) as error:
            function(*values)
        messages.append(str(error.value).split("\n")[0])
    assert messages[0] == messages[1]


def on_host(op, shaped):
    """The host op; most through numpy, whose messages are here those of the C++ code, which takes long to compile."""
    if not isinstance(op, (MaxPool, MaxPoolGrad, AvgPoolGrad)):
        return lambda *values: op.perform(None, values, [[None], [None]])
    inputs = [tt.ftensor4() for _ in range(GPU_OPS[type(op)].arrays)] + [tt.lvector()] * shaped
    return theano.function(inputs, op(*inputs), mode=PLAIN)


def test_too_little_memory_is_an_error_with_the_number():
    images, filters = np.zeros((1, 1, 1, 2 ** 20), "float32"), np.zeros((1, 1, 1, 2 ** 20), "float32")
    with pytest.raises(MemoryError, match="FilterActs: no 4194304 MB of GPU memory left"):
        run(FilterActs(), images, filters)


def test_sizes_beyond_the_kernels_are_an_error():
    """Positions are counted in 32 bits."""
    hid, filters = np.zeros((1, 1, 1, 0), "float32"), np.zeros((1, 1, 1, 1), "float32")
    with pytest.raises(ValueError, match="ImageActs: too large for the GPU kernels"):
        run(ImageActs(stride=2 ** 20), hid, filters, [2 ** 20, 2 ** 20])


# ---------------------------------------------------------------------------------------------------------------------
# Poolings.


def clipped(start, ds, shape):
    return tuple(min(max(s, 1 - d), n - 1) for s, d, n in zip(start, ds, shape[1:3]))


starts = st.tuples(st.integers(-4, 2), st.integers(-4, 2))
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(shape=test_pool.shapes, ds=test_pool.pairs, stride=test_pool.pairs, start=starts, ceil_mode=st.booleans(),
       kind=st.sampled_from(test_pool.KINDS), seed=st.integers(0, 99))
def test_max_pooling(shape, ds, stride, start, ceil_mode, kind, seed):
    test_pool.test_matches_reference.hypothesis.inner_test(shape, ds, stride, start, ceil_mode, kind, seed)


@quick
@given(shape=test_avg_pool.shapes, ds=test_avg_pool.pairs, stride=test_avg_pool.pairs, start=starts, ceil_mode=st.booleans(),
       mode=test_avg_pool.modes, kind=st.sampled_from([test_avg_pool.integers, test_avg_pool.reals]), seed=st.integers(0, 99))
def test_average_pooling(shape, ds, stride, start, ceil_mode, mode, kind, seed):
    test_avg_pool.test_matches_reference.hypothesis.inner_test(shape, ds, stride, start, ceil_mode, mode, kind, seed)


few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@few
@given(shape=test_prob_pool.shapes, ds=test_prob_pool.pairs, start=starts, fewer=st.integers(0, 2),
       scale=st.sampled_from([1, 30, 1000]), seed=st.integers(0, 99))
def test_probabilistic_pooling(shape, ds, start, fewer, scale, seed):
    test_prob_pool.test_matches_reference.hypothesis.inner_test(shape, ds, start, fewer, scale, seed)


@pytest.mark.parametrize("start, outputs", [(0, 0), (1, 0), ((0, 1), (2, 0))])
def test_pixels_of_no_window_are_zero(start, outputs):
    test_prob_pool.test_pixels_of_no_window_are_zero(start, outputs)


@few
@given(shape=test_stochastic_pool.shapes, ds=test_stochastic_pool.pairs, stride=test_stochastic_pool.pairs, start=starts,
       ceil_mode=st.booleans(), kind=st.sampled_from(test_stochastic_pool.KINDS), seed=test_stochastic_pool.words,
       draw=test_stochastic_pool.words)
def test_stochastic_pooling_draws_as_on_a_cpu(shape, ds, stride, start, ceil_mode, kind, seed, draw):
    test_stochastic_pool.test_draws_are_those_of_the_reference.hypothesis.inner_test(shape, ds, stride, start, ceil_mode, kind,
                                                                                     seed, draw)


@few
@given(shape=test_weighted_pool.shapes, ds=test_weighted_pool.pairs, stride=test_weighted_pool.pairs, start=starts,
       ceil_mode=st.booleans(), seed=st.integers(0, 99))
def test_weighted_pooling(shape, ds, stride, start, ceil_mode, seed):
    test_weighted_pool.test_matches_reference.hypothesis.inner_test(shape, ds, stride, start, ceil_mode, seed)


@pytest.mark.parametrize("without", [(), ("gpuarray_graph_optimization",)], ids=["GraphToGPU", "local"])
def test_poolings_of_the_program_are_lifted(without, rng):
    """With all their outputs and gradients; a stochastic one draws afresh in each call, and its gradient uses that draw."""
    z, t = tt.ftensor4(), tt.ftensor4()
    drawn = StochasticMaxPool(2, seed=5)(z)
    p, h = ProbMaxPool(2)(drawn, t)
    outputs = [drawn, p, h] + theano.grad(None, [z, t], known_grads=collections.OrderedDict([(p, t), (h, drawn)]))
    mode = theano.compile.get_mode("FAST_RUN").including("layoutopt").excluding(*without)
    f = theano.function([z, t], outputs, mode=mode)
    kinds = [type(node.op).__name__ for node in f.maker.fgraph.toposort()]
    for name in ("StochasticMaxPool", "ProbMaxPool", "ProbMaxPoolGrad", "MaxPoolGrad"):
        assert (kinds.count("Gpu" + name), kinds.count(name)) == (1, 0), kinds
    assert kinds.count("HostFromGpu") == len(outputs)

    images, above = abs(normal(rng, 2, 6, 6, 20)), normal(rng, 2, 2, 2, 20)
    for call in range(2):
        values = f(images, above)
        draw = test_stochastic_pool.expected_draw(StochasticMaxPool(2), images, 5, call)
        np.testing.assert_array_equal(values[0], draw)
        p, h = prob_reference.prob_max_pool(draw, above, (2, 2), (0, 0))
        gz, gt = prob_reference.prob_max_pool_grad(p, h, above, draw, (2, 2), (0, 0))
        gz = np.where(images == draw.repeat(2, axis=1).repeat(2, axis=2), gz.repeat(2, axis=1).repeat(2, axis=2), 0)
        for value, right in zip(values[1:], (p, h, gz, gt)):
            np.testing.assert_allclose(value, right, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Normalisation across channels.


@quick
@given(shape=test_cross_map_norm.shapes, size=st.sampled_from([1, 4, 5, 17]), blocked=st.booleans(), axis=st.integers(0, 3),
       power=st.sampled_from([0.75, 0.3]), scale=test_cross_map_norm.scales, seed=st.integers(0, 99))
def test_normalisation_across_channels(shape, size, blocked, axis, power, scale, seed):
    """Windows that fit registers, and larger ones and blocks, whose gradients go by scratch memory."""
    test_cross_map_norm.test_matches_reference.hypothesis.inner_test(shape, size, blocked, axis, power, scale, 1.5, seed)


@pytest.mark.parametrize("power", [0.25, 0.5, 1])
def test_normalisation_by_roots(power, rng):
    op, x, gy = CrossMapNorm(3, 0.3, power), normal(rng, 40, 3, 5, 300), normal(rng, 40, 3, 5, 300)  # several channels a thread
    test_cross_map_norm.check_norm(op, x)
    test_cross_map_norm.check_undo(op, x, gy)


@quick
@given(shape=test_cross_map_norm.shapes, size=test_cross_map_norm.sizes, blocked=st.booleans(), axis=st.integers(0, 3),
       transposed=st.booleans(), seed=st.integers(0, 99))
def test_sums_over_channels(shape, size, blocked, axis, transposed, seed):
    test_cross_map_norm.test_sums_are_exact.hypothesis.inner_test(shape, size, blocked, axis, transposed, seed)


def test_what_is_not_finite_is_normalised_as_on_a_cpu():
    test_cross_map_norm.test_what_is_not_finite_stays_where_it_is()


@pytest.mark.parametrize("without", [(), ("gpuarray_graph_optimization",)], ids=["GraphToGPU", "local"])
def test_normalisations_are_lifted(without, rng):
    """With gradients of both results, by both of Theano's movers."""
    x = tt.ftensor4()
    op = CrossMapNorm(3, 0.5, 1, axis=1)
    acts, denoms = op(x)
    outputs = [acts, theano.grad(acts.sum(), x), theano.grad((denoms ** 2).sum(), x)]
    f = theano.function([x], outputs, mode=theano.compile.get_mode("FAST_RUN").including("layoutopt").excluding(*without))
    kinds = collections.Counter(type(node.op).__name__ for node in f.maker.fgraph.toposort())
    assert (kinds["GpuCrossMapNorm"], kinds["GpuCrossMapNormUndo"], kinds["GpuCrossMapSum"]) == (1, 1, 2), kinds
    assert kinds["HostFromGpu"] == len(outputs) and not any(kinds[op.__name__] for op in (CrossMapNorm, CrossMapNormUndo, CrossMapSum))
    value = normal(rng, 2, 5, 3, 4)
    y, gx, gd = f(value)
    np.testing.assert_allclose(y, test_cross_map_norm.expected(op, value), rtol=1e-5)
    ones = np.ones_like(value)
    np.testing.assert_allclose(gx, test_cross_map_norm.expected(op.like(CrossMapNormUndo), value, ones), rtol=1e-4, atol=1e-5)
    d = test_cross_map_norm.denominators(op, value)
    sums = test_cross_map_norm.reference.window_sum(2 * d, 3, False, 1, transposed=True)
    np.testing.assert_allclose(gd, 2 * 0.5 * value * sums, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Conversions, and what holds for all.


@pytest.mark.parametrize("dtype", ["float32", "int8", "int16", "float64"])
@pytest.mark.parametrize("shape", [(5, 7), (33, 2, 35), (40, 3, 4, 11), (1, 2, 3, 4), (3, 0, 2), (2, 1, 1, 3, 4)])
def test_conversions(shape, dtype, rng):
    x = tt.TensorType(dtype, [False] * len(shape))()
    value = rng.randint(-99, 99, shape).astype(dtype)
    for op, expected in ((ToC01B(), np.moveaxis(value, 0, -1)), (ToBC01(), np.moveaxis(value, -1, 0))):
        result = theano.function([x], GPU_OPS[type(op)](op)(x).transfer("cpu"), mode=PLAIN)(value)
        assert result.dtype == value.dtype
        np.testing.assert_array_equal(result, expected)


VIEWS = {
    "slices": lambda x: x[::2, 1:, ::-1, 1:-1],
    "a slice of the batch": lambda x: x[:, :, :, 1:5],
    "transposed": lambda x: x.dimshuffle(3, 2, 1, 0),
}


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_operands_of_any_strides(view, rng):
    x = tt.ftensor4()
    value = whole_numbers(rng, (6, 7, 7, 6))
    seen = np.ascontiguousarray(VIEWS[view](value) if view != "transposed" else value.T)
    filters = whole_numbers(rng, (seen.shape[0], 2, 2, 3))
    for op, more in ((MaxPool(2), ()), (AvgPool(2), ()), (ToC01B(), ()), (ToBC01(), ()), (FilterActs(), (filters,))):
        operands = [VIEWS[view](theano.gpuarray.as_gpuarray_variable(x, None))] + [theano.shared(m, borrow=True) for m in more]
        result = theano.function([x], GPU_OPS[type(op)](op)(*operands).transfer("cpu"), mode=PLAIN)(value)
        host = [[None]]
        op.perform(None, [seen, *more], host)
        np.testing.assert_array_equal(result, host[0][0])


def test_storage_of_the_output_is_used_again(rng):
    """A second call with the same sizes allocates nothing for its result."""
    x = theano.gpuarray.as_gpuarray_variable(tt.ftensor4(), None)
    host = x.owner.inputs[0]
    pooled = GPU_OPS[MaxPool](MaxPool(2))(x)
    keeping = theano.Mode(VM_Linker(allow_gc=False, use_cloop=True), optimizer=None)
    f = theano.function([host], theano.Out(pooled, borrow=True), mode=keeping)
    first, second, other = (f(whole_numbers(rng, (2, 4, 4, batch))) for batch in (8, 8, 9))
    assert pygpu.gpuarray.may_share_memory(first, second)
    assert not pygpu.gpuarray.may_share_memory(first, other)


def test_code_depends_on_no_parameter():
    """Stride, pad, flip, precision and sizes are told at run time: one compilation serves them all."""
    sub = dict(params="p", fail="f")
    for kinds in ([FilterActs(), FilterActs(pad=3, stride=2, flip=True, groups=2)],
                  [MaxPool(2), MaxPool(3, 2, start=-1, ceil_mode=False)],
                  [CrossMapNorm(5, 1e-4, 0.75), CrossMapNorm(4, 0.3, 1.7, True, 2.0, 1)]):
        codes = set()
        for i, op in enumerate(kinds):
            gpu_op = GPU_OPS[type(op)]
            gpu_op = gpu_op(op, tf32=bool(i), split=i) if issubclass(gpu_op, GpuConv) else gpu_op(op)
            node = gpu_op.make_node(*[tt.ftensor4() for _ in range(gpu_op.arrays)])
            codes.add((gpu_op.c_code(node, "n", ["a", "b"][:gpu_op.arrays], ["c"], sub), gpu_op.c_support_code()))
        assert len(codes) == 1


def test_gradients_of_gpu_ops_are_those_of_the_host_op(rng):
    x, w, g = tt.ftensor4(), tt.ftensor4(), tt.ftensor4()
    values = whole_numbers(rng, (2, 6, 6, 3)), whole_numbers(rng, (2, 3, 3, 4)), whole_numbers(rng, (4, 4, 4, 3))
    results = []
    for op in (FilterActs(), GPU_OPS[FilterActs](FilterActs())):
        y = op(x, w)
        gradients = theano.grad(None, [x, w], known_grads={y: g if y.type == g.type else y.type.filter_variable(g)})
        results.append(theano.function([x, w, g], [d.transfer("cpu") for d in gradients], mode=PLAIN)(*values))
    for value, right in zip(*results):
        np.testing.assert_array_equal(value, right)


def test_shapes_are_inferred():
    x, w = tt.ftensor4(), tt.ftensor4()
    f = theano.function([x, w], GPU_OPS[FilterActs](FilterActs(stride=2))(x, w).shape)
    assert not any(isinstance(node.op, GpuConv) for node in f.maker.fgraph.toposort())
    np.testing.assert_array_equal(f(np.zeros((2, 9, 7, 5), "f"), np.zeros((2, 3, 3, 4), "f")), [4, 4, 3, 5])


def test_a_gpu_op_takes_the_host_op_that_it_is():
    with pytest.raises(TypeError, match="GpuFilterActs is FilterActs on the GPU"):
        GPU_OPS[FilterActs](MaxPool(2))
    with pytest.raises(TypeError, match="float32 tensor of 4 axes"):
        GPU_OPS[FilterActs](FilterActs())(tt.dtensor4(), tt.ftensor4())
