"""Bias and activation in the last write of convolution and max-pooling, and sums over channels by vectors: bit by bit what the
separate ops give, and only where nobody needs what is no longer computed.
"""
import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import FunctionGraph
from theano.tensor import Sum
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet import conv2d, relu
from theano.tensor.nnet.bn import batch_normalization_train
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.kernels import FilterActs, MaxPool, MaxPoolGrad, base
from layoutopt.kernels.activation import sigmoid, tanh
from layoutopt.kernels.channel_sum import ChannelSum, channel_sum
from layoutopt.kernels.epilogue import FilterActsBias, MaxPoolBias
from layoutopt.kernels.reference import channel_sum as channel_sum_reference
from layoutopt.kernels.reference import epilogue as reference
from layoutopt.rewrites.fusion import fuse
from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from tolerance import gamma, normal, whole_numbers

PLAIN = theano.compile.mode.Mode(linker="cvm", optimizer=None)
VECTORISED = {"tanh": tanh, "sigmoid": sigmoid}


def compiled(key, make):
    """The compiled function of ``make() = inputs, outputs``, made once for each `key`."""
    if key not in compiled.known:
        compiled.known[key] = theano.function(*make(), mode=PLAIN)
    return compiled.known[key]


compiled.known = {}


def activate(name, x):
    """The activation as a separate op computes it: tanh and sigmoid by the kernels, the others as numpy does."""
    if name not in VECTORISED:
        return reference.ACTIVATIONS[name](x)
    variable = T.ftensor4()
    return compiled(name, lambda: ([variable], VECTORISED[name](variable)))(x)


def convolved(conv, images, filters):
    x, w = T.ftensor4(), T.ftensor4()
    return compiled(conv, lambda: ([x, w], conv(x, w)))(images, filters)


def fused_convolution(conv, activation, keep, images, filters, bias):
    x, w, b = T.ftensor4(), T.ftensor4(), T.fvector()
    op = FilterActsBias(conv, activation, keep)
    return compiled(op, lambda: ([x, w, b], op(x, w, b, return_list=True)))(images, filters, bias)


def assert_same_bits(got, expected):
    assert got.dtype == expected.dtype and got.shape == expected.shape and got.flags.c_contiguous
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got[~nan].view("int32"), expected[~nan].view("int32"))


# ---------------------------------------------------------------------------------------------------------------------
# The kernels.

# (images, filters, parameters) of each loop nest of cpu/conv_tile.h and of its edges: whole and part vectors, one image.
NESTS = {
    "images in the lanes": ((5, 9, 8, 64), (5, 3, 3, 13), {}),
    "a part vector of images": ((5, 9, 8, 37), (5, 3, 3, 13), dict(stride=2, pad=1, ceil_mode=False)),
    "neighbours": ((3, 9, 8, 40), (3, 5, 5, 2), dict(pad=2)),
    "several channel blocks": ((256, 4, 5, 32), (256, 3, 3, 7), {}),
    "filters in the lanes": ((16, 7, 6, 1), (16, 5, 3, 70), {}),
    "a part vector of filters": ((4, 7, 6, 3), (4, 4, 4, 35), dict(groups=1, flip=True)),
    "nothing packed": ((12, 7, 6, 21), (1, 3, 3, 12), dict(groups=12, pad=1)),
    "nothing packed, one image": ((12, 7, 6, 1), (1, 3, 3, 12), dict(groups=12)),
    "groups": ((6, 7, 6, 33), (3, 3, 3, 16), dict(groups=2)),
    "Winograd": ((64, 9, 9, 33), (64, 3, 3, 64), dict(pad=1)),
    "Winograd, few images": ((64, 9, 9, 5), (64, 3, 3, 64), dict(pad=1)),
    "Winograd, one image": ((64, 19, 19, 1), (64, 3, 3, 64), dict(pad=1)),
    "no images": ((3, 7, 6, 0), (3, 3, 3, 4), {}),
}


