"""Grouped convolutions: kernels against their definition and against Theano's, gradients, errors, whole graphs.

Everything is whole numbers, so results must be equal to the last bit. The reference cuts operands into groups and joins
the results; what a group computes is held against its docstring in test_conv_ops.py.
"""
import numpy as np
import pytest
import theano
import theano.tensor as tt
from hypothesis import given, settings
from hypothesis import strategies as st
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import (AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights,
                                              BaseAbstractConv)
from theano.tensor.nnet.corr import BaseCorrMM
from theano.tensor.signal.pool import Pool, pool_2d

import layoutopt
from cheap_mode import few_compilations, mode  # noqa: F401: a fixture for every test here
from layoutopt.kernels import base
from layoutopt.kernels.conv import FilterActs, ImageActs, WeightActs
from layoutopt.kernels.reference import conv as reference
from layoutopt.rewrites.constraints import CONVOLUTIONS
from layoutopt.rewrites.cost import ConvWork, Machine
from test_conv_as_ops import refused_in_the_same_words
from tolerance import whole_numbers

PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)
OPS = (FilterActs, ImageActs, WeightActs)


def run(op, *values):
    """The outputs of an op alone, as a list."""
    inputs = [tt.ftensor4(), tt.ftensor4(), tt.lvector()][:len(values)]
    return theano.function(inputs, op(*inputs, return_list=True), mode=PLAIN)(*values)


def operands(random, groups, channels, filters, batch, image, filter_shape, grid):
    """Images, filters and output gradients; channels and filters are those of a group."""
    return (whole_numbers(random, (groups * channels, *image, batch)),
            whole_numbers(random, (channels, *filter_shape, groups * filters)),
            whole_numbers(random, (groups * filters, *grid, batch)))


def check_ops(random, groups, channels, filters, batch, image=(6, 7), filter_shape=(3, 2), pad=0, stride=(1, 1),
              flip=False, partial_sum=None):
    """All three ops against the reference, exactly."""
    parameters = dict(pad=pad, stride=stride, flip=flip, groups=groups)
    grid = FilterActs(**parameters).output_grid(image, filter_shape)
    x, w, h = operands(random, groups, channels, filters, batch, image, filter_shape, grid)
    args = (pad, pad), stride, flip
    out, = run(FilterActs(**parameters), x, w, grid)
    np.testing.assert_array_equal(out, reference.filter_acts(x, w, grid, *args, groups))
    d_images, = run(ImageActs(**parameters), h, w, image)
    np.testing.assert_array_equal(d_images, reference.image_acts(h, w, image, *args, groups))
    d_filters = run(WeightActs(partial_sum=grid[1] if partial_sum else None, **parameters), x, h, filter_shape)
    np.testing.assert_array_equal(d_filters[0], reference.weight_acts(x, h, filter_shape, *args, groups))
    for partials in d_filters[1:]:
        expected = reference.weight_acts_partials(x, h, filter_shape, *args, grid[1], groups)
        np.testing.assert_array_equal(partials, expected)


@settings(max_examples=50)
@given(st.tuples(st.sampled_from([2, 3, 4, 9]), st.sampled_from([0, 1, 2, 5, 16]), st.sampled_from([0, 1, 2, 7, 17]),
                 st.sampled_from([0, 1, 3, 16, 33, 130])),
       st.sampled_from([(5, 4), (6, 7)]), st.sampled_from([(1, 1), (3, 2)]), st.sampled_from([0, 1, 2]),
       st.sampled_from([(1, 1), (2, 2), (1, 3)]), st.booleans(), st.booleans(), st.integers(0, 2 ** 31 - 1))
def test_any_shape_exactly(sizes, image, filter_shape, pad, stride, flip, partial_sum, seed):
    check_ops(np.random.RandomState(seed), *sizes, image, filter_shape, pad, stride, flip, partial_sum)


