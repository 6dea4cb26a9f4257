"""Do the numbers still hold? A function beside its twin without layoutopt, on the same values.

How far two correct results may be apart follows from the sums. A sum of n products, in any order, is the exact sum of products of
factors that are changed a little (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1): by at most
n*u / (1 - n*u) each, and, as roundings are as often up as down, but for a probability of 2n exp(-c*c/2) by at most
exp(c sqrt(n) u) - 1 (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019, theorem 2.4). What rounding
does to a result is what such a change of the inputs does. So inputs and parameters are changed that much at random signs, n being
the terms of the longest sum in the function, and what each output moves by then is what rounding may move it by. That takes the
function's own sensitivity into account, of a gradient behind twenty layers as of a near tie. Whole numbers are left as they are:
sums of them are exact.
"""
from typing import NamedTuple

import numpy as np
import theano
from tqdm import tqdm

from layoutopt.kernels.base import winograd_tile

from .device import on_gpu
from .reference import Reference, call_with, states_of

# Runs with changed inputs, and how much further than in these the result may be: both functions round.
RUNS, FACTOR = 2, 2.0
CONFIDENCE = 6.0  # the c above: 1e-7 for a sum of a few products
UNIT = 2.0 ** -24
TF32_UNIT = 2.0 ** -11
# Winograd's transforms: errors as a multiple of the direct kernels' (docs/performance.md).
WINOGRAD = {0: 1.0, 2: 1.0, 4: 10.0}


class OutputError(NamedTuple):
    """How far an output, or the new value of a shared variable, is from what it would be without layoutopt.

    name : the variable's name, or 'output 0', ...
    error, allowed : largest absolute difference; inf where sizes, NaN or infinities differ.
    largest : largest absolute value.
    """

    name: str
    error: float
    allowed: float
    largest: float

    @property
    def holds(self):
        return self.error <= self.allowed


class LayoutMismatch(ArithmeticError):
    """A function computes something else with layoutopt than without.

    Attributes
    ----------
    errors : list of OutputError
    node : str
        The first node whose value differs, with its place in the program; '' where none could be told.
    """

    def __init__(self, errors, node=""):
        self.errors, self.node = errors, node
        worst = max((e for e in errors if not e.holds), key=lambda e: e.error / max(e.allowed, np.finfo(float).tiny))
        message = "%s differs by %.3g where rounding explains %.3g" % (worst.name, worst.error, worst.allowed)
        super().__init__("layoutopt: " + message + ("; the first node whose value differs: " + node if node else ""))


def verify(function, *arguments, **named):
    """Compare a function with the same function compiled without layoutopt.

    Both are called on copies: shared variables, random states among them, are afterwards what they were.

    Parameters
    ----------
    function : theano.compile.Function
    arguments, named
        What the function takes.

    Returns
    -------
    list of OutputError
        For each output, then for each update.

    Raises
    ------
    LayoutMismatch
        If a value differs by more than rounding explains (module docstring).
    NotComparable
        A ValueError: if the graph that the function was compiled from is lost (``f.copy``).
    TypeError
        If `function` is not a compiled Theano function; and what the function itself raises for arguments that do not fit.
    """
    if not hasattr(getattr(function, "maker", None), "fgraph"):
        raise TypeError("verify takes a compiled Theano function, got %s" % type(function).__name__)
    with tqdm(total=3 + RUNS, desc="layoutopt verifies", unit="step", disable=None, leave=False) as progress:

        def done(values):
            progress.update()
            return values

        states, reference = states_of(function), done(Reference(function))
        got = sum(done(call_with(function, states, arguments, named)), [])
        exact = sum(done(reference(states, arguments, named)), [])
        gamma = gamma_of(reference.roundings)
        moved = [sum(done(reference(*changed(function, states, arguments, named, gamma, seed))), []) for seed in range(RUNS)]
    errors = [compare(name, *values, gamma) for name, *values in zip(names_of(function), got, exact, zip(*moved))]
    if not all(error.holds for error in errors):
        from .culprit import first_difference

        raise LayoutMismatch(errors, first_difference(function, states, arguments, named, gamma))
    return errors


def gamma_of(roundings):
    """The relative change of inputs that so many roundings amount to, with the kernels as they are chosen now."""
    tf32 = on_gpu() and theano.config.layoutopt.precision == "tf32"
    return np.expm1(CONFIDENCE * np.sqrt(roundings) * UNIT * WINOGRAD[winograd_tile()]) + (TF32_UNIT if tf32 else 0.0)


def names_of(function):
    """What outputs and updated variables are called."""
    outputs = [out.variable.name or "output %d" % i for i, out in enumerate(function.maker.outputs)]
    updated = [spec for spec in function.maker.inputs if spec.update is not None]
    return outputs + ["the update of %s" % (spec.variable.name or spec.variable) for spec in updated]


def changed(function, states, arguments, named, gamma, seed):
    """States and arguments, of which all that is no whole number is changed by a relative `gamma`, up or down."""
    rng = np.random.RandomState(seed)

    def change(value):
        if isinstance(value, float):
            return value if value.is_integer() else value * (1 + gamma * rng.choice((-1, 1)))
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            return value
        signs = 1 + gamma * rng.choice((-1, 1), value.shape)
        with np.errstate(invalid="ignore"):
            return np.where(value == np.rint(value), value, value * signs).astype(value.dtype)

    def change_state(spec, value):
        if type(value).__name__ != "GpuArray":
            return change(value)
        return spec.variable.type.filter(change(np.asarray(value)))

    states = [change_state(spec, value) for spec, value in zip(function.maker.inputs, states)]
    return states, [change(value) for value in arguments], {name: change(value) for name, value in named.items()}


def compare(name, got, exact, moved, gamma):
    """The `OutputError` of a value, `exact` without layoutopt, `moved` the same with changed inputs."""
    if not _numbers(exact):
        return OutputError(name, 0.0 if _same(got, exact) else np.inf, 0.0, 0.0)
    got, exact, *moved = (np.asarray(value) for value in (got, exact, *moved))
    if got.shape != exact.shape or got.dtype != exact.dtype:
        return OutputError(name, np.inf, 0.0, 0.0)
    finite = np.isfinite(exact)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(got[~finite], exact[~finite], equal_nan=True):
        return OutputError(name, np.inf, 0.0, 0.0)
    largest = _largest(exact[finite])
    moves = [_largest(_difference(m[finite], exact[finite])) for m in moved if m.shape == exact.shape]
    rounding = gamma * largest if exact.dtype.kind == "f" else 0.0
    error, allowed = _largest(_difference(got[finite], exact[finite])), FACTOR * max(moves, default=0.0) + rounding
    return OutputError(name, error, allowed, largest)


def _numbers(value):
    """Whether a value is an array, of the host or of a GPU."""
    return hasattr(value, "dtype") and hasattr(value, "ndim") and not hasattr(value, "tocsr")


def _difference(x, y):
    difference = x.astype("float64") - y.astype("float64")
    return difference[np.isfinite(difference)]


def _largest(values):
    return float(np.max(np.abs(values.astype("float64")), initial=0.0))


def _same(x, y):
    """Equality of what is no array: a random state, a sparse matrix."""
    if isinstance(x, np.random.RandomState):
        x, y = x.get_state(), y.get_state()
        return all(np.array_equal(a, b) for a, b in zip(x, y))
    if hasattr(x, "tocsr"):
        return x.shape == y.shape and abs(x - y).nnz == 0
    return bool(np.all(x == y))
