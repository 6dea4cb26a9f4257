"""New values have the sizes of those they replace: Theano is told so, instead of working it out again for each new node.

An expression for a size may be handed on if it rests on the graph's inputs alone. One that is read off a computed value would
keep the node that computes it alive, old as it is.
"""
from theano.compile.ops import Shape, Shape_i

from .layout import BC01, rotate


class Sizes:
    """The sizes of the values of a graph that is being rewritten.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph
        Without a ``shape_feature`` there is nobody to tell.
    """

    def __init__(self, fgraph):
        self._feature = getattr(fgraph, "shape_feature", None)
        self._lasting = {}  # expression -> whether it may be handed on

    def inherit(self, new, old, layout):
        """Tell Theano that `new`, which no graph has yet, is `old` in `layout`."""
        node = new.owner
        if self._feature is None or node is None or new in self._feature.shape_of or len(node.outputs) > 1:
            return
        sizes = self._feature.shape_of.get(old)
        if sizes is None or not all(self._lasts(size) for size in sizes):
            return
        for x in node.inputs:
            if x.owner is None:
                self._feature.init_r(x)  # Theano expects it done where it finds the node's own sizes
        self._feature.set_shape(new, sizes if layout == BC01 else rotate(sizes))

    def _lasts(self, size):
        if size not in self._lasting:
            self._lasting[size] = self._rests_on_inputs(size)
        return self._lasting[size]

    def _rests_on_inputs(self, size):
        """Not by recursion: expressions are as deep as networks, but the one of the layer before is known already."""
        waiting = [size]
        while waiting:
            variable = waiting.pop()
            node = variable.owner
            if node is None or self._lasting.get(variable):
                continue
            if variable in self._lasting or getattr(variable, "ndim", 0) > 1:
                return False
            if isinstance(node.op, (Shape, Shape_i)):
                if node.inputs[0].owner is not None:
                    return False
            else:
                waiting += node.inputs
        return True