@pytest.mark.parametrize("winograd", ["off", "f2", "f4"])
@pytest.mark.parametrize("nest", sorted(NESTS))
def test_convolution_is_that_of_separate_ops_bit_by_bit(nest, winograd, rng, monkeypatch):
    if winograd != "f2" and "Winograd" not in nest:
        return  # the flag means nothing there
    monkeypatch.setitem(base._settings, "winograd", winograd)
    image_shape, filter_shape, parameters = NESTS[nest]
    conv = FilterActs(**parameters)
    images, filters, bias = normal(rng, *image_shape), normal(rng, *filter_shape), normal(rng, filter_shape[3])
    compiled.known.clear()  # which were told another flag
    before = convolved(conv, images, filters) + bias[:, None, None, None]
    for activation in reference.ACTIVATIONS if nest == "images in the lanes" else ("half_sum", "tanh"):
        for keep in (False, True):
            got = fused_convolution(conv, activation, keep, images, filters, bias)
            assert len(got) == 1 + keep
            for value, expected in zip(got, (activate(activation, before), before)):
                assert_same_bits(value, expected)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_special_values(activation, rng):
    """Of NaN and infinities, which a bias brings, and of zeros."""
    images, filters = whole_numbers(rng, (3, 5, 5, 19)), whole_numbers(rng, (3, 3, 3, 6))
    filters[..., 5] = 0
    bias = np.float32([np.nan, np.inf, -np.inf, 3e38, 1e-45, -0.0])
    before = convolved(FilterActs(), images, filters) + bias[:, None, None, None]
    assert np.isnan(before[0]).all() and (before[5] == 0).all()
    got, = fused_convolution(FilterActs(), activation, False, images, filters, bias)
    assert_same_bits(got, activate(activation, before))


@pytest.mark.parametrize("simd", ["auto", "avx2", "plain"])
def test_pooling_is_that_of_separate_ops_bit_by_bit(simd, rng, monkeypatch):
    monkeypatch.setitem(base._settings, "simd", simd)
    compiled.known.clear()
    x, b = T.ftensor4(), T.fvector()
    for shape, pool in (((3, 7, 6, 37), MaxPool(3, 2)), ((2, 6, 6, 1), MaxPool(2)), ((4, 5, 5, 16), MaxPool(2, 2, (-1, -1)))):
        images, bias = normal(rng, *shape), normal(rng, shape[0])
        images[0, 0, 0] = np.nan
        for activation, keep in (("tanh" if simd == "auto" else "larger", True), ("half_sum", False), ("none", True)):
            op = MaxPoolBias(pool, activation, keep)
            got = compiled(op, lambda: ([x, b], op(x, b, return_list=True)))(images, bias)
            plain = [[None]]
            pool.perform(None, [images], plain)
            maxima = plain[0][0]
            for value, expected in zip(got, (activate(activation, maxima + bias[:, None, None, None]), maxima)):
                assert_same_bits(value, expected)


def test_python_code_computes_the_same(rng):
    images, filters, bias = whole_numbers(rng, (4, 6, 5, 7)), whole_numbers(rng, (4, 3, 3, 5)), whole_numbers(rng, 5)
    storage = [[None], [None]]
    FilterActsBias(FilterActs(), "half_sum", True).perform(None, [images, filters, bias], storage)
    for (value,), expected in zip(storage, fused_convolution(FilterActs(), "half_sum", True, images, filters, bias)):
        np.testing.assert_array_equal(value, expected)
    MaxPoolBias(MaxPool(2), "positive", True).perform(None, [images, bias[:4]], storage)
    np.testing.assert_array_equal(storage[0][0], np.maximum(storage[1][0] + bias[:4, None, None, None], 0))