NAMED = [
    dict(groups=37, channels=1, filters=1, batch=70, filter_shape=(3, 3), pad=1),  # depthwise
    dict(groups=37, channels=1, filters=1, batch=1, filter_shape=(5, 3), pad=1, stride=(2, 2)),
    dict(groups=20, channels=1, filters=3, batch=5),
    dict(groups=2, channels=48, filters=40, batch=65, filter_shape=(3, 3), pad=1),  # blocks of channels, of filters
    dict(groups=2, channels=40, filters=80, batch=3, filter_shape=(5, 5), pad=2),
    dict(groups=3, channels=1, filters=1, batch=0),
]


@pytest.mark.parametrize("sizes", NAMED, ids=str)
def test_named_shape_exactly(sizes, rng):
    check_ops(rng, **sizes)


@pytest.mark.parametrize("simd", ["plain", "avx2"])
def test_other_builds_exactly(simd, rng, monkeypatch):
    monkeypatch.setitem(base._settings, "simd", simd)
    for sizes in NAMED:
        check_ops(rng, **sizes)


def test_a_group_sees_its_own_channels_alone(rng):
    """What is in other channels, NaN and infinity too, changes nothing."""
    x, w, h = operands(rng, 4, 2, 3, 18, (5, 5), (3, 3), (3, 3))
    spoiled = [np.full_like(x, np.nan), np.full_like(w, np.inf), np.full_like(h, np.nan)]
    for group in range(4):
        channels, filters = np.s_[2 * group:2 * group + 2], np.s_[3 * group:3 * group + 3]
        a, b, c = (value.copy() for value in spoiled)
        a[channels], b[..., filters], c[filters] = x[channels], w[..., filters], h[filters]
        for op, first, second, shape, part in (
                (FilterActs, (x, a), (w, b), (3, 3), filters), (ImageActs, (h, c), (w, b), (5, 5), channels),
                (WeightActs, (x, a), (h, c), (3, 3), (..., filters))):
            clean, dirty = (run(op(groups=4), *pair, shape)[0] for pair in zip(first, second))
            np.testing.assert_array_equal(clean[part], dirty[part])


# ---------------------------------------------------------------------------------------------------------------------
# As Theano ops.

@pytest.mark.parametrize("groups, border, subsample, flip", [
    (2, "valid", (1, 1), True), (2, "half", (2, 1), False), (3, (1, 2), (1, 2), True), (6, "full", (1, 1), False),
    (6, ((1, 0), (0, 2)), (2, 2), True)])
