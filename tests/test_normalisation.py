"""Local response normalisation as people write it becomes one op, and its gradient another: when, when not, with which numbers.

What is recognised is seen in the graph as the optimizer meets it, which needs no compilation.
"""
import json

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import Optimizer
from theano.tensor.elemwise import Elemwise
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d
from theano.tensor.subtensor import IncSubtensor, Subtensor

from layoutopt.explain import Report
from layoutopt.facts import SCHEMA, from_dict
from layoutopt.kernels.cross_map_norm import CrossMapNorm, CrossMapNormUndo, CrossMapSum
from layoutopt.kernels.reference.cross_map_norm import cross_map_norm, cross_map_norm_undo, denominators, window_sum
from layoutopt.rewrites.edits import Edits
from layoutopt.rewrites.normalisation import name_normalisations
from layoutopt.rewrites.record import RecognisedRecord, Record
from layoutopt.rewrites.shapes import Shapes

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from json_schema import breaches
from normalisations import AXES, DIVISIONS, FORMS, term_by_term
from test_padding import early
from test_rewrite import whole
from tolerance import gamma

N, K, ALPHA, BETA = 5, 2.0, 0.02, 0.75
X, W = (T.TensorType("float32", (False,) * 4)(name) for name in "xw")
SHAPE = (3, 7, 4, 5)
WRITTEN_OUT = (IncSubtensor, Subtensor, T.Alloc, T.Join, T.Split)


class Naming(Optimizer):
    """The stage alone. `edits` are those of the last graph."""

    def apply(self, fgraph):
        self.edits = Edits(fgraph)
        name_normalisations(self.edits, Shapes(fgraph))


def named(*outputs):
    """A graph after the stage, and the edits."""
    fgraph, stage = early(*outputs), Naming()
    stage.optimize(fgraph)
    return fgraph, stage.edits


def ops(fgraph, *classes):
    return [node.op for node in fgraph.apply_nodes if isinstance(node.op, classes)]


def is_left(fgraph):
    """What is left of the normalisation as it was written."""
    images = [node.op for node in fgraph.apply_nodes if node.outputs[0].ndim == 4]
    return [op for op in images if isinstance(op, WRITTEN_OUT)
            or isinstance(op, Elemwise) and type(op.scalar_op).__name__ in ("Pow", "Sqrt", "Inv", "Log")]


def normalised(x=X, form=term_by_term, n=N, k=K, alpha=ALPHA, beta=BETA, **kwargs):
    return form(x, n, k, alpha, beta, **kwargs)


def with_gradient(y, x=X):
    return [y, T.grad((y * W).sum(), x)]


def assert_parameters(op, n=N, k=K, alpha=ALPHA, beta=BETA, axis=1):
    assert (op.size, op.axis, op.blocked) == (n, axis, False)
    np.testing.assert_allclose([op.min_div, op.add_scale, op.pow_scale], [k, alpha, beta], rtol=4 * 2.0 ** -24)


# ---------------------------------------------------------------------------------------------------------------------
# What is recognised.


@pytest.mark.parametrize("form", FORMS)
def test_every_form_forward_and_backward(form):
    fgraph, edits = named(*with_gradient(normalised(form=form)))
    for op_class in (CrossMapNorm, CrossMapNormUndo):
        op, = ops(fgraph, op_class)
        assert_parameters(op, axis=AXES.get(form, 1))
        assert any(type(node.op) is op_class and "normalisation across 5 channels" in note for node, note in edits.notes.items())
    assert is_left(fgraph) == []


@pytest.mark.parametrize("form", [FORMS[0], FORMS[4]])
def test_undoing_leaves_the_graph_as_it_was(form):
    fgraph, edits = named(*with_gradient(normalised(form=form)))
    edits.undo()
    assert edits.notes == {} and ops(fgraph, CrossMapNorm, CrossMapNormUndo) == []
    assert len(fgraph.apply_nodes) == len(early(*with_gradient(normalised(form=form))).apply_nodes)


@pytest.mark.parametrize("divide, beta", DIVISIONS.values(), ids=DIVISIONS)
def test_every_way_to_divide(divide, beta):
    fgraph, _ = named(*with_gradient(normalised(divide=divide)))
    for op_class in (CrossMapNorm, CrossMapNormUndo):
        op, = ops(fgraph, op_class)
        assert_parameters(op, beta=beta)
    assert is_left(fgraph) == []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 9])
def test_windows(n):
    """Even ones, too, whose gradient has the other half. A window of one channel needs no zeros, and is left as it is."""
    fgraph, _ = named(*with_gradient(normalised(n=n)))
    found = ops(fgraph, CrossMapNorm, CrossMapNormUndo)
    assert len(found) == (2 if n > 1 else 0)
    for op in found:
        assert_parameters(op, n=n)
    assert is_left(fgraph) == [] or n == 1


