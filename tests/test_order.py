"""The order in which nodes run: what the count says is alive is what tracemalloc finds, and the least counted is what runs.

Most graphs here are of an op in Python that makes an array of a given size and writes down that it ran.
"""
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.gof import Apply, DestroyHandler, InconsistencyError, Op, Optimizer
from theano.gof.vm import VM_Linker
from theano.ifelse import ifelse
from theano.sandbox.rng_mrg import MRG_RandomStreams
from theano.tensor.basic import ShapeError
from theano.tensor.nnet import conv2d
from theano.tensor.nnet.bn import batch_normalization_train
from theano.tensor.opt import ShapeFeature
from theano.tensor.signal.pool import pool_2d

from cheap_mode import few_compilations, mode  # noqa: F401  (a fixture)
from layoutopt.rewrites import order
from layoutopt.rewrites.known_sizes import KnownSizes, is_known, note_sizes
from layoutopt.rewrites.liveness import Program
from layoutopt.rewrites.order import Ordered, OrderNodes
from layoutopt.rewrites.shapes import Assumed, Shapes

UNIT = 8 * 4096  # bytes of an array of one unit; numpy's and Python's own bookkeeping is far below
ran = []


class Step(Op):
    """An array of `units` x 4096, filled with a number that depends on the operands' first elements and on `number`."""

    __props__ = ("number", "units", "inplace", "told")

    def __init__(self, number, units, inplace=False, told=True):
        self.number, self.units, self.inplace, self.told = number, units, inplace, told
        if inplace:
            self.destroy_map = {0: [0]}

    def make_node(self, *operands):
        return Apply(self, [T.as_tensor_variable(x) for x in operands], [T.dvector()])

    def perform(self, node, inputs, output_storage, params=None):
        ran.append(self.number)
        value = self.number + sum((k + 2) * x[0] for k, x in enumerate(inputs)) % 1009
        out = inputs[0] if self.inplace else np.empty(4096 * self.units)
        out[:] = value
        output_storage[0][0] = out

    def infer_shape(self, node, shapes):
        if not self.told:
            raise ShapeError("not told")
        return [(T.constant(4096 * self.units),)]


class Prepared(Optimizer):
    """The stages that matter here: sizes noted, ops in place where Theano allows it, and, if asked for, the order."""

    def __init__(self, ordered, inplace=True):
        self.ordered, self.inplace = ordered, inplace

    def apply(self, fgraph):
        fgraph.attach_feature(ShapeFeature())
        note_sizes(fgraph, Shapes(fgraph, assumed=Assumed(batch=1)))
        fgraph.remove_feature(fgraph.shape_feature)
        fgraph.attach_feature(DestroyHandler())
        for node in fgraph.toposort() if self.inplace else ():
            x = node.inputs[0]
            if x.owner is not None and isinstance(node.op, Step) and x.owner.op.units == node.op.units:
                new = Step(node.op.number, node.op.units, inplace=True, told=node.op.told)(*node.inputs)
                try:
                    fgraph.replace_validate(node.outputs[0], new)
                except InconsistencyError:
                    pass
        if self.ordered:
            OrderNodes().apply(fgraph)


def compiled(graph, ordered, linker=None, inplace=True):
    inputs, outputs, updates = graph
    linker = VM_Linker(use_cloop=True, allow_gc=True) if linker is None else linker
    return theano.function(inputs, outputs, updates=updates, mode=theano.Mode(linker, Prepared(ordered, inplace)))


def order_of(f):
    return [feature for feature in f.maker.fgraph._features if isinstance(feature, Ordered)]


def counted(f):
    """The program of a function, and the bytes of its storages; its operands are no storages."""
    fgraph = f.maker.fgraph
    program = Program(fgraph, fgraph.toposort(), fgraph.orderings())
    return program, [8 * 4096 * getattr(x.owner.op, "units", 0) for x in program.storages]


def counted_peak(f):
    program, sizes = counted(f)
    return program.peak(program.as_asked_for(), sizes)


def measured_peak(f, *arguments):
    """(bytes at the worst moment of a call beyond those before it, the steps that ran, the results)."""
    f(*arguments)
    f.free() if f.fn.allow_gc else None
    del ran[:]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = f(*arguments)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak, list(ran), results


