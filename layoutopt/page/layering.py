"""Where the nodes of a graph are drawn: in layers, each below what it is computed from, ordered so that few edges cross.

The method of Sugiyama, Tagawa and Toda (1981) without its dummy nodes: layers by longest path, then sweeps that order each layer by
the mean position of the neighbours in the layers done before. What only prepares a parameter stands just above its first user.
Deep graphs are cut into columns, so that the whole fits a screen.
"""
import networkx as nx

WIDTH, HEIGHT = 190, 74  # from node to node, in the page's units
ASPECT = 1.5  # of a screen
SWEEPS = 6
PULL = 0.9  # a layer's distance from the middle that is left: long chains would drift away


def positions(count, edges):
    """(x, y) of each of `count` nodes, which are numbered in topological order.

    Parameters
    ----------
    edges : list of (int, int)
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    layers = _layers(graph)
    place = {node: float(i) for layer in layers for i, node in enumerate(layer)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            _order(layer, graph.predecessors if down else graph.successors, place)
    return _in_columns(layers, place)


def _in_columns(layers, place):
    """Positions by node, the layers cut into as many columns as come nearest to a screen's proportions."""
    if not layers:
        return []
    widest = max(max(place[n] for n in layer) - min(place[n] for n in layer) for layer in layers) + 2
    columns = max(1, round((ASPECT * len(layers) * HEIGHT / (widest * WIDTH)) ** 0.5))
    rows, found, left = -(-len(layers) // columns), {}, 0.0
    for first in range(0, len(layers), rows):
        column = layers[first:first + rows]
        least = min(place[n] for layer in column for n in layer)
        for row, layer in enumerate(column):
            found.update((n, (WIDTH * (left + place[n] - least), HEIGHT * row)) for n in layer)
        left += max(place[n] for layer in column for n in layer) - least + 2
    return [found[node] for node in sorted(found)]


def _layers(graph):
    """Lists of nodes, each below its predecessors; what only prepares a parameter as far down as it can be."""
    row = {}
    for number, generation in enumerate(nx.topological_generations(graph)):
        row.update((node, number) for node in generation)
    prepares = set()
    for node in graph:
        if len(graph.pred[node]) <= 1 and prepares.issuperset(graph.pred[node]):
            prepares.add(node)
    for node in sorted(prepares, reverse=True):
        if graph.succ[node]:
            row[node] = min(row[user] for user in graph.succ[node]) - 1
    layers = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for node in graph:
        layers[row[node]].append(node)
    return [layer for layer in layers if layer]


def _order(layer, neighbours, place):
    """Order a layer by the mean place of each node's neighbours, and set its nodes as near to these as one step apart allows."""
    wanted = {}
    for node in layer:
        near = [place[other] for other in neighbours(node)]
        wanted[node] = sum(near) / len(near) if near else place[node]
    layer.sort(key=lambda node: (wanted[node], node))
    left = None
    for node in layer:
        left = wanted[node] if left is None else max(wanted[node], left + 1)
        place[node] = left
    middle = sum(place[node] for node in layer) / len(layer)
    wish = PULL * sum(wanted[node] for node in layer) / len(layer)
    for node in layer:
        place[node] += wish - middle
