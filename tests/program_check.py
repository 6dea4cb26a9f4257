"""A program with and without layoutopt: the same values, no more conversions than planned, no exception of its own."""
import contextlib
import signal
from typing import NamedTuple

import numpy as np
import theano
from theano.gof.vm import VM_Linker

import layoutopt
from layoutopt import optimizer
from layoutopt.kernels import ToBC01, ToC01B
from layoutopt.reference import terms_of
from layoutopt.rewrites.layout import is_view
from layoutopt.rewrites.plan import given, needed
from layoutopt.rewrites.storage import stored_in_c01b
from layoutopt.verify import UNIT, compare, gamma_of

from programs import build, costs_of

# Of what is added up, so that sums are exact in any order; Winograd's transforms multiply by up to 36 and divide by 4.
LARGEST_EXACT_SUM = 2.0 ** 24 / 256
# Beyond what runs with other roundings moved a result by. A wrong index is off by as much as the result is large.
SLACK = 16.0
MOST_SECONDS = {"cheap": 4, "C": 60}  # of this process; g++'s own are not counted
# By runs with changed values it is told how far rounding may move a result. Where the first few moved it less than it is off by,
# all do that are known to help against a jump: behind ``x > 0``, say, where x is a sum that cancels.
RUNS, MORE_RUNS = 2, 24


class StockFails(Exception):
    """Theano itself cannot build or compile this program."""


class Watch:
    """Looks at all that a function computes: whether everything is exact, and how many roundings a result may have met.

    rng : np.random.RandomState, optional
        While it is set, all that is computed is rounded at random, too (Monte Carlo arithmetic: Parker, 1997): a sum by as much
        as one in another order may differ, anything else by half a unit in its last place.
    """

    def __init__(self):
        self.rng = None
        self.start()

    def start(self):
        self.exact, self.terms, self.nodes = True, 1, 0

    def __call__(self, node, thunk, storage_map, compute_map):
        values = [storage_map[x][0] for x in node.inputs]
        terms = terms_of(node, storage_map)
        if self.rng is not None and not getattr(node.op, "view_map", None):
            for out in node.outputs:
                _round_otherwise(storage_map[out][0], terms, self.rng)
        self.terms, self.nodes = max(self.terms, terms), self.nodes + 1
        factors = [_largest(value) for value in values[:2]] if terms > 1 else []
        self.exact &= terms * np.prod(factors) < LARGEST_EXACT_SUM
        self.exact &= all(_is_exact(storage_map[out][0]) for out in node.outputs)


def _largest(value):
    return np.max(np.abs(value), initial=1.0) if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" else 1.0


def _round_otherwise(value, terms, rng):
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.flags.writeable:
        unit = UNIT if value.dtype == np.float32 else np.finfo(value.dtype).epsneg
        largest = np.max(np.abs(value), initial=0.0, where=np.isfinite(value))
        error = largest * gamma_of(terms) * unit / UNIT if terms > 1 else value * unit
        np.copyto(value, value + error * rng.choice((-1, 1), value.shape))


