"""A function's twin that is compiled without layoutopt, and calls of either that leave no trace in shared variables."""
import contextlib
import copy

import numpy as np
import theano
from theano.compile.function_module import FunctionMaker
from theano.compile.mode import Mode
from theano.gof import Container
from theano.gof.vm import VM_Linker

# The terms of the longest sum in an op's result, by the op's name (a GPU's op without its 'Gpu'), from its operands' shapes.
_TERMS = {
    "CorrMM": lambda images, filters, *_: _size(filters) // max(1, filters[0]),
    "CorrMM_gradWeights": lambda images, outputs, *_: _size(outputs) // max(1, outputs[1]),
    "CorrMM_gradInputs": lambda filters, outputs, *_: _size(filters) // max(1, filters[1]),
    "ConvOp": lambda images, filters: _size(filters) // max(1, filters[0]),
    "DnnConv": lambda images, filters, *_: _size(filters) // max(1, filters[0]),
    "DnnConvGradW": lambda images, outputs, *_: _size(outputs) // max(1, outputs[1]),
    "DnnConvGradI": lambda filters, outputs, *_: _size(filters) // max(1, filters[1]),
    "Dot": lambda x, y: x[-1] if x else 1,
    "Dot22": lambda x, y: x[-1],
    "Dot22Scalar": lambda x, y, _: x[-1],
    "Gemm": lambda z, a, x, *_: x[-1],
    "Gemv": lambda y, a, x, *_: x[-1],
    "CGemv": lambda y, a, x, *_: x[-1],
    "BatchedDot": lambda x, y: x[-1],
}


def _size(shape):
    return int(np.prod(shape, dtype=np.int64))


def terms_of(node, storage_map):
    """The terms of the longest sum in what a node has computed; 1 where it sums nothing up."""
    op, values = type(node.op).__name__, [storage_map[x][0] for x in node.inputs]
    rule = _TERMS.get(op[3:] if op.startswith("Gpu") else op)
    if rule is not None:
        return int(rule(*(np.shape(v) if not hasattr(v, "shape") else tuple(v.shape) for v in values)))
    if "Reduce" in op or op in ("Sum", "Prod"):
        return int(values[0].size // max(1, storage_map[node.outputs[0]][0].size))
    return 1


class NotComparable(ValueError):
    """A function has no twin, or cannot be called beside it; the message says why."""


class Reference:
    """What a compiled function would be without layoutopt.

    Parameters
    ----------
    function : theano.compile.Function

    Attributes
    ----------
    terms : int
        Roundings that a result may have met: terms of the longest sum that the last call computed, and one for each node.

    Raises
    ------
    NotComparable
        If the graph that the function was compiled from is lost, as in a copy (``f.copy``).
    """

    def __init__(self, function):
        maker = function.maker
        graph = maker.fgraph
        own = graph.inputs + graph.outputs[:len(maker.outputs)]
        if any(spec.variable is x for spec, x in zip(maker.inputs + maker.outputs, own)):
            raise NotComparable("the function is a copy (f.copy) and has lost the graph it was made from: verify the original")
        self.terms = 1
        specs = [_with_own_storage(spec) for spec in maker.inputs]
        self.function = FunctionMaker(
            specs, maker.outputs, mode=_counting_mode(maker.mode, self._count), on_unused_input="ignore",
            output_keys=maker.output_keys, profile=False).create([spec.value for spec in specs])
        self._nodes = len(self.function.maker.fgraph.apply_nodes)

    def __call__(self, states, arguments, named):
        """Outputs and new states, two lists, of a call that starts from `states` (as `states_of` gives them)."""
        self.terms = 1
        return call_with(self.function, states, arguments, named)

    def _count(self, node, storage_map, **_):
        self.terms = max(self.terms, terms_of(node, storage_map))

    @property
    def roundings(self):
        """Roundings on the way to a result of the last call: its longest sum's, and one for each node."""
        return self.terms + self._nodes


def _with_own_storage(spec):
    """An input like `spec` whose value, where it lasts from call to call, is a copy."""
    spec = copy.copy(spec)
    if isinstance(spec.value, Container):
        value = copy.deepcopy(spec.value.storage[0])
        spec.value = Container(spec.variable, [value], readonly=False, strict=spec.strict, allow_downcast=spec.allow_downcast)
    return spec


def stock(mode, linker, position=None):
    """`mode`'s optimizations without layoutopt, up to a position in Theano's sequence, with another linker.

    What layoutopt is measured against runs as it would for a user: a debugging mode's checks are no part of it.
    """
    query = copy.copy(mode.provided_optimizer)
    if isinstance(query, str) or query is None:
        query = copy.copy(theano.compile.mode.predefined_optimizers[query])
    query = query.excluding("layoutopt")
    if position is not None:
        query.position_cutoff = position
    return Mode(linker, query)


def _counting_mode(mode, count):
    own = mode.provided_linker
    return stock(mode, VM_Linker(callback=lambda node, thunk, storage_map, compute_map: count(node, storage_map=storage_map),
                                 use_cloop=False, c_thunks=getattr(own, "c_thunks", None)))


def states_of(function):
    """What each input of a function holds that lasts from call to call: copies, None for arguments."""
    return [copy.deepcopy(container.storage[0]) if lasts(spec) else None
            for spec, container in zip(function.maker.inputs, function.input_storage)]


def lasts(spec):
    return isinstance(spec.value, Container) or spec.update is not None


@contextlib.contextmanager
def _states(function, states):
    """Within it the function has other states; afterwards the very objects that it had."""
    lasting = [(container.storage, state) for spec, container, state
               in zip(function.maker.inputs, function.input_storage, states) if lasts(spec)]
    before = [storage[0] for storage, _ in lasting]
    for storage, state in lasting:
        storage[0] = copy.deepcopy(state)
    try:
        yield
    finally:
        for (storage, _), value in zip(lasting, before):
            storage[0] = value


def call_with(function, states, arguments, named):
    """Outputs and new states, two lists, of a call that starts from `states`, which stay as they are, like the function's own."""
    with _states(function, states):
        out = function(*copy.deepcopy(arguments), **copy.deepcopy(named))
        keys = function.maker.output_keys
        outputs = [] if out is None else [out[key] for key in keys] if keys else out if isinstance(out, list) else [out]
        updated = [copy.deepcopy(container.storage[0]) for spec, container
                   in zip(function.maker.inputs, function.input_storage) if spec.update is not None]
    return copy.deepcopy(list(outputs)), updated
