"""A rewritten graph as plain data to be drawn: ops, inputs and outputs, each in its layout. Arithmetic of sizes is left out."""
from typing import List, NamedTuple, Tuple

from theano.compile import SharedVariable
from theano.gof import Constant

from .layout import BC01, C01B

SITE, CONVERSION, INPUT, OP, OUTPUT = "site", "conversion", "input", "op", "output"


class DrawnNode(NamedTuple):
    """role : 'site', 'conversion', 'input', 'op' or 'output'.
    number : which site or conversion of the record; -1 for others.
    layout : 'bc01' or 'c01b', that of its result.
    """

    label: str
    role: str
    layout: str
    number: int = -1
    place: str = ""


class Drawing(NamedTuple):
    """nodes : in topological order.
    edges : (from, to), indices of nodes.
    """

    nodes: List[DrawnNode]
    edges: List[Tuple[int, int]]


def draw(fgraph, c01b, sites, conversions, label, place_of):
    """The `Drawing` of a graph.

    Parameters
    ----------
    c01b : set of theano.Apply
        Nodes that are in c01b.
    sites, conversions : dict of theano.Apply to int
        Their numbers in the record.
    label, place_of : callable
        Of a variable.
    """
    nodes, edges, index = [], [], {}

    def add(key, *fields):
        index[key] = len(nodes)
        nodes.append(DrawnNode(*fields))

    for node in filter(_is_data, fgraph.toposort()):
        for x in dict.fromkeys(node.inputs):
            if x not in index and x.owner is None and not isinstance(x, Constant) and getattr(x, "ndim", 0):
                add(x, x.name or ("shared variable" if isinstance(x, SharedVariable) else "input"), INPUT, BC01)
        out = node.outputs[0]
        role, number = _role(node, sites, conversions)
        add(out, label(out), role, C01B if node in c01b else BC01, number, place_of(out))
        index.update((other, index[out]) for other in node.outputs[1:])
        edges += [(index[x], index[out]) for x in dict.fromkeys(node.inputs) if x in index]
    for position, x in enumerate(fgraph.outputs):
        if x in index:
            add(("output", position), x.name or "output %d" % position, OUTPUT, BC01)
            edges.append((index[x], len(nodes) - 1))
    return Drawing(nodes, edges)


def _role(node, sites, conversions):
    for role, numbers in ((SITE, sites), (CONVERSION, conversions)):
        if node in numbers:
            return role, numbers[node]
    return OP, -1


def _is_data(node):
    """Whether a node computes more than sizes: these are integers, scalars and vectors of them."""
    def is_size(x):
        return getattr(x, "ndim", 0) < 2 and str(getattr(x, "dtype", "int")).startswith(("int", "uint"))

    return not all(is_size(x) for x in node.outputs)


def nodes_in_c01b(replaced, old, converts):
    """The nodes that a plan put into c01b: those that the versions were built of.

    Parameters
    ----------
    replaced : list of (old node, new outputs)
    old : container of theano.Apply
        Nodes of the graph as it was.
    converts : callable
        Whether a node is a conversion, at which c01b ends.
    """
    found, frontier = set(), [x.owner for _, outputs in replaced for x in outputs]
    while frontier:
        node = frontier.pop()
        if node is None or node in found or node in old or converts(node):
            continue
        found.add(node)
        frontier += [x.owner for x in node.inputs if getattr(x, "ndim", 0) >= 2]
    return found