def test_sizes_that_are_numbers():
    fgraph, _ = named(*with_gradient(normalised(X.reshape(SHAPE))))
    assert len(ops(fgraph, CrossMapNorm, CrossMapNormUndo)) == 2 and is_left(fgraph) == []


M = T.TensorType("float32", (False,) * 4)("m")
# What is done with the normalised images decides what Theano makes of the gradient.
COSTS = {
    "a sum": lambda y: y.sum(),
    "a mean": lambda y: (y * W).mean(),
    "squares": lambda y: (y * y).sum(),
    "cubes": lambda y: (W * y ** 3).sum(),
    "a rectifier": lambda y: (T.nnet.relu(y) * W).sum(),
    "tanh": lambda y: (T.tanh(y) * W).sum(),
    "a mask": lambda y: (y * M / np.float32(0.5) * W).sum(),
    "a quotient": lambda y: (M / y * W).sum(),
    "pooling": lambda y: (pool_2d(y, (2, 2), ignore_border=True) ** 2).sum(),
    "a channel's factor": lambda y: (T.tanh(y * T.arange(7, dtype="float32").dimshuffle("x", 0, "x", "x")) * W).sum(),
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_the_gradient_of_any_cost(cost):
    fgraph, _ = named(T.grad(cost(normalised()), X))
    op, = ops(fgraph, CrossMapNormUndo)
    assert_parameters(op)
    assert len(ops(fgraph, CrossMapNorm)) <= 1
    assert not [op for op in is_left(fgraph) if isinstance(op, WRITTEN_OUT)]


# What is normalised, of X: (images, how many gradients are computed).
IMAGES = {
    "a rectifier": (T.nnet.relu, 1),
    "a rectified sum": (lambda x: T.nnet.relu(x + M), 1),
    "a product": (lambda x: x * M, 1),
    "a scaled value": (lambda x: np.float32(3) * x, 1),
    "a quotient": (lambda x: x / M, 1),
    "exchanged axes": (lambda x: x.dimshuffle(1, 0, 2, 3), 1),
    "normalised images": (lambda x: normalised(x, FORMS[2]), 2),
    "a convolution": (lambda x: conv2d(x, T.constant(whole(7, 7, 3, 3)), border_mode="half"), 1),
}


@pytest.mark.parametrize("images, count", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]])
def test_whatever_is_normalised(form, images, count):
    y = normalised(images(X), form)
    fgraph, _ = named(y, T.grad((T.tanh(y) * W).sum(), X))
    assert len(ops(fgraph, CrossMapNorm)) == len(ops(fgraph, CrossMapNormUndo)) == count
    assert is_left(fgraph) == []


def test_images_that_are_used_elsewhere():
    y = normalised()
    fgraph, _ = named(T.grad((T.tanh(y + X) * W + X * M).sum(), X))
    assert len(ops(fgraph, CrossMapNorm)) == len(ops(fgraph, CrossMapNormUndo)) == 1 and is_left(fgraph) == []


# ---------------------------------------------------------------------------------------------------------------------
# What is not.


