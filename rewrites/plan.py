"""Where should the layout change? An exact minimum cut.

Every node with two versions is a vertex; the source side of the cut is bc01, the sink side c01b. What a node costs in
either version hangs on the terminals. A value that is used in the layout it was not produced in is converted once, however
many use it: for a value of producer p, of cost c into c01b and d back into bc01,

    p --c--> a --inf--> u      for every user u that needs c01b when it is c01b itself,
    u --inf--> b --d--> p      for every user u that needs bc01 when it is bc01 itself,

so that exactly one edge of cost c or d is cut when p and at least one user differ. By the theorem of Ford and Fulkerson (1956)
the cut is a proof of its own optimality: a flow of the same value exists. `solve` checks that they are equal.

This file knows nothing of Theano; tests hold it against brute force on random problems.
"""
from typing import List, NamedTuple, Optional, Tuple

import networkx as nx
from networkx.algorithms.flow import preflow_push

from .layout import BC01, C01B, EITHER
from .versions import Choice

SOURCE, SINK = "bc01", "c01b"
# Capacities are whole picoseconds, so that the flow is exact and the proof an equality.
TICKS_PER_SECOND = 10 ** 12


class Value(NamedTuple):
    """A value that flows between nodes.

    producer : (node, output), or None for inputs of the graph, which are in bc01.
    users : (node, input) pairs.
    seconds : cost of converting the value once, from bc01 into c01b.
    wanted : the value is an output of the graph, which must be in bc01.
    back : cost of converting it from c01b into bc01; None: the same.
    """

    producer: Optional[Tuple[int, int]]
    users: Tuple[Tuple[int, int], ...]
    seconds: float
    wanted: bool = False
    back: Optional[float] = None

    def conversion(self, layout):
        """Seconds of the conversion into `layout`."""
        return self.seconds if layout == C01B or self.back is None else self.back


class PlanError(RuntimeError):
    """Cut and flow differ: a defect of the planner. Theano logs it and compiles the graph without layoutopt."""


class Problem(NamedTuple):
    """Nodes, in topological order, and the values between them."""

    choices: List[Choice]
    values: List[Value]


class Plan(NamedTuple):
    """A layout for every node.

    seconds : predicted cost of the plan.
    bound : value of the flow, which no assignment can beat.
    unchanged : cost of leaving everything in bc01.
    """

    layouts: List[str]
    seconds: float
    bound: float
    unchanged: float

    @property
    def pays(self):
        return self.seconds < self.unchanged


def given(problem, value, layouts):
    """The layout in which `value` is produced under this assignment."""
    if value.producer is None:
        return BC01
    node, output = value.producer
    return problem.choices[node].version(layouts[node]).gives[output]


def needed(problem, value, layouts):
    """The layouts in which `value` is needed under this assignment."""
    needs = {problem.choices[node].version(layouts[node]).needs[index] for node, index in value.users}
    if value.wanted:
        needs.add(BC01)
    return needs - {EITHER}


def ticks(seconds):
    return int(round(seconds * TICKS_PER_SECOND))


def cost(problem, layouts):
    """What an assignment costs, by definition, in ticks: the nodes' versions and one conversion per mismatched value."""
    nodes = sum(ticks(choice.version(layout).seconds) for choice, layout in zip(problem.choices, layouts))
    conversions = sum(ticks(value.conversion(layout)) for value in problem.values
                      for layout in needed(problem, value, layouts) - {given(problem, value, layouts)})
    return nodes + conversions


def solve(problem):
    """The cheapest assignment of layouts; of several, the one with the fewest nodes in c01b.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If cut and flow differ.
    """
    network, constant = _network(problem)
    unchanged = cost(problem, [BC01] * len(problem.choices))
    if network.number_of_edges() == 0 or not network.has_node(SINK):
        seconds = unchanged / TICKS_PER_SECOND
        return Plan([BC01] * len(problem.choices), seconds, seconds, seconds)
    flow, (_, c01b) = nx.minimum_cut(network, SOURCE, SINK, flow_func=preflow_push)
    layouts = [C01B if node in c01b else BC01 for node in range(len(problem.choices))]
    planned = cost(problem, layouts)
    if planned != flow + constant:
        raise PlanError("layoutopt: the cut costs %d ps, the flow proves %d ps" % (planned, flow + constant))
    return Plan(layouts, planned / TICKS_PER_SECOND, (flow + constant) / TICKS_PER_SECOND, unchanged / TICKS_PER_SECOND)


def _network(problem):
    """The flow network, and the cost in ticks that every assignment pays."""
    network = nx.DiGraph()
    network.add_nodes_from((SOURCE, SINK))
    constant = 0
    for node, choice in enumerate(problem.choices):
        bc01 = ticks(choice.bc01.seconds)
        if choice.c01b is None:
            constant += bc01
            continue
        c01b = ticks(choice.c01b.seconds)
        shared = min(bc01, c01b)
        constant += shared
        _add_edge(network, SOURCE, node, c01b - shared)
        _add_edge(network, node, SINK, bc01 - shared)
    for index, value in enumerate(problem.values):
        _add_value(network, problem, index, value)
    return network, constant


def _add_value(network, problem, index, value):
    """The two gadgets of a value (module docstring). Vertices, for several users: 'a' converts to c01b, 'b' to bc01."""
    producer = _producer_vertex(problem, value)
    wants_c01b, wants_bc01 = set(), {SOURCE} if value.wanted else set()
    for node, which in value.users:
        choice = problem.choices[node]
        bc01 = choice.bc01.needs[which]
        c01b = choice.c01b.needs[which] if choice.c01b else None
        if (bc01, c01b) in ((EITHER, BC01), (C01B, BC01), (C01B, EITHER)):
            raise PlanError("layoutopt: no cut expresses an operand that needs %s in bc01 and %s in c01b" % (bc01, c01b))
        if c01b == C01B:
            wants_c01b.add(node)
        if bc01 == BC01:
            wants_bc01.add(SOURCE if c01b in (BC01, None) else node)
    if wants_c01b:
        shared = _shared_vertex(wants_c01b, ("a", index))
        _add_edge(network, producer, shared, ticks(value.conversion(C01B)))
        network.add_edges_from((shared, user) for user in wants_c01b - {shared})
    if producer != SOURCE and wants_bc01:
        shared = _shared_vertex(wants_bc01, ("b", index))
        _add_edge(network, shared, producer, ticks(value.conversion(BC01)))
        network.add_edges_from((user, shared) for user in wants_bc01 - {shared})


def _shared_vertex(users, name):
    """Where one conversion serves all `users`: a vertex of its own, or the only user's."""
    return name if len(users) > 1 else next(iter(users))


def _add_edge(network, start, end, capacity):
    """An edge of finite capacity, added to the one that may be there; none where there is nothing to add."""
    if capacity and network.has_edge(start, end):
        network[start][end]["capacity"] += capacity
    elif capacity:
        network.add_edge(start, end, capacity=capacity)


def _producer_vertex(problem, value):
    """The vertex whose side is the layout in which the value is produced."""
    if value.producer is None:
        return SOURCE
    node, output = value.producer
    choice = problem.choices[node]
    return node if choice.c01b and choice.c01b.gives[output] == C01B else SOURCE
