"""Replacements made before planning, each of which the report tells, and all of which can be undone."""
from theano.gof.opt import copy_stack_trace
from theano.tensor import patternbroadcast


class Edits:
    """What was replaced in a graph.

    Parameters
    ----------
    fgraph : theano.gof.FunctionGraph

    Attributes
    ----------
    notes : dict of theano.Apply to str
        For the nodes that came in, why.
    told : dict of theano.Apply to rewrites.told.Told
        For convolutions that came in, sizes that the op in whose place they are insisted on.
    """

    def __init__(self, fgraph):
        self.fgraph = fgraph
        self.notes = {}
        self.told = {}
        self._done = []

    def replace(self, old, new, note, told=None):
        """Put `new`, a variable that equals `old`, in its place; `note` says why. `told` is for a convolution."""
        self.notes[new.owner] = note
        if told is not None:
            self.told[new.owner] = told
        copy_stack_trace(old, new)
        new.name = old.name
        if new.broadcastable != old.broadcastable:
            new = patternbroadcast(new, old.broadcastable)
        self.fgraph.replace_validate(old, new, reason="layoutopt: " + note)
        self._done.append((new, old))

    def undo(self):
        """Leave the graph as it was: the last replacement goes first, so that each finds what it had left."""
        while self._done:
            self.fgraph.replace_validate(*self._done.pop(), reason="layoutopt: does not pay")
        self.notes.clear()
        self.told.clear()
