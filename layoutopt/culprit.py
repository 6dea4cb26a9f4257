"""Where does a rewritten function first compute something else? Value by value, beside the graph as it was before the rewrite."""
import numpy as np
import theano
from theano import gof
from theano.compile import In, Out
from theano.compile.function_module import FunctionMaker, std_fgraph
from theano.gof.vm import VM_Linker

from layoutopt.rewrites.layout import C01B, bc01_order

from .reference import lasts, stock


def first_difference(function, states, arguments, named, gamma):
    """The first node, in topological order, whose value in c01b is not that in bc01; '' if all those values agree.

    The function's graph is optimized once more as far as layoutopt, and rewritten; both graphs are evaluated on the same values.

    Parameters
    ----------
    function, arguments, named : as for `layoutopt.verify`.
    states : list
        The values of its shared variables (`reference.states_of`).
    gamma : float
        See `layoutopt.verify.gamma_of`.
    """
    from .optimizer import POSITION, carry_layout
    from .verify import RUNS, changed, compare

    maker = function.maker
    fgraph, _ = std_fgraph(maker.inputs, maker.outputs)
    stock(maker.mode, "py", POSITION).optimizer.optimize(fgraph)
    before, twins = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    followed = []
    _Followed(carry_layout, followed).optimize(fgraph)
    values = [(old, new, layout, place) for node, outputs, layouts, place in followed
              for old, new, layout in zip(node.outputs, outputs, layouts) if hasattr(new, "ndim")]
    in_bc01 = _evaluator(maker, before.inputs, [twins[old] for old, *_ in values])
    in_c01b = _evaluator(maker, fgraph.inputs, [new for _, new, *_ in values])
    exact, got = in_bc01(_values(function, states, arguments, named)), in_c01b(_values(function, states, arguments, named))
    moved = [in_bc01(_values(function, *changed(function, states, arguments, named, gamma, seed))) for seed in range(RUNS)]
    for (old, new, layout, place), value, *others in zip(values, got, exact, *moved):
        value = np.transpose(value, bc01_order(new.ndim)) if layout == C01B and new.ndim >= 2 else value
        if not compare("", np.asarray(value), others[0], others[1:], gamma).holds:
            return _words(old, new, place)
    return ""


class _Followed(gof.Optimizer):
    """layoutopt's rewrite, run by Theano as in a compilation, which says what it made of each node."""

    def __init__(self, carry_layout, followed):
        self.carry_layout, self.followed = carry_layout, followed

    def apply(self, fgraph):
        self.carry_layout(fgraph, theano.config.layoutopt, self.followed)


def _words(old, new, place):
    return "%s, which is %s in c01b%s" % (type(old.owner.op).__name__, type(new.owner.op).__name__, place and " (%s)" % place)


def _evaluator(maker, inputs, outputs):
    """A function from the values of `inputs` to those of `outputs`, which no further run of layoutopt touches."""
    linker = VM_Linker(use_cloop=False, c_thunks=getattr(maker.mode.provided_linker, "c_thunks", None))
    compiled = FunctionMaker([In(x, borrow=True) for x in inputs], [Out(x, borrow=True) for x in outputs],
                             mode=stock(maker.mode, linker), on_unused_input="ignore", accept_inplace=True,
                             profile=False).create([None] * len(inputs))
    return lambda values: compiled(*values)


def _values(function, states, arguments, named):
    """The values of all inputs of a function, in order: states, and what a call binds to the others."""
    positional, values = list(arguments), []
    for spec, state, container in zip(function.maker.inputs, states, function.input_storage):
        if lasts(spec):
            values.append(state)
        elif spec.variable.name in named:
            values.append(named[spec.variable.name])
        elif positional:
            values.append(positional.pop(0))
        else:
            values.append(container.storage[0])  # a default
    return values
