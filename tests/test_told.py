"""Sizes that the old ConvOp was told: with the flag as without it, other sizes are refused, whatever stands in its place.

ConvOp runs in Python here, as it is compiled for each of its sizes; told all of them it checks what its C code checks. Small
whole numbers: results are equal to the last bit.
"""
import warnings

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.configparser import change_flags
from theano.gof.vm import VM_Linker
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.abstract_conv import AbstractConv2d, AbstractConv2d_gradInputs
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.nnet.corr import CorrMM_gradInputs
from theano.tensor.signal.pool import pool_2d

import layoutopt
from layoutopt.kernels import FilterActs, ImageActs, WeightActs
from layoutopt.rewrites.constraints import IMAGE_GRADIENT
from layoutopt.rewrites.cost import Machine
from layoutopt.rewrites.told import ToldSizes

from cheap_mode import hardly_any_compilation, mode  # noqa: F401  (a fixture)
from test_rewrite import op_count, whole

pytestmark = pytest.mark.usefixtures("hardly_any_compilation")


@pytest.fixture
def all_in_c01b(monkeypatch):
    """Whatever qualifies, small as it is."""
    monkeypatch.setattr(Machine, "stock_conv_seconds", lambda self, work: 1.0)


SIZES = dict(batch=16, channels=4, rows=9, columns=8, filters=5, height=3, width=2)
X, W, G = (T.TensorType("float32", (False,) * 4)(name) for name in "xwg")


def shapes_of(border_mode, stride=1, **changed):
    """{operand: shape} of images, filters and outputs, some sizes changed."""
    s = dict(SIZES, **changed)
    more = {"valid": 1, "full": -1}[border_mode]
    grid = [(size - more * (side - 1) - 1) // stride + 1
            for size, side in ((s["rows"], s["height"]), (s["columns"], s["width"]))]
    return {X: (s["batch"], s["channels"], s["rows"], s["columns"]),
            W: (s["filters"], s["channels"], s["height"], s["width"]), G: (s["batch"], s["filters"], *grid)}


