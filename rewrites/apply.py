"""Doing what a plan says: each node's version is built, and each value converted at most once per direction."""
from theano.gof.opt import copy_stack_trace

from theano.tensor import patternbroadcast

from .inherit import Sizes
from .layout import BC01, C01B, EITHER, convert, rotate
from .storage import stored, stored_in_c01b


class Rewriter:
    """Builds the new graph beside the old one; `apply_plan` then swaps the values.

    Every value has a *natural* layout, that of its producer, and gets the other one when somebody asks for it.
    """

    def __init__(self, region, plan, sizes):
        self.sizes = sizes
        self.choices = region.choices
        self.layouts = dict(zip(region.nodes, plan.layouts))
        self.stored = stored_in_c01b(region, plan)
        self.natural = {}  # old variable -> (layout, new variable), where they are not (BC01, the old variable)
        self.converted = {}  # old variable -> itself in the layout that is not its natural one
        self.rebuilt = set()
        self.replaced = []

    def visit(self, node):
        """Build the node's version under the plan, if that is not the node itself."""
        layout = self.layouts.get(node, BC01)
        version = self.choices[node].version(layout)
        if layout == BC01 and (version.build is None or not self._takes_c01b(node, version)):
            return
        inputs, layouts = zip(*(self._operand(x, need) for x, need in zip(node.inputs, version.needs)))
        outputs = [_with_flags(new, old.broadcastable if given == BC01 else rotate(old.broadcastable))
                   for old, new, given in zip(node.outputs, version.build(node, list(inputs), layouts), version.gives)]
        copy_stack_trace(node.outputs, outputs)
        self.rebuilt.add(node)
        for old, new, given in zip(node.outputs, outputs, version.gives):
            if old.name and new.name is None and new.owner not in (None, node):
                new.name = old.name
            self.natural[old] = given, new
            self.sizes.inherit(new, old, given)
        if layout == C01B:
            self.replaced.append((node, outputs))

    def replacements(self):
        """(old, new) pairs, the new ones in bc01, for the values whose producer was rebuilt and that somebody else uses: the
        old nodes between them go with their last user. What is stored in c01b is in bc01 as a view."""
        for _, update in self.stored:
            if self._natural(update) == C01B:
                self.converted[update] = stored(self.natural[update][1])
        return [(old, self.take(old, BC01)) for old in self.natural
                if any(client == "output" or client not in self.rebuilt for client, _ in old.clients)]

    def take(self, variable, layout):
        """`variable` in this layout."""
        natural, new = self.natural.get(variable, (BC01, variable))
        if layout == natural or variable.ndim < 2:
            return new
        if variable not in self.converted:
            other = convert(new, layout)
            copy_stack_trace(variable, other)
            self.sizes.inherit(other, variable, layout)
            self.converted[variable] = other
        return self.converted[variable]

    def _takes_c01b(self, node, version):
        """Whether an operand that may come in either layout comes in c01b."""
        return any(need == EITHER and self._natural(x) == C01B for x, need in zip(node.inputs, version.needs))

    def _natural(self, variable):
        return self.natural.get(variable, (BC01, None))[0]

    def _operand(self, variable, need):
        layout = self._natural(variable) if need == EITHER else need
        return self.take(variable, layout) if hasattr(variable, "ndim") else variable, layout


def apply_plan(fgraph, region, plan):
    """Rewrite `fgraph` so that every node of the region is in its layout of the plan.

    All values are swapped together, or none is: a failing validation leaves the graph as it was.

    Returns
    -------
    list of (old node, new outputs)
        For each node that is in c01b now.
    """
    rewriter = Rewriter(region, plan, Sizes(fgraph))
    for node in fgraph.toposort():
        rewriter.visit(node)
    replacements = [(old, new) for old, new in rewriter.replacements() if old is not new]
    fgraph.replace_all_validate(replacements, reason="layoutopt")
    return rewriter.replaced


def _with_flags(variable, broadcastable):
    """`variable` with the broadcast flags that the original has, which a rule may not have been able to tell."""
    return patternbroadcast(variable, broadcastable) if variable.broadcastable != tuple(broadcastable) else variable