def test_bad_operands_are_refused(rng):
    x, w, b = T.ftensor4(), T.ftensor4(), T.fvector()
    with pytest.raises(TypeError, match="bias must be a float32 vector"):
        FilterActsBias(FilterActs())(x, w, T.dvector())
    with pytest.raises(ValueError, match="activation must be one of none, half_sum"):
        MaxPoolBias(MaxPool(2), "softmax")
    images, filters = whole_numbers(rng, (3, 5, 5, 4)), whole_numbers(rng, (3, 3, 3, 6))
    with pytest.raises(ValueError, match="FilterActsBias: 5 biases for 6 channels"):
        fused_convolution(FilterActs(), "none", False, images, filters, whole_numbers(rng, 5))
    op = MaxPoolBias(MaxPool(2))
    with pytest.raises(ValueError, match="MaxPoolBias: 2 biases for 3 channels"):
        compiled(op, lambda: ([x, b], op(x, b)))(images, whole_numbers(rng, 2))
    with pytest.raises(ValueError, match="MaxPoolBias: 2 biases for 3 channels"):
        op.perform(None, [images, whole_numbers(rng, 2)], [[None]])


def test_gradients_are_those_of_separate_ops(rng, few_compilations):  # noqa: F811
    x, w, b = T.ftensor4(), T.ftensor4(), T.fvector()
    values = whole_numbers(rng, (2, 5, 5, 3)), whole_numbers(rng, (2, 3, 3, 4)), whole_numbers(rng, 4)
    op = FilterActsBias(FilterActs(), "half_sum", True)
    pool = MaxPoolBias(MaxPool(2), "positive", False)
    for wanted, outputs, unfused in (([x, w, b], op(x, w, b), op.unfused(x, w, b)),
                                     ([x, b], [pool(x, b[:2])], pool.unfused(x, b[:2]))):
        both = [T.grad(T.sum(T.stack([T.sum((i + 2) * y) for i, y in enumerate(ys)])), wanted) for ys in (outputs, unfused)]
        results = theano.function([x, w, b], both[0] + both[1], mode=mode(False), on_unused_input="ignore")(*values)
        for got, expected in zip(results[:len(wanted)], results[len(wanted):]):
            np.testing.assert_array_equal(got, expected)


