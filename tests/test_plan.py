"""The plan is the cheapest assignment of layouts there is: against brute force, on random problems and on small known ones."""
import itertools

import pytest
from hypothesis import given, settings, strategies as st

from layoutopt.rewrites.plan import Plan, PlanError, Problem, Value, cost, solve, ticks
from layoutopt.rewrites.versions import BC01, C01B, EITHER, Choice, Version

# What an operand may need, (when its user is in bc01, when it is in c01b): plan._add_value has an edge for each.
NEEDS = ((BC01, C01B), (BC01, BC01), (BC01, EITHER), (EITHER, C01B), (EITHER, EITHER))
SECONDS = st.integers(0, 12).map(lambda n: n / 4)  # few values, so that ties are common


@st.composite
def problems(draw, most_nodes=8):
    """Random problems: up to `most_nodes` nodes of up to 3 operands, values shared, wanted and dangling."""
    produced = [None] * draw(st.integers(1, 3))  # values so far, by producer; the first are inputs of the graph
    choices, users = [], [[] for _ in produced]
    for node in range(draw(st.integers(1, most_nodes))):
        operands = draw(st.lists(st.integers(0, len(produced) - 1), min_size=1, max_size=3))
        needs = [draw(st.sampled_from(NEEDS)) for _ in operands]
        n_outputs = draw(st.integers(1, 2))
        gives = tuple(draw(st.sampled_from((BC01, C01B))) for _ in range(n_outputs))
        bc01 = Version(tuple(n[0] for n in needs), (BC01,) * n_outputs, draw(SECONDS))
        c01b = Version(tuple(n[1] for n in needs), gives, draw(SECONDS)) if draw(st.integers(0, 4)) else None
        choices.append(Choice(bc01, c01b))
        for index, value in enumerate(operands):
            users[value].append((node, index))
        produced += [(node, output) for output in range(n_outputs)]
        users += [[] for _ in range(n_outputs)]
    values = [Value(producer, tuple(using), draw(SECONDS), draw(st.booleans()), draw(st.none() | SECONDS))
              for producer, using in zip(produced, users)]
    return Problem(choices, values)


def cheapest(problem):
    """The least cost over all assignments, in ticks."""
    options = [(BC01,) if choice.c01b is None else (BC01, C01B) for choice in problem.choices]
    return min(cost(problem, layouts) for layouts in itertools.product(*options))


@settings(max_examples=1500, deadline=None)
@given(problems())
def test_no_assignment_is_cheaper(problem):
    plan = solve(problem)
    best = cheapest(problem)
    assert cost(problem, plan.layouts) == best
    assert ticks(plan.seconds) == ticks(plan.bound) == best
    assert ticks(plan.unchanged) == cost(problem, [BC01] * len(problem.choices))
    assert all(layout == BC01 or choice.c01b for layout, choice in zip(plan.layouts, problem.choices))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_plan_is_deterministic_and_modest(problem):
    """The same problem gives the same plan; among equals no node is moved for nothing."""
    plan = solve(problem)
    assert solve(problem) == plan
    moved = [node for node, layout in enumerate(plan.layouts) if layout == C01B]
    options = [[BC01, C01B] if node in moved else [BC01] for node in range(len(plan.layouts))]
    smaller = [list(layouts) for layouts in itertools.product(*options) if list(layouts) != plan.layouts]
    assert all(cost(problem, layouts) > cost(problem, plan.layouts) for layouts in smaller)


def carrier(n_inputs=1, bc01=0.0, c01b=0.0):
    """A node that works in either layout."""
    return Choice(Version((BC01,) * n_inputs, (BC01,), bc01), Version((C01B,) * n_inputs, (C01B,), c01b))


def chain(choices, seconds):
    """A problem in which each node uses the one before; the first the graph's input, the last makes its output."""
    values = [Value(None, ((0, 0),), seconds[0])]
    for node in range(len(choices)):
        users = ((node + 1, 0),) if node + 1 < len(choices) else ()
        values.append(Value((node, 0), users, seconds[node + 1], not users))
    return Problem(choices, values)


def test_layout_crosses_a_carrier_rather_than_changing_twice():
    problem = chain([carrier(bc01=10.0), carrier(), carrier(bc01=10.0)], [1.0, 1.0, 1.0, 1.0])
    assert solve(problem).layouts == [C01B, C01B, C01B]


def test_layout_changes_where_the_value_is_smallest():
    problem = chain([carrier(bc01=10.0), carrier(), carrier()], [1.0, 5.0, 0.25, 5.0])
    assert solve(problem).layouts == [C01B, C01B, BC01]


def test_nothing_is_moved_that_does_not_pay():
    problem = chain([carrier(bc01=1.5)], [1.0, 1.0])
    plan = solve(problem)
    assert plan.layouts == [BC01]
    assert not plan.pays


def test_a_value_used_many_times_is_converted_once():
    """Two users in c01b share one conversion of 3: together they gain 4, neither would alone."""
    choices = [carrier(bc01=2.0), carrier(bc01=2.0)]
    values = [Value(None, ((0, 0), (1, 0)), 3.0), Value((0, 0), (), 0.0, True), Value((1, 0), (), 0.0, True)]
    assert solve(Problem(choices, values)).layouts == [C01B, C01B]
    assert solve(Problem(choices[:1], [values[0]._replace(users=((0, 0),)), values[1]])).layouts == [BC01]


def test_either_direction_has_its_price():
    """Into c01b for 1 and back for 3: a gain of 5 pays, one of 3 does not."""
    for gain, layout in ((5.0, C01B), (3.0, BC01)):
        values = [Value(None, ((0, 0),), 1.0, back=100.0), Value((0, 0), (), 100.0, True, back=3.0)]
        assert solve(Problem([carrier(bc01=gain)], values)).layouts == [layout]


def test_without_choices_the_plan_is_empty():
    assert solve(Problem([], [])) == Plan([], 0.0, 0.0, 0.0)
    only_bc01 = Problem([Choice(Version((BC01,), (BC01,), 2.0))], [Value(None, ((0, 0),), 1.0)])
    assert solve(only_bc01) == Plan([BC01], 2.0, 2.0, 2.0)


def test_needs_that_no_cut_can_express_are_refused():
    bad = Choice(Version((EITHER,), (BC01,)), Version((BC01,), (C01B,)))
    with pytest.raises(PlanError, match="needs either in bc01 and bc01 in c01b"):
        solve(Problem([bad], [Value(None, ((0, 0),), 1.0)]))
