"""Which arrays are alive while a graph is computed, in bytes: counted, for any order of its nodes, as Theano's VMs free them.

A VM drops a value when the last node that reads it has run; views and what is computed in a value's place keep its storage.
Inputs, shared variables and constants are not counted, as they are there in any order. Outputs and updates stay to the end, and so
does what nobody reads: VMs look only at the operands of the node that has run. Memory that an op needs while it runs is not counted.
"""
from heapq import heappop, heappush


class Program:
    """The nodes of a graph as numbers, and the storage that they allocate and read.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
    nodes : list of theano.Apply
        What its ``toposort()`` gives.
    bytes_of : callable
        Bytes of a variable.

    Attributes
    ----------
    nodes : list of theano.Apply
    before, after : lists of lists of int
        By node: what must run before it, in the order in which Theano's C VM asks for it; and what waits for it.
    allocates, reads : lists
        By node: bytes; and the storages that can be freed after it.
    size, readers : lists
        By storage: bytes; and the nodes that read it.
    """

    def __init__(self, fgraph, nodes, bytes_of):
        self.nodes = nodes
        self.number = {node: i for i, node in enumerate(self.nodes)}
        orderings = fgraph.orderings()
        self.before = [self._before(node, orderings.get(node, ())) for node in self.nodes]
        self.after = [[] for _ in self.nodes]
        for i, earlier in enumerate(self.before):
            for j in earlier:
                self.after[j].append(i)
        self.allocates, self.reads, self.size, self.readers = [], [], [], []
        self._storages(bytes_of)
        self.last = [self.number[x.owner] for x in fgraph.outputs if x.owner is not None]

    def _before(self, node, ordered):
        first = sorted(self.number[other] for other in ordered)
        return list(dict.fromkeys(first + [self.number[x.owner] for x in node.inputs if x.owner is not None]))

    def _storages(self, bytes_of):
        storage = {}  # variable -> the number of its storage; None where that is never freed
        for i, node in enumerate(self.nodes):
            roots = self._shared(node)
            self.allocates.append(0)
            for k, x in enumerate(node.outputs):
                if k in roots:
                    storage[x] = storage.get(roots[k])
                else:
                    storage[x] = len(self.size)
                    self.size.append(bytes_of(x))
                    self.readers.append([])
                    self.allocates[i] += self.size[-1]
            for s in {storage[x] for x in node.inputs if x.owner is not None} - {None}:
                self.readers[s].append(i)
        self.kept = {storage[x] for node in self.nodes for x in node.outputs
                     if not x.clients or any(client == "output" for client, _ in x.clients)}
        self.reads = [[] for _ in self.nodes]
        for s, readers in enumerate(self.readers):
            if s not in self.kept:
                for i in readers:
                    self.reads[i].append(s)

    @staticmethod
    def _shared(node):
        """{number of an output: the operand in whose storage it lies}."""
        maps = (getattr(node.op, "view_map", None), getattr(node.op, "destroy_map", None))
        return {k: node.inputs[operands[0]] for m in maps if m for k, operands in m.items() if operands}

    def peak(self, order):
        """The most bytes alive at a time, if the nodes run in this order."""
        waiting = [len(readers) for readers in self.readers]
        live = most = 0
        for i in order:
            live += self.allocates[i]
            most = max(most, live)
            for s in self.reads[i]:
                waiting[s] -= 1
                if not waiting[s]:
                    live -= self.size[s]
        return most

    def as_asked_for(self):
        """The order in which the C VM runs the nodes: outputs one after the other, each after what it needs."""
        done, order = set(), []
        for last in self.last:
            waiting = [last]
            while waiting:
                i = waiting[-1]
                if i in done:
                    waiting.pop()
                    continue
                missing = [j for j in self.before[i] if j not in done]
                if missing:
                    waiting += reversed(missing)
                else:
                    done.add(i)
                    order.append(i)
                    waiting.pop()
        return order

    def early(self, order):
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
                look = list(self.after[i])
                for j in look:
                    missing[j] -= 1
                for s in self.reads[i]:
                    waiting[s] -= 1
                    if waiting[s] == 1:
                        look += [j for j in self.readers[s] if not done[j]]
                for j in look:
                    if not missing[j] and not done[j] and self._adds(j, waiting) <= 0:
                        heappush(soon, (rank[j], j))
        return result

    def _adds(self, i, waiting):
        """Bytes alive that running a node adds, less those it frees, where `waiting` readers of each storage are left."""
        return self.allocates[i] - sum(self.size[s] for s in self.reads[i] if waiting[s] == 1)
