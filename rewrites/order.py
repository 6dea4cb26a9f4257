"""When each node runs: in an order in which fewer bytes are alive at the worst moment, where counting proves that there is one.

Theano computes outputs one after the other, each after what it needs. Updates of the first layer's weights need the gradients of
all layers, so these are all computed before most gradients of weights are, and pile up. Here a node that frees as much as it
allocates runs as soon as it can: gradients of weights before those of images, mostly, and updates in place at once.
"""
from collections import OrderedDict
from math import isqrt

from theano import gof
from theano.compile import optdb
from theano.gof.graph import io_toposort
from theano.gof.toolbox import Feature

from .known_sizes import bytes_of, complete, is_known, take_sizes
from .liveness import Program

POSITION = 101.0  # behind whatever changes the graph: ops in place (75 to 99) and the last merge (100)
_WORTH = 0.99  # of the peak: for less the order stays Theano's, which people know from profiles and prints
_SPAN = 64


class Ordered(Feature):
    """Makes the nodes of a graph run in a given order.

    Each must follow the one before. That alone would have Theano's C VM, which computes what a node needs by recursion, go as deep
    as the list is long; so every 64th node (of more than 4,096, fewer) needs the earlier ones of these first, one after the other.

    Parameters
    ----------
    nodes : list of theano.Apply
        In a topological order of the graph, not necessarily all of it.
    """

    def __init__(self, nodes):
        self.nodes = nodes

    def orderings(self, fgraph):
        nodes = [node for node in self.nodes if node in fgraph.apply_nodes]
        span, marks, result = max(_SPAN, isqrt(len(nodes))), [], OrderedDict()
        for i, node in enumerate(nodes):
            result[node] = nodes[i - 1:i]
            if i % span == 0:
                result[node] = marks[:] + [other for other in result[node] if other not in marks]
                marks.append(node)
        return result


class OrderNodes(gof.Optimizer):
    """Orders the nodes of graphs that layoutopt has rewritten, where that lowers the peak of the bytes that are alive."""

    def apply(self, fgraph):
        estimates = take_sizes(fgraph)
        ours = _in_every_call(fgraph) if estimates else set()
        if not ours or any(type(node.op).__name__ == "IfElse" for node in fgraph.apply_nodes):
            return  # an order would have both branches computed
        orderings = fgraph.orderings()
        nodes = io_toposort(fgraph.inputs, fgraph.outputs, orderings)
        program = Program(fgraph, nodes, orderings)
        for sizes in estimates:
            complete(sizes, nodes)
            if not all(is_known(x, sizes) for x in program.storages):
                return
        counted = [[bytes_of(x, sizes) for x in program.storages] for sizes in estimates]
        order = _best(program, counted[0])
        if order is None:
            return
        ordered = Ordered([nodes[i] for i in order if nodes[i] in ours])
        if _lower(program, counted, fgraph, _both(orderings, ordered.orderings(fgraph))):
            fgraph.attach_feature(ordered)


def _in_every_call(fgraph):
    """The nodes that a call computes whichever outputs it asks for: what updates need; without updates, all for the only output.
    An order among others would have nodes computed that a call with ``output_subset`` does not ask for."""
    updates = [fgraph.outputs[o] for o in fgraph.update_mapping or {}]
    if not updates and len(fgraph.outputs) > 1:
        return set()
    needed, waiting = set(), [x.owner for x in updates or fgraph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [x.owner for x in node.inputs]
    return needed


def _best(program, sizes):
    """The order with the least peak of those tried, or None where it is not worth while."""
    sorted_, asked = list(range(len(program.nodes))), program.as_asked_for()
    tried = [order for base in (asked, sorted_) for order in (base, program.early(base, sizes))]
    peaks = [program.peak(order, sizes) for order in tried]
    return None if min(peaks) > _WORTH * peaks[0] else tried[peaks.index(min(peaks))]


def _both(orderings, more):
    """Two features' orderings, as a graph puts them together."""
    result = OrderedDict((node, list(others)) for node, others in orderings.items())
    for node, others in more.items():
        result.setdefault(node, []).extend(others)
    return result


def _lower(program, counted, fgraph, orderings):
    """Whether these orderings can be kept and lower the peak with the C VM, as the first sizes count it, where other VMs have none
    higher. With the other sizes, if the batch is not known, it may be a hundredth higher: some gradients of weights wait longer."""
    try:
        nodes = io_toposort(fgraph.inputs, fgraph.outputs, orderings)
    except ValueError:  # a cycle
        return False
    place = {node: i for i, node in enumerate(nodes)}
    pairs = ((program.as_asked_for(), program.as_asked_for(program.before_by(orderings, place))),
             (range(len(nodes)), [program.number[node] for node in nodes]))
    for sizes, limits in zip(counted, [(_WORTH, 1)] + [(2 - _WORTH, 2 - _WORTH)] * len(counted)):
        for (old, new), limit in zip(pairs, limits):
            if program.peak(new, sizes) > limit * program.peak(old, sizes):
                return False
    return True


def register():
    """Put the stage into Theano's database; a second call does nothing."""
    if "layoutopt_order" not in optdb.__position__:
        optdb.register("layoutopt_order", OrderNodes(), POSITION, "fast_run")