def training(layers=6, weights=1, images=16):
    """A step as of a net, updates of the first layer's weights first: forward, backward, weights that are read in between."""
    x = T.dvector("x")
    w = [theano.shared(np.full(4096 * weights, 1.0), name="w%d" % k) for k in range(layers)]
    values = [x]
    for k in range(layers):
        values.append(Step(k, images)(values[-1], w[k]))
    gradient, updates = Step(100, images)(values[-1]), []
    for k in reversed(range(layers)):
        of_weights = Step(200 + k, weights)(gradient, values[k])
        updates.append((w[k], Step(300 + k, weights)(of_weights, w[k])))
        if k:
            gradient = Step(400 + k, images)(w[k], gradient)  # not in place of the gradient that it reads
    return [x], Step(500, 1)(values[-1]), updates[::-1]


def value():
    return np.arange(4096.0)


LINKERS = {
    "cvm": dict(use_cloop=True), "cvm, lazy": dict(use_cloop=True, lazy=True), "vm": dict(use_cloop=False, lazy=False),
    "vm, lazy": dict(use_cloop=False, lazy=True),
}


@pytest.mark.parametrize("allow_gc", [True, False])
@pytest.mark.parametrize("linker", LINKERS)
def test_a_training_step_needs_less(linker, allow_gc):
    """Gradients do not pile up, whichever VM runs; and it computes what it did."""
    vm = VM_Linker(allow_gc=allow_gc, **LINKERS[linker])
    before, after = compiled(training(), False, vm), compiled(training(), True, vm)
    assert not order_of(before) and len(order_of(after)) == 1
    assert counted_peak(after) < 0.8 * counted_peak(before)
    peak_before, ran_before, expected = measured_peak(before, value())
    peak_after, ran_after, actual = measured_peak(after, value())
    np.testing.assert_array_equal(actual, expected)
    for old, new in zip(before.get_shared(), after.get_shared()):
        np.testing.assert_array_equal(new.get_value(), old.get_value())
    assert sorted(ran_before) == sorted(ran_after)
    assert [number for number in ran_after if number != 500] == [node.op.number for node in order_of(after)[0].nodes]
    if allow_gc:
        assert abs(peak_after - counted_peak(after)) < UNIT
        assert peak_after < (peak_before if linker.startswith("cvm") else peak_before + UNIT)  # the others sort, well enough here


def test_gradients_of_weights_come_before_those_of_images():
    f = compiled(training(), True)
    _, steps, _ = measured_peak(f, value())
    for k in range(1, 6):
        assert steps.index(200 + k) < steps.index(400 + k)


def test_what_is_counted_is_what_a_vm_keeps():
    """In Theano's own orders, too, that of the C VM, which asks for outputs, and the sorted one."""
    for linker, natural in ((VM_Linker(use_cloop=True), True), (VM_Linker(use_cloop=False, lazy=False), False)):
        f = compiled(training(), False, linker)
        program, sizes = counted(f)
        nodes = program.as_asked_for() if natural else list(range(len(program.nodes)))
        peak, steps, _ = measured_peak(f, value())
        assert steps == [program.nodes[i].op.number for i in nodes]
        assert abs(peak - program.peak(nodes, sizes)) < UNIT


def random_graph(seed):
    """Some 30 steps, each of up to three earlier values, of few different sizes; updates of some weights."""
    rng = np.random.RandomState(seed)
    w = [theano.shared(np.full(4096 * 2, float(k)), name="w%d" % k) for k in range(3)]
    x = T.dvector("x")
    values = [x] + w
    for number in range(rng.randint(10, 40)):
        chosen = rng.choice(len(values), min(len(values), rng.randint(1, 4)), replace=False)
        values.append(Step(number, int(rng.choice([1, 2, 8])))(*[values[k] for k in chosen]))
    updates = [(v, Step(1000 + k, 2)(values[-1 - 3 * k], v)) for k, v in enumerate(w)]
    return [x], [Step(2000, 1)(values[-2], x)], updates


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed):
    """Never a higher peak, with ops in place or without; results are the same, and what is counted is what is there."""
    for inplace in (False, True):
        before, after = (compiled(random_graph(seed), ordered, inplace=inplace) for ordered in (False, True))
        assert counted_peak(after) <= counted_peak(before)
        assert counted_peak(after) <= 0.99 * counted_peak(before) or not order_of(after)
        for f in (before, after):
            peak, _, _ = measured_peak(f, value())
            assert abs(peak - counted_peak(f)) < UNIT
        np.testing.assert_array_equal(after(value()), before(value()))
        for old, new in zip(before.get_shared(), after.get_shared()):
            np.testing.assert_array_equal(new.get_value(), old.get_value())


