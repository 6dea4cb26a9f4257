"""Every carrier rule is equivariant: an op's c01b version, given its operands in c01b, gives its own value in c01b.

The tests are generated from tables (`carrier_samples.py`): a sample makes one node of a small graph, and `check` does the rest for any op. It
asks the rule for the node's versions, feeds each version every combination of layouts that it declares to take, and
compares with the node itself: equal values, equal types. All values are whole numbers or powers of two, on which sums
and products are exact in any order, so that equal means equal. A rule without a sample fails a test.
"""
import itertools
from typing import NamedTuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from hypothesis import given
from hypothesis import strategies as st
from theano.compile import SharedVariable
from theano.gof import Constant, FunctionGraph
from theano.gof.graph import clone_get_equiv, inputs as inputs_of, io_toposort
from theano.ifelse import IfElse
from theano.tensor.elemwise import DimShuffle
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.opt import ShapeFeature

from layoutopt.rewrites.carriers import carriers, choice_of
from layoutopt.rewrites.layout import BC01, C01B, EITHER, bc01_order, c01b_order, convert, rotate
from layoutopt.rewrites.shapes import Shapes

from carrier_samples import (ALL_SAMPLES, ARG_REDUCTIONS, BATCH_NORMALIZATIONS, CONTROL, DIMSHUFFLE, ELEMWISE,
                             IMAGES, INC_SUBTENSORS, JOINS, OTHERS, Operands, PRODUCTS, REDUCERS, REDUCTIONS,
                             RESHAPES, SPLITS, SUBTENSORS, TAKES, TRANSPOSED, reduced, shuffle)

# ---------------------------------------------------------------------------------------------------------------------
# The checker.


class Graph(NamedTuple):
    """A sample in its function graph."""

    node: theano.gof.Apply
    inputs: list
    values: list
    choice: object


def graph_of(make, rng):
    operands = Operands(rng)
    made = make(operands)
    variable, ends = made if isinstance(made, tuple) else (made, made.owner.outputs)
    variables = [v for v in inputs_of(ends) if not isinstance(v, Constant)]
    inputs = [v for v in variables if v in operands.values]
    own = clone_get_equiv(variables, ends, copy_inputs=False)  # constants are cached and must not be owned by a graph
    fgraph = FunctionGraph(variables, [own[end] for end in ends], clone=False, features=[ShapeFeature()])
    node = own[variable].owner
    return Graph(node, inputs, [operands.values[v] for v in inputs], choice_of(node, Shapes(fgraph)))


def evaluate(inputs, values, outputs):
    """The values of `outputs` by the ops' own Python code, node by node: nothing is optimized or compiled."""
    storage = {variable: [value.copy()] for variable, value in zip(inputs, values)}  # an op may work in place
    order = io_toposort(inputs, outputs)
    for variable in itertools.chain(outputs, *(node.inputs for node in order)):
        if isinstance(variable, Constant):
            storage[variable] = [variable.data]
        elif isinstance(variable, SharedVariable):
            storage[variable] = [variable.get_value()]
    for node in order:
        storage.update((out, [None]) for out in node.outputs)
        computed = {variable: [variable not in node.outputs] for variable in storage}
        thunk_of = node.op.make_thunk if isinstance(node.op, IfElse) else node.op.make_py_thunk
        thunk_of(node, storage, computed, [])()
    for variable in outputs:
        assert variable.type.is_valid_value(storage[variable][0]), "%s holds %r" % (variable.type, storage[variable][0])
    return [storage[variable][0] for variable in outputs]


def turned(value, layout, order_of):
    """`value`, transposed by the pattern that `order_of` gives for its rank if `layout` is C01B."""
    return value.transpose(order_of(value.ndim)) if layout == C01B and value.ndim >= 2 else value


def layouts_taken(node, version):
    """Every combination of its operands' layouts that a version takes."""
    either = {x: (BC01, C01B) if x.ndim >= 2 else (BC01,) for x in node.inputs}
    return itertools.product(*(either[x] if need == EITHER else (need,) for x, need in zip(node.inputs, version.needs)))


def type_in(layout, variable):
    flags = variable.broadcastable
    return tt.TensorType(variable.dtype, rotate(flags) if layout == C01B and len(flags) >= 2 else flags)