def test_theanos_grouped_convolution_and_its_gradients(groups, border, subsample, flip, rng):
    images, filters, hid = tt.ftensor4s(3)
    parameters = dict(border_mode=border, subsample=subsample, filter_flip=flip, num_groups=groups)
    stock = [AbstractConv2d(**parameters)(images, filters),
             AbstractConv2d_gradInputs(**parameters)(filters, hid, images.shape[2:]),
             AbstractConv2d_gradWeights(**parameters)(images, hid, filters.shape[2:])]
    ours = dict(pad=border, stride=subsample, flip=flip, ceil_mode=False, groups=groups)
    grid = FilterActs(**ours).output_grid((7, 8), (3, 2))
    x, w, h = [whole_numbers(rng, shape) for shape in ((5, 6, 7, 8), (12, 6 // groups, 3, 2), (5, 12) + grid)]
    by_theano = theano.function([images, filters, hid], stock, mode=mode(False))(x, w, h)
    x, w, h, *by_theano = (value.transpose(1, 2, 3, 0) for value in (x, w, h, *by_theano))
    values = [run(FilterActs(**ours), x, w), run(ImageActs(**ours), h, w, (7, 8)), run(WeightActs(**ours), x, h, (3, 2))]
    for (value,), right in zip(values, by_theano):
        np.testing.assert_array_equal(value, right)


def test_gradients_of_each_op(rng):
    """Two gradients of each op, with a stride and windows over the edge; each is another of the three ops."""
    x, w, h = operands(rng, 2, 2, 3, 4, (6, 7), (3, 3), (3, 4))
    a, b, c = tt.ftensor4s(3)
    ours, args = dict(pad=1, stride=2, groups=2), ((1, 1), (2, 2), False, 2)
    out, d_images = FilterActs(**ours)(a, b, (3, 4)), ImageActs(**ours)(c, b, (6, 7))
    d_filters, = WeightActs(**ours)(a, c, (3, 3))
    wanted = tt.grad((out * c).sum(), [a, b]) + tt.grad((d_images * a).sum(), [c, b])
    wanted += tt.grad((d_filters * b).sum(), [a, c])
    results = theano.function([a, b, c], wanted, mode=PLAIN)(x, w, h)
    by_images, by_filters = reference.image_acts(h, w, (6, 7), *args), reference.weight_acts(x, h, (3, 3), *args)
    by_hid = reference.filter_acts(x, w, (3, 4), *args)
    for result, right in zip(results, (by_images, by_filters, by_hid, by_filters, by_images, by_hid)):
        np.testing.assert_array_equal(result, right)


def test_gradients_of_the_reference_by_finite_differences(rng):
    x, w, h = (value.astype("float64") for value in operands(rng, 2, 2, 2, 2, (4, 5), (3, 2), (3, 3)))
    args = (1, 0), (1, 2), True, 2

    def cost(x, w):
        return (reference.filter_acts(x, w, (3, 3), *args) * h).sum()

    def slopes(at, cost_at):  # the cost is linear in either operand: a step of 1 on whole numbers is exact
        units = np.eye(at.size).reshape((at.size,) + at.shape)
        return np.array([cost_at(at + unit) - cost_at(at) for unit in units]).reshape(at.shape)

    np.testing.assert_array_equal(slopes(x, lambda x: cost(x, w)), reference.image_acts(h, w, (4, 5), *args))
    np.testing.assert_array_equal(slopes(w, lambda w: cost(x, w)), reference.weight_acts(x, h, (3, 2), *args))


def test_r_op(rng):
    x, w, _ = operands(rng, 3, 1, 2, 4, (5, 5), (3, 3), (3, 3))
    dx, dw = whole_numbers(rng, x.shape), whole_numbers(rng, w.shape)
    a, b, da, db = tt.ftensor4s(4)
    both = theano.function([a, b, da, db], tt.Rop(FilterActs(groups=3)(a, b), [a, b], [da, db]), mode=PLAIN)
    expected = [reference.filter_acts(*pair, (3, 3), (0, 0), (1, 1), False, 3) for pair in ((dx, w), (x, dw))]
    np.testing.assert_array_equal(both(x, w, dx, dw), sum(expected))


def test_shapes_are_known_without_computing():
    a, b, c = tt.ftensor4s(3)
    ours = dict(pad=1, groups=4)
    outputs = [FilterActs(**ours)(a, b), ImageActs(**ours)(c, b)]
    outputs += WeightActs(**ours)(a, c, b.shape[1:3]) + WeightActs(partial_sum=6, **ours)(a, c, b.shape[1:3])
    shapes = theano.function([a, b, c], [out.shape for out in outputs], mode=mode(False), on_unused_input="ignore")
    assert not any(isinstance(node.op, OPS) for node in shapes.maker.fgraph.toposort())
    x, w, h = (8, 6, 5, 3), (2, 3, 3, 12), (12, 6, 5, 3)
    found = shapes(*(np.zeros(shape, "float32") for shape in (x, w, h)))
    assert [tuple(shape) for shape in found] == [h, x, w, w, (5,) + w]


def test_parameter():
    for kind in OPS:
        assert kind(groups=2) != kind() == kind(groups=1) and kind(groups=np.int64(2)) == kind(groups=2)
        assert str(kind(groups=2)) == kind.__name__ + "{pad=0, stride=1, groups=2}"
        for error, value in ((TypeError, 2.0), (TypeError, True), (TypeError, (2, 2)), (TypeError, None),
                             (ValueError, 0), (ValueError, -1), (ValueError, 2 ** 31)):
            with pytest.raises(error, match="groups must be"):
                kind(groups=value)
    one = tt.TensorType("float32", (True, False, False, False))()
    assert not ImageActs(groups=2)(tt.ftensor4(), one).broadcastable[0] and ImageActs()(tt.ftensor4(), one).broadcastable[0]
    # A filter of a group sees half of the channels.
    x, w, h = (8, 6, 6, 5), (4, 3, 3, 10), (10, 4, 4, 5)
    flops = 2 * 4 * 10 * 3 * 3 * 4 * 4 * 5
    assert FilterActs(groups=2).flops([x, w], [h]) == ImageActs(groups=2).flops([h, w], [x]) == flops
    assert WeightActs(groups=2).flops([x, h, (2,)], [w]) == flops


# (op, shapes of the two tensors, output_shape, the message)
MALFORMED = {
    "channels": (FilterActs(groups=3), (4, 5, 5, 2), (2, 3, 3, 6), None, "FilterActs: 3 groups do not divide 4 channels"),
    "filters": (FilterActs(groups=2), (4, 5, 5, 2), (2, 3, 3, 5), None, "FilterActs: 2 groups do not divide 5 filters"),
    "filters of all channels": (FilterActs(groups=2), (4, 5, 5, 2), (4, 3, 3, 6), None,
                                "FilterActs: channels of a group differ: images have 2, filters have 4"),
    "filters back": (ImageActs(groups=4), (6, 5, 5, 2), (2, 3, 3, 6), None, "ImageActs: 4 groups do not divide 6 filters"),
    "channels of images": (WeightActs(groups=2), (5, 5, 5, 2), (4, 3, 3, 2), (3, 3),
                           "WeightActs: 2 groups do not divide 5 channels"),
    "filters of gradients": (WeightActs(groups=5), (5, 5, 5, 2), (4, 3, 3, 2), (3, 3),
                             "WeightActs: 5 groups do not divide 4 filters"),
}


@pytest.mark.parametrize("op, first, second, shape, message", list(MALFORMED.values()), ids=list(MALFORMED))
def test_malformed_sizes_are_refused_in_the_same_words(op, first, second, shape, message):
    assert refused_in_the_same_words(op, first, second, shape, message)


@pytest.mark.parametrize("kind", OPS)
def test_no_compilation_for_another_number_of_groups(kind):
    def source(groups):
        a, b, shape = tt.ftensor4(), tt.ftensor4(), tt.lvector()
        outputs = kind(groups=groups).make_node(a, b, shape).outputs
        graph = theano.gof.FunctionGraph([a, b, shape], outputs, clone=False)
        linker = theano.gof.CLinker().accept(graph)
        return theano.gof.cmodule.get_module_hash(linker.get_src_code(), linker.cmodule_key())

    assert source(1) == source(2) == source(64)


# ---------------------------------------------------------------------------------------------------------------------
# Whole graphs.

def weights(random, *shape):
    return theano.shared(whole_numbers(random, shape, 1), name="w%d" % shape[0])


def training(x, parameters, outputs):
    """A whole cost and its gradients."""
    cost = outputs.sum()
    return [cost] + tt.grad(cost, parameters)


def check_graph(inputs, outputs, values):
    """Flagged and stock functions give the same; no convolution or pooling stays. Returns what is converted, sorted."""
    stock, flagged = (theano.function(inputs, outputs, mode=mode(flag)) for flag in (False, True))
    for right, value in zip(stock(*values), flagged(*values)):
        assert abs(right).max() < 2 ** 24 and right.any()
        np.testing.assert_array_equal(value, right)
    ops = [node.op for node in flagged.maker.fgraph.toposort()]
    assert not any(isinstance(op, (BaseAbstractConv, BaseCorrMM, Pool)) for op in ops)
    assert any(isinstance(op, OPS) and op.groups > 1 for op in ops)
    record = layoutopt.explain(flagged).record
    assert any(" groups, pad" in site.sizes for site in record.sites)
    return sorted(conversion.value for conversion in record.conversions)


def test_a_training_graph_with_groups_converts_inputs_and_filter_gradients(rng):
    """Convolution of 2 groups, rectifier, pooling, depthwise convolution."""
    x = tt.ftensor4("x")
    w1, w2 = weights(rng, 6, 2, 3, 3), weights(rng, 12, 1, 2, 2)
    y = conv2d(x, w1, input_shape=(32, 4, 11, 10), filter_shape=(6, 2, 3, 3), num_groups=2)
    y = pool_2d(tt.nnet.relu(y), (2, 2), ignore_border=True)
    y = conv2d(y, w2, filter_shape=(12, 1, 2, 2), border_mode="half", num_groups=6)
    found = check_graph([x], training(x, [w1, w2], y ** 2), [whole_numbers(rng, (32, 4, 11, 10), 1)])
    # The two filters' gradients come out in c01b and are asked for in bc01.
    assert len(found) == 5 and found[-3:] == ["w12", "w6", "x"]


def test_alexnets_two_columns(rng):
    """Layers 1 and 2 of Krizhevsky (2012), scaled down: 11 x 11 at stride 4, overlapping pools, 5 x 5 in two groups."""
    x = tt.ftensor4("x")
    w1, w2, b = weights(rng, 16, 3, 11, 11), weights(rng, 24, 8, 5, 5), theano.shared(whole_numbers(rng, 16), name="b")
    y = conv2d(x, w1, input_shape=(16, 3, 51, 51), filter_shape=(16, 3, 11, 11), subsample=(4, 4))
    y = pool_2d(tt.nnet.relu(y + b.dimshuffle("x", 0, "x", "x")), (3, 3), stride=(2, 2), ignore_border=True)
    y = tt.nnet.relu(conv2d(y, w2, filter_shape=(24, 8, 5, 5), border_mode="half", num_groups=2))
    found = check_graph([x], training(x, [w1, w2, b], y), [whole_numbers(rng, (16, 3, 51, 51), 1)])
    assert len(found) == 5 and found[-3:] == ["w16", "w24", "x"]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_groups_cost_what_they_cost_one_by_one(kind):
    """In either layout, but for a call an op, an image's loop, and what is paid once a group."""
    machine = Machine()
    one = ConvWork(kind, 128, 48, 128, 48 * 25, 27 * 27, 27 * 27)
    two = ConvWork(kind, 128, 96, 256, 48 * 25, 27 * 27, 27 * 27, groups=2)
    assert two.flops == 2 * one.flops
    for seconds in (machine.stock_conv_seconds, machine.c01b_conv_seconds):
        assert seconds(two) == pytest.approx(2 * seconds(one), rel=0.01)
    depthwise = one._replace(channels=128, taps=25, groups=128)
    assert machine.c01b_conv_seconds(depthwise) < machine.c01b_conv_seconds(depthwise._replace(taps=128 * 25, groups=1))
    # and stock's columns are those of all channels, however many groups these are in
    assert machine.stock_conv_seconds(depthwise) > machine.stock_conv_seconds(depthwise._replace(groups=1))


def test_groups_of_sizes_that_nobody_told(rng):
    """Filters and images are inputs of the graph; sizes are read when the function runs, and differ from run to run."""
    x, w = tt.ftensor4("x"), tt.ftensor4("w")
    y = conv2d(x, w, border_mode=1, num_groups=3)
    for channels, filters, batch in ((3, 3, 20), (6, 9, 33)):
        values = whole_numbers(rng, (batch, channels, 6, 6)), whole_numbers(rng, (filters, channels // 3, 3, 3))
        assert len(check_graph([x, w], [y] + tt.grad((y ** 2).sum(), [x, w]), values)) == 5