def old_conv2d(x, w, images, filters, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old
        return theano.tensor.nnet.conv.conv2d(x, w, images, filters, **kwargs)


def told_conv2d(**kwargs):
    """A ConvOp of X and W that was told all sizes."""
    shapes = shapes_of(kwargs.get("border_mode", "valid"))
    return old_conv2d(X, W, shapes[X], shapes[W], **kwargs)


def padded_by_hand():
    """With a frame of zeros, which become a pad: the sizes told are those with the frame."""
    zeros = T.zeros((X.shape[0], X.shape[1], X.shape[2] + 2, X.shape[3] + 2), "float32")
    images, filters = shapes_of("valid", rows=11, columns=10)[X], shapes_of("valid")[W]
    return old_conv2d(T.set_subtensor(zeros[:, :, 1:X.shape[2] + 1, 1:X.shape[3] + 1], X), W, images, filters)


# (the convolution, its border mode and stride as far as they say how large outputs are, and rows and columns)
PROGRAMS = {
    "valid": (told_conv2d, "valid", 1, 0),
    "full": (lambda: told_conv2d(border_mode="full"), "full", 1, 0),
    "full, strided": (lambda: told_conv2d(border_mode="full", subsample=(2, 2)), "full", 2, 0),
    "padded by hand": (padded_by_hand, "valid", 1, 2),
}
# Of a convolution y; a gradient alone reads two of images, filters and outputs.
RESULTS = {
    "outputs": lambda y: y,
    "gradient of images": lambda y: T.grad(None, X, known_grads={y: G}),
    "gradient of filters": lambda y: T.grad(None, W, known_grads={y: G}),
}


def outcome(function, values):
    try:
        return function(*values)
    except Exception as error:
        return type(error)


def same(a, b):
    return a is b if isinstance(a, type) or isinstance(b, type) else a.shape == b.shape and np.array_equal(a, b)


def changes(border_mode, stride, frame):
    """Shapes of images, filters and outputs: as told, with each size changed wherever it matters, with each axis of each changed.

    `frame` is how many rows and columns of zeros are put around the images.
    """
    def shapes(**changed):
        s = dict(SIZES, **changed)
        framed = shapes_of(border_mode, stride, **dict(s, rows=s["rows"] + frame, columns=s["columns"] + frame))
        return [shapes_of(border_mode, **s)[X], framed[W], framed[G]]

    yield shapes()
    for name, size in SIZES.items():
        yield from (shapes(**{name: other}) for other in (size + 1, size - 1))
    for changed in np.eye(12, dtype=int).reshape(12, 3, 4):
        yield [tuple(shape + more) for shape, more in zip(np.array(shapes()), changed)]


def check(result, shapes):
    """Compare what a graph makes of operands of these shapes with what it makes of them without the flag; the function."""
    stock, flagged = (theano.function([X, W, G], result, mode=mode(flag), on_unused_input="ignore") for flag in (False, True))
    outcomes = []
    for many in shapes:
        values = [whole(*shape, seed=i, most=2) for i, shape in enumerate(many)]
        expected, actual = outcome(stock, values), outcome(flagged, values)
        assert same(expected, actual), (many, expected, actual)
        outcomes.append(expected)
    assert any(x is ValueError for x in outcomes) and not isinstance(outcomes[0], type)
    return flagged


@pytest.mark.usefixtures("all_in_c01b")
@pytest.mark.parametrize("of", RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize("conv, border_mode, stride, frame", PROGRAMS.values(), ids=PROGRAMS)
def test_other_sizes_are_refused(conv, border_mode, stride, frame, of):
    f = check(of(conv()), changes(border_mode, stride, frame))
    assert op_count(f, FilterActs, ImageActs, WeightActs) == op_count(f, ToldSizes) == 1
    assert op_count(f, ConvOp, AbstractConv2d) == 0


@pytest.mark.parametrize("images, filters, changed", [
    ((None, None, 9, None), None, dict(rows=10)),
    ((None, None, 9, None), None, dict(columns=9)),
    (None, (5, None, None, None), dict(filters=6)),
    (None, (5, None, None, 2), dict(batch=3, channels=2, height=2)),
])
def test_what_was_not_told_may_be_anything(images, filters, changed, monkeypatch):
    """Of sizes that were told in part, ConvOp's Python code checks fewer than its C code, which is what counts."""
    monkeypatch.setattr(ConvOp, "make_thunk", FilterActs.make_thunk)
    told = shapes_of("valid")
    f = check_some(old_conv2d(X, W, images, filters), [told, shapes_of("valid", **changed)])
    assert op_count(f, ToldSizes) == 1


def check_some(result, many):
    stock, flagged = (theano.function([X, W], result, mode=mode(flag)) for flag in (False, True))
    for shapes in many:
        values = [whole(*shapes[x], seed=1) for x in (X, W)]
        assert same(outcome(stock, values), outcome(flagged, values)), shapes
    return flagged


@pytest.mark.usefixtures("all_in_c01b")
def test_outputs_of_one_pixel():
    """ConvOp, told so, makes them broadcastable, which FilterActs does not: its node is found, and named in the report."""
    told = shapes_of("valid", rows=3, columns=2)
    shapes = [shapes_of("valid", rows=rows, columns=2) for rows in (3, 4)]
    f = check(old_conv2d(X, W, told[X], told[W]), [[s[X], s[W], s[G]] for s in shapes])
    assert op_count(f, FilterActs) == op_count(f, ToldSizes) == 1
    assert [site.op for site in layoutopt.explain(f).record.sites] == ["FilterActs"]


def test_nobody_was_told_nothing_is_looked_at():
    f = theano.function([X, W], old_conv2d(X, W, None, None), mode=mode(True))
    assert op_count(f, FilterActs) == 1 and op_count(f, ToldSizes) == 0


def test_a_gradient_that_stays_in_bc01(monkeypatch):
    """It is no ConvOp any more, but one of Theano's ops that checks nothing."""
    seconds = Machine.stock_conv_seconds
    monkeypatch.setattr(Machine, "stock_conv_seconds",
                        lambda self, work: 0.0 if work.kind == IMAGE_GRADIENT else 100 * seconds(self, work))
    y = told_conv2d()
    result = [y, T.grad(None, X, known_grads={y: G})]
    stock, flagged = (theano.function([X, W, G], result, mode=mode(flag)) for flag in (False, True))
    assert op_count(flagged, FilterActs) == op_count(flagged, CorrMM_gradInputs) == 1
    assert op_count(flagged, ConvOp, ImageActs, AbstractConv2d_gradInputs) == 0
    told = shapes_of("valid")
    for batch in (16, 15):
        values = [whole(*told[X]), whole(*told[W]), whole(batch, *told[G][1:])]
        expected, actual = outcome(stock, values), outcome(flagged, values)
        assert expected is actual is ValueError if batch == 15 else all(map(same, expected, actual))


def test_what_an_abstract_convolution_was_told_proves_nothing():
    """Theano takes the first convolution's outputs to have the sizes that it was told, and nobody checks."""
    w = theano.shared(whole(4, 3, 1, 1))
    h = conv2d(X, w, input_shape=(16, 3, 9, 8), filter_shape=(4, 3, 1, 1))
    shapes = shapes_of("valid")
    y = old_conv2d(h, W, shapes[X], shapes[W])
    check(y, [((batch, 3, 9, columns), shapes[W], shapes[G]) for batch in (16, 15) for columns in (8, 7)])


@pytest.mark.usefixtures("all_in_c01b")
def test_asserted_shapes():
    """With conv.assert_shape Theano has AbstractConv2d check what it was told by an Assert, but ConvOp as ever."""
    shapes = shapes_of("valid")
    with change_flags(**{"conv.assert_shape": True}):
        y = conv2d(X, W, input_shape=shapes[X], filter_shape=shapes[W])
        stock, flagged = (theano.function([X, W], y, mode=mode(flag)) for flag in (False, True))
        assert op_count(flagged, FilterActs) == 1
        for batch in (16, 15):
            values = [whole(batch, *shapes[X][1:]), whole(*shapes[W])]
            assert same(outcome(stock, values), outcome(flagged, values))
        assert outcome(flagged, values) is AssertionError
        for conv, border_mode, stride, frame in PROGRAMS.values():
            for of in RESULTS.values():
                check(of(conv()), changes(border_mode, stride, frame))


def lenet(told):
    """Two layers of convolution, pooling and tanh, and a dense one: a training step, and its arguments."""
    sizes = [((16, 1, 16, 16), (6, 1, 3, 3)), ((16, 6, 7, 7), (5, 6, 3, 3))]
    params = [theano.shared(whole(*filters, seed=i, most=1)) for i, (_, filters) in enumerate(sizes)]
    params.append(theano.shared(whole(5 * 2 * 2, 3, seed=5, most=1)))
    h = X.reshape(sizes[0][0])
    for w, (images, filters) in zip(params, sizes):
        h = T.tanh(pool_2d(old_conv2d(h, w, *((images, filters) if told else (None, None))), (2, 2), ignore_border=True))
    cost = T.sqr(T.dot(h.flatten(2), params[2])).mean()
    updates = [(p, p - np.float32(0.1) * g) for p, g in zip(params, T.grad(cost, params))]
    return theano.function([X], cost, updates=updates, mode=mode(True)), params


def test_looking_at_sizes_costs_no_conversion():
    steps, params = zip(*(lenet(told) for told in (True, False)))
    records = [layoutopt.explain(step).record for step in steps]
    converted = [sorted((c.to, c.bytes, c.needed_by) for c in record.conversions) for record in records]
    assert converted[0] == converted[1] and [op_count(step, ToldSizes) for step in steps] == [5, 0]
    for op in (FilterActs, ImageActs, WeightActs):
        assert op_count(steps[0], op) == op_count(steps[1], op)
    losses = [[step(whole(16, 1, 16, 16, seed=3)) for _ in range(3)] for step in steps]
    assert losses[0] == losses[1]
    layouts = [[p.get_value(borrow=True, return_internal_type=True).flags.c_contiguous for p in some] for some in params]
    assert layouts[0] == layouts[1] == [False, False, True]  # filters are stored in c01b


def test_the_check_as_c_code_and_in_python():
    value, other, sizes = T.ftensor4(), T.ftensor4(), T.lvector()
    expected = T.constant(np.array([2, 3, -1, 5, -1, 7, 8, 9], "int64"))
    out = ToldSizes()(value, other, expected)
    assert theano.function([value, other], out.shape, mode="FAST_RUN")(*2 * [np.ones((1, 2, 3, 4), "f")]).tolist() == [1, 2, 3, 4]
    for linker in ("py", "c"):
        f = theano.function([value, other], out + 0, mode=theano.Mode(linker, None))
        for size in (4, 0):
            v, o = np.ones((2, 3, size, 5), "f"), np.ones((size, 7, 8, 9), "f")
            np.testing.assert_array_equal(f(v, o), v)
            with pytest.raises(ValueError, match="a convolution was told of a size of 5 and got 6"):
                f(np.ones((2, 3, size, 6), "f"), o)
            with pytest.raises(ValueError, match="a convolution was told of a size of 7 and got 0"):
                f(v, o[:, :0])
        f = theano.function([value, other, sizes], ToldSizes()(value, other, sizes), mode=theano.Mode(linker, None))
        with pytest.raises(ValueError, match="ToldSizes: 3 sizes for 8 axes"):
            f(v, o, [2, 3, 0])
    with pytest.raises(TypeError, match="sizes must be an int64 vector"):
        ToldSizes()(value, other, other)
    with pytest.raises(ValueError, match="got 6"):
        theano.function([value, other], out, mode=theano.Mode(VM_Linker(use_cloop=True), None))(np.ones((2, 3, 1, 6), "f"), o)