def check_version(graph, version, before, after):
    """Hold one version against the values of the node's operands (`before`) and results (`after`)."""
    node = graph.node
    for layouts in layouts_taken(node, version):
        inputs, values, operands = list(graph.inputs), list(graph.values), []
        for x, value, layout in zip(node.inputs, before, layouts):
            if layout == C01B and x.ndim >= 2:
                if isinstance(x, Constant):
                    x = convert(x, C01B)
                else:
                    x = type_in(C01B, x)()
                    inputs.append(x)
                    values.append(turned(value, C01B, c01b_order).copy())
            operands.append(x)
        outputs = version.build(node, operands, layouts)
        types = [type_in(layout, out) for out, layout in zip(node.outputs, version.gives)]
        assert [out.type for out in outputs] == types
        for actual, expected, layout in zip(evaluate(inputs, values, outputs), after, version.gives):
            np.testing.assert_array_equal(turned(actual, layout, bc01_order), expected)
            assert actual.dtype == expected.dtype


def layout_given(node, version):
    """The layout of a version's results, which is one for all that have one."""
    layout, = {given for out, given in zip(node.outputs, version.gives) if out.ndim >= 2} or set(version.gives)
    return layout


def check(make, gives, rng):
    """Check everything that the planner and the rewriter rely on of one node's versions; the Graph is returned."""
    graph = graph_of(make, rng)
    node, choice = graph.node, graph.choice
    if choice is None:
        assert gives is None, "no rule applies to %s" % node
        return graph
    for version in filter(None, choice):
        assert (len(version.needs), len(version.gives)) == (len(node.inputs), len(node.outputs))
    assert set(choice.bc01.gives) == {BC01}
    assert (None if choice.c01b is None else layout_given(node, choice.c01b)) == gives
    before = evaluate(graph.inputs, graph.values, node.inputs)
    after = evaluate(graph.inputs, graph.values, node.outputs)
    if choice.bc01.build:
        check_version(graph, choice.bc01, before, after)
    else:
        assert set(choice.bc01.needs) <= {BC01}
    if choice.c01b:
        pairs = set(zip(choice.bc01.needs, choice.c01b.needs))
        assert not pairs & {(EITHER, BC01), (C01B, BC01), (C01B, EITHER)}, "the planner cannot express %s" % pairs
        check_version(graph, choice.c01b, before, after)
    return graph


def samples(table):
    """Decorator: run a test over a list of samples."""
    names = [sample.name for sample in table]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return pytest.mark.parametrize("sample", table, ids=names)


# ---------------------------------------------------------------------------------------------------------------------
# The tests.


