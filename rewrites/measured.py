"""Seconds as measured: what the costs rest on where the machine is asked instead of `rewrites.cost`.

A `Trial` is made of a site, from its node and its versions, or of a conversion: small graphs that do the same, on data of the
sizes that the values have. Who runs them, in turns, and remembers what came out is a clock, which is handed down with
`Shapes`: clock(trials) gives {program's name: seconds} for each trial, or None where it could not be run. Then the model's
prediction stands.
"""
from typing import Callable, List, NamedTuple

import numpy as np
from theano.tensor import TensorConstant, TensorType

from layoutopt.kernels.relayout import to_bc01, to_c01b

from .constraints import MAX_POOL_GRADIENT, MAX_POOL_SECOND
from .layout import BC01, C01B, is_view, rotate
from .sites import CONV_SITES

LONGEST_CALL = 0.1  # seconds predicted, of both versions: sites beyond are run on fewer images, and scaled
FEWEST_IMAGES = 32  # of those: vectors and threads still have full shares
LARGEST_CONVERSION = 2 ** 26  # bytes, more than caches hold; what is larger is scaled as well
TOP = 3  # images hold whole numbers up to this one, which is then in nearly every window

_BLOCK = np.random.RandomState(0).randint(0, TOP + 1, 65537).astype("float32")  # a prime: rows do not repeat


class Program(NamedTuple):
    """A graph to be run.

    name : BC01 or C01B: a site in this layout, a conversion into it.
    inputs, outputs : its variables.
    values : () -> float32 arrays for the inputs.
    """

    name: str
    inputs: list
    outputs: list
    values: Callable


class Trial(NamedTuple):
    """Programs to be run in turns.

    key : plain data; trials of equal keys take equal times on a machine.
    scale : what the seconds of the programs are to be multiplied by.
    build : () -> list of `Program`; only called where the key is new.
    """

    key: dict
    scale: float
    build: Callable[[], List[Program]]


# ---- sites


def timed_sites(sites, shapes):
    """The sites, with measured seconds in the versions of those that have two."""
    trials = {i: trial for i, trial in enumerate(site_trial(site, shapes) for site in sites) if trial is not None}
    timed = list(sites)
    for (i, trial), seconds in zip(trials.items(), shapes.clock(list(trials.values()))):
        if seconds is not None:
            bc01, c01b = timed[i].choice
            choice = type(timed[i].choice)(bc01._replace(seconds=trial.scale * seconds[BC01]),
                                           c01b._replace(seconds=trial.scale * seconds[C01B]))
            timed[i] = timed[i]._replace(choice=choice, timed=True)
    return timed


def site_trial(site, shapes):
    """The `Trial` of a site; None if it has no choice, or the value of an operand is unknown."""
    node, choice = site.node, site.choice
    if choice.c01b is None:
        return None
    sizes = [_sizes_or_value(x, shapes) for x in node.inputs]
    if any(size is None for size in sizes):
        return None
    batch = next(sizes[i][0] for i in _with_images(node))
    images = _affordable(batch, choice.bc01.seconds + choice.c01b.seconds)
    for i in _with_images(node):
        sizes[i] = (images,) + sizes[i][1:]
    facts = [(name, value) for name, value in sorted(site.facts.items()) if name not in _FROM_SIZES]
    key = dict(kind=site.kind, op=type(node.op).__name__, parameters=repr(facts), operands=repr(sizes))
    return Trial(key, batch / max(1, images), lambda: _site_programs(site, sizes))


# Facts that follow from the operands' sizes.
_FROM_SIZES = ("batch", "channels", "filter", "filters", "image", "output", "pads")


def _is_tensor(x):
    return x.ndim == 4 and x.dtype == "float32"


def _sizes_or_value(x, shapes):
    """The sizes of a tensor of images or filters, the value of any other operand, as tuples; None where it is unknown."""
    if _is_tensor(x):
        return shapes.estimate(x)
    value = shapes.value(x)
    return None if value is None else tuple(np.ravel(value).tolist())


def _with_images(node):
    """The operands whose first axis is the batch: all but filters."""
    roles = CONV_SITES.get(type(node.op))
    return [i for i, x in enumerate(node.inputs) if _is_tensor(x) and (roles is None or i != roles.filters)]


def _affordable(batch, seconds):
    """How many of `batch` images, which take `seconds` to compute, are to be timed."""
    if batch <= FEWEST_IMAGES or seconds <= LONGEST_CALL:
        return batch
    return max(FEWEST_IMAGES, int(batch * LONGEST_CALL / seconds) // FEWEST_IMAGES * FEWEST_IMAGES)


def _site_programs(site, sizes):
    """The versions of a site on operands of these sizes, of their own."""
    node, version = site.node, site.choice.c01b
    variables = [x.type() if _is_tensor(x) else _constant(x, size) for x, size in zip(node.inputs, sizes)]
    stock = node.op.make_node(*variables)
    turned = [TensorType(x.dtype, rotate(x.broadcastable))() if _is_tensor(x) else x.clone() for x in variables]
    layouts = tuple(C01B if _is_tensor(x) else BC01 for x in turned)
    tensors = [i for i, x in enumerate(variables) if _is_tensor(x)]
    # The second operand of these is the maxima: where they are found, and how often, decides what the gradient takes.
    maxima = 1 if site.kind in (MAX_POOL_GRADIENT, MAX_POOL_SECOND) else None

    def values(layout):
        shapes = [sizes[i] if layout == BC01 else rotate(sizes[i]) for i in tensors]
        return [np.full(shape, TOP, "float32") if i == maxima else np.resize(_BLOCK, shape) for i, shape in zip(tensors, shapes)]

    return [Program(BC01, [variables[i] for i in tensors], stock.outputs, lambda: values(BC01)),
            Program(C01B, [turned[i] for i in tensors], version.build(stock, turned, layouts), lambda: values(C01B))]


def _constant(x, value):
    return TensorConstant(x.type, np.reshape(np.asarray(value, x.dtype), [len(value)] if x.ndim else []))


# ---- conversions


def time_conversions(variables, shapes):
    """Measure the conversions of these values in either direction, for `Shapes.conversion_seconds` to know."""
    trials = [(v, trial) for v, trial in ((v, conversion_trial(v, shapes)) for v in variables) if trial is not None]
    for (variable, trial), seconds in zip(trials, shapes.clock([trial for _, trial in trials])):
        for layout in (C01B, BC01) if seconds is not None else ():
            shapes.timed[variable, layout] = trial.scale * seconds[layout]


def conversion_trial(variable, shapes):
    """The `Trial` of converting a value in either direction; None for what needs no copy, is empty, or is not float32."""
    sizes = shapes.estimate(variable)
    batch, rest = sizes[0], int(np.prod(sizes[1:], dtype=np.int64))
    if is_view(variable.broadcastable) or variable.dtype != "float32" or batch * rest == 0:
        return None
    part = max(1, min(rest, LARGEST_CONVERSION // (4 * batch)))
    return Trial(dict(kind="conversion", sizes=[batch, part]), rest / part, lambda: _conversions(batch, part))


def _conversions(batch, rest):
    x, y = TensorType("float32", (False,) * 4)(), TensorType("float32", (False,) * 4)()
    return [Program(C01B, [x], [to_c01b(x)], lambda: [np.resize(_BLOCK, (batch, rest, 1, 1))]),
            Program(BC01, [y], [to_bc01(y)], lambda: [np.resize(_BLOCK, (rest, 1, 1, batch))])]
