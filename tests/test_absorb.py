"""Conversions that disappear into whoever can take them: into slices and lists of images, into how weights are stored.

Whole numbers throughout: results with and without the flag are equal to the last bit.
"""
import os
import pickle
import sys

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.compile import Out
from theano.gof import FunctionGraph
from theano.gof.vm import VM_Linker
from theano.tensor import Reshape
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.nnet import conv2d
from theano.tensor.opt import ShapeFeature
from theano.tensor.subtensor import AdvancedSubtensor1, Subtensor

from layoutopt import turns
from layoutopt.kernels import FilterActs, StoredToC01B, TakeToC01B, ToBC01, ToC01B
from layoutopt.kernels.activation import Tanh
from layoutopt.kernels.reference import relayout as reference
from layoutopt.kernels.relayout import stored_to_c01b
from layoutopt.kernels.take import take_to_c01b
from layoutopt.optimizer import LayoutOptimizer
from layoutopt.rewrites.storage import store_now

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "benchmarks"))

from cheap_mode import few_compilations, mode  # noqa: E402, F401  (a fixture)
from conversions import Unlinked  # noqa: E402


def numbers(shape, dtype="float32"):
    """Different values all over, so that a misplaced element shows."""
    return (np.arange(np.prod(shape, dtype=int)) % 251).astype(dtype).reshape(shape)


# ---------------------------------------------------------------------------------------------------------------------
# Images picked by a list, converted on the way.


def take(x, rows):
    """take_to_c01b of arrays; one compiled function per dtype and rank."""
    key = str(x.dtype), x.ndim, str(rows.dtype)
    if key not in take.compiled:
        inputs = [T.TensorType(x.dtype, (False,) * x.ndim)(), T.TensorType(rows.dtype, (False,))()]
        take.compiled[key] = theano.function(inputs, take_to_c01b(*inputs))
    return take.compiled[key](x, rows)


take.compiled = {}
VIEWS = {
    "whole": lambda x: x, "every other image": lambda x: x[::2], "reversed": lambda x: x[::-1], "cropped": lambda x: x[:, :, 1:-1],
    "transposed": lambda x: x.transpose(3, 1, 2, 0),
}


@pytest.mark.parametrize("view", sorted(VIEWS))
@pytest.mark.parametrize("count", [0, 1, 15, 33])
def test_take_from_any_strides(rng, view, count):
    x = VIEWS[view](numbers((20, 3, 7, 18)))
    rows = rng.randint(-len(x), len(x), count)
    result = take(x, rows)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, reference.take_to_c01b(x, rows))


# Beyond the size from which threads are used and the caches avoided; more rows than a strip has, and fewer columns.
@pytest.mark.parametrize("dtype, shape, count", [("float32", (40, 16, 17, 19), 128), ("float32", (40, 3, 7), 1030),
                                                 ("uint8", (40, 90, 70), 530), ("uint8", (3, 5), 40)])
def test_take_large(rng, dtype, shape, count):
    x, rows = numbers(shape, dtype), rng.randint(0, shape[0], count)
    np.testing.assert_array_equal(take(x, rows), reference.take_to_c01b(x, rows))


@pytest.mark.parametrize("wrong", [5, -6])
def test_take_out_of_range(wrong):
    with pytest.raises(IndexError, match="index %d is out of bounds for 5 images" % wrong):
        take(numbers((5, 4)), np.array([0, wrong]))


@pytest.mark.parametrize("x, rows", [(T.fvector(), T.lvector()), (T.fmatrix(), T.lmatrix()), (T.fmatrix(), T.fvector())])
def test_take_refuses_other_types(x, rows):
    with pytest.raises(TypeError, match="TakeToC01B"):
        take_to_c01b(x, rows)