SHAPES = [(1, 1), (3, 5), (4, 7, 11), (2, 3, 7, 11), (5, 1, 1, 16385), (3, 40, 33, 50), (0, 2, 2), (4, 0, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channel_sums(shape, rng):
    x = T.TensorType("float32", (False,) * len(shape))()
    f = compiled(("sum", len(shape)), lambda: ([x], channel_sum(x)))
    whole = whole_numbers(rng, shape)
    np.testing.assert_array_equal(f(whole), whole.sum(tuple(range(1, len(shape))), dtype="float64").astype("float32"))
    np.testing.assert_array_equal(f(whole[..., ::-1]), f(whole))  # not contiguous
    values, terms = normal(rng, *shape), int(np.prod(shape[1:]))
    magnitude = abs(values).astype("float64").sum(tuple(range(1, len(shape))))
    difference = abs(f(values) - channel_sum_reference.channel_sum(values).astype("float64"))
    assert (difference <= gamma(2 * max(terms, 1), 2.0 ** -53) * magnitude + 2.0 ** -23 * magnitude).all()


def test_channel_sums_of_special_values():
    x = T.fmatrix()
    values = np.zeros((4, 100), "float32")
    values[0, 7], values[1, 99], values[2, [3, 50]], values[3] = np.nan, np.inf, [np.inf, -np.inf], 3e38
    got = compiled(("sum", 2), lambda: ([x], channel_sum(x)))(values)
    assert np.isnan(got[[0, 2]]).all() and got[1] == np.inf and got[3] == np.inf  # the last: float32 ends at 3.4e38
    with pytest.raises(TypeError, match="two axes or more"):
        channel_sum(T.fvector())
    with pytest.raises(TypeError, match="float32"):
        channel_sum(T.dmatrix())


# ---------------------------------------------------------------------------------------------------------------------
# The rewrite, of graphs in c01b.


def biased(x, b):
    return x + b.dimshuffle(0, "x", "x", "x")


def graph(make):
    """The graph of ``make(convolution or images x, b, y)``, and what `fuse` made of it: nodes by class of op."""
    x, w, b, y = T.ftensor4("x"), T.ftensor4("w"), T.fvector("b"), T.ftensor4("y")
    outputs = make(FilterActs()(x, w), b, y)
    fgraph = FunctionGraph([x, w, b, y], outputs if isinstance(outputs, list) else [outputs], clone=True)
    return fgraph


def ops(fgraph, op_class):
    return [node.op for node in fgraph.toposort() if type(node.op) is op_class]


# What is written, and (activation, keep) of the convolution's epilogue and the number of elementwise ops that are left.
FORMS = {
    "relu": (lambda c, b, y: relu(biased(c, b)), ("half_sum", False), 0),
    "relu, bias first": (lambda c, b, y: relu(b.dimshuffle(0, "x", "x", "x") + c), ("half_sum", False), 0),
    "switch": (lambda c, b, y: (lambda z: T.switch(z > 0, z, 0))(biased(c, b)), ("positive", False), 0),
    "maximum": (lambda c, b, y: T.maximum(biased(c, b), 0), ("larger", False), 0),
    "tanh": (lambda c, b, y: tanh(biased(c, b)), ("tanh", False), 0),
    "sigmoid": (lambda c, b, y: sigmoid(biased(c, b)), ("sigmoid", False), 0),
    "bias alone": (lambda c, b, y: biased(c, b), ("none", False), 0),
    "sums read by others": (lambda c, b, y: (lambda z: [relu(z), T.sgn(z) * y])(biased(c, b)), ("half_sum", True), 2),
    "sums an output": (lambda c, b, y: (lambda z: [tanh(z), z])(biased(c, b)), ("tanh", True), 0),
    "two activations": (lambda c, b, y: (lambda z: [tanh(z), sigmoid(z)])(biased(c, b)), ("tanh", True), 0),
    "relu read by one elementwise op": (lambda c, b, y: (lambda z: [relu(z) * y, T.sgn(z)])(biased(c, b)), ("none", False), 5),
    "leaky relu": (lambda c, b, y: (lambda z: 0.75 * z + 0.25 * abs(z))(biased(c, b)), ("none", False), 4),
    "another slope": (lambda c, b, y: (lambda z: 0.25 * (z + abs(z)))(biased(c, b)), ("none", False), 3),
    "another threshold": (lambda c, b, y: T.maximum(biased(c, b), 1), ("none", False), 1),
}
LEFT_ALONE = {
    "no bias": lambda c, b, y: relu(c),
    "bias of rows": lambda c, b, y: relu(c + b.dimshuffle("x", 0, "x", "x")),
    "one bias for all": lambda c, b, y: relu(c + b[0].dimshuffle("x", "x", "x", "x")),
    "another image": lambda c, b, y: relu(c + y),
    "three terms": lambda c, b, y: T.nnet.relu(T.add(c, b.dimshuffle(0, "x", "x", "x"), y)),
    "convolution read by others": lambda c, b, y: [relu(biased(c, b)), c],
}


def evaluated(fgraph, values):
    f = theano.function(fgraph.inputs, fgraph.outputs, mode=mode(False), on_unused_input="ignore", accept_inplace=True)
    return f(*values)


def assert_same_values(before, after, rng):
    values = (whole_numbers(rng, (4, 6, 6, 3)), whole_numbers(rng, (4, 3, 3, 4)), whole_numbers(rng, 4),
              whole_numbers(rng, (4, 4, 4, 3)))
    for expected, got in zip(evaluated(before, values), evaluated(after, values)):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_is_fused(form, rng, few_compilations):  # noqa: F811
    make, epilogue, left = FORMS[form]
    before, after = graph(make), graph(make)
    fused = fuse(after)
    op, = ops(after, FilterActsBias)
    assert (op.activation, op.keep) == epilogue
    assert not ops(after, FilterActs) and len(ops(after, Elemwise)) == left
    assert list(fused.words.values())[0].startswith("fused with bias")
    assert_same_values(before, after, rng)
    assert not fuse(after).words  # there is nothing left to fuse


@pytest.mark.parametrize("form", sorted(LEFT_ALONE))
def test_what_is_left_alone(form):
    after = graph(LEFT_ALONE[form])
    nodes = after.toposort()
    assert not fuse(after).words
    assert after.toposort() == nodes


def test_pooling_keeps_its_maxima_where_they_are_read(rng, few_compilations):  # noqa: F811
    pool = MaxPool(2)

    def forward(c, b, y):
        return tanh(biased(pool(c), b))

    def training(c, b, y):
        z = pool(c)
        return [tanh(biased(z, b)), MaxPoolGrad(2)(c, z, z)]

    for make, keep in ((forward, False), (training, True)):
        before, after = graph(make), graph(make)
        fuse(after)
        op, = ops(after, MaxPoolBias)
        assert (op.activation, op.keep) == ("tanh", keep)
        assert not ops(after, MaxPool) and not ops(after, Elemwise)
        assert_same_values(before, after, rng)
    needs_sums = graph(lambda c, b, y: (lambda z: [relu(z), T.sgn(z)])(biased(pool(c), b)))
    assert not fuse(needs_sums).words


# ---------------------------------------------------------------------------------------------------------------------
# Whole training steps.


def network(rng):
    """Inputs, outputs, updates and values of a training step: two layers, pooling, batch normalisation."""
    w1, w2, b1, b2, scale, shift = [theano.shared(whole_numbers(rng, shape, 1)) for shape in (
        (8, 3, 3, 3), (8, 8, 3, 3), (8,), (8,), (1, 8, 1, 1), (1, 8, 1, 1))]
    x = T.ftensor4("x")
    y = pool_2d(relu(conv2d(x, w1, (32, 3, 12, 12), (8, 3, 3, 3)) + b1.dimshuffle("x", 0, "x", "x")), (2, 2), ignore_border=True)
    y = relu(conv2d(y, w2) + b2.dimshuffle("x", 0, "x", "x"))
    flags = T.addbroadcast(scale, 0, 2, 3), T.addbroadcast(shift, 0, 2, 3)
    y = batch_normalization_train(y, *flags, axes="spatial")[0]
    parameters = [w1, w2, b1, b2]
    updates = [(p, p - np.float32(0.5) * g) for p, g in zip(parameters, T.grad((y ** 2).sum(), parameters))]
    return [x], y.sum(), updates, whole_numbers(rng, (32, 3, 12, 12))


def test_a_training_step(rng, few_compilations):  # noqa: F811
    inputs, loss, updates, images = network(rng)
    step = theano.function(inputs, loss, updates=updates, mode=mode(True))
    nodes = step.maker.fgraph.toposort()
    assert [(node.op.activation, node.op.keep) for node in nodes if isinstance(node.op, FilterActsBias)] == [("half_sum", True)] * 2
    assert sum(isinstance(node.op, ChannelSum) for node in nodes) == 2  # two biases
    assert not [node for node in nodes if type(node.op) is Sum and node.inputs[0].ndim == 4 and node.op.axis == (1, 2, 3)]
    assert not [node for node in nodes if isinstance(node.op, Elemwise) and type(node.op.scalar_op) is theano.scalar.Pow
                and node.outputs[0].broadcastable == (False,) * 4]
    text = str(layoutopt.explain(step))
    assert text.count("fused with bias and relu") == 2 and text.count("FilterActsBias") >= 2
    # No whole numbers, which verify would leave as they are: behind a normalisation their sums are not exact.
    layoutopt.verify(step, normal(rng, *images.shape))


def test_without_the_flag_nothing_changes(rng, few_compilations):  # noqa: F811
    inputs, loss, updates, _ = network(rng)
    nodes = theano.function(inputs, loss, updates=updates, mode=mode(False)).maker.fgraph.toposort()
    assert not [node for node in nodes if isinstance(node.op, (ChannelSum, FilterActsBias, MaxPoolBias))]


def test_a_wrong_epilogue_is_found_and_named(rng, few_compilations, monkeypatch):  # noqa: F811
    inputs, loss, updates, images = network(rng)
    monkeypatch.setattr(FilterActsBias, "activating", property(lambda self: 0))
    step = theano.function(inputs, loss, updates=updates, mode=mode(True))
    with pytest.raises(layoutopt.LayoutMismatch, match="FilterActsBias in c01b"):
        layoutopt.verify(step, images)
