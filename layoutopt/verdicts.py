"""The clock of layoutopt.cost=measure: runs trials on this machine, each once, and remembers what came out on disk.

Each verdict is a file of its own beside the calibrations (`layoutopt.kept`): processes that measure at the same time lose
nothing of each other's, and one damaged file costs one measurement.
"""
import logging
import time

import numpy as np
import theano
from tqdm import tqdm

from layoutopt.kernels import base

from . import calibrate, kept
from .runtime import prepare

BUDGET = 0.4  # seconds that a trial's programs run for, after a first call of each
FEWEST_TURNS, MOST_TURNS = 2, 40
LONG_CALL = 0.02  # seconds; threads of GNU OpenMP spin for a few milliseconds

logger = logging.getLogger("layoutopt")

_known = {}  # file -> {name of program: seconds}, or None where the trial failed in this process


class Clock:
    """Runs the trials of `rewrites.measured`.

    Parameters
    ----------
    machine : Machine
        Its threads and vectors are part of what a verdict is valid for.
    budget : float
        Seconds for each trial.
    folder : str, optional
        By default `kept.cache_folder()`.
    """

    def __init__(self, machine, budget=BUDGET, folder=None):
        self.budget = budget
        self.folder = folder
        self.key = dict(calibrate.key_of(machine), theano=theano.__version__, kernels=base.headers_digest(),
                        blas=theano.config.blas.ldflags, memory=theano.config.layoutopt.memory,
                        winograd=theano.config.layoutopt.winograd)

    def __call__(self, trials):
        """Seconds of each trial's programs, {name: seconds}, or None where it cannot be run, which is logged."""
        keys = [dict(self.key, trial=trial.key) for trial in trials]
        paths = [kept.path_of("verdict", key, self.folder) for key in keys]
        new = {}
        for path, key, trial in zip(paths, keys, trials):
            if path not in _known:
                seconds = kept.read(path, key, "verdict", _seconds)
                if seconds is None:
                    new.setdefault(path, (key, trial))
                else:
                    _known[path] = seconds
        for path, (key, trial) in tqdm(new.items(), desc="layoutopt measures", unit="op", disable=None, leave=False):
            seconds = _known[path] = self._measure(trial)
            if seconds is not None:
                kept.write(path, dict(key=key, seconds=seconds), "verdict")
        return [_known[path] for path in paths]

    def _measure(self, trial):
        try:
            programs = {program.name: compiled(program) for program in trial.build()}
            return times_in_turns(programs, self.budget)
        except Exception as error:  # an op may refuse sizes that were assumed: then the prediction has to do
            logger.info("layoutopt: %s is not measured: %s", trial.key, error)
            return None


def _seconds(content):
    """The seconds in a verdict's file, which may be anything."""
    seconds = content["seconds"]
    if set(seconds) != {"bc01", "c01b"} or not all(isinstance(s, float) and 0 < s < np.inf for s in seconds.values()):
        raise ValueError("seconds are %r" % (seconds,))
    return seconds


def compiled(program):
    """A callable without arguments that runs a program on its values, into storage that is kept.

    It is compiled like any function of this process, without layoutopt: what is timed must not be rewritten. The optimizer that
    this interrupts has Theano's test values and profile switched as it needs them; neither is touched.
    """
    with theano.change_flags(compute_test_value="off"):
        function = theano.function(program.inputs, program.outputs, mode=_mode(), profile=False, on_unused_input="ignore")
    for storage, value in zip(function.input_storage, program.values()):
        storage.storage[0] = value
    return function.fn


def _mode():
    """FAST_RUN with the user's own inclusions and exclusions: a debugging mode would be timed for what it checks."""
    mode = theano.compile.mode.get_mode("FAST_RUN")
    for flag, change in (("optimizer_excluding", "excluding"), ("optimizer_including", "including")):
        tags = getattr(theano.config, flag)
        if tags:
            mode = getattr(mode, change)(*tags.split(":"))
    return mode.excluding("layoutopt")


def _seconds_of(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def times_in_turns(programs, budget):
    """Seconds of each program, called in turns: what else the machine does meets all of them.

    That only adds to them, so the lower quartile is taken rather than the median. What the other program leaves behind, caches
    and threads that still spin, is no part of it either: a first call in each turn is not counted, unless it is long.
    """
    for call in programs.values():
        call()
    times, end = {name: [] for name in programs}, time.perf_counter() + budget
    for turn in range(MOST_TURNS):
        if turn >= FEWEST_TURNS and time.perf_counter() > end:
            break
        for name, call in programs.items():
            first = _seconds_of(call)
            times[name].append(first if first > LONG_CALL else _seconds_of(call))
    return {name: sorted(seconds)[len(seconds) // 4] for name, seconds in times.items()}


def clock_for(settings, machine):
    """The clock that the flags ask for, or None where predictions are to do.

    Parameters
    ----------
    settings : theano.config.layoutopt
    machine : Machine
    """
    if settings.cost != "measure":
        return None
    prepare(settings)
    return Clock(machine)