def sliced(x, offsets=range(N), alphas=None, half=N // 2, front=None, fill=0.0, k=K, square=T.sqr, channels=None):
    """What `term_by_term` divides by, and ways to miss it."""
    front = half if front is None else front
    channels = x.shape[1] if channels is None else channels
    base = T.alloc(np.float32(fill), x.shape[0], x.shape[1] + 2 * half, x.shape[2], x.shape[3])
    squares, scale = T.set_subtensor(base[:, front:front + x.shape[1]], square(x)), k
    for i, alpha in zip(offsets, alphas or [ALPHA] * len(offsets)):
        scale += alpha * squares[:, i:i + channels]
    return scale


SCALAR = T.fscalar("s")
NEAR_MISSES = {
    "an offset is missing": lambda x: x / sliced(x, [0, 1, 3, 4]) ** BETA,
    "the first is missing": lambda x: x / sliced(x, [1, 2, 3, 4]) ** BETA,
    "an offset is repeated": lambda x: x / sliced(x, [0, 1, 2, 3, 3]) ** BETA,
    "one too many": lambda x: x / sliced(x, [0, 1, 2, 3, 4, 4]) ** BETA,
    "unequal scales": lambda x: x / sliced(x, alphas=[ALPHA, ALPHA, 1.0001 * ALPHA, ALPHA, ALPHA]) ** BETA,
    "a scale of other sign": lambda x: x / sliced(x, alphas=[ALPHA] * 4 + [-ALPHA]) ** BETA,
    "negative scales": lambda x: x / sliced(x, alphas=[-ALPHA] * N) ** BETA,
    "filled with ones": lambda x: x / sliced(x, fill=1.0) ** BETA,
    "set further on": lambda x: x / sliced(x, half=3, front=4) ** BETA,
    "set at the front": lambda x: x / sliced(x, front=0) ** BETA,
    "no number added": lambda x: x / sliced(x, k=np.float32(0)) ** BETA,
    "a negative number added": lambda x: x / sliced(x, k=-2.0) ** BETA,
    "images added": lambda x: x / sliced(x, k=T.exp(x)) ** BETA,
    "a number that is not known": lambda x: x / sliced(x, k=SCALAR) ** BETA,
    "a scale that is not known": lambda x: x / sliced(x, alphas=[SCALAR] * N) ** BETA,
    "an exponent that is not known": lambda x: x / sliced(x) ** SCALAR,
    "an exponent per channel": lambda x: x / sliced(x) ** T.arange(7, dtype="float32").dimshuffle("x", 0, "x", "x"),
    "multiplied": lambda x: x * sliced(x) ** 1.3,
    "other images divided": lambda x: W / sliced(x) ** BETA,
    "squares of other images": lambda x: x / sliced(W) ** BETA,
    "cubes": lambda x: x / sliced(x, square=lambda v: abs(v) ** 3) ** BETA,
    "magnitudes": lambda x: x / sliced(x, square=abs) ** BETA,
    "not divided": lambda x: sliced(x),
    "only the sum divided": lambda x: 1 / sliced(x) ** BETA,
    "zeros in rows": lambda x: x / (K + sum(ALPHA * shifted_in_rows(x)[:, :, i:i + x.shape[2]] for i in (0, 1))) ** BETA,
    "as many channels as other images have": lambda x: x / sliced(x, channels=W.shape[1]) ** BETA,
}


def shifted_in_rows(x):
    """With no zeros behind."""
    zeros = T.zeros((x.shape[0], x.shape[1], x.shape[2] + 1, x.shape[3]), dtype="float32")
    return T.set_subtensor(zeros[:, :, :-1], T.sqr(x))


@pytest.mark.parametrize("make", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_misses(make):
    y = make(X)
    fgraph, edits = named(y, T.grad((T.tanh(y) * M).sum(), X))
    assert edits.notes == {} and ops(fgraph, CrossMapNorm, CrossMapNormUndo, CrossMapSum) == []


def test_other_dtypes_stay():
    x = T.dtensor4()
    fgraph, edits = named(*with_gradient(x / sliced(x) ** BETA, x))
    assert edits.notes == {}


def test_costs_of_other_dtypes_stay():
    """A gradient in float64 from normalised float32 images."""
    doubles = T.dtensor4()
    y = normalised() * doubles
    for outputs in ([T.grad(y.sum(), X)], [y, T.grad(y.sum(), X)]):
        fgraph, edits = named(*outputs)
        assert [out.dtype for out in fgraph.outputs] == [out.dtype for out in outputs]
        assert len(ops(fgraph, CrossMapNormUndo)) <= 1


@pytest.mark.parametrize("number", [1e-38, 1e30])
def test_numbers_at_the_ends_of_float32(number):
    """Numbers with which no product overflows, and such that it would."""
    named(*with_gradient(normalised(alpha=np.float32(number))))
    named(*with_gradient(normalised(np.float32(number) * X, k=np.float32(number))))


def test_normalisation_along_another_axis():
    """Rows instead of channels: the same formula, the same op."""
    x = X.dimshuffle(0, 2, 1, 3)
    fgraph, _ = named((x / sliced(x) ** BETA).dimshuffle(0, 2, 1, 3))
    op, = ops(fgraph, CrossMapNorm)
    assert_parameters(op, axis=2)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers.


def exact(x, gy, n=N, axis=1, beta=BETA):
    """(y, gx) in float64, and how far float32 may be from each.

    A sum of n squares, scaled and added to k, has n + 3 roundings, which a power multiplies by its exponent; a power itself is
    taken to have 8, and what remains 8 more.
    """
    scale, windows = float(np.float32(ALPHA)), dict(size=n, blocked=False, axis=axis)
    parameters = dict(windows, add_scale=scale, min_div=K)
    x, gy = x.astype("float64"), gy.astype("float64")
    y, gx = (f(*values, pow_scale=beta, **parameters) for f, values in ((cross_map_norm, [x]), (cross_map_norm_undo, [x, gy])))
    d = denominators(x, **parameters)
    largest = abs(gy) * d ** -beta
    largest += abs(x) * window_sum(2 * scale * beta * largest * abs(x) / d, transposed=True, **windows)
    return (y, gx), (gamma(beta * (n + 3) + 16) * abs(y), gamma((beta + 1) * (n + 3) + n + 24) * largest)


def assert_near(results, wanted, bounds):
    for result, right, bound in zip(results, wanted, bounds):
        assert result.dtype == "float32" and result.shape == right.shape
        excess = abs(result - right) - bound
        assert not (excess > 0).any() and not np.isnan(result).any(), excess.max()


NUMBERS = [dict(form=FORMS[0]), dict(form=FORMS[0], n=4), dict(form=FORMS[1]), dict(form=FORMS[2], n=9), dict(form=FORMS[4], n=3),
           dict(form=FORMS[5], n=7)]


def test_numbers():
    """Also with windows larger than the channels there are, of images with one channel, and where nothing is left to compute."""
    outputs = sum((with_gradient(normalised(**case)) for case in NUMBERS), [])
    stage = Naming()
    stock, flagged = (theano.function([X, W], outputs, mode=chosen)
                      for chosen in (mode(False), mode(False).register((stage, 5.0))))
    nodes = flagged.maker.fgraph.apply_nodes
    assert sum(isinstance(node.op, (CrossMapNorm, CrossMapNormUndo)) for node in nodes) == 2 * len(NUMBERS)
    for shape in (SHAPE, (2, 1, 3, 3), (1, 19, 1, 17), (0, 4, 2, 2)):
        x, gy = (np.random.RandomState(seed).normal(0, 3, shape).astype("float32") for seed in (1, 2))
        for f in (stock, flagged):
            results = f(x, gy)
            for i, case in enumerate(NUMBERS):
                assert_near(results[2 * i:2 * i + 2], *exact(x, gy, case.get("n", N), AXES.get(case["form"], 1)))


def test_what_is_not_finite():
    """Goes where it goes in stock Theano."""
    y = normalised()
    stock, flagged = (theano.function([X, W], with_gradient(y), mode=chosen)
                      for chosen in (mode(False), mode(False).register((Naming(), 5.0))))
    x, gy = (np.random.RandomState(seed).normal(0, 3, SHAPE).astype("float32") for seed in (1, 2))
    x[0, 0, 0, 0], x[1, 3, 2, 2], x[2, 6, 3, 4], gy[0, 5, 1, 1] = np.nan, np.inf, 0, -np.inf
    with np.errstate(invalid="ignore"):
        for a, b in zip(stock(x, gy), flagged(x, gy)):
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))