def test_take_gradient_and_shape():
    x, rows = T.fmatrix(), np.array([2, 0, 2])
    out = take_to_c01b(x, rows)
    gradient, shape = theano.function([x], [T.grad((out * numbers((2, 3))).sum(), x), out.shape])(numbers((4, 2)))
    np.testing.assert_array_equal(gradient, [[1, 4], [0, 0], [2, 8], [0, 0]])
    assert tuple(shape) == (2, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Weights, stored in the layout in which they are used and updated.

IMAGES = (32, 3, 12, 11)


def whole(*shape, seed=0, most=2):
    """Random whole numbers, float32."""
    return np.random.RandomState(seed).randint(-most, most + 1, shape).astype("float32")


def shared(*shape, name, seed=1):
    return theano.shared(whole(*shape, seed=seed, most=1), name=name)


def nodes(function, *ops):
    """The nodes of a compiled function that have one of these very ops, in order."""
    return [node for node in function.maker.fgraph.toposort() if type(node.op) in ops]


def in_c01b(variable):
    """Whether the array in a shared variable is c01b in memory."""
    value = variable.get_value(borrow=True, return_internal_type=True)
    return value.transpose(tuple(range(1, value.ndim)) + (0,)).flags.c_contiguous


class Program:
    """Two layers of convolution and a dense one, with functions to train and to evaluate it."""

    def __init__(self, mode, momentum=False):
        x = T.ftensor4("x")
        self.w1, self.w2 = shared(6, 3, 3, 3, name="w1"), shared(5, 6, 3, 3, name="w2", seed=2)
        self.dense = shared(5, 4, name="dense", seed=3)
        h = T.nnet.relu(conv2d(x, self.w1, input_shape=IMAGES, filter_shape=(6, 3, 3, 3)))
        h = T.clip(conv2d(h, self.w2)[:, :, 3, 3], -2, 2)
        out = T.dot(h, self.dense)
        self.parameters, self.velocities = [self.w1, self.w2, self.dense], []
        updates = self.updates(T.grad((out * whole(32, 4, most=1)).sum(), self.parameters), momentum)
        self.step = theano.function([x], out.sum(), updates=updates, mode=mode)
        self.evaluate = theano.function([x], out, mode=mode)

    def updates(self, gradients, momentum):
        if not momentum:
            return [(p, p - g) for p, g in zip(self.parameters, gradients)]
        self.velocities = [theano.shared(np.zeros_like(p.get_value()), name="v_" + p.name) for p in self.parameters]
        faster = [2 * v - g for v, g in zip(self.velocities, gradients)]
        return list(zip(self.velocities, faster)) + [(p, p + v) for p, v in zip(self.parameters, faster)]

    def run(self):
        """All that it computes in three steps, before two of which the user sets weights; small numbers, and so exact."""
        seen = []
        for i in range(3):
            x = whole(*IMAGES, seed=i)
            seen += [self.step(x), self.evaluate(x)] + [p.get_value() for p in self.parameters]
            for p in self.parameters:
                p.set_value(np.clip(p.get_value(), -1, 1) if i else whole(*p.get_value().shape, seed=7, most=1))
            for v in self.velocities:
                v.set_value(np.clip(v.get_value(), -9, 9))
        return seen


IN_PLACE = theano.Mode(VM_Linker(allow_gc=False), "fast_run").including("layoutopt")


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("flagged", [mode(True), IN_PLACE], ids=["plain", "in place, memory kept"])
def test_weights_are_converted_once(flagged, momentum):
    stock, ours = Program(mode(False), momentum), Program(flagged, momentum)
    for expected, actual in zip(stock.run(), ours.run()):
        np.testing.assert_array_equal(expected, actual)
    stored = [ours.w1, ours.w2] + (ours.velocities[:2] if momentum else [])
    assert len(nodes(ours.step, StoredToC01B)) == len(stored)  # w2 is used forward and backward
    assert nodes(ours.step, ToBC01) == [] and len(nodes(ours.step, ToC01B)) == 1  # the images
    ours.step(whole(*IMAGES))
    assert all(map(in_c01b, stored)) and not in_c01b(ours.dense)


def test_weights_are_stored_before_the_first_call_that_updates_them(monkeypatch):
    """They are not there twice while it runs; a function that only reads them leaves them alone."""
    program, stored = Program(mode(True)), []
    values = [p.get_value() for p in program.parameters]

    def spy(fgraph):
        store_now(fgraph)
        stored.append([in_c01b(p) for p in program.parameters])
        for p, value in zip(program.parameters, values):
            np.testing.assert_array_equal(p.get_value(return_internal_type=True), value)

    monkeypatch.setattr(turns, "store_now", spy)
    for call in (program.evaluate, program.step, program.step, program.evaluate):
        call(whole(*IMAGES))
    assert stored == [[False, False, False], [True, True, False]]


def test_what_is_stored_in_c01b_is_read_as_a_view():
    x = theano.In(T.ftensor4("x"), borrow=True)
    f = theano.function([x], Out(stored_to_c01b(x.variable), borrow=True),
                        mode=theano.Mode(VM_Linker(allow_gc=False), optimizer=None))
    plain = whole(5, 3, 4, 2)
    stored = np.ascontiguousarray(np.moveaxis(plain, 0, -1)).transpose(3, 0, 1, 2)
    first = f(plain)
    assert not np.shares_memory(first, plain) and first.flags.c_contiguous
    assert np.shares_memory(f(stored), stored)
    np.testing.assert_array_equal(f(2 * plain), 2 * np.moveaxis(plain, 0, -1))
    np.testing.assert_array_equal(stored, plain)  # what was read as a view is not written to
    np.testing.assert_array_equal(f(stored), first)


def test_users_arrays_are_not_touched():
    """An evaluation function only reads what was put in without a copy."""
    program, mine = Program(mode(True)), whole(6, 3, 3, 3, seed=9, most=1)
    program.w1.set_value(mine, borrow=True)
    program.evaluate(whole(*IMAGES))
    assert program.w1.get_value(borrow=True) is mine
    np.testing.assert_array_equal(mine, whole(6, 3, 3, 3, seed=9, most=1))


def test_stored_weights_survive_pickling():
    program = Program(mode(True))
    program.step(whole(*IMAGES))
    twin, (w1, w2) = pickle.loads(pickle.dumps((program.evaluate, (program.w1, program.w2))))
    np.testing.assert_array_equal(w1.get_value(), program.w1.get_value())
    np.testing.assert_array_equal(twin(whole(*IMAGES)), program.evaluate(whole(*IMAGES)))


def test_weights_of_two_convolutions_are_converted_once():
    """A siamese network: both images, both gradients, one pair of conversions, and none of what is stored."""
    x, y, w = T.ftensor4("x"), T.ftensor4("y"), shared(4, 3, 3, 3, name="w")
    apart = T.sqr(conv2d(x, w, input_shape=IMAGES) - conv2d(y, w, input_shape=IMAGES)).sum()
    f = theano.function([x, y], apart, updates=[(w, w - T.grad(apart, w))], mode=mode(True))
    assert len(nodes(f, StoredToC01B)) == 1 and len(nodes(f, ToC01B)) == 2 and nodes(f, ToBC01) == []


def trained(w):
    """A training step of one convolution with filters `w`, and how many conversions of weights and gradients it has."""
    x = T.ftensor4("x")
    loss = T.sqr(conv2d(x, w, input_shape=IMAGES)).sum()
    step = theano.function([x], loss, updates=[(w, w - T.grad(loss, w))], mode=mode(True))
    return step, len(nodes(step, StoredToC01B)) + len(nodes(step, ToBC01))


def test_what_another_function_reads_in_bc01_stays_so():
    """Dilation has no kernel; the strided copy of stored filters would be its own, in every call."""
    x, w = T.ftensor4("x"), shared(4, 3, 3, 3, name="w")
    theano.function([x], conv2d(x, w, filter_dilation=(2, 2)), mode=mode(True))
    step, conversions = trained(w)
    step(whole(*IMAGES))
    assert conversions == 2 and not in_c01b(w)


def test_later_functions_count_on_what_is_stored():
    """One image, many filters: to convert these would not pay."""
    x, counts = T.ftensor4("x"), []
    for stored in (False, True):
        w = shared(512, 3, 3, 3, name="w")
        if stored:
            assert trained(w)[1] == 1
        f = theano.function([x], conv2d(x, w, input_shape=(1, 3, 3, 3)).sum(), mode=mode(True))
        counts.append(len(nodes(f, FilterActs)))
    assert counts == [0, 1]


def test_an_update_that_is_an_output_too_is_given_in_bc01():
    x, w = T.ftensor4("x"), shared(4, 3, 3, 3, name="w")
    loss = T.sqr(conv2d(x, w, input_shape=IMAGES)).sum()
    new = w - T.grad(loss, w)
    f = theano.function([x], new, updates=[(w, new)], mode=mode(True))
    result = f(whole(*IMAGES))
    assert result.flags.c_contiguous and not in_c01b(w)
    np.testing.assert_array_equal(result, w.get_value())


def test_second_run_leaves_stored_weights_alone():
    program = Program(mode(True))
    old = program.step.maker.fgraph
    inputs, outputs = theano.gof.graph.clone(old.inputs, old.outputs)
    fgraph = FunctionGraph(inputs, outputs, clone=False, features=[ShapeFeature()], update_mapping=old.update_mapping)
    before = theano.printing.debugprint(fgraph.outputs, file="str")
    LayoutOptimizer().apply(fgraph)
    assert theano.printing.debugprint(fgraph.outputs, file="str") == before


# ---------------------------------------------------------------------------------------------------------------------
# The first layer's images.

VIEW_OPS = (Subtensor, Reshape, DimShuffle)
INDEX, ROWS = T.lscalar("index"), T.lvector("rows")


def first_layer(images, channels):
    return conv2d(images, shared(6, channels, 3, 3, name="w"), input_shape=(32, channels, 12, 11)).max()


def data_set(*shape, dtype="float32"):
    return theano.shared(np.random.RandomState(4).randint(0, 3, shape).astype(dtype), name="data")


def compare(inputs, out, *values):
    """The flagged function, after comparing its values with the stock function's."""
    stock, flagged = (theano.function(inputs, out, mode=mode(on)) for on in (False, True))
    np.testing.assert_array_equal(stock(*values), flagged(*values))
    return flagged


def test_a_slice_of_a_data_set_is_converted_without_a_copy():
    minibatch = data_set(96, 12 * 11)[INDEX * 32:(INDEX + 1) * 32]
    f = compare([INDEX], first_layer(minibatch.reshape((32, 1, 12, 11)), 1), 1)
    conversion, = nodes(f, ToC01B)
    source = conversion.inputs[0]
    while source.owner is not None:
        assert isinstance(source.owner.op, VIEW_OPS)
        source = source.owner.inputs[0]
    assert source.name == "data"


@pytest.mark.parametrize("pick", [lambda data: data[ROWS], lambda data: T.take(data, ROWS, axis=0)], ids=["index", "take"])
def test_a_shuffled_minibatch_is_converted_while_it_is_picked(pick):
    f = compare([ROWS], first_layer(pick(data_set(40, 3, 12, 11)), 3), np.array([39, 0, 7, -1] * 8))
    assert len(nodes(f, TakeToC01B)) == 1 and nodes(f, AdvancedSubtensor1, ToC01B) == []


@pytest.mark.parametrize("pick, op", [(lambda data: data[INDEX:INDEX + 32], ToC01B), (lambda data: data[ROWS], TakeToC01B)],
                         ids=["slice", "list"])
def test_bytes_are_converted_before_they_are_numbers(pick, op):
    """A quarter of the memory."""
    images = T.cast(pick(data_set(400, 3, 12, 11, dtype="uint8")), "float32") - np.float32(1)
    index = INDEX if op is ToC01B else ROWS
    f = compare([index], first_layer(images, 3), 3 if op is ToC01B else np.arange(32))
    conversion, = nodes(f, ToC01B, TakeToC01B)
    assert type(conversion.op) is op and conversion.outputs[0].dtype == "uint8"


def test_a_users_own_conversion_is_none():
    c01b = T.ftensor4("c01b")
    f = compare([c01b], first_layer(c01b.dimshuffle(3, 0, 1, 2), 3), whole(3, 12, 11, 32))
    assert [node.inputs[0].name for node in nodes(f, ToC01B, ToBC01, StoredToC01B)] == ["w"]


@pytest.mark.parametrize("added", [lambda x: T.constant(whole(*IMAGES)), lambda x: T.alloc(np.float32(2), *IMAGES),
                                   lambda x: T.zeros_like(x) + 1], ids=["constant", "alloc", "zeros_like"])
def test_constants_and_fills_are_made_in_c01b(added):
    x = T.ftensor4("x")
    h = conv2d(x, shared(3, 3, 3, 3, name="w"), border_mode="half", input_shape=IMAGES, filter_shape=(3, 3, 3, 3))
    f = compare([x], conv2d(h + added(x), shared(2, 3, 3, 3, name="w2")).sum(), whole(*IMAGES))
    assert sorted(node.inputs[0].name for node in nodes(f, ToC01B, ToBC01, StoredToC01B)) == ["w", "w2", "x"]


# ---------------------------------------------------------------------------------------------------------------------
# What Theano fuses and computes in place without the flag, it does with it.


def test_loops_and_copies_are_as_few_as_without_the_flag():
    """Batch normalization by hand, a residual, a rectifier, momentum: only optimized, not compiled."""
    x, w = T.ftensor4("x"), [shared(6, c, 3, 3, name="w%d" % c) for c in (3, 6)]
    h = T.tanh(conv2d(x, w[0], border_mode="half", input_shape=IMAGES))
    centred = h - h.mean(axis=(0, 2, 3), keepdims=True)
    h = centred / T.sqrt(T.sqr(centred).mean(axis=(0, 2, 3), keepdims=True) + np.float32(1e-4))
    h = T.nnet.relu(h + conv2d(h, w[1], border_mode="half", filter_shape=(6, 6, 3, 3)))
    loss, updates = T.sqr(h).mean(), []
    for p, g in zip(w, T.grad(loss, w)):
        v = theano.shared(np.zeros_like(p.get_value()))
        faster = np.float32(0.9) * v - g
        updates += [(v, faster), (p, p + faster)]
    (loops, in_place), (ours, ours_in_place) = (loops_of(x, loss, updates, flagged) for flagged in (False, True))
    assert ours <= loops and ours_in_place >= in_place


def loops_of(x, loss, updates, flagged):
    """How many elementwise ops on images and weights an optimized graph has, and how many of them work in place."""
    chosen = theano.Mode(Unlinked(), "fast_run")
    chosen = chosen.including("layoutopt") if flagged else chosen.excluding("layoutopt")
    fgraph = theano.function([x], loss, updates=updates, mode=chosen).maker.fgraph
    assert any(isinstance(node.op, FilterActs) for node in fgraph.apply_nodes) == flagged
    loops = [node for node in fgraph.apply_nodes if isinstance(node.op, (Elemwise, Tanh)) and node.outputs[0].ndim == 4]
    return len(loops), sum(bool(getattr(node.op, "destroy_map", None)) for node in loops)