def test_some_random_graphs_are_ordered_and_some_are_not():
    """Else the test above tests nothing."""
    ordered = sum(bool(order_of(compiled(random_graph(seed), True))) for seed in range(40))
    assert 5 <= ordered <= 35


def chain():
    x = T.dvector("x")
    return [x], Step(3, 4)(Step(2, 4)(Step(1, 4)(x))), []


def gradients_as_outputs():
    inputs, out, updates = training()
    return inputs, [out] + [new for _, new in updates], []


def lazy():
    inputs, out, updates = training()
    return inputs, ifelse(T.gt(inputs[0][0], 0), out, inputs[0]), updates


def of_unknown_size():
    inputs, out, updates = training()
    return inputs, out, updates + [(theano.shared(np.zeros(4096)), Step(600, 1, told=False)(inputs[0]))]


@pytest.mark.parametrize("graph", [chain, gradients_as_outputs, lazy, of_unknown_size])
def test_left_alone(graph):
    """Where no order helps; where a call may ask for some of the outputs, or a branch; where a size is not known."""
    f = compiled(graph(), True)
    assert not order_of(f)
    assert not any(isinstance(feature, KnownSizes) for feature in f.maker.fgraph._features)


def test_a_call_for_some_outputs_computes_no_more_than_before():
    """Theano computes updates in any case, and of the outputs those that are asked for."""
    steps = []
    for ordered in (False, True):
        inputs, out, updates = training()
        f = compiled((inputs, [out, Step(700, 1)(inputs[0])], updates), ordered, inplace=False)
        assert bool(order_of(f)) == ordered
        del ran[:]
        f(value(), output_subset=[1])
        steps.append(sorted(ran))
    assert steps[0] == steps[1] and 700 in steps[0] and 500 not in steps[0]


def test_a_long_graph_does_not_recurse_deeply():
    """The C VM recurses, in C, from what it is asked for to what that needs; so does an order, by 64 nodes or the root of all."""
    f = compiled(training(layers=300), True, inplace=False)
    fgraph = f.maker.fgraph
    program, _ = counted(f)
    before = program.before_by(fgraph.orderings(), program.number)
    done, deepest = set(), 0
    waiting = [(i, 0) for i in reversed(program._last)]
    while waiting:
        i, depth = waiting.pop()
        deepest = max(deepest, depth)
        missing = [j for j in before[i] if j not in done]
        if missing:
            waiting += [(i, depth), (missing[0], depth + 1)]
        else:
            done.add(i)
    assert order_of(f) and deepest < 160 < 300
    f(value())


def test_the_same_order_every_time():
    orders = [[node.op.number for node in order_of(compiled(training(), True))[0].nodes] for _ in range(2)]
    assert orders[0] == orders[1]


# ---------------------------------------------------------------------------------------------------------------------
# Functions that layoutopt rewrites.

SIZES = (16, 3, 20, 20)


def network(batch=SIZES[0]):
    """The step of a small net with batch normalisation and dropout."""
    random, rng = MRG_RandomStreams(5), np.random.RandomState(4)
    x, y, h, parameters = T.ftensor4("x"), T.ivector("y"), None, []

    def parameter(*shape):
        parameters.append(theano.shared(rng.uniform(-0.3, 0.3, shape).astype("float32")))
        return parameters[-1]

    h, known = x, (batch,) + SIZES[1:]
    for channels, filters in ((3, 16), (16, 16), (16, 16), (16, 16)):
        h = conv2d(h, parameter(filters, channels, 3, 3), input_shape=known, filter_shape=(filters, channels, 3, 3),
                   border_mode="half")
        gamma, beta = parameter(1, filters, 1, 1), parameter(1, filters, 1, 1)
        h = T.nnet.relu(batch_normalization_train(h, T.patternbroadcast(gamma, (True, False, True, True)),
                                                  T.patternbroadcast(beta, (True, False, True, True)), "spatial")[0])
        known = (batch, filters) + SIZES[2:]
    h = h * random.binomial(h.shape if batch is None else known, p=0.5, dtype="float32")
    h = T.dot(pool_2d(h, (2, 2), ignore_border=True).flatten(2), parameter(16 * 100, 10))
    loss = T.nnet.categorical_crossentropy(T.nnet.softmax(h), y).mean()
    return [x, y], loss, [(p, p - np.float32(0.1) * g) for p, g in zip(parameters, T.grad(loss, parameters))]