@samples(ELEMWISE)
def test_elementwise(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(DIMSHUFFLE)
def test_dimshuffle(sample, rng):
    check_dimshuffle(sample.make, sample.gives, rng)


@samples(TRANSPOSED)
def test_a_matrix_transposed_for_a_product_comes_in_either_layout(sample, rng):
    choice = check(sample.make, sample.gives, rng).choice
    assert choice.bc01.needs == ((EITHER,) if sample.gives is None else (BC01,))


@samples(REDUCTIONS)
def test_reductions(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(ARG_REDUCTIONS)
def test_arg_reductions(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(RESHAPES)
def test_reshape(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(OTHERS)
def test_products_sizes_promises_copies_conversions(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(JOINS)
def test_joins(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(SPLITS)
def test_splits(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(SUBTENSORS)
def test_parts(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(INC_SUBTENSORS)
def test_changed_parts(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(BATCH_NORMALIZATIONS)
def test_batch_normalization(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(CONTROL)
def test_branches_and_assertions(sample, rng):
    check(sample.make, sample.gives, rng)


@samples(TAKES)
def test_lists_of_images(sample, rng):
    check(sample.make, sample.gives, rng)


def test_changed_lists_of_images_have_no_rule(rng):
    def make(new):
        return tt.inc_subtensor(new(*IMAGES)[new.holding(np.array([2, 0]), (False,))], np.float32(1))

    assert graph_of(make, rng).choice is None


@samples([sample for sample in PRODUCTS if sample.gives])
def test_products_take_both_matrices_in_either_layout(sample, rng):
    graph = check(sample.make, sample.gives, rng)
    for version in graph.choice:
        assert [need for need, x in zip(version.needs, graph.node.inputs) if x.ndim == 2][-2:] == [EITHER, EITHER]


def test_what_a_matrix_is_added_to_must_be_in_the_layout_of_the_result(rng):
    choice = check(PRODUCTS[-1].make, C01B, rng).choice
    assert (choice.bc01.needs[0], choice.c01b.needs[0]) == (BC01, C01B)


def rule_class(op):
    """The op class whose rule applies to an op, or None."""
    return next((cls for cls in type(op).__mro__ if cls in carriers()), None)


def test_every_rule_has_samples():
    operands = Operands(np.random.RandomState(0))
    made = (sample.make(operands) for sample in ALL_SAMPLES)
    sampled = {rule_class((variable[0] if isinstance(variable, tuple) else variable).owner.op) for variable in made}
    assert sampled == set(carriers())


def test_an_op_without_a_rule_has_no_choice(rng):
    assert graph_of(lambda new: tt.cumsum(new(5, 4), axis=1), rng).choice is None


# ---------------------------------------------------------------------------------------------------------------------
# Random nodes. Rank 2 and up unless said otherwise; an axis is broadcast or of a size that no other has.

SIZES_OF_AXES = (7, 5, 4, 3, 2)


@st.composite
def shapes(draw, least=2):
    ndim = draw(st.integers(least, 5))
    return tuple(draw(st.sampled_from((1, size))) for size in SIZES_OF_AXES[:ndim])


@st.composite
def dimshuffles(draw):
    """(shape, order): any permutation, of which broadcast axes are dropped and 'x' inserted at will."""
    shape = draw(shapes(least=1))
    kept = [axis for axis, size in enumerate(shape) if size > 1 or draw(st.booleans())]
    order = draw(st.permutations(kept))
    for place in draw(st.lists(st.integers(0, 6), max_size=6 - len(order))):
        order.insert(place, "x")
    return shape, tuple(order)


def moves(variable, order):
    """What a dimshuffle does if operand or result or both are in c01b, at best: "nothing" to move; "runs", as many elements as
    the last axis has, move as one; or "elements"."""
    shape = [1 if flag else SIZES_OF_AXES[axis] for axis, flag in enumerate(variable.broadcastable)]
    value = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    dropped = [axis for axis in range(len(shape)) if axis not in order]
    result = value.transpose([axis for axis in order if axis != "x"] + dropped)
    result = result.reshape([1 if axis == "x" else shape[axis] for axis in order])
    best = "elements"
    for a, b in ((C01B, C01B), (C01B, BC01), (BC01, C01B)):
        if (a == BC01 or value.ndim >= 2) and (b == BC01 or result.ndim >= 2):
            operand = turned(value, a, c01b_order)
            place = np.empty(value.size, int)  # where each element lies in the operand
            place[operand.ravel()] = np.arange(value.size)
            moved = place[turned(result, b, c01b_order).ravel()]
            run = ([size for size in operand.shape if size > 1] or [1])[-1]
            if np.array_equal(moved, np.arange(moved.size)):
                return "nothing"
            if (np.diff(moved.reshape(-1, run)) == 1).all() and result.ndim > 2:
                best = "runs"
    return best


UNKNOWN = object()


def check_dimshuffle(make, gives, rng):
    """Also hold that it has a c01b version if and only if one moves nothing, or runs at most, and that this one moves no more.

    One that gives bc01 may be a view; of those in c01b, which have strides only where nothing is moved, none is.
    """
    graph = graph_of(make, rng)
    choice, x, order = graph.choice, graph.node.inputs[0], graph.node.op.new_order
    assert isinstance(graph.node.op, DimShuffle)
    if gives is UNKNOWN:
        gives = None if choice.c01b is None else choice.c01b.gives[0]
    check(make, gives, rng)
    at_best = moves(x, order)
    assert (choice.c01b is not None) == (at_best != "elements")
    if choice.c01b:
        assert (choice.c01b.seconds > 0) == (at_best == "runs")
        operand = type_in(choice.c01b.needs[0], x)()
        result, = choice.c01b.build(graph.node, [operand], choice.c01b.needs)
        copied = result.owner is not None and isinstance(result.owner.op, CpuContiguous)
        assert copied == (at_best == "runs" and choice.c01b.gives == (C01B,))
        value, = evaluate(graph.inputs, graph.values, [x])
        value = turned(value, choice.c01b.needs[0], c01b_order).copy()
        result, = evaluate([operand], [value], [result])
        if at_best == "nothing":
            np.testing.assert_array_equal(result.ravel(), value.ravel())


@given(dimshuffles())
def test_any_dimshuffle(case):
    shape, order = case
    check_dimshuffle(shuffle(shape, *order), UNKNOWN, np.random.RandomState(0))


@given(shapes(), st.data())
def test_any_reduction(shape, data):
    axes = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(shape)))))))
    make = REDUCERS[data.draw(st.sampled_from(sorted(REDUCERS)))]
    if axes:
        check(lambda new: make(new, shape, axes), reduced(len(shape), axes), np.random.RandomState(0))


@given(shapes(), st.data())
def test_any_elementwise(shape, data):
    operands = [tuple(data.draw(st.sampled_from((1, size))) for size in shape)
                for _ in range(data.draw(st.integers(1, 4)))]
    check(lambda new: tt.add(new(*shape), *(new(*operand) for operand in operands)), C01B, np.random.RandomState(0))