def _is_exact(value):
    """Whether an op's result can have met no rounding, or is no number with fractions at all."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return True
    return bool(np.all(value == np.rint(value)) and np.all(np.abs(value) < LARGEST_EXACT_SUM))


class Outcome(NamedTuple):
    """What a check saw. `layouts` are those of the convolutions and poolings that the plan was about."""

    layouts: list
    conversions: int
    exact: bool
    raised: bool


def check(program, compiled="cheap"):
    """Hold a program against itself without layoutopt.

    Parameters
    ----------
    program : Program
    compiled : {'cheap', 'C'}
        In Python where Theano can (with the fixture `cheap_mode.hardly_any_compilation` almost all), or as users' programs are.

    Raises
    ------
    AssertionError
    StockFails
        If Theano has no function of this program.
    """
    watch = Watch()
    try:
        with opt_errors_raise(), at_most(MOST_SECONDS[compiled]):  # Theano's optimizations may go round in circles
            stock, calls = compile_program(program, mode_of(False, compiled, watch))
    except Exception as error:
        raise StockFails("%s: %s" % (type(error).__name__, error))
    with costs_of(program), opt_errors_raise(), plans_watched() as promised, at_most(10 * MOST_SECONDS[compiled]):
        flagged, _ = compile_program(program, mode_of(True, compiled))
    converted = sum(isinstance(node.op, (ToBC01, ToC01B)) for node in flagged.maker.fgraph.apply_nodes)
    assert converted <= sum(promised), "%d conversions, planned were %s" % (converted, promised)
    record = layoutopt.explain(flagged).record
    sites = [site.layout for site in record.sites] if record else []
    return Outcome(sites, converted, *compare_calls(stock, flagged, watch, calls, lambda: raised_by_parts(program, calls)))


def raised_by_parts(program, calls):
    """The types of what stock Theano raises where each output and update is computed alone. Of several nodes that fail in one
    program, either function may come to another first."""
    found, mode = set(), mode_of(False, "cheap")
    for number in range(len(build(program, mode).outputs) + len(build(program, mode).updates)):
        built = build(program, mode)
        part = (built.outputs + [new for _, new in built.updates])[number]
        function = theano.function(built.inputs, part, mode=mode, on_unused_input="ignore")
        found.update(type(result_of(function, values)) for values in calls)
    return found


def compare_calls(stock, flagged, watch, calls, may_raise):
    """Assert that calls, one after the other, have equal results; (whether all was exact, whether one raised).

    `may_raise()` gives types of other exceptions that will do where stock raises one.
    """
    exact = True
    for values in calls:
        before = get_states(stock)
        watch.start()
        expected, actual = result_of(stock, values), result_of(flagged, values)
        if isinstance(expected, Exception) or isinstance(actual, Exception):
            alike = type(expected) is type(actual) or isinstance(expected, Exception) and type(actual) in may_raise()
            assert alike and isinstance(actual, Exception), "stock: %s; with layoutopt: %s" % (told(expected), told(actual))
            return exact, True  # an update may be done or not
        exact &= watch.exact
        hold(stock, watch, before, values, expected + get_states(stock), actual + get_states(flagged))
        set_states(stock, get_states(flagged))  # or the next call would begin where rounding has led each of them
    return exact, False


def mode_of(flagged, compiled, watch=None):
    """All of Theano's optimizations, with or without layoutopt's; `watch` sees each node computed."""
    chosen = theano.compile.mode.get_mode("FAST_RUN")
    chosen = chosen.including("layoutopt") if flagged else chosen.excluding("layoutopt")
    linker = VM_Linker(callback=watch, use_cloop=False, c_thunks=None if compiled == "C" else False)
    return theano.Mode(linker, chosen.provided_optimizer)


def compile_program(program, mode):
    """The function, and the values of its calls."""
    built = build(program, mode)
    function = theano.function(built.inputs, built.outputs, updates=built.updates, mode=mode, on_unused_input="ignore")
    return function, built.calls


@contextlib.contextmanager
def opt_errors_raise():
    """Theano logs what an optimization raises, and goes on without it."""
    before = theano.config.on_opt_error
    theano.config.on_opt_error = "raise"
    try:
        yield
    finally:
        theano.config.on_opt_error = before


@contextlib.contextmanager
def at_most(seconds):
    """Within it TimeoutError is raised after so many seconds of computing."""
    def stop(*_):
        raise TimeoutError("after %d seconds" % seconds)

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def plans_watched():
    """Gives a list that gets, for each graph planned meanwhile, how many conversions the plan has and the graph had."""
    promised, apply_plan, carry_layout = [], optimizer.apply_plan, optimizer.carry_layout

    def watched_apply(fgraph, region, plan):
        values = zip(region.variables, region.problem.values)
        promised.append(sum(len(needed(region.problem, value, plan.layouts) - {given(region.problem, value, plan.layouts)})
                            for variable, value in values if not is_view(variable.broadcastable)))
        promised.append(len(stored_in_c01b(region, plan)))  # converted in the first call, a view in those after it
        return apply_plan(fgraph, region, plan)

    def watched_carry(fgraph, *args, **kwargs):
        promised.append(sum(isinstance(node.op, (ToBC01, ToC01B)) for node in fgraph.apply_nodes))
        return carry_layout(fgraph, *args, **kwargs)

    optimizer.apply_plan, optimizer.carry_layout = watched_apply, watched_carry
    try:
        yield promised
    finally:
        optimizer.apply_plan, optimizer.carry_layout = apply_plan, carry_layout


# ---------------------------------------------------------------------------------------------------------------------
# Values.


def shared_of(function):
    return [container for spec, container in zip(function.maker.inputs, function.input_storage) if spec.shared]


def get_states(function):
    return [np.array(container.storage[0]) for container in shared_of(function)]


def set_states(function, states):
    for container, state in zip(shared_of(function), states):
        container.storage[0] = state.copy()


def result_of(function, values):
    """The outputs, or the exception."""
    try:
        return [np.array(value) for value in function(*values)]
    except Exception as error:
        return error


def told(result):
    """An exception in words, or that there was none."""
    return "%s: %s" % (type(result).__name__, result) if isinstance(result, Exception) else "results"


def hold(stock, watch, before, values, expected, actual):
    """Assert that results are equal where all is exact, else as near as rounding lets them be (`layoutopt.verify`)."""
    assert [(e.shape, e.dtype) for e in expected] == [(a.shape, a.dtype) for a in actual]
    if watch.exact:
        for number, (e, a) in enumerate(zip(expected, actual)):
            np.testing.assert_array_equal(a, e, "result %d" % number)
        return
    after, gamma, moved = get_states(stock), gamma_of(watch.terms + watch.nodes), []
    try:
        for run in range(RUNS + MORE_RUNS):
            rng = np.random.RandomState(run)
            watch.rng = rng if run >= RUNS else None
            set_states(stock, [changed(value, gamma, rng) for value in before])
            result = result_of(stock, [changed(value, gamma, rng) for value in values])
            assert not isinstance(result, Exception), "with values hardly changed: %s" % told(result)
            moved.append(result + get_states(stock))
            errors = [compare("result %d" % number, a, e, [run[number] for run in moved], gamma)
                      for number, (e, a) in enumerate(zip(expected, actual))]
            if run + 1 >= RUNS and all(error.error <= SLACK * error.allowed for error in errors):
                return
    finally:
        watch.rng = None
        set_states(stock, after)
    raise AssertionError("further off than rounding explains: %s" % [e for e in errors if e.error > SLACK * e.allowed])


def changed(value, gamma, rng):
    """All floating-point numbers changed by a relative `gamma`, up or down."""
    if value.dtype.kind != "f":
        return value
    return np.asarray(value * (1 + gamma * rng.choice((-1, 1), value.shape)), value.dtype)  # of a scalar, numpy makes no array