def leftovers():
    """Graphs of which a part does not match, or is used twice."""
    one_channel = T.addbroadcast(X[:, :1], 1)
    d, y = sliced(X), normalised()
    constant = T.grad((X / d ** BETA * W).sum(), X, consider_constant=[d])
    first = T.grad((normalised() * W).sum(), X)
    return {
        "one channel, known": [normalised(one_channel), T.grad((normalised(one_channel) * W[:, :1]).sum(), X)],
        "the denominators are an output": [d] + with_gradient(X / d ** BETA),
        "denominators without a gradient": [X / d ** BETA, constant],
        "the second derivative": [T.grad((first * M).sum(), X)],
        "batch of one": [normalised(T.addbroadcast(X[:1], 0)), T.grad((normalised(T.addbroadcast(X[:1], 0)) * W[:1]).sum(), X)],
        "two gradients": [T.grad((y * W).sum(), X), T.grad((T.tanh(y) * M).sum(), X)],
        "an even power": [y * y, T.grad((y * y * W).sum(), X)],
    }


def test_what_matches_in_part():
    """The rest goes on as written, with the same numbers."""
    outputs = sum(leftovers().values(), [])
    functions = [theano.function([X, W, M], outputs, mode=chosen, on_unused_input="ignore")
                 for chosen in (mode(False), mode(False).register((Naming(), 5.0)))]
    values = [np.random.RandomState(seed).normal(0, 2, SHAPE).astype("float32") for seed in (1, 2, 3)]
    assert sum(isinstance(node.op, CrossMapNorm) for node in functions[1].maker.fgraph.apply_nodes) >= 3
    for a, b in zip(*(f(*values) for f in functions)):
        np.testing.assert_allclose(a, b, rtol=gamma(100), atol=gamma(100) * abs(a).max())
        assert a.shape == b.shape and a.dtype == b.dtype


def test_the_report_tells_it():
    found = RecognisedRecord("CrossMapNorm", "net.py:3", "c01b", 1e-3, "a normalisation across 5 channels")
    report = Report(Record([], [], 0, 1.0, 1.0, 1.0, True, recognised=(found,)))
    assert "c01b CrossMapNorm" in str(report) and "net.py:3; a normalisation across 5 channels" in str(report)
    document = json.loads(report.to_json())
    with open(SCHEMA) as schema:
        assert breaches(document, json.load(schema)) == []
    facts, = document["functions"]
    assert from_dict(facts).record.recognised == (found,)
