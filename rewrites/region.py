"""From a graph to a planning problem: the part of it that a layout could reach.

It grows from the nodes that would gain from c01b, along values, as far as ops have a c01b version; the rest of the graph
enters only as the fixed layout of the region's edges.
"""
from typing import Dict, List, NamedTuple

from theano.gof import Apply, Constant

from .carriers import choice_of
from .layout import BC01, C01B
from .measured import time_conversions, timed_sites
from .plan import Problem, Value
from .sites import C01B_OPS, CONV_SITES, POOL_SITES, Site, read_site
from .storage import Storage, choice_of_storage, find_storages
from .versions import Choice, fixed

SITE_OPS = tuple(CONV_SITES) + tuple(POOL_SITES) + tuple(C01B_OPS)


class Region(NamedTuple):
    """A planning problem and the graph it came from.

    sites : all sites of the graph, also those outside of the region.
    nodes : the region's nodes, the problem's choices in the same order.
    variables : the problem's values, in the same order.
    choices : for any node of the graph, its `Choice`, once looked up.
    storages : shared variables that could be stored in either layout; their choices follow those of the nodes.
    """

    sites: List[Site]
    nodes: List[Apply]
    variables: list
    choices: Dict[Apply, Choice]
    problem: Problem
    storages: List[Storage]


class Choices(dict):
    """Choices of nodes, found when first asked for."""

    def __init__(self, shapes, sites):
        super().__init__((site.node, site.choice) for site in sites)
        self.shapes = shapes

    def __missing__(self, node):
        self[node] = choice_of(node, self.shapes) or fixed(node)
        return self[node]


def find_sites(order, shapes, constraints="layoutopt"):
    """The sites among the nodes `order` (a topological order), judged by a set of constraints."""
    sites = [read_site(node, shapes, constraints) for node in order if type(node.op) in SITE_OPS]
    return timed_sites(sites, shapes) if shapes.clock is not None else sites


def has_sites(fgraph):
    """Whether a graph has any convolution or pooling; all that a graph without them pays."""
    return any(type(node.op) in SITE_OPS for node in fgraph.apply_nodes)


def find_region(fgraph, shapes, constraints="layoutopt"):
    """The planning problem of a function graph.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
    shapes : rewrites.shapes.Shapes
    constraints : str
        See `rewrites.constraints`.

    Returns
    -------
    Region
    """
    order = fgraph.toposort()
    sites = find_sites(order, shapes, constraints)
    choices = Choices(shapes, sites)
    reached = _grow([node for node in order if _gains(choices[node])], choices)
    nodes = [node for node in order if node in reached]
    variables = _values_of(nodes)
    if shapes.clock is not None:
        time_conversions(variables, shapes)
    storages = find_storages(fgraph, variables)
    variables = list(dict.fromkeys(variables + [storage.update for storage in storages if storage.update is not None]))
    number = {item: i for i, item in enumerate(nodes + storages)}
    holding = {v: number[storage] for storage in storages for v in storage if v is not None}
    values = [_value(variable, number, holding, choices, shapes) for variable in variables]
    problem = Problem([choices[node] for node in nodes] + [choice_of_storage(s, shapes) for s in storages], values)
    return Region(sites, nodes, variables, choices, problem, storages)


def _gains(choice):
    return choice.c01b is not None and choice.c01b.seconds < choice.bc01.seconds


def _laid_out(variable):
    """Whether the layouts of a value differ, and need planning: a constant is turned at compile time."""
    return getattr(variable, "ndim", 0) >= 2 and not isinstance(variable, Constant)


def _neighbours(node):
    """Nodes that touch a value that this one touches."""
    for variable in node.inputs + node.outputs:
        if _laid_out(variable):
            if variable.owner is not None:
                yield variable.owner
            yield from (client for client, _ in variable.clients if client != "output")


def _grow(seeds, choices):
    """All nodes with a c01b version that are connected to the seeds through such nodes."""
    reached, frontier = set(seeds), list(seeds)
    while frontier:
        for node in _neighbours(frontier.pop()):
            if node not in reached and choices[node].c01b is not None:
                reached.add(node)
                frontier.append(node)
    return reached


def _values_of(nodes):
    """The values that the nodes touch, each once, in order."""
    return list(dict.fromkeys(v for node in nodes for v in list(node.inputs) + list(node.outputs) if _laid_out(v)))


def _value(variable, number, holding, choices, shapes):
    """`number` has the vertices of nodes, `holding` those of the storages that give or take a value."""
    producer = None
    if variable.owner in number:
        producer = number[variable.owner], variable.owner.outputs.index(variable)
    elif variable.owner is None and variable in holding:
        producer = holding[variable], 0
    users, wanted = [], False
    for client, index in variable.clients:
        if client in number:
            users.append((number[client], index))
        elif client == "output" and variable in holding:
            users.append((holding[variable], 0))
        elif client == "output" or choices[client].bc01.needs[index] == BC01:
            wanted = True
    return Value(producer, tuple(users), shapes.conversion_seconds(variable, C01B), wanted,
                 shapes.conversion_seconds(variable, BC01))
