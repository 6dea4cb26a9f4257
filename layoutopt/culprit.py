"""Where does a rewritten function first compute something else? Value by value, beside the graph as it was before the rewrite."""
import numpy as np
import theano
from theano.compile import In, Out
from theano.compile.function_module import FunctionMaker, std_fgraph
from theano.gof.vm import VM_Linker

from layoutopt.rewrites.layout import C01B, bc01_order
from layoutopt.rewrites.record import place_of

from .reference import _lasts, stock


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
    carry_layout(fgraph, theano.config.layoutopt, followed)
    values = [(old, new, layout) for node, outputs, layouts in followed
              for old, new, layout in zip(node.outputs, outputs, layouts) if hasattr(new, "ndim")]
    in_bc01 = _evaluator(maker, before.inputs, [twins[old] for old, _, _ in values])
    in_c01b = _evaluator(maker, fgraph.inputs, [new for _, new, _ in values])
    exact, got = in_bc01(_values(function, states, arguments, named)), in_c01b(_values(function, states, arguments, named))
    moved = [in_bc01(_values(function, *changed(function, states, arguments, named, gamma, seed))) for seed in range(RUNS)]
    for (old, new, layout), value, *others in zip(values, got, exact, *moved):
        value = np.transpose(value, bc01_order(new.ndim)) if layout == C01B and new.ndim >= 2 else value
        if not compare("", np.asarray(value), others[0], others[1:], gamma).holds:
            return _words(old, new)
    return ""


def _words(old, new):
    where = place_of(old)
    return "%s, which is %s in c01b%s" % (type(old.owner.op).__name__, type(new.owner.op).__name__, where and " (%s)" % where)


def _evaluator(maker, inputs, outputs):
    """A function from the values of `inputs` to those of `outputs`, which no further run of layoutopt touches."""
    # FunctionMaker clones what it is given, and with it the graph that these variables are in.
    linker = VM_Linker(use_cloop=False, c_thunks=getattr(maker.mode.provided_linker, "c_thunks", None))
    compiled = FunctionMaker([In(x, borrow=True) for x in inputs], [Out(x, borrow=True) for x in outputs],
                             mode=stock(maker.mode, linker), on_unused_input="ignore", accept_inplace=True,
                             profile=False).create([None] * len(inputs))
    return lambda values: compiled(*values)


def _values(function, states, arguments, named):
    """The values of all inputs of a function, in order: states, and what a call binds to the others."""
    positional, values = list(arguments), []
    for spec, state, container in zip(function.maker.inputs, states, function.input_storage):
        if _lasts(spec):
            values.append(state)
        elif spec.variable.name in named:
            values.append(named[spec.variable.name])
        elif positional:
            values.append(positional.pop(0))
        else:
            values.append(container.storage[0])  # a default
    return values