def step_of(chosen, **options):
    inputs, loss, updates = network(**options)
    return theano.function(inputs, loss, updates=updates, mode=chosen), [p for p, _ in updates]


def minibatch():
    rng = np.random.RandomState(7)
    return rng.uniform(-1, 1, SIZES).astype("float32"), rng.randint(0, 10, SIZES[0]).astype("int32")


@pytest.fixture
def deep():
    """To pickle any function, Theano recurses through its graph."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10000)
    yield
    sys.setrecursionlimit(limit)


def test_a_rewritten_step(deep):
    """It is ordered, trains as before, and keeps its order when it is pickled; a copy runs in Theano's."""
    f, weights = step_of(mode(True))
    plain, plain_weights = step_of(mode(True).excluding("layoutopt_order"))
    assert order_of(f) and not order_of(plain)
    pickled, losses = pickle.dumps((f, weights)), []
    for g in (f, plain):
        losses.append([float(g(*minibatch())) for _ in range(3)])
    np.testing.assert_array_equal(losses[0], losses[1])
    for old, new in zip(plain_weights, weights):
        np.testing.assert_array_equal(new.get_value(), old.get_value())
    with theano.change_flags(reoptimize_unpickled_function=False):
        loaded, _ = pickle.loads(pickled)
    assert len(order_of(loaded)) == 1
    assert [node.op for node in loaded.maker.fgraph.toposort()] == [node.op for node in f.maker.fgraph.toposort()]
    np.testing.assert_array_equal([float(loaded(*minibatch())) for _ in range(3)], losses[0])
    f.copy()(*minibatch())
    plain(*minibatch())
    for old, new in zip(plain_weights, weights):
        np.testing.assert_array_equal(new.get_value(), old.get_value())


def test_stock_theano_is_left_alone():
    assert not order_of(step_of(mode(False))[0])


def test_sizes_are_those_at_run_time(monkeypatch):
    """Of all values that the function computes, those that Theano's later stages have put in among them."""
    noted = []

    def kept(fgraph, real=order.take_sizes):
        noted.extend(real(fgraph))
        return noted

    monkeypatch.setattr(order, "take_sizes", kept)
    shapes = {}

    def look(node, thunk, storage_map, compute_map):
        shapes.update({x: np.shape(storage_map[x][0]) for x in node.outputs})

    inputs, loss, updates = network()
    looking = theano.Mode(VM_Linker(use_cloop=False, c_thunks=False, callback=look), "fast_run").including("layoutopt")
    f = theano.function(inputs, loss, updates=updates, mode=looking.excluding("fusion", "inplace"))
    f(*minibatch())
    sizes, = noted
    assert all(is_known(x, sizes) for x in shapes)
    known = {x: shape for x, shape in shapes.items() if x in sizes}
    assert len(known) > 100
    wrong = {str(x.owner): (sizes[x], shape) for x, shape in known.items()
             if tuple(sizes[x]) != shape and 128 not in sizes[x]}  # labels, the only input of unknown size
    assert wrong == {}


@pytest.mark.parametrize("batch, times", [(16, 1), (None, 2)])
def test_a_batch_that_is_not_known_is_counted_twice(monkeypatch, batch, times):
    noted = []
    monkeypatch.setattr(order, "take_sizes", lambda fgraph, real=order.take_sizes: noted.append(real(fgraph)) or noted[-1])
    f, _ = step_of(mode(True), batch=batch)
    assert len(noted[-1]) == times
    assert np.isfinite(f(*minibatch()))
