"""Which arrays are alive while a graph is computed, in bytes: counted, for any order of its nodes, as Theano's VMs free them.

A VM drops a value when the last node that reads it has run; views and what is computed in a value's place keep its storage.
Inputs, shared variables and constants are not counted, as they are there in any order. Outputs and updates stay to the end, and
so does what nobody reads: VMs look only at the operands of the node that has run. What an op needs while it runs is not counted.
"""
from heapq import heappop, heappush


class Program:
    """The nodes of a graph as numbers, and the storage that they allocate and read.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
    nodes : list of theano.Apply
        All, in a topological order.
    orderings : dict of theano.Apply to list of theano.Apply
        ``fgraph.orderings()``.

    Attributes
    ----------
    nodes : list of theano.Apply
    number : dict
        Of them, their places in the list, by which all else calls them.
    before, after : lists of lists of int
        By node: what must run before it, in the order in which Theano's C VM asks for it; and what waits for it.
    storages : list of variables
        The first value in each piece of storage.
    allocates, frees : lists of lists of int
        By node: the storages that are new; and those that are freed after it, if it is the last that reads them.
    readers : list of lists of int
        By storage: the nodes that read it.
    """

    def __init__(self, fgraph, nodes, orderings):
        self.nodes = nodes
        self.number = {node: i for i, node in enumerate(nodes)}
        self._last = [self.number[x.owner] for x in fgraph.outputs if x.owner is not None]
        self._needs = [list(dict.fromkeys(self.number[x.owner] for x in node.inputs if x.owner is not None)) for node in nodes]
        self.before = self.before_by(orderings, self.number)
        self.after = [[] for _ in nodes]
        for i, earlier in enumerate(self.before):
            for j in earlier:
                self.after[j].append(i)
        self.storages, self.readers = [], []
        self.allocates, self.frees = [[] for _ in nodes], [[] for _ in nodes]
        self._find_storages()

    def before_by(self, orderings, place):
        """`before`, with these orderings. The C VM asks for those nodes first, as they stand in its topological order: `place`."""
        result = list(self._needs)
        for node, others in orderings.items():
            i = self.number[node]
            first = [self.number[other] for other in sorted(others, key=place.__getitem__)]
            result[i] = list(dict.fromkeys(first + self._needs[i]))
        return result

    def _find_storages(self):
        storage, kept = {}, {None}  # variable -> the number of its storage, None where that is an input's; which are not freed
        for i, node in enumerate(self.nodes):
            shared = _shared(node)
            for k, x in enumerate(node.outputs):
                if k in shared:
                    storage[x] = storage.get(shared[k])
                else:
                    storage[x] = len(self.storages)
                    self.allocates[i].append(storage[x])
                    self.storages.append(x)
                    self.readers.append([])
                if not x.clients or any(client == "output" for client, _ in x.clients):
                    kept.add(storage[x])
        for i, node in enumerate(self.nodes):
            for s in dict.fromkeys(storage[x] for x in node.inputs if x.owner is not None):
                if s not in kept:
                    self.readers[s].append(i)
                    self.frees[i].append(s)

    def peak(self, order, sizes):
        """The most bytes alive at a time, if the nodes run in this order, `sizes` being the bytes of the `storages`."""
        waiting = [len(readers) for readers in self.readers]
        live = most = 0
        for i in order:
            for s in self.allocates[i]:
                live += sizes[s]
            if live > most:
                most = live
            for s in self.frees[i]:
                waiting[s] -= 1
                if not waiting[s]:
                    live -= sizes[s]
        return most

    def as_asked_for(self, before=None):
        """The order in which the C VM runs the nodes: outputs one after the other, each after what it needs."""
        before = self.before if before is None else before
        done, order = [False] * len(self.nodes), []
        for last in self._last:
            waiting = [last]
            while waiting:
                i = waiting[-1]
                missing = [] if done[i] else [j for j in before[i] if not done[j]]
                if missing:
                    waiting += reversed(missing)
                    continue
                waiting.pop()
                if not done[i]:
                    done[i] = True
                    order.append(i)
        return order

    def early(self, order, sizes):
        """An order like another one, but that a node runs as soon as it can where it frees as much as it allocates, or more."""
        rank = {i: place for place, i in enumerate(order)}
        missing = [len(earlier) for earlier in self.before]
        waiting = [len(readers) for readers in self.readers]
        done, result = [False] * len(order), []
        for start in order:
            soon = [] if done[start] else [(rank[start], start)]
            while soon:
                _, i = heappop(soon)
                if done[i]:
                    continue
                done[i] = True
                result.append(i)
                changed = list(self.after[i])
                for j in changed:
                    missing[j] -= 1
                for s in self.frees[i]:
                    waiting[s] -= 1
                    if waiting[s] == 1:
                        changed += [j for j in self.readers[s] if not done[j]]
                for j in changed:
                    if not missing[j] and not done[j] and self._adds(j, waiting, sizes) <= 0:
                        heappush(soon, (rank[j], j))
        return result

    def _adds(self, i, waiting, sizes):
        """Bytes alive that running a node adds, less those it frees, where `waiting` readers of each storage are left."""
        return sum(sizes[s] for s in self.allocates[i]) - sum(sizes[s] for s in self.frees[i] if waiting[s] == 1)


def _shared(node):
    """{number of an output: the operand in whose storage it lies}."""
    maps = (getattr(node.op, "view_map", None), getattr(node.op, "destroy_map", None))
    return {k: node.inputs[operands[0]] for m in maps if m for k, operands in m.items() if operands}
